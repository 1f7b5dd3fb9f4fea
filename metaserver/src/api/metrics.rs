//! Numbers for Prometheus.
//!
//! What daemons report is told by the leader alone, so that a sum over all members counts nothing twice.

use crate::app::App;
use crate::health::{self, View, words};
use crate::members;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use levee_meta_state as state;
use levee_proto::api::{CapacityInfo, Condition, DiskState, NodeState, VolumeReport};
use openraft::{BasicNode, RaftMetrics};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Prometheus text.
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let mut text = String::new();
    own(&app, &mut text);
    if app.leader() == Some(app.id) {
        let members = members::status(&app);
        health::with_view(&app, |view| {
            let View { state, observed, .. } = *view;
            nodes_and_disks(view, &mut text);
            capacity(&crate::capacity::info(state, observed), &mut text);
            volumes(state, &observed.reports(state).collect::<Vec<_>>(), &mut text);
            conditions(&health::derive(view, &members), &mut text);
        });
        let held = u64::from(app.repair_held().is_some());
        family(&mut text, "levee_repair_held", "gauge", [(String::new(), held)]);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// One metric, with a row for each set of labels.
fn family(text: &mut String, name: &str, kind: &str, rows: impl IntoIterator<Item = (String, u64)>) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "# TYPE {name} {kind}");
    for (labels, value) in rows {
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}

fn own(app: &App, text: &mut String) {
    let raft = app.raft.metrics().borrow().clone();
    let [nodes, disks, volumes] = app.replicated.read(|state| state.counts());
    let counts = app.proposer.counts();
    let voters = raft.membership_config.membership().voter_ids().count();
    let leaderless = members::leaderless(app);
    let rows: [(&str, &str, u64); 15] = [
        ("leader", "gauge", u64::from(raft.current_leader == Some(app.id) && leaderless.is_none())),
        ("leader_known", "gauge", u64::from(leaderless.is_none())),
        ("leaderless_seconds", "gauge", leaderless.map_or(0, |silence| silence.as_secs())),
        ("members", "gauge", voters as u64),
        ("term", "gauge", raft.current_term),
        ("log_index", "gauge", raft.last_log_index.unwrap_or(0)),
        ("applied_index", "gauge", raft.last_applied.map_or(0, |id| id.index)),
        ("snapshot_index", "gauge", raft.snapshot.map_or(0, |id| id.index)),
        ("nodes", "gauge", nodes as u64),
        ("disks", "gauge", disks as u64),
        ("volumes", "gauge", volumes as u64),
        ("waiting_commands", "gauge", app.proposer.waiting()),
        ("commands_total", "counter", counts.commands.load(Ordering::Relaxed)),
        ("entries_total", "counter", counts.entries.load(Ordering::Relaxed)),
        ("failed_entries_total", "counter", counts.failures.load(Ordering::Relaxed)),
    ];
    for (name, kind, value) in rows {
        family(text, &format!("levee_meta_{name}"), kind, [(String::new(), value)]);
    }
    let _ = writeln!(text, "# TYPE levee_meta_commit_seconds histogram");
    for (rest, value) in counts.commits.rows() {
        let _ = writeln!(text, "levee_meta_commit_seconds{rest} {value}");
    }
    family(text, "levee_meta_requests_total", "counter", app.requests.rows());
    members_behind(app, &raft, text);
}

/// How many log entries each other member lacks; the leader alone knows.
fn members_behind(app: &App, raft: &RaftMetrics<u64, BasicNode>, text: &mut String) {
    let newest = raft.last_log_index.unwrap_or(0);
    let others = raft.replication.iter().flatten().filter(|(id, _)| **id != app.id);
    let rows = others.map(|(id, matched)| {
        let has = matched.map_or(0, |matched| matched.index);
        (format!("{{member=\"{id}\"}}"), newest.saturating_sub(has))
    });
    family(text, "levee_meta_member_behind_entries", "gauge", rows);
}

/// Each with the severity that it has now.
fn conditions(conditions: &[Condition], text: &mut String) {
    let row = |c: &Condition| {
        let kind = format!("{:?}", c.kind).to_lowercase();
        let severity = format!("{:?}", c.severity).to_lowercase();
        let (subject, word) = (&c.subject, c.word.name());
        (format!("{{kind=\"{kind}\",subject=\"{subject}\",condition=\"{word}\",severity=\"{severity}\"}}"), 1)
    };
    family(text, "levee_condition", "gauge", conditions.iter().map(row));
}

