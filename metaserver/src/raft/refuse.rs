//! What becomes of a message that is not taken.

use super::sense::Refusal;
use super::{Network, too_old};
use crate::api::Failure;
use crate::limits::REFUSAL_REST;
use levee_proto::api::ProblemKind;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

/// Says it, to the sender and in the log.
#[derive(Clone)]
pub struct Refusals {
    network: Network,
    /// Why this member cannot go on, once it cannot.
    fatal: watch::Sender<Option<String>>,
    /// When one was logged last: whoever sends nonsense may send much of it. Held while others are asked.
    logged: Arc<Mutex<Option<Instant>>>,
}

impl Refusals {
    pub fn new(network: Network, fatal: watch::Sender<Option<String>>) -> Refusals {
        Refusals { network, fatal, logged: Arc::default() }
    }

    pub async fn answer(&self, refusal: Refusal) -> Failure {
        let kind = match refusal {
            Refusal::Senseless(_) => ProblemKind::Invalid,
            Refusal::Level(_) => ProblemKind::Conflict,
            Refusal::Unable(_) => ProblemKind::Unavailable,
        };
        let said = format!("a message of another meta server is not taken: {refusal}");
        if let Ok(mut logged) = self.logged.try_lock()
            && logged.is_none_or(|at| at.elapsed() >= REFUSAL_REST)
        {
            tracing::warn!("{said}");
            *logged = Some(Instant::now());
            if let Refusal::Level(needed) = refusal {
                self.leave_if_older(needed).await;
            }
        }
        Failure::new(kind, said)
    }

    /// A message alone ends nobody. But if another member says itself that it knows that level, this one is too old.
    async fn leave_if_older(&self, needed: u32) {
        let mut asked = JoinSet::new();
        for (id, url) in self.network.directory.others() {
            let network = self.network.clone();
            asked.spawn(async move { network.hello(&url).await.ok().filter(|hello| hello.id == id) });
        }
        let known = asked.join_all().await.into_iter().flatten().map(|hello| hello.level).max();
        if known >= Some(needed) {
            self.fatal.send_replace(Some(too_old(needed, self.network.directory.own.level)));
        }
    }
}
