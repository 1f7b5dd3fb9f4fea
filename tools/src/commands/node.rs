//! `levee node show`, `drain`, `undrain` and `remove`.

use super::forecast;
use super::lists;
use crate::cli;
use crate::client::{MetaClient, wait_for};
use crate::output::{Output, measure};
use anyhow::{Context, bail};
use levee_proto::api::{DiskInfo, NodeInfo, SetNodeState, VolumeInfo, WhatIf};
use levee_proto::units::show_size;
use serde::Serialize;
use std::time::Duration;

async fn find(meta: &MetaClient, name: &str) -> anyhow::Result<NodeInfo> {
    let found = meta.nodes().await?.into_iter().find(|node| node.name == name);
    found.with_context(|| format!("there is no node named '{name}': `levee node list` shows them"))
}

#[derive(Serialize)]
struct Shown<'a> {
    node: &'a NodeInfo,
    disks: &'a [DiskInfo],
    /// Names of the volumes that it serves.
    volumes: Vec<&'a str>,
}

pub async fn show(meta: &MetaClient, name: &str, out: &Output) -> anyhow::Result<()> {
    let node = find(meta, name).await?;
    let disks: Vec<DiskInfo> = meta.disks().await?.into_iter().filter(|disk| disk.node == node.id).collect();
    let all = meta.volumes().await?;
    let served = |v: &&VolumeInfo| v.attachment.as_ref().is_some_and(|a| a.node == node.id && !a.repair);
    let volumes = all.iter().filter(served).map(|v| v.name.as_str()).collect();
    let shown = Shown { node: &node, disks: &disks, volumes };
    out.result(&shown, || describe(&shown, out))
}

fn describe(shown: &Shown<'_>, out: &Output) -> String {
    let Shown { node, disks, volumes } = shown;
    let used: u64 = disks.iter().filter_map(|disk| disk.used).sum();
    let capacity: u64 = disks.iter().map(|disk| disk.capacity).sum();
    let mut text = format!(
        "Node          {} (number {})\n\
         State         {}\n\
         Admin         {}\n\
         Zone, rack    {}, {}\n\
         Disks         {}, {} of {} used\n\
         Volumes       {} served\n",
        node.name,
        node.id,
        node.status,
        node.admin_url,
        lists::place(&node.zone),
        lists::place(&node.rack),
        disks.len(),
        show_size(used),
        show_size(capacity),
        volumes.len(),
    );
    if let Some(detail) = &node.detail {
        text.push_str(&format!("Detail        {detail}\n"));
    }
    if !disks.is_empty() {
        text.push('\n');
        text.push_str(&lists::disk_table(disks, std::slice::from_ref(node), out));
    }
    text
}

pub async fn drain(meta: &MetaClient, args: &cli::Drain, out: &Output) -> anyhow::Result<()> {
    let node = find(meta, &args.name).await?;
    if args.how.dry_run {
        let request = WhatIf { nodes: vec![args.name.clone()], disks: Vec::new() };
        return forecast::show(meta, &request, out).await;
    }
    let request = SetNodeState { drain: true, reason: args.reason.clone() };
    let drained = meta.set_node(node.id, &request).await?;
    if args.how.wait {
        wait_until_empty(meta, &format!("node {}", args.name), |disk| disk.node == node.id, args.how.timeout, out)
            .await?;
    }
    out.result(&drained, || match args.how.wait {
        true => format!("Node {0} is empty. `levee node remove {0}` takes it out of the cluster.", args.name),
        false => format!(
            "Node {0} is being emptied; `levee node show {0}` shows how much is left, `levee node undrain {0}` takes it back.",
            args.name
        ),
    })
}

/// Until the disks have no copies any more.
pub async fn wait_until_empty(
    meta: &MetaClient,
    what: &str,
    which: impl Fn(&DiskInfo) -> bool,
    timeout: Duration,
    out: &Output,
) -> anyhow::Result<()> {
    let bar = out.spinner(format!("emptying {what}"));
    let mut first = None;
    let empty = wait_for(timeout, async || {
        let disks = meta.disks().await?;
        let left: u64 = disks.iter().filter(|disk| which(disk)).map(|disk| disk.replicas).sum();
        let all = *first.get_or_insert(left);
        measure(&bar, all.max(1));
        bar.set_position(all.saturating_sub(left));
        Ok::<_, anyhow::Error>((left == 0).then_some(()))
    })
    .await;
    bar.finish_and_clear();
    match empty? {
        Some(()) => Ok(()),
        None => bail!(
            "{what} is not empty after {} s; it goes on in the background, `levee disk list` shows how many copies are left and \
             `levee doctor` what they wait for",
            timeout.as_secs()
        ),
    }
}

pub async fn undrain(meta: &MetaClient, name: &str, out: &Output) -> anyhow::Result<()> {
    let node = find(meta, name).await?;
    let back = meta.set_node(node.id, &SetNodeState { drain: false, reason: None }).await?;
    out.result(&back, || format!("Node {name} is in service."))
}

pub async fn remove(meta: &MetaClient, name: &str, force: bool, out: &Output) -> anyhow::Result<()> {
    let node = find(meta, name).await?;
    let was = meta.remove_node(node.id, force).await?;
    let stays = meta.nodes().await?.iter().any(|other| other.id == node.id);
    out.result(&was, || match stays {
        false => format!("Node {name} has left the cluster. Stop its daemon, if it runs."),
        true => {
            format!("Node {name} was given up: it leaves the cluster when its copies have been made anew elsewhere.")
        }
    })
}
