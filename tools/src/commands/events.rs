//! `levee events`.

use crate::cli;
use crate::client::MetaClient;
use crate::output::Output;
use crate::values::utc;
use levee_proto::api::{Event, EventPage, MAX_WAIT_MS, Severity};

/// How long one request waits for something to happen: well within the time that it may take.
const WAIT_MS: u64 = MAX_WAIT_MS / 3;

pub async fn events(meta: &MetaClient, args: &cli::Events, out: &Output) -> anyhow::Result<()> {
    let mut page = meta.events(args.after, args.limit, 0).await?;
    if !args.follow {
        page.events.retain(|event| is_wanted(event, args));
        return out.result(&page, || describe(&page));
    }
    loop {
        let wanted = EventPage { events: page.events.into_iter().filter(|e| is_wanted(e, args)).collect(), ..page };
        if out.json {
            wanted.events.iter().try_for_each(|event| out.document(event))?;
        } else if !wanted.events.is_empty() {
            out.result(&wanted, || describe(&wanted))?;
        }
        page = meta.events(Some(wanted.next), args.limit, WAIT_MS).await?;
    }
}

fn is_wanted(event: &Event, args: &cli::Events) -> bool {
    event.severity >= args.severity && (args.kind.is_empty() || args.kind.contains(&event.kind))
}

fn describe(page: &EventPage) -> String {
    page.events.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn line(event: &Event) -> String {
    let mark = match event.severity {
        Severity::Info => "",
        Severity::Warning => "WARNING ",
        Severity::Error => "ERROR ",
    };
    let kind = serde_json::to_value(event.kind).ok().and_then(|v| v.as_str().map(String::from)).unwrap_or_default();
    format!("{}  {mark}{kind} {} {}", utc(event.at_ms), event.subject, event.text)
}
