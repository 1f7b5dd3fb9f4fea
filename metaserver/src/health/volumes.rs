//! Volumes, as their guests find them.

use super::{Doing, View, condition, counted};
use levee_meta_state::Volume;
use levee_proto::api::*;
use levee_proto::{NodeId, VolumeId};
use std::cmp::Reverse;

/// Reports that are looked at, at most: many more than are shown.
const MAX_LOOKED_AT: usize = 10_000;

pub fn derive(view: &View<'_>, all: &mut Vec<Condition>) {
    let mut found = Vec::new();
    for HeldVolume { volume, name, lost_chunks } in view.state.recovery_info().held {
        let name = name.unwrap_or_else(|| volume.to_string());
        let what = format!(
            "volume {name} is held: {lost_chunks} of its chunks are on disks, but where in it they belong was lost with meta servers"
        );
        let way_out = format!("`levee volume accept-loss {name}` uses it without them: they read as zeros");
        found.push(of(&name, ConditionWord::Held, Severity::Error, what).doing(way_out));
    }
    let away = view.state.node_ids().filter(|node| view.is_down(*node));
    let left = away.flat_map(|node| view.state.attached_volumes(node).map(move |id| (node, id)));
    found.extend(left.filter_map(|(node, id)| abandoned(view, node, view.state.volume(id)?)).take(MAX_CONDITIONS));
    for (id, report) in view.observed.notable(view.state, is_notable).take(MAX_LOOKED_AT) {
        let Some((volume, at)) = view.state.volume(id).and_then(|v| Some((v, v.attachment.as_ref()?))) else {
            continue;
        };
        if !view.is_down(at.node) {
            served(&volume.name, !at.repair, &view.name(at.node), report, &mut found);
        }
    }
    for (id, at) in view.state.repairs().filter(|(_, at)| !view.is_down(at.node)) {
        let Some(volume) = view.state.volume(id) else { continue };
        let what =
            format!("volume {}, which is detached, is being put in order on {}", volume.name, view.name(at.node));
        found.push(of(&volume.name, ConditionWord::Repairing, Severity::Info, what));
    }
    found.extend(view.state.jobs().filter_map(|(id, job)| unfinished(view, id, job)));
    // Of those that are equally bad the ones that are known stay: what is left out passes for over.
    found.sort_by_key(|condition| (Reverse(condition.severity), view.state.told_since(&condition.key()).is_none()));
    found.truncate(MAX_CONDITIONS);
    all.append(&mut found);
}

/// A volume whose node is away.
fn abandoned(view: &View<'_>, node: NodeId, volume: &Volume) -> Option<Condition> {
    volume.user()?;
    let (name, gateway) = (&volume.name, view.name(node));
    let severity = if view.is_maintained(node) { Severity::Info } else { Severity::Error };
    let what = format!("volume {name} is not served: node {gateway}, to which it is attached, is away");
    let todo = format!("start {gateway}, or detach the volume and attach it elsewhere");
    Some(of(name, ConditionWord::Down, severity, what).doing(todo))
}

/// Whether there is something to be said of it.
fn is_notable(report: &VolumeReport) -> bool {
    let waits = report.full || report.waiting_chunks > 0 || report.stall.is_some();
    report.state != ServeState::Serving || waits || !report.lost.is_empty()
}

fn of(name: &str, word: ConditionWord, severity: Severity, what: String) -> Condition {
    condition(EventKind::Volume, name, word, severity, what)
}

/// What a gateway reports; the first of these is what counts.
fn served(name: &str, user: bool, gateway: &str, report: &VolumeReport, found: &mut Vec<Condition>) {
    let detail = report.detail.as_ref().map(|d| format!(": {d}")).unwrap_or_default();
    let add = |word, severity, what: &str| of(name, word, severity, format!("volume {name} {what}{detail}"));
    if !report.lost.is_empty() {
        let range = |r: &ByteRange| format!("{}+{}", r.offset, r.length);
        let ranges = report.lost.iter().map(range).collect::<Vec<_>>().join(", ");
        let what = format!(
            "volume {name}: no copy can read what is stored at {ranges} (bytes); its guest gets I/O errors there"
        );
        let todo = "have the guest write there anew, from a backup; or bring back a disk that still has it";
        found.push(of(name, ConditionWord::Lost, Severity::Error, what).doing(todo));
    }
    found.extend(match report.state {
        ServeState::Failed => Some(add(ConditionWord::Unserved, Severity::Error, "cannot be served")),
        ServeState::Opening if user => {
            Some(add(ConditionWord::Opening, Severity::Warning, &format!("is not served yet by {gateway}")))
        }
        ServeState::Opening | ServeState::Closing => None,
        ServeState::Serving => {
            let full = report.full.then(|| {
                let todo = "add disks or nodes, or delete volumes";
                add(ConditionWord::Full, Severity::Error, "is full: its writes wait for space").doing(todo)
            });
            let waits = (report.waiting_chunks > 0).then(|| {
                let chunks = counted(report.waiting_chunks.into(), "chunk", "chunks");
                let what = format!("waits: {chunks} cannot be written before more copies can be reached");
                add(ConditionWord::Waiting, Severity::Error, &what)
            });
            let stall = report.stall.as_ref().map(|stall| stalled(name, gateway, stall));
            stall.or(full).or(waits)
        }
    });
}

fn stalled(name: &str, gateway: &str, stall: &StallReport) -> Condition {
    let StallReport { requests, oldest_ms, why } = stall;
    let wait = counted((*requests).into(), "request waits", "requests wait");
    let what = format!("volume {name} is stalled: {wait} on {gateway}, the oldest for {} s", oldest_ms / 1000);
    of(name, ConditionWord::Stalled, Severity::Error, what).doing(why)
}

/// A command works on it, or has left it.
fn unfinished(view: &View<'_>, id: VolumeId, job: &VolumeJob) -> Option<Condition> {
    let Volume { name, .. } = view.state.volume(id)?;
    let is_used = view.observed.report(view.state, id).is_some_and(|report| report.front_end.connected);
    let by = &job.by;
    (job.kind == JobKind::Import).then(|| match is_used {
        true => {
            let what = format!("volume {name} is being filled by an import ({by})");
            of(name, ConditionWord::Unfinished, Severity::Info, what)
        }
        false => {
            let what = format!("volume {name} is only filled in part: an import by {by} has not finished");
            let todo = format!("if that command is gone, import again, or `levee volume delete {name}`");
            of(name, ConditionWord::Unfinished, Severity::Warning, what).doing(todo)
        }
    })
}
