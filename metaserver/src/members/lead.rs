//! Hands the leadership over to another member, for planned work on the leader's host.
//!
//! openraft has no such message. The leader falls silent for as long as members keep faith with a leader they have heard, and has
//! the other one stand for election then: nobody else asks for votes earlier. Changes wait for about as long as they do
//! when a leader is lost, rather less.

use super::change::status;
use crate::app::App;
use crate::limits::{HANDOVER_WAIT, LEADER_RETRY, LEARNER_LAG, LEASE};
use levee_proto::api::{MemberRole, MemberStatus, Problem, ProblemKind};
use tokio::time::{Instant, sleep};

/// Returns when the member leads.
pub async fn hand_over(app: &App, to: u64) -> Result<(), Problem> {
    if to == app.id {
        return Ok(());
    }
    let _one = app.changes.0.lock().await;
    check(app, to)?;
    let metrics = app.raft.metrics().borrow().clone();
    let recorded = metrics.membership_config.membership().get_node(&to).map(|node| node.addr.clone());
    let peer = app.network.peer(to, recorded.as_deref().unwrap_or_default());
    tracing::info!("the leadership is handed over to meta server {to}");
    app.directory().hush(HANDOVER_WAIT);
    sleep(LEASE).await;
    let end = Instant::now() + HANDOVER_WAIT;
    // It refuses as long as it, or whoever is to vote for it, has heard this member too lately.
    while app.leader() != Some(to) && Instant::now() < end {
        peer.stand().await;
        sleep(LEADER_RETRY).await;
    }
    let done = app.leader() == Some(to);
    app.directory().speak();
    let why = "it was not elected: `levee meta list` shows who leads; try again";
    done.then_some(())
        .ok_or_else(|| Problem::new(ProblemKind::Unavailable, format!("meta server {to} does not lead: {why}")))
}

fn check(app: &App, to: u64) -> Result<(), Problem> {
    let group = status(app);
    let member = group.members.iter().find(|member| member.id == to);
    let why = match member {
        None => return Err(Problem::new(ProblemKind::NotFound, format!("there is no meta server {to}"))),
        Some(MemberStatus { role: MemberRole::Learner, .. }) => "is still being given the log",
        Some(MemberStatus { trouble: Some(why), .. }) => why,
        Some(MemberStatus { alive: false, .. }) => "does not answer",
        Some(MemberStatus { matched, .. }) if matched.unwrap_or(0) + LEARNER_LAG < group.last => {
            "lacks too much of the log"
        }
        Some(_) if group.changing => "cannot lead while members are changed",
        Some(_) => return Ok(()),
    };
    Err(Problem::new(ProblemKind::Conflict, format!("meta server {to} cannot lead: it {why}")))
}
