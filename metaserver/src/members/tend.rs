//! What the leader does for the group by itself: it finishes changes, takes learners in as voters, notes folders, raises the level.

use super::change::{answering, change, status, tell};
use crate::app::App;
use crate::limits::*;
use levee_meta_state::{Command, FIRST_LEVEL};
use levee_proto::api::MemberRole;
use openraft::ChangeMembers;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::time::sleep;

/// Runs until the process ends.
pub async fn run(app: Arc<App>) {
    loop {
        sleep(MEMBERS_TICK).await;
        let founded = app.replicated.read(|state| state.cluster().is_some());
        if app.leader() != Some(app.id) || !founded {
            continue;
        }
        let Ok(_one) = app.changes.0.try_lock() else { continue };
        finish(&app).await;
        promote(&app).await;
        note_folders(&app).await;
        raise_level(&app).await;
    }
}

/// A leader that ended in the middle of a change has left both memberships in force.
async fn finish(app: &App) {
    let membership = app.raft.metrics().borrow().membership_config.membership().clone();
    if let [_, .., goal] = membership.get_joint_config().as_slice()
        && let Err(problem) = change(app, ChangeMembers::ReplaceAllVoters(goal.clone())).await
    {
        tracing::debug!("{problem}");
    }
}

/// A learner that has the log becomes a voter.
async fn promote(app: &App) {
    let metrics = app.raft.metrics().borrow().clone();
    let membership = metrics.membership_config.membership();
    let last = metrics.last_log_index.unwrap_or(0);
    let matched =
        |id: u64| metrics.replication.as_ref()?.get(&id).copied().flatten().map(|matched| matched.index + LEARNER_LAG);
    let Some(id) = membership.learner_ids().find(|id| matched(*id).is_some_and(|reach| reach >= last)) else { return };
    if app.directory().trouble_of(id).is_some() || !app.directory().is_alive(id, ALIVE_WITHIN) {
        return;
    }
    let mut voters = status(app).members;
    voters.retain(|m| m.role == MemberRole::Voter || m.id == id);
    if answering(app, &voters).await.len() * 2 <= voters.len() {
        return;
    }
    match change(app, ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await {
        Ok(()) => tell(app, id, "is in the group and counts").await,
        Err(problem) => tracing::warn!("meta server {id} has the log and is not a voter yet: {problem}"),
    }
}

/// Notes which folder each member has, when it is heard for the first time.
async fn note_folders(app: &App) {
    if app.replicated.read(|state| state.level()) <= FIRST_LEVEL {
        return;
    }
    let own = app.directory().own;
    for (id, _) in app.replicated.membership().membership().nodes() {
        let heard = if *id == own.id { Some(own.folder) } else { app.directory().seen(*id).map(|seen| seen.folder) };
        if let (Some(folder), None) = (heard, app.directory().pinned(*id)) {
            // Refused or not: the next look sees what is.
            let _ = app.proposer.propose(Command::PinMember { id: *id, folder }).await;
        }
    }
}

/// Raises the level to what all members know.
async fn raise_level(app: &App) {
    let own = app.directory().own;
    let membership = app.replicated.membership();
    let known = membership
        .membership()
        .nodes()
        .map(|(id, _)| if *id == own.id { own.level } else { app.directory().seen(*id).map_or(0, |seen| seen.level) });
    let level = known.min().unwrap_or(0);
    if level > app.replicated.read(|state| state.level())
        && app.proposer.propose(Command::SetLevel { level }).await.is_ok()
    {
        tracing::info!("all meta servers know level {level}: it is in use from now on");
    }
}
