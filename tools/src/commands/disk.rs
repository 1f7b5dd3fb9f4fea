//! `levee disk drain`, `undrain` and `fail`.

use super::lists::node_name;
use super::redundancy::counted;
use crate::client::MetaClient;
use crate::output::Output;
use levee_proto::api::{DiskInfo, DiskState, SetDiskState};
use levee_proto::ids::DiskId;

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
