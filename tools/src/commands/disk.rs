//! `levee disk add`, `drain`, `undrain`, `fail`, `remove`, `replace` and `weight`.

use super::forecast;
use super::lists::node_name;
use super::node::wait_until_empty;
use super::redundancy::counted;
use crate::cli::{How, NewDisk};
use crate::client::{AdminClient, ClientError, MetaClient, wait_for};
use crate::output::Output;
use anyhow::{Context, bail};
use levee_proto::api::*;
use levee_proto::ids::DiskId;
use levee_proto::units::show_size;
use std::time::Duration;

/// How long the meta servers may take to hear of a disk that a daemon has taken.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);

async fn find(meta: &MetaClient, id: DiskId) -> anyhow::Result<DiskInfo> {
    let found = meta.disks().await?.into_iter().find(|disk| disk.id == id);
    found.with_context(|| format!("there is no disk {id}: `levee disk list` shows them"))
}

/// The daemon of a node that is up.
async fn daemon(meta: &MetaClient, name: &str) -> anyhow::Result<AdminClient> {
    let node = meta.nodes().await?.into_iter().find(|node| node.name == name);
    let node = node.with_context(|| format!("there is no node named '{name}': `levee node list` shows them"))?;
    Ok(AdminClient::new(node.admin_url))
}

pub async fn add(meta: &MetaClient, node: &str, new: &NewDisk, out: &Output) -> anyhow::Result<()> {
    let disk = take(meta, node, new, out).await?;
    out.result(&disk, || {
        format!(
            "Disk {} of {node} is in service, with {}. `levee rebalance run` moves copies onto it.",
            disk.id,
            show_size(disk.capacity)
        )
    })
}

/// Has the node's daemon take the disk; answers when the meta servers know it.
async fn take(meta: &MetaClient, node: &str, new: &NewDisk, out: &Output) -> anyhow::Result<DiskInfo> {
    let path = new.path.display().to_string();
    let daemon = daemon(meta, node).await?;
    let bar = out.spinner(format!("{node} takes disk {path}"));
    let request =
        AddDisk { path, format: new.format, force: new.force, size: new.size, class: new.class.map(Into::into) };
    let added = daemon.add_disk(&request).await;
    let known = match added {
        Ok(added) => wait_for(KNOWN_WITHIN, async || {
            let disks = meta.disks().await?;
            Ok::<_, ClientError>(disks.into_iter().find(|disk| disk.id == added.disk))
        })
        .await
        .map_err(anyhow::Error::from),
        Err(error) => Err(error.into()),
    };
    bar.finish_and_clear();
    known?.context("the node has taken the disk, but the meta servers do not know of it yet: look at `levee disk list`")
}

pub async fn drain(meta: &MetaClient, id: DiskId, reason: Option<&str>, how: &How, out: &Output) -> anyhow::Result<()> {
    if how.dry_run {
        return forecast::show(meta, &WhatIf { nodes: Vec::new(), disks: vec![id] }, out).await;
    }
    if !how.wait {
        return set(meta, id, DiskState::Draining, reason, out).await;
    }
    meta.set_disk(id, &SetDiskState { state: DiskState::Draining, reason: reason.map(Into::into) }).await?;
    wait_until_empty(meta, &format!("disk {id}"), |disk| disk.id == id, how.timeout, out).await?;
    let disk = find(meta, id).await?;
    out.result(&disk, || format!("Disk {id} is empty. `levee disk remove {id}` takes it out of the cluster."))
}

pub async fn set(
    meta: &MetaClient,
    id: DiskId,
    state: DiskState,
    reason: Option<&str>,
    out: &Output,
) -> anyhow::Result<()> {
    let disk = meta.set_disk(id, &SetDiskState { state, reason: reason.map(Into::into) }).await?;
    let nodes = if out.json { Vec::new() } else { meta.nodes().await? };
    out.result(&disk, || describe(&disk, &node_name(disk.node, &nodes)))
}

fn describe(disk: &DiskInfo, node: &str) -> String {
    let DiskInfo { id, state, .. } = disk;
    let copies = counted(u32::try_from(disk.replicas).unwrap_or(u32::MAX), "copy", "copies");
    match state {
        DiskState::InService => format!("Disk {id} of {node} is in service, with {copies}."),
        DiskState::Draining => format!(
            "Disk {id} of {node} is being drained: {copies} to be put elsewhere; `levee disk list` shows how many are left."
        ),
        DiskState::Dead => format!(
            "Disk {id} of {node} counts as lost: {copies} to be made anew elsewhere; `levee disk undrain {id}` takes it back."
        ),
    }
}

