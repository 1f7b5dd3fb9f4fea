//! Whether there is a leader that most members follow, as this member sees it.
//!
//! What consensus says is not enough: a leader that nobody hears any more goes on believing that it leads, and so do its followers.

use crate::app::App;
use crate::limits::{QUORUM_LOOK, QUORUM_PATIENCE, QUORUM_REMINDER};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// For how long this member has heard nothing of a leader that most members follow; none: it does.
pub fn leaderless(app: &App) -> Option<Duration> {
    let metrics = app.raft.metrics().borrow().clone();
    let silence = match metrics.current_leader {
        Some(id) if id == app.id => {
            let configs = metrics.membership_config.membership().get_joint_config();
            configs.iter().map(|voters| silence_of_most(app, voters)).max().unwrap_or_default()
        }
        _ => app.contact.silence(),
    };
    (silence >= QUORUM_PATIENCE).then_some(silence)
}

/// How long ago enough voters for a majority were heard of.
fn silence_of_most(app: &App, voters: &BTreeSet<u64>) -> Duration {
    let silence = |id: &u64| if *id == app.id { Duration::ZERO } else { app.directory().silence(*id) };
    let mut silences: Vec<Duration> = voters.iter().map(silence).collect();
    silences.sort_unstable();
    silences.get(voters.len() / 2).copied().unwrap_or_default()
}

/// Says in the log when most members cannot be reached, and now and then that it is still so.
pub async fn watch(app: Arc<App>) {
    let mut said: Option<Instant> = None;
    loop {
        sleep(QUORUM_LOOK).await;
        match (leaderless(&app), said) {
            (Some(silence), at) if at.is_none_or(|at| at.elapsed() >= QUORUM_REMINDER) => {
                tracing::error!(
                    "there is no leader that most meta servers follow, for {} s: {}",
                    silence.as_secs(),
                    missing(&app)
                );
                said = Some(Instant::now());
            }
            (None, Some(since)) => {
                tracing::info!("most meta servers follow a leader again, after {} s", since.elapsed().as_secs());
                said = None;
            }
            _ => {}
        }
    }
}

fn missing(app: &App) -> String {
    let membership = app.raft.metrics().borrow().membership_config.clone();
    let silent = membership.membership().nodes().filter(|(id, _)| !app.directory().is_alive(**id, QUORUM_PATIENCE));
    let names: Vec<String> = silent.map(|(id, node)| format!("{id} ({})", node.addr)).collect();
    match names.is_empty() {
        true => "all of them answer, and one is about to be chosen".into(),
        false => format!(
            "nothing is heard of {}; start them, nothing can be changed before most of them run",
            names.join(", ")
        ),
    }
}
