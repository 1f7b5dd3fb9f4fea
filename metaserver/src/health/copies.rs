//! Chunks that lack copies, all volumes together: thousands of them have one cause.

use super::words::is_serving;
use super::{Doing, View, condition, copies_of, counted};
use levee_proto::NodeId;
use levee_proto::api::*;
use std::collections::BTreeSet;

pub fn derive(view: &View<'_>, all: &mut Vec<Condition>) {
    let leaving: u64 =
        view.state.disks().filter(|(_, d)| d.state() != DiskState::InService).map(|(_, d)| d.live()).sum();
    if let Some(held) = view.held {
        let what = format!("repair is held: {held}");
        all.push(condition(EventKind::Repair, "cluster", ConditionWord::Held, Severity::Warning, what));
    }
    all.extend(degraded(view));
    if leaving > 0 {
        all.push(elsewhere(view, leaving));
    }
}

/// Copies on disks that are dead or being drained.
fn elsewhere(view: &View<'_>, leaving: u64) -> Condition {
    let concerned = view.observed.notable(view.state, |report| report.leaving_replicas > 0);
    let needed = concerned.filter_map(|(id, _)| Some(usize::from(view.state.volume(id)?.copies))).max().unwrap_or(0);
    let nodes = nodes_for_copies(view);
    if nodes < needed {
        let what = format!("copies cannot be put elsewhere: {nodes} nodes that are up have disks in service");
        let why = format!("volumes with {needed} copies need {needed}: start the nodes that are down, or add some");
        return condition(EventKind::Repair, "cluster", ConditionWord::NoPlace, Severity::Warning, what).doing(why);
    }
    let what = format!("{} on disks that are dead or drained are being put elsewhere", copies_of(leaving));
    condition(EventKind::Repair, "cluster", ConditionWord::Leaving, Severity::Info, what)
}

/// How many nodes could take a copy, or may be able to: right after a change of leader not all have been heard.
fn nodes_for_copies(view: &View<'_>) -> usize {
    let serving = view.state.disks().filter(|(id, disk)| is_serving(view, *id, disk));
    serving.map(|(_, disk)| disk.node).collect::<BTreeSet<_>>().len()
}

fn degraded(view: &View<'_>) -> Option<Condition> {
    let (mut chunks, mut volumes) = (0_u64, 0_u64);
    let mut away: BTreeSet<NodeId> = BTreeSet::new();
    let mut excused = true;
    for (_, report) in view.observed.notable(view.state, |report| report.degraded_chunks > 0) {
        chunks += u64::from(report.degraded_chunks);
        volumes += 1;
        for behind in report.degraded.iter().flat_map(|chunk| &chunk.behind) {
            excused &= view.is_maintained(behind.node);
            if !view.is_up(behind.node) {
                away.insert(behind.node);
            }
        }
    }
    if chunks == 0 {
        return None;
    }
    let severity = if excused && !away.is_empty() { Severity::Info } else { Severity::Warning };
    let of = counted(volumes, "volume", "volumes");
    let what = format!("{} of {of} have fewer copies than they should", counted(chunks, "chunk", "chunks"));
    let mut found = condition(EventKind::Repair, "cluster", ConditionWord::Degraded, severity, what);
    for node in &away {
        found = found.doing(format!("some of their copies are on node {}, which is away", view.name(*node)));
    }
    if away.is_empty() {
        found = found.doing("the gateways of their volumes make them whole; `levee volume show` says how far they are");
    }
    Some(found)
}