pub async fn weight(meta: &MetaClient, id: DiskId, weight: u32, out: &Output) -> anyhow::Result<()> {
    let disk = meta.set_weight(id, weight).await?;
    out.result(&disk, || match weight {
        0 => format!("Disk {id} gets nothing new; `levee disk drain {id}` empties it."),
        _ => format!("Disk {id} has weight {weight}; `levee rebalance run` moves copies accordingly."),
    })
}

pub async fn remove(meta: &MetaClient, id: DiskId, force: bool, out: &Output) -> anyhow::Result<()> {
    let was = find(meta, id).await?;
    let then = leave(meta, &was, force, out).await?;
    let stays = meta.disks().await?.iter().any(|disk| disk.id == id);
    out.result(&was, || match stays {
        false => with(format!("Disk {id} has left the cluster."), &then),
        true => with(
            format!("Disk {id} was given up: it leaves the cluster when its copies have been made anew elsewhere."),
            &then,
        ),
    })
}

/// The daemon lets go of the disk first, if it runs: what the cluster has forgotten it would bring along again.
/// Answers with what is left to do on the host.
async fn leave(meta: &MetaClient, disk: &DiskInfo, force: bool, out: &Output) -> anyhow::Result<String> {
    let id = disk.id;
    let nodes = meta.nodes().await?;
    let node = node_name(disk.node, &nodes);
    let mut then = format!(
        "If {} on {node} is named by `disk` in the daemon's file (/etc/levee/levee-stored.toml), take it out there.",
        disk.path
    );
    if disk.replicas == 0
        && let Some(node) = nodes.iter().find(|node| node.id == disk.node && node.state == NodeState::Up)
    {
        match AdminClient::new(node.admin_url.clone()).remove_disk(id).await {
            Ok(RemovedDisk { note, .. }) => then = note.map_or_else(String::new, |note| format!("{note}.")),
            Err(error) => out.note(&format!("levee: note: node {} does not let go of disk {id}: {error}", node.name)),
        }
    }
    meta.remove_disk(id, force).await?;
    Ok(then)
}

/// A sentence, and what is left to do, if something is.
fn with(done: String, then: &str) -> String {
    if then.is_empty() { done } else { format!("{done}\n{then}") }
}

/// A disk that was just taken may be no good.
fn check_serves(disk: &DiskInfo) -> anyhow::Result<()> {
    let DiskInfo { id, state, status, .. } = disk;
    if *state == DiskState::InService && !status.contains("failed") {
        return Ok(());
    }
    let why = disk.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    bail!("disk {id}, which was to take its place, is {status}{why}; replace that one, the old one stays as it is")
}

/// Each step is skipped that an earlier attempt has done already.
pub async fn replace(
    meta: &MetaClient,
    id: DiskId,
    new: &NewDisk,
    timeout: Duration,
    out: &Output,
) -> anyhow::Result<()> {
    let old = find(meta, id).await?;
    let nodes = meta.nodes().await?;
    let node = node_name(old.node, &nodes);
    let path = std::path::absolute(&new.path)?.display().to_string();
    if path == old.path {
        bail!(
            "disk {id} is {path} itself: for a new disk at the same place, `levee disk remove {id}` first (with --force if it is lost), \
             then `levee disk add {node} {path}`"
        );
    }
    let disks = meta.disks().await?;
    let there = disks.into_iter().find(|disk| disk.node == old.node && disk.path == path && disk.id != id);
    let added = match there {
        Some(added) => added,
        None => take(meta, &node, new, out).await?,
    };
    if old.state == DiskState::InService {
        let reason = Some(format!("disk {} takes its place", added.id));
        meta.set_disk(id, &SetDiskState { state: DiskState::Draining, reason }).await?;
    }
    let empty = wait_until_empty(meta, &format!("disk {id}"), |disk| disk.id == id, timeout, out).await;
    // What was to come there has gone elsewhere, or nowhere, if it has died meanwhile.
    check_serves(&find(meta, added.id).await?)?;
    empty?;
    let then = leave(meta, &find(meta, id).await?, false, out).await?;
    out.result(&added, || {
        let new = added.id;
        with(format!("Disk {new} of {node} has taken the place of disk {id}, which has left the cluster."), &then)
    })
}
