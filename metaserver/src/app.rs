//! What request handlers work with.

use crate::barrier::Barrier;
use crate::history::History;
use crate::members::Changes;
use crate::meters::Requests;
use crate::observe::Observed;
use crate::proposer::Proposer;
use crate::raft::{Contact, Directory, Network, Raft, Replicated};
use crate::rates::{Limiter, Rates};
use crate::repair::Policy;
use openraft::RaftMetrics;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::watch;

/// One member.
pub struct App {
    pub id: u64,
    /// Where this member says that it is.
    pub url: String,
    pub network: Network,
    /// When a leader was heard last.
    pub contact: Contact,
    pub changes: Changes,
    pub raft: Raft,
    pub replicated: Replicated,
    pub proposer: Proposer,
    pub barrier: Barrier,
    /// To pass requests on to the leader.
    pub http: reqwest::Client,
    /// Becomes true when the process should end.
    pub stopping: watch::Receiver<bool>,
    pub policy: Policy,
    pub limiter: Limiter,
    pub requests: Requests,
    observed: Mutex<Observed>,
    history: Mutex<History>,
    /// Why disks that should count as lost do not, if so.
    held: Mutex<Option<String>>,
}

pub type RaftWatch = watch::Receiver<RaftMetrics<u64, openraft::BasicNode>>;

impl App {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        url: String,
        network: Network,
        contact: Contact,
        policy: Policy,
        rates: Rates,
        raft: Raft,
        replicated: Replicated,
        http: reqwest::Client,
        stopping: watch::Receiver<bool>,
    ) -> App {
        let own = network.directory.own;
        App {
            id: own.id,
            url,
            proposer: Proposer::start(raft.clone(), replicated.clone(), own.level),
            barrier: Barrier::start(raft.clone(), network.clone(), replicated.clone()),
            network,
            contact,
            changes: Changes::default(),
            raft,
            replicated,
            http,
            stopping,
            policy,
            limiter: Limiter::new(rates),
            requests: Requests::default(),
            held: Mutex::default(),
            history: Mutex::default(),
            observed: Mutex::new(Observed::new(0, Instant::now(), policy.down_after)),
        }
    }

    /// The leader, if one is known.
    pub fn leader(&self) -> Option<u64> {
        self.raft.metrics().borrow().current_leader
    }

    /// Where the other members are, and what was heard of them.
    pub fn directory(&self) -> &Directory {
        &self.network.directory
    }

    pub fn term(&self) -> u64 {
        self.raft.metrics().borrow().current_term
    }

    /// Why the repair of lost disks is held back, if it is.
    pub fn repair_held(&self) -> Option<String> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers it, and says so once.
    pub fn hold_repair(&self, why: Option<String>) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*held, &why) {
            (None, Some(why)) => tracing::warn!("repair is held: {why}"),
            (Some(_), None) => tracing::info!("repair is not held any more"),
            _ => {}
        }
        *held = why;
    }

    /// Works with what is remembered of volumes' loads.
    pub fn history<T>(&self, work: impl FnOnce(&mut History) -> T) -> T {
        // A moment is added whole or not at all.
        work(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Works with the observations of this term. `work` must be quick.
    pub fn observed<T>(&self, work: impl FnOnce(&mut Observed, Instant) -> T) -> T {
        let term = self.term();
        let now = Instant::now();
        // A heartbeat is stored whole or not at all: a poisoned lock guards usable observations.
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        observed.enter(term, now);
        work(&mut observed, now)
    }
}
