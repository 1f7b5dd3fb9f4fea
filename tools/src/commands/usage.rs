//! How much a volume and its snapshots take up, asked of the daemon that serves the volume.

use super::gateway::{Gateway, at_gateway, find};
use crate::client::MetaClient;
use crate::limits::{USAGE_GLANCE, USAGE_SILENCE};
use crate::output::{Output, measure as show_measure};
use indicatif::ProgressBar;
use levee_proto::api::{Attachment, ServeState, SnapshotUsage, UsageEvent, VolumeInfo, VolumeUsage};
use levee_proto::units::show_size;
use std::time::Duration;

/// What was found, or why nothing was.
pub type Found = Result<VolumeUsage, String>;

/// Whether a volume that nobody serves is attached to be measured.
#[derive(Clone, Copy)]
pub enum IfDetached {
    Attach {
        timeout: Duration,
    },
    /// This command would do it.
    Suggest(&'static str),
}

/// Attached only if that was asked for, with so much time.
pub fn if_detached(measure: Option<Duration>, command: &'static str) -> IfDetached {
    measure.map_or(IfDetached::Suggest(command), |timeout| IfDetached::Attach { timeout })
}

/// Has a volume's gateway count; not being able to is no failure.
pub async fn measure(meta: &MetaClient, volume: &VolumeInfo, otherwise: IfDetached, out: &Output) -> Found {
    if volume.attachment.is_none() && volume.chunks == 0 && volume.parent.is_none() {
        return nothing(meta, volume).await.map_err(|e| format!("{e:#}"));
    }
    let bar = out.spinner(format!("measuring {}", volume.name));
    let found = match (&volume.attachment, otherwise) {
        (Some(attachment), otherwise) => at_present_gateway(meta, attachment, &volume.name, otherwise, &bar).await,
        (None, IfDetached::Attach { timeout }) => attached_for_it(meta, &volume.name, timeout, &bar).await,
        (None, IfDetached::Suggest(command)) => {
            let name = &volume.name;
            Err(anyhow::anyhow!(
                "nobody serves it, so nobody can tell; `{command} {name} --measure` attaches it for that"
            ))
        }
    };
    bar.finish_and_clear();
    found.map_err(|e| format!("{e:#}"))
}

/// A volume without a chunk and without ancestors holds nothing, whatever it is asked.
async fn nothing(meta: &MetaClient, volume: &VolumeInfo) -> anyhow::Result<VolumeUsage> {
    let snapshots = if volume.snapshots > 0 { meta.snapshots(Some(&volume.name)).await? } else { Vec::new() };
    let snapshots = snapshots.iter().map(|s| SnapshotUsage { version: s.version, exclusive: 0 }).collect();
    Ok(VolumeUsage { provisioned: volume.size, snapshots, ..VolumeUsage::default() })
}

/// A gateway that is known not to be able to tell is not asked.
async fn at_present_gateway(
    meta: &MetaClient,
    attachment: &Attachment,
    name: &str,
    otherwise: IfDetached,
    bar: &ProgressBar,
) -> anyhow::Result<VolumeUsage> {
    let node = &attachment.node_name;
    match &attachment.report {
        None => anyhow::bail!("{node} has not reported that it serves the volume"),
        Some(report) if report.state != ServeState::Serving => anyhow::bail!("{node} does not serve the volume yet"),
        Some(report) if report.waiting_chunks > 0 => {
            anyhow::bail!("{} chunks wait for copies that cannot be reached", report.waiting_chunks)
        }
        Some(_) => {}
    }
    let silence = if matches!(otherwise, IfDetached::Attach { .. }) { USAGE_SILENCE } else { USAGE_GLANCE };
    count(&find(meta, name).await?, name, silence, bar).await
}

async fn attached_for_it(
    meta: &MetaClient,
    name: &str,
    timeout: Duration,
    bar: &ProgressBar,
) -> anyhow::Result<VolumeUsage> {
    let work = async |gateway| count(&gateway, name, USAGE_SILENCE, bar).await;
    let (usage, detached) = at_gateway(meta, name, timeout, bar, work).await?;
    detached.map(|()| usage)
}

async fn count(gateway: &Gateway, name: &str, silence: Duration, bar: &ProgressBar) -> anyhow::Result<VolumeUsage> {
    let silent = || anyhow::anyhow!("{} does not answer for {} s", gateway.node, silence.as_secs());
    let begun = tokio::time::timeout(silence, gateway.client.usage(name)).await;
    let mut events = begun.map_err(|_| silent())??;
    while let Some(event) = tokio::time::timeout(silence, events.next()).await.map_err(|_| silent())?? {
        match event {
            UsageEvent::Progress { done, total } => {
                show_measure(bar, total);
                bar.set_position(done);
            }
            UsageEvent::Done(usage) => return Ok(usage),
            UsageEvent::Failed { detail } => anyhow::bail!("{detail}"),
        }
    }
    anyhow::bail!("{} stopped before the end: repeat it when the node is well", gateway.node)
}

/// What was found, in lines.
pub fn lines(found: &Found) -> Vec<String> {
    let usage = match found {
        Ok(usage) => usage,
        Err(why) => return vec![format!("Used        not known: {why}")],
    };
    let VolumeUsage { written, exclusive, shared, stored, on_disks, .. } = usage;
    let mut lines = vec![format!(
        "Written     {}: {} exclusive, {} shared with snapshots or ancestors",
        bytes(*written),
        show_size(*exclusive),
        show_size(*shared)
    )];
    lines.push(format!("Stored      {} in its own chunks, {} on disks", show_size(*stored), show_size(*on_disks)));
    lines
}

fn bytes(n: u64) -> String {
    if n < 1024 { show_size(n) } else { format!("{} ({n} bytes)", show_size(n)) }
}
