//! `levee volume verify`: has the gateway compare all copies, and reports what differs.

use super::gateway::{Gateway, at_gateway};
use super::lists::node_name;
use crate::client::MetaClient;
use crate::errors::Found;
use crate::output::{Output, measure};
use indicatif::ProgressBar;
use levee_proto::api::{NodeInfo, ParentName, VerifyEvent, VerifyReport};
use serde::Serialize;
use std::time::Duration;

#[derive(Serialize)]
struct Verdict<'r> {
    equal: bool,
    /// What it shows beside what was compared is of this snapshot.
    parent: Option<&'r ParentName>,
    #[serde(flatten)]
    report: &'r VerifyReport,
}

pub async fn verify(meta: &MetaClient, name: &str, timeout: Duration, out: &Output) -> anyhow::Result<()> {
    let bar = out.spinner(format!("verifying {name}"));
    let compared = at_gateway(meta, name, timeout, &bar, async |gateway| {
        let report = compare(&gateway, name, &bar).await?;
        Ok((report, gateway.nodes))
    });
    let ((report, nodes), detached) = compared.await?;
    let parent = meta.volume(name).await?.parent;
    conclude(&report, parent.as_ref(), &nodes, out)?;
    detached.map_err(Found::after_document)
}

/// Runs the comparison at the volume's gateway.
async fn compare(gateway: &Gateway, name: &str, bar: &ProgressBar) -> anyhow::Result<VerifyReport> {
    let mut events = gateway.client.verify(name).await?;
    bar.set_message(format!("verifying {name}"));
    while let Some(event) = events.next().await? {
        match event {
            VerifyEvent::Waiting { degraded_chunks } => {
                bar.set_message(format!("verifying {name}: waiting for {degraded_chunks} degraded chunks"));
            }
            VerifyEvent::Progress { done, total } => {
                bar.set_message(format!("verifying {name}"));
                measure(bar, total.into());
                bar.set_position(done.into());
            }
            VerifyEvent::Done(report) => return Ok(report),
            VerifyEvent::Failed { detail } => anyhow::bail!("volume {name} could not be verified: {detail}"),
        }
    }
    anyhow::bail!("{} stopped verifying volume {name} before the end: repeat it when the node is well", gateway.node)
}

fn conclude(
    report: &VerifyReport,
    parent: Option<&ParentName>,
    nodes: &[NodeInfo],
    out: &Output,
) -> anyhow::Result<()> {
    let equal = report.mismatches.is_empty();
    out.result(&Verdict { equal, parent, report }, || describe(report, parent, nodes))?;
    if equal {
        return Ok(());
    }
    let (count, volume) = (report.mismatches.len() as u64 + report.more_mismatches, &report.volume);
    Err(Found(format!("volume {volume}: {count} mismatches between its copies")).into())
}

fn describe(report: &VerifyReport, parent: Option<&ParentName>, nodes: &[NodeInfo]) -> String {
    let VerifyReport { volume, copies, chunks, blocks, mismatches, more_mismatches } = report;
    if mismatches.is_empty() {
        let own = format!("Volume {volume}: all {copies} copies are equal ({blocks} blocks in {chunks} chunks).");
        let Some(ParentName { volume: of, id, snapshot }) = parent else { return own };
        let of = of.clone().unwrap_or_else(|| format!("(deleted volume {id})"));
        return format!(
            "{own}\nThese are its own blocks. What else it shows is of {of}@{snapshot}, and was not compared: verify {of} for that."
        );
    }
    let lines = mismatches.iter().map(|found| {
        let node = node_name(found.node, nodes);
        format!("chunk {} on {node}, disk {}: {}", found.chunk_index, found.disk, found.problem)
    });
    let more = (*more_mismatches > 0).then(|| format!("and {more_mismatches} others"));
    lines.chain(more).collect::<Vec<_>>().join("\n")
}