/// Names are plain: nothing in a label needs an escape.
fn nodes_and_disks(view: &View<'_>, text: &mut String) {
    let state = view.state;
    let node_state = |id| view.observed.node_state(id, view.now);
    let name = |id| state.node(id).map(|n| n.name.as_str()).unwrap_or_default();
    let up = |id| u64::from(node_state(id) == NodeState::Up);
    family(text, "levee_node_up", "gauge", state.node_ids().map(|id| (format!("{{node=\"{}\"}}", name(id)), up(id))));
    let words = [(NodeState::Up, "up"), (NodeState::Unknown, "unknown"), (NodeState::Down, "down")];
    let nodes = state.node_ids().flat_map(|id| {
        let now = node_state(id);
        let labels = move |word| format!("{{node=\"{}\",state=\"{word}\"}}", name(id));
        words.iter().map(move |(state, word)| (labels(word), u64::from(*state == now)))
    });
    family(text, "levee_node_state", "gauge", nodes);
    let states = [(DiskState::InService, "in-service"), (DiskState::Draining, "draining"), (DiskState::Dead, "dead")];
    let disks = state.disks().flat_map(|(id, disk)| {
        let labels = move |word| format!("{{disk=\"{id}\",node=\"{}\",state=\"{word}\"}}", name(disk.node));
        states.iter().map(move |(s, word)| (labels(word), u64::from(*s == disk.state())))
    });
    family(text, "levee_disk_state", "gauge", disks);
    let serving = state.disks().map(|(id, disk)| {
        let labels = format!("{{disk=\"{id}\",node=\"{}\"}}", name(disk.node));
        (labels, u64::from(words::is_serving(view, id, disk)))
    });
    family(text, "levee_disk_serving", "gauge", serving);
    let replicas = state.disks().map(|(id, disk)| (format!("{{disk=\"{id}\"}}"), disk.live()));
    family(text, "levee_disk_replicas", "gauge", replicas);
}

/// Limits that are not set have no row.
fn capacity(info: &CapacityInfo, text: &mut String) {
    let limits = info.limits;
    let level = info.level as u64;
    let rows: [(&str, Option<u64>); 8] = [
        ("levee_capacity_bytes", Some(info.capacity)),
        ("levee_capacity_reported_bytes", Some(info.reported)),
        ("levee_capacity_used_bytes", Some(info.used)),
        ("levee_capacity_level", Some(level)),
        ("levee_capacity_warn_percent", limits.warn_percent.map(u64::from)),
        ("levee_capacity_full_percent", limits.full_percent.map(u64::from)),
        ("levee_provisioned_bytes", Some(info.provisioned)),
        ("levee_provisionable_bytes", info.provisionable),
    ];
    for (name, value) in rows {
        family(text, name, "gauge", value.map(|value| (String::new(), value)));
    }
}

type Number = fn(&VolumeReport) -> u64;

fn volumes(state: &state::State, reports: &[(levee_proto::VolumeId, &VolumeReport)], text: &mut String) {
    let numbers: [(&str, &str, Number); 7] = [
        ("levee_chunks_below_copies", "gauge", |r| r.degraded_chunks.into()),
        ("levee_chunks_waiting", "gauge", |r| r.waiting_chunks.into()),
        ("levee_repair_leaving_replicas", "gauge", |r| r.leaving_replicas.into()),
        ("levee_repair_copied_bytes", "gauge", |r| r.copied_bytes),
        ("levee_volume_full", "gauge", |r| r.full.into()),
        ("levee_volume_stalled_requests", "gauge", |r| r.stall.as_ref().map_or(0, |s| s.requests.into())),
        ("levee_volume_stalled_milliseconds", "gauge", |r| r.stall.as_ref().map_or(0, |s| s.oldest_ms)),
    ];
    for (name, kind, number) in numbers {
        let rows = reports.iter().filter_map(|(id, report)| {
            let volume = &state.volume(*id)?.name;
            Some((format!("{{volume=\"{volume}\"}}"), number(report)))
        });
        family(text, name, kind, rows);
    }
}
