//! From what is known to what is wrong. Each rule is a function over one kind of thing.

use super::view::{Member, Stored, View};
use crate::commands::lists::{node_name, node_state};
use crate::commands::redundancy::{self, Range, counted};
use crate::values::utc;
use levee_proto::api::*;
use levee_proto::units::show_size;
use serde::Serialize;

/// Log entries that a meta server may be behind its leader before that is worth a word.
const BEHIND: u64 = 1000;
/// A disk counts as full from here on, in percent.
const FULL_PERCENT: u64 = 95;

#[derive(Serialize)]
pub struct Diagnosis {
    pub healthy: bool,
    pub summary: String,
    pub problems: Vec<Finding>,
    /// What is under way or worth knowing, and no problem.
    pub notes: Vec<Finding>,
    /// Volumes of which parts have fewer copies than they should.
    pub below_copies: Vec<VolumeRanges>,
}

#[derive(Serialize)]
pub struct VolumeRanges {
    volume: String,
    degraded_chunks: u32,
    waiting_chunks: u32,
    /// The gateway that makes them whole.
    gateway: String,
    /// The first of them.
    ranges: Vec<Range>,
}

/// Something that an operator should know.
#[derive(Serialize)]
pub struct Finding {
    /// `meta-server`, `repair`, `capacity`, `node`, `disk` or `volume`.
    pub kind: &'static str,
    pub name: String,
    /// One line: what, and what is wrong with it.
    pub what: String,
    /// What is done about it, by whom, or what to do.
    pub doing: Vec<String>,
}

impl Finding {
    fn new(kind: &'static str, name: impl ToString, what: impl Into<String>) -> Finding {
        Finding { kind, name: name.to_string(), what: what.into(), doing: Vec::new() }
    }

    fn doing(mut self, line: impl Into<String>) -> Finding {
        self.doing.push(line.into());
        self
    }
}

pub fn diagnose(view: &View) -> Diagnosis {
    let mut d = Diagnosis {
        healthy: false,
        summary: String::new(),
        problems: Vec::new(),
        notes: Vec::new(),
        below_copies: Vec::new(),
    };
    d.members(&view.members);
    match &view.stored {
        Err(why) => {
            d.summary = format!("{why}: nothing is known of nodes, disks and volumes");
            let finding =
                Finding::new("meta-server", "all", format!("{why}: volumes that are served go on, nothing else does"));
            d.problems.push(finding.doing("start most of the meta servers"));
        }
        Ok(stored) => {
            d.recovery(&stored.recovery);
            d.repair(stored);
            d.capacity(stored);
            d.under_way(stored);
            stored.nodes.iter().for_each(|node| d.node(node, stored));
            stored.disks.iter().for_each(|disk| d.disk(disk, stored));
            stored.volumes.iter().for_each(|volume| d.volume(volume, stored));
            d.summary = summary(stored);
        }
    }
    d.healthy = d.problems.is_empty();
    d
}

fn summary(stored: &Stored) -> String {
    let up = stored.nodes.iter().filter(|n| n.state == NodeState::Up).count();
    let in_service = stored.disks.iter().filter(|d| d.state == DiskState::InService).count();
    let served = stored.volumes.iter().filter(|v| redundancy::user(v).is_some()).count();
    format!(
        "{up} of {} nodes up, {in_service} of {} disks in service, {}, {served} attached",
        stored.nodes.len(),
        stored.disks.len(),
        counted(stored.volumes.len() as u32, "volume", "volumes"),
    )
}

impl Diagnosis {
    /// The meta servers have gone on with a state that may be too old.
    fn recovery(&mut self, recovery: &RecoveryInfo) {
        for name in &recovery.awaited {
            let what = format!(
                "volumes wait until node '{name}' has told what it holds: the meta servers lost their newest state"
            );
            let way_out = format!("start its daemon; if it is lost: `levee node remove {name} --force`");
            self.problems.push(Finding::new("node", name, what).doing(way_out));
        }
        for HeldVolume { volume, name, lost_chunks } in &recovery.held {
            let name = name.clone().unwrap_or_else(|| volume.to_string());
            let what = format!(
                "volume {name} is held: {lost_chunks} of its chunks are on disks, but where in it they belong was lost with meta servers"
            );
            let way_out = format!("`levee volume accept-loss {name}` uses it without them: they read as zeros");
            self.problems.push(Finding::new("volume", &name, what).doing(way_out));
        }
        if recovery.unknown_replicas > 0 {
            let what = format!("{} copies on disks are unknown to the meta servers", recovery.unknown_replicas);
            let kept = "they are of what was lost with meta servers, and are kept; formatting the disk anew frees them";
            self.notes.push(Finding::new("disk", "all", what).doing(kept));
        }
    }

