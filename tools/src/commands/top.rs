//! `levee top`: the busiest volumes, chunks, disks and nodes.

use crate::cli::Top;
use crate::client::MetaClient;
use crate::errors::Usage;
use crate::output::Output;
use crate::signals::Signals;
use levee_proto::api::{ClusterLoad, Load};
use levee_proto::units::{show_size, show_time};
use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

/// The other screen of the terminal, and back; the cursor off, and on.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the upper left; and the rest of a line, of the screen, made blank.
const HOME: &str = "\x1b[H";
const BLANK_LINE: &str = "\x1b[K";
const BLANK_REST: &str = "\x1b[J";

pub async fn top(meta: &MetaClient, args: &Top, out: &Output) -> anyhow::Result<()> {
    if args.once || out.json || !stdout().is_terminal() {
        let load = meta.load(args.limit, args.by.word()).await?;
        return out.result(&load, || show(&load, args, out));
    }
    let mut signals = Signals::install()?;
    let _screen = Screen::enter()?;
    loop {
        let text = match meta.load(args.limit, args.by.word()).await {
            Ok(load) => show(&load, args, out),
            // The next look may succeed: the terminal is not given up for an election.
            Err(error) => format!("levee top: {error}"),
        };
        draw(&text)?;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(args.interval)) => {}
            () = signals.next() => return Ok(()),
        }
    }
}

/// The terminal as it was is there again when this is dropped.
struct Screen;

impl Screen {
    fn enter() -> anyhow::Result<Screen> {
        write(ENTER)?;
        Ok(Screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = write(LEAVE);
    }
}

fn draw(text: &str) -> anyhow::Result<()> {
    let lines: Vec<String> = text.lines().map(|line| format!("{line}{BLANK_LINE}")).collect();
    write(&format!("{HOME}{}{BLANK_REST}", lines.join("\r\n")))
}

fn write(text: &str) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Usage(format!("no terminal: {e}")).into())
}

fn show(load: &ClusterLoad, args: &Top, out: &Output) -> String {
    let mut parts = vec![summary(load)];
    let mut add = |title: &str, header: &[&str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            parts.push(format!("{title} by {}\n{}", args.by.word(), out.table(header, rows)));
        }
    };
    add("Volumes", &["VOLUME", "NODE", "READS/S", "WRITES/S", "BYTES/S", "P50", "P99", "STATE"], volumes(load));
    add("Chunks", &["VOLUME", "CHUNK", "READS/S", "WRITES/S", "BYTES/S"], chunks(load));
    add("Disks", &["DISK", "NODE", "STATE", "USED", "READS/S", "WRITES/S", "BYTES/S", "OLDEST I/O"], disks(load));
    add("Nodes", &["NODE", "STATE", "VOLUMES", "GUESTS/S", "BYTES/S", "DISKS/S", "BYTES/S"], nodes(load));
    parts.join("\n\n")
}

fn summary(load: &ClusterLoad) -> String {
    let (guests, whole) = (&load.guests, &load.redundancy);
    let mut line = format!(
        "{} reads/s, {} writes/s, {}/s by guests of {} served volumes; disks do {}/s",
        guests.reads,
        guests.writes,
        show_size(guests.bytes()),
        whole.volumes,
        show_size(load.disk_load.bytes())
    );
    if whole.degraded_chunks > 0 {
        line.push_str(&format!(
            "\n{} chunks lack copies, {} of them wait for them",
            whole.degraded_chunks, whole.waiting_chunks
        ));
    }
    if whole.stalled_volumes > 0 {
        line.push_str(&format!("\n{} volumes are stalled: their guests' requests wait", whole.stalled_volumes));
    }
    line
}

fn rates(load: &Load) -> [String; 3] {
    [load.reads.to_string(), load.writes.to_string(), show_size(load.bytes())]
}

fn row<const A: usize, const B: usize>(first: [String; A], then: [String; B]) -> Vec<String> {
    first.into_iter().chain(then).collect()
}

fn volumes(load: &ClusterLoad) -> Vec<Vec<String>> {
    let line = |v: &levee_proto::api::BusyVolume| {
        let mut cells = row([v.volume.clone(), v.node_name.clone()], rates(&v.load));
        let stalled = if v.stalled_ms > 0 { format!(" for {}", show_time(v.stalled_ms / 1000)) } else { String::new() };
        cells.extend([micros(v.p50_us), micros(v.p99_us), format!("{}{stalled}", v.status)]);
        cells
    };
    load.volumes.iter().map(line).collect()
}

fn chunks(load: &ClusterLoad) -> Vec<Vec<String>> {
    let line =
        |c: &levee_proto::api::BusyChunk| row([c.volume.clone(), c.chunk.index.to_string()], rates(&c.chunk.load));
    load.chunks.iter().map(line).collect()
}

fn disks(load: &ClusterLoad) -> Vec<Vec<String>> {
    let line = |d: &levee_proto::api::BusyDisk| {
        let used =
            d.used.map_or("unknown".into(), |used| format!("{} %", used.saturating_mul(100) / d.capacity.max(1)));
        let mut cells = row([d.disk.to_string(), d.node_name.clone(), d.status.clone(), used], rates(&d.load.load));
        cells.push(micros(d.load.oldest_io_us));
        cells
    };
    load.disks.iter().map(line).collect()
}

fn nodes(load: &ClusterLoad) -> Vec<Vec<String>> {
    let line = |n: &levee_proto::api::BusyNode| {
        let work = [&n.guests, &n.disks].map(|load| [load.requests().to_string(), show_size(load.bytes())]).concat();
        row([n.name.clone(), n.status.clone(), n.volumes.to_string()], []).into_iter().chain(work).collect()
    };
    load.nodes.iter().map(line).collect()
}

/// A latency; nothing if there was none.
fn micros(us: u64) -> String {
    match us {
        0 => "-".into(),
        1..10_000 => format!("{us} µs"),
        10_000..10_000_000 => format!("{} ms", us / 1000),
        _ => format!("{} s", us / 1_000_000),
    }
}
