//! `levee volume verify`: has the gateway compare all copies, and reports what differs.

use super::attach::wait_served;
use super::lists::node_name;
use super::redundancy;
use crate::client::{AdminClient, MetaClient};
use crate::errors::Found;
use crate::output::{Output, measure};
use crate::signals::Signals;
use anyhow::Context;
use indicatif::ProgressBar;
use levee_proto::api::{AttachVolume, NodeInfo, VerifyEvent, VerifyReport};
use serde::Serialize;
use std::time::Duration;

#[derive(Serialize)]
struct Verdict<'r> {
    equal: bool,
    #[serde(flatten)]
    report: &'r VerifyReport,
}

pub async fn verify(meta: &MetaClient, name: &str, timeout: Duration, out: &Output) -> anyhow::Result<()> {
    let mut signals = Signals::install()?;
    let bar = out.spinner(format!("verifying {name}"));
    let mut volume = meta.volume(name).await?;
    let attached_here = redundancy::user(&volume).is_none();
    if attached_here {
        volume = meta.attach(name, &AttachVolume::default()).await?;
    }
    let work = async {
        wait_served(meta, &volume, timeout, &bar).await?;
        compare(meta, name, &bar).await
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        () = signals.next() => Err(anyhow::anyhow!("interrupted")),
    };
    let detached = if attached_here { meta.detach(name).await.map(|_| ()) } else { Ok(()) };
    bar.finish_and_clear();
    let (report, nodes) = outcome?;
    conclude(&report, &nodes, out)?;
    detached
        .with_context(|| format!("volume {name} was verified, but cannot be detached again"))
        .map_err(Found::after_document)
}

/// Runs the comparison at the volume's gateway.
async fn compare(meta: &MetaClient, name: &str, bar: &ProgressBar) -> anyhow::Result<(VerifyReport, Vec<NodeInfo>)> {
    let attachment = meta.volume(name).await?.attachment;
    let gateway = attachment.with_context(|| format!("volume {name} was detached meanwhile"))?;
    let nodes = meta.nodes().await?;
    let node = nodes.iter().find(|node| node.id == gateway.node);
    let node = node.with_context(|| format!("{}, which serves volume {name}, is not known", gateway.node_name))?;
    let mut events = AdminClient::new(node.admin_url.clone()).verify(name).await?;
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
            VerifyEvent::Done(report) => return Ok((report, nodes)),
            VerifyEvent::Failed { detail } => anyhow::bail!("volume {name} could not be verified: {detail}"),
        }
    }
    anyhow::bail!("{} stopped verifying volume {name} before the end: repeat it when the node is well", node.name)
}

fn conclude(report: &VerifyReport, nodes: &[NodeInfo], out: &Output) -> anyhow::Result<()> {
    let equal = report.mismatches.is_empty();
    out.result(&Verdict { equal, report }, || describe(report, nodes))?;
    if equal {
        return Ok(());
    }
    let (count, volume) = (report.mismatches.len(), &report.volume);
    Err(Found(format!("volume {volume}: {count} mismatches between its copies")).into())
}

fn describe(report: &VerifyReport, nodes: &[NodeInfo]) -> String {
    let VerifyReport { volume, copies, chunks, blocks, mismatches } = report;
    if mismatches.is_empty() {
        return format!("Volume {volume}: all {copies} copies are equal ({blocks} blocks in {chunks} chunks).");
    }
    let lines = mismatches.iter().map(|found| {
        let node = node_name(found.node, nodes);
        format!("chunk {} on {node}, disk {}: {}", found.chunk_index, found.disk, found.problem)
    });
    lines.collect::<Vec<_>>().join("\n")
}