    fn members(&mut self, members: &[Member]) {
        let newest = members.first().and_then(|leader| leader.applied).unwrap_or(0);
        for Member { info, applied } in members {
            let MemberInfo { id, url } = info;
            match applied {
                None => self.problems.push(
                    Finding::new("meta-server", id, format!("meta server {id} at {url} does not answer"))
                        .doing("the others go on as long as most of them answer; start it again"),
                ),
                Some(applied) if newest.saturating_sub(*applied) > BEHIND => {
                    let behind = newest - applied;
                    let what = format!("meta server {id} at {url} is {behind} log entries behind");
                    self.problems
                        .push(Finding::new("meta-server", id, what).doing("the leader sends it what it lacks"));
                }
                Some(_) => {}
            }
        }
    }

    fn repair(&mut self, stored: &Stored) {
        if let Some(held) = &stored.repair.held {
            self.problems.push(Finding::new("repair", "held", format!("repair is held: {held}")));
        }
        let leaving = stored.disks.iter().any(|d| d.state != DiskState::InService && d.replicas > 0);
        let needed = stored.volumes.iter().map(|v| usize::from(v.copies)).max().unwrap_or(0);
        let nodes = nodes_for_copies(stored);
        if leaving && nodes < needed {
            let what = format!("copies cannot be put elsewhere: {nodes} nodes that are up have disks in service");
            let why = format!("volumes with {needed} copies need {needed}: start the nodes that are down, or add some");
            self.problems.push(Finding::new("repair", "no-place", what).doing(why));
        }
    }

    /// What an operator has begun, and may have forgotten.
    fn under_way(&mut self, stored: &Stored) {
        for window in &stored.maintenance.windows {
            let of = window.node.as_deref().unwrap_or("the whole cluster");
            let what = format!("{of} is in maintenance until {}: nothing of it is repaired", utc(window.until_ms));
            self.notes.push(Finding::new("maintenance", of, what).doing("`levee maintenance stop` ends it"));
        }
        let rebalance = &stored.rebalance;
        if rebalance.state == RebalanceState::Running {
            let what = format!("a rebalance is running: {} of {} copies moved", rebalance.done, rebalance.moves);
            self.notes.push(Finding::new("rebalance", "running", what).doing("`levee rebalance status` shows it"));
        }
        for node in stored.nodes.iter().filter(|node| node.condition != NodeCondition::Fine) {
            let what = format!("node {} is {}", node.name, node_state(node));
            let why = node.detail.clone().unwrap_or_default();
            self.problems.push(Finding::new("node", &node.name, what).doing(why));
        }
    }

    /// That it fills up is worth knowing; that it takes nothing new is a problem.
    fn capacity(&mut self, stored: &Stored) {
        let Some(info) = &stored.capacity else { return };
        let Some((what, todo)) = info.detail.as_ref().map(|d| d.rsplit_once(": ").unwrap_or((d, ""))) else { return };
        let finding = Finding::new("capacity", "cluster", what).doing(todo);
        match info.level {
            CapacityLevel::Full => self.problems.push(finding),
            _ => self.notes.push(finding),
        }
    }

    fn node(&mut self, node: &NodeInfo, stored: &Stored) {
        let NodeInfo { id, name, state, .. } = node;
        if *state != NodeState::Down {
            return;
        }
        let disks: Vec<&DiskInfo> = stored.disks.iter().filter(|d| d.node == *id).collect();
        if disks.iter().all(|d| d.state == DiskState::Dead && d.replicas == 0) {
            let what = format!("node {name} is down; nothing is stored on it");
            self.notes.push(Finding::new("node", name, what));
            return;
        }
        let finding = Finding::new("node", name, format!("node {name} is down"));
        let given_up = disks.iter().all(|d| d.state == DiskState::Dead);
        self.problems.push(finding.doing(if given_up {
            "its copies are made anew on other nodes; start it again, or leave it".into()
        } else {
            let after = stored.repair.after_s;
            format!("start its daemon; {after} s after it was last heard of, its copies are made anew on other nodes")
        }));
    }

    fn disk(&mut self, disk: &DiskInfo, stored: &Stored) {
        let DiskInfo { id, replicas, .. } = disk;
        let node = node_name(disk.node, &stored.nodes);
        let why = disk.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
        let copies = counted(u32::try_from(*replicas).unwrap_or(u32::MAX), "copy", "copies");
        let finding = |what: String| Finding::new("disk", id, format!("disk {id} of {node} {what}{why}"));
        match disk.state {
            DiskState::Dead if *replicas > 0 => self.problems.push(
                finding("is dead".into())
                    .doing(format!("{copies} to be made anew elsewhere, by the gateways of their volumes")),
            ),
            DiskState::Dead => self
                .notes
                .push(finding("is dead".into()).doing("nothing is on it that is needed; replace it, or leave it")),
            DiskState::Draining if *replicas > 0 => self.notes.push(
                finding("is being drained".into())
                    .doing(format!("{copies} to be put elsewhere, by the gateways of their volumes")),
            ),
            DiskState::Draining => {
                self.notes.push(finding("is drained".into()).doing("nothing is on it any more; it can be taken out"));
            }
            DiskState::InService if disk.reason.is_some() => self.problems.push(finding("has failed".into())),
            DiskState::InService => self.full(disk, &node),
        }
    }

