//! The group itself: who is in it, and whether it works.

use super::Failure;
use super::extract::Answer;
use crate::app::App;
use crate::limits::{LEADER_RETRY, LEADER_WAIT};
use axum::extract::State;
use levee_proto::api::{ClusterInfo, MemberInfo, Problem, ProblemKind};
use std::sync::Arc;
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
        let url = app.directory().url(*id, Some(&node.addr)).unwrap_or_else(|| node.addr.clone());
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
