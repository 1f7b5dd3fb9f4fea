//! The group itself: who is in it, and whether it works.

use super::Failure;
use super::extract::Answer;
use crate::app::App;
use crate::limits::{LEADER_RETRY, LEADER_WAIT};
use crate::members;
use axum::extract::State;
use levee_proto::api::{ClusterInfo, MemberInfo, Problem, ProblemKind};
use std::sync::Arc;
use std::time::Duration;
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
    let leaderless = members::leaderless(&app);
    let members = metrics.membership_config.nodes().map(|(id, node)| {
        let url = app.directory().url(*id, Some(&node.addr)).unwrap_or_else(|| node.addr.clone());
        let heard = app.directory().seen(*id).map(|seen| millis(seen.at.elapsed()));
        MemberInfo { id: *id, url, silent_ms: heard.filter(|_| *id != app.id) }
    });
    Ok(Answer(ClusterInfo {
        cluster,
        member: app.id,
        leader: metrics.current_leader.filter(|_| leaderless.is_none()),
        members: members.collect(),
        applied: metrics.last_applied.map_or(0, |id| id.index),
        leaderless_ms: leaderless.map(millis),
    }))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// 200 while the process answers: it need not be restarted.
pub async fn live() -> &'static str {
    "ok\n"
}

/// 200 while this member hears a leader that most members follow: requests can be sent to it.
pub async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, Failure> {
    match members::leaderless(&app) {
        None => Ok("ok\n"),
        Some(silence) => {
            let seconds = silence.as_secs();
            let why = format!(
                "no leader that most members follow was heard of for {seconds} s: are most of the meta servers running?"
            );
            Err(Failure::new(ProblemKind::Unavailable, why))
        }
    }
}