    fn full(&mut self, disk: &DiskInfo, node: &str) {
        let (id, used) = (disk.id, disk.used.unwrap_or(0));
        if disk.capacity > 0 && used.saturating_mul(100) >= disk.capacity.saturating_mul(FULL_PERCENT) {
            let (used, capacity) = (show_size(used), show_size(disk.capacity));
            let what = format!("disk {id} of {node} is full: {used} of {capacity} are used");
            self.problems.push(Finding::new("disk", id, what).doing("add disks or nodes, or delete volumes"));
        }
    }

    fn volume(&mut self, volume: &VolumeInfo, stored: &Stored) {
        let Some(attachment) = &volume.attachment else { return };
        let (name, gateway) = (&volume.name, &attachment.node_name);
        if attachment.repair {
            let what = format!("volume {name}, which is detached, is being repaired on {gateway}");
            self.notes.push(Finding::new("volume", name, what));
        }
        let down = stored.nodes.iter().any(|n| n.id == attachment.node && n.state == NodeState::Down);
        if down && !attachment.repair {
            let what = format!("volume {name} is attached to {gateway}, which is down");
            let todo = format!("start {gateway}, or detach the volume and attach it elsewhere");
            self.problems.push(Finding::new("volume", name, what).doing(todo));
            return;
        }
        let Some(report) = &attachment.report else { return };
        self.below_copies(volume, report, gateway, stored);
        self.lost(name, report);
        if let Some(what) = wrong(volume, report) {
            let mut finding = Finding::new("volume", name, what);
            finding.doing = redundancy::lines(volume, report, &stored.nodes);
            if report.degraded_chunks > 0 {
                finding.doing.push(format!("{gateway}, its gateway, makes them whole"));
            }
            self.problems.push(finding);
        } else if report.leaving_replicas > 0 {
            let left = counted(report.leaving_replicas, "copy", "copies");
            let what =
                format!("volume {name}: {gateway} has {left} to put elsewhere, off disks that are dead or drained");
            self.notes.push(Finding::new("volume", name, what));
        }
    }

    fn lost(&mut self, name: &str, report: &VolumeReport) {
        let range = |r: &ByteRange| format!("{}+{}", r.offset, r.length);
        let ranges: Vec<String> = report.lost.iter().map(range).collect();
        if !ranges.is_empty() {
            let what = format!(
                "volume {name}: no copy can read what is stored at {} (bytes); its guest gets I/O errors there",
                ranges.join(", ")
            );
            let todo = "have the guest write there anew, from a backup; or bring back a disk that still has it";
            self.problems.push(Finding::new("volume", name, what).doing(todo));
        }
    }

    fn below_copies(&mut self, volume: &VolumeInfo, report: &VolumeReport, gateway: &str, stored: &Stored) {
        if report.degraded_chunks > 0 {
            self.below_copies.push(VolumeRanges {
                volume: volume.name.clone(),
                degraded_chunks: report.degraded_chunks,
                waiting_chunks: report.waiting_chunks,
                gateway: gateway.into(),
                ranges: redundancy::ranges(volume, report, &stored.nodes),
            });
        }
    }
}

/// How many nodes could take a copy.
fn nodes_for_copies(stored: &Stored) -> usize {
    let in_service = |id| stored.disks.iter().any(|d| d.node == id && d.state == DiskState::InService);
    stored.nodes.iter().filter(|n| n.state == NodeState::Up && in_service(n.id)).count()
}

/// What is wrong with a volume that has a gateway.
fn wrong(volume: &VolumeInfo, report: &VolumeReport) -> Option<String> {
    let name = &volume.name;
    let detail = report.detail.as_ref().map(|d| format!(": {d}")).unwrap_or_default();
    match report.state {
        ServeState::Failed => Some(format!("volume {name} cannot be served{detail}")),
        ServeState::Opening => Some(format!("volume {name} is not served yet{detail}")),
        _ if report.full => Some(format!("volume {name}: writes wait, the cluster is full{detail}")),
        _ if report.degraded_chunks > 0 => {
            let summary = redundancy::summary(volume, report);
            Some(format!("volume {name}: of its chunks, {summary}{detail}"))
        }
        _ => report.detail.as_ref().map(|detail| format!("volume {name}: {detail}")),
    }
}
