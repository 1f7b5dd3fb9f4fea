//! The group itself: who is in it, whether it works, and its numbers.

use super::Failure;
use super::extract::Answer;
use crate::app::App;
use crate::limits::{LEADER_RETRY, LEADER_WAIT};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use levee_proto::api::{ClusterInfo, MemberInfo, Problem, ProblemKind};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::{Instant, sleep};

/// The meta servers, as the member that is asked knows them
#[utoipa::path(get, path = "/v1/cluster", tag = "cluster",
    responses((status = 200, body = ClusterInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn cluster(State(app): State<Arc<App>>) -> Result<Answer<ClusterInfo>, Failure> {
    let deadline = Instant::now() + LEADER_WAIT;
    let cluster = loop {
        match app.replicated.read(|state| state.cluster()) {
            Some(cluster) => break cluster,
            None if Instant::now() < deadline => sleep(LEADER_RETRY).await,
            None => {
                let detail = "the cluster is not founded yet: start the other meta servers, then try again";
                return Err(Failure::new(ProblemKind::Unavailable, detail));
            }
        }
    };
    let metrics = app.raft.metrics().borrow().clone();
    let members = metrics.membership_config.nodes().map(|(id, node)| {
        let url = app.members.get(id).unwrap_or(&node.addr).clone();
        MemberInfo { id: *id, url }
    });
    Ok(Answer(ClusterInfo {
        cluster,
        member: app.id,
        leader: metrics.current_leader,
        members: members.collect(),
        applied: metrics.last_applied.map_or(0, |id| id.index),
    }))
}

/// 200 while this member knows a leader.
pub async fn healthz(State(app): State<Arc<App>>) -> Result<&'static str, Failure> {
    match app.leader() {
        Some(_) => Ok("ok\n"),
        None => {
            Err(Failure::new(ProblemKind::Unavailable, "no leader is known: are most of the meta servers running?"))
        }
    }
}

/// Prometheus text.
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let raft = app.raft.metrics().borrow().clone();
    let [nodes, disks, volumes] = app.replicated.read(|state| state.counts());
    let counts = app.proposer.counts();
    let rows: [(&str, &str, u64); 9] = [
        ("leader", "gauge", u64::from(raft.current_leader == Some(app.id))),
        ("term", "gauge", raft.current_term),
        ("applied_index", "gauge", raft.last_applied.map_or(0, |id| id.index)),
        ("snapshot_index", "gauge", raft.snapshot.map_or(0, |id| id.index)),
        ("nodes", "gauge", nodes as u64),
        ("disks", "gauge", disks as u64),
        ("volumes", "gauge", volumes as u64),
        ("commands_total", "counter", counts.commands.load(Ordering::Relaxed)),
        ("entries_total", "counter", counts.entries.load(Ordering::Relaxed)),
    ];
    let mut text = String::new();
    for (name, kind, value) in rows {
        // Writing to a String does not fail.
        let _ = writeln!(text, "# TYPE levee_meta_{name} {kind}\nlevee_meta_{name} {value}");
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
