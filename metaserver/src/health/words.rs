//! The status of nodes, disks and volumes, in a few words.

use super::View;
use crate::observe::is_full;
use levee_meta_state::Disk;
use levee_proto::api::*;
use levee_proto::{DiskId, NodeId};

/// `up, slow, draining`
pub fn node(view: &View<'_>, id: NodeId) -> String {
    let mut words = vec![match view.observed.node_state(id, view.now) {
        NodeState::Up => "up",
        NodeState::Unknown => "unknown",
        NodeState::Down if view.is_stopped(id) => "stopped",
        NodeState::Down => "down",
    }];
    words.extend(match view.condition_of(id).0 {
        NodeCondition::Fine => None,
        NodeCondition::Slow => Some("slow"),
        NodeCondition::Partitioned => Some("partitioned"),
        NodeCondition::Flapping => Some("flapping"),
    });
    words.extend(view.is_maintained(id).then_some("in maintenance"));
    let (removed, drained) = view.state.node(id).map_or((false, false), |n| (n.removed, n.drain.is_some()));
    words.extend(match (removed, drained) {
        (true, _) => Some("leaving"),
        (false, true) if view.held_by(id) == 0 => Some("drained"),
        (false, true) => Some("draining"),
        (false, false) => None,
    });
    words.join(", ")
}

/// `in service`, `unreachable`, `draining, unreachable`
pub fn disk(view: &View<'_>, id: DiskId, disk: &Disk) -> String {
    let failed = view.observed.disk_failure(disk.node, id).is_some();
    let mut words = match disk.state() {
        DiskState::Dead => return "dead".into(),
        DiskState::InService if failed => return "failed".into(),
        DiskState::InService => vec![],
        DiskState::Draining if disk.live() == 0 => vec!["drained"],
        DiskState::Draining => vec!["draining"],
    };
    if view.is_down(disk.node) {
        words.push("unreachable");
    } else if is_absent(view, id, disk.node) {
        words.push("missing");
    } else if view.observed.used(disk.node, id).is_some_and(|used| is_full(view.state, used, disk.capacity)) {
        words.push("full");
    }
    if words.is_empty() {
        words.push("in service");
    }
    words.join(", ")
}

/// Whether its node runs without it.
fn is_absent(view: &View<'_>, disk: DiskId, node: NodeId) -> bool {
    view.is_up(node) && view.state.node(node).is_some_and(|n| !n.disks.contains(&disk))
}

/// Whether copies on it can be used now.
pub fn is_serving(view: &View<'_>, id: DiskId, disk: &Disk) -> bool {
    let works = view.observed.disk_failure(disk.node, id).is_none() && !is_absent(view, id, disk.node);
    disk.state() == DiskState::InService && !view.is_down(disk.node) && works
}

/// `serving, 3 degraded`, `its node is down`
pub fn volume(view: &View<'_>, volume: &VolumeInfo) -> String {
    let mut status = stage(view, volume);
    if volume.job.as_ref().is_some_and(|job| job.kind == JobKind::Import) {
        status.push_str(", import unfinished");
    }
    if volume.read_only {
        status.push_str(", read-only");
    }
    status
}

fn stage(view: &View<'_>, volume: &VolumeInfo) -> String {
    match &volume.attachment {
        None => "detached".into(),
        Some(at) if at.repair => format!("detached (being repaired on {})", at.node_name),
        Some(at) => gateway(view, at.node, at.report.as_ref()),
    }
}

/// What the gateway of an attached volume does.
pub fn gateway(view: &View<'_>, node: NodeId, report: Option<&VolumeReport>) -> String {
    if view.is_down(node) {
        return "its node is down".into();
    }
    let Some(report) = report else { return "attaching".into() };
    match report.state {
        ServeState::Opening => "opening".into(),
        ServeState::Serving if report.stall.is_some() => "serving, stalled".into(),
        ServeState::Serving if report.full => "serving, full: writes wait".into(),
        ServeState::Serving if report.waiting_chunks > 0 => format!("serving, {} wait", report.waiting_chunks),
        ServeState::Serving if report.degraded_chunks > 0 => format!("serving, {} degraded", report.degraded_chunks),
        ServeState::Serving => "serving".into(),
        ServeState::Closing => "closing".into(),
        ServeState::Failed => "failed".into(),
    }
}
