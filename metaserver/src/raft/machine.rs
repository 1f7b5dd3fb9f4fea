//! The replicated state in memory, moved by committed log entries only, and its snapshots.

use super::batch::Batch;
use super::database::{self, Database};
use super::log::any;
use super::snapshots::{SnapshotFile, Snapshots};
use super::{Entry, LogId, Membership, Meta, NodeError, Types};
use crate::changes::{self, Ring, Thing};
use anyhow::Context;
use levee_meta_state::{Command, Frozen, Outcome, State};
use levee_proto::NodeId;
use levee_proto::api::{Changes, Intent, StateMark, ThingKind};
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;
use uuid::Uuid;

/// The state as this member has applied it. Others only read it.
#[derive(Clone)]
pub struct Replicated {
    inner: Arc<RwLock<Inner>>,
    /// Moves when an intent may have changed.
    intents: watch::Sender<()>,
    /// Log index that the state has reached.
    reached: watch::Sender<u64>,
    changes: Arc<Mutex<Ring>>,
}

#[derive(Clone)]
struct Inner {
    state: State,
    applied: Option<LogId>,
    membership: Membership,
}

impl Inner {
    fn empty() -> Inner {
        Inner { state: State::before_the_log(), applied: None, membership: Membership::default() }
    }

    fn at(meta: &Meta, state: State) -> Inner {
        Inner { state, applied: meta.last_log_id, membership: meta.last_membership.clone() }
    }

    /// What a snapshot of this moment is called.
    fn meta(&self) -> Meta {
        let id = |id: LogId| format!("{}-{}-{}", id.leader_id.term, id.leader_id.node_id, id.index);
        Meta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: self.applied.map_or_else(|| "0".to_string(), id),
        }
    }

    /// Refuses to guess what later programs mean.
    fn check_level(&self, needed: u32, known: u32) -> Result<(), String> {
        if needed <= known { Ok(()) } else { Err(super::too_old(needed, known)) }
    }

    /// Answers with what came of its commands, and what they changed.
    fn enter(&mut self, entry: Entry) -> (Vec<Outcome>, Vec<Thing>) {
        let entered = match entry.payload {
            EntryPayload::Blank => Default::default(),
            EntryPayload::Normal(batch) => {
                let outcomes = self.apply(&batch);
                let pairs = batch.commands.iter().zip(&outcomes);
                let things = pairs.flat_map(|(command, outcome)| changes::of(command, outcome, &self.state)).collect();
                (outcomes, things)
            }
            EntryPayload::Membership(membership) => {
                self.membership = Membership::new(Some(entry.log_id), membership);
                Default::default()
            }
        };
        self.applied = Some(entry.log_id);
        entered
    }

    fn apply(&mut self, batch: &Batch) -> Vec<Outcome> {
        self.state.raise_level(batch.level);
        self.state.set_clock(batch.at_ms);
        batch.commands.iter().map(|command| self.state.apply(command)).collect()
    }
}

impl Replicated {
    /// Looks at the state; quick, because commits wait meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock().state)
    }

    /// What a node should do, and how much of the log that comes of; none if there is no such node.
    pub fn intent(&self, node: NodeId) -> Option<Intent> {
        let inner = self.lock();
        let mut intent = inner.state.intent(node)?;
        intent.state.applied = inner.applied.map_or(0, |id| id.index);
        Some(intent)
    }

    /// Whether a daemon knows of a state that this one does not go on from.
    pub fn is_older_than(&self, seen: &StateMark) -> bool {
        let inner = self.lock();
        inner.state.is_older_than(seen, inner.applied.map_or(0, |id| id.index))
    }

    /// Wakes whenever an intent may have changed.
    pub fn intents(&self) -> watch::Receiver<()> {
        self.intents.subscribe()
    }

    /// What changed after a revision, of what this member has applied.
    pub fn changes_after(&self, after: Option<u64>, kinds: &[ThingKind], limit: usize) -> Changes {
        self.changes().after(after, kinds, limit)
    }

    /// Wakes whenever something was applied.
    pub fn moves(&self) -> watch::Receiver<u64> {
        self.reached.subscribe()
    }

    // An entry's changes are noted whole or not at all.
    fn changes(&self) -> MutexGuard<'_, Ring> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is in the group by the newest committed word, and that word's log index.
    pub fn membership(&self) -> Membership {
        self.lock().membership.clone()
    }

    /// Returns once the state shows the log up to this index.
    pub fn reach(&self, index: u64) -> impl Future<Output = ()> + use<> {
        let mut reached = self.reached.subscribe();
        async move {
            // The sender lives as long as the state does.
            let _ = reached.wait_for(|now| *now >= index).await;
        }
    }

    fn changed(&self, intents: bool) {
        let index = self.lock().applied.map_or(0, |id| id.index);
        self.reached.send_replace(index);
        if intents {
            self.intents.send_replace(());
        }
    }

    // The state machine does not panic half-way through a command: a poisoned lock guards a whole state.
    fn lock(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_mut(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a member's log comes to.
pub struct Replay {
    pub state: State,
    pub last: LogId,
    pub membership: Membership,
}

/// What openraft drives.
pub struct Machine {
    shared: Replicated,
    database: Database,
    snapshots: Snapshots,
    /// The newest level that this member knows.
    level: u32,
}

impl Machine {
    /// Starts from the newest snapshot; openraft applies the log behind it.
    pub fn load(database: Database, snapshots: Snapshots, level: u32) -> anyhow::Result<Machine> {
        let mut inner = Inner::empty();
        let newest = database.get::<Meta>(database::SNAPSHOT_META)?;
        if let Some(meta) = &newest {
            let state = match database.get_bytes(database::SNAPSHOT)? {
                // Earlier versions kept it in the database.
                Some(bytes) => serde_json::from_slice(&bytes).context("the snapshot cannot be read")?,
                None => snapshots.read(meta).context(DAMAGED)?,
            };
            inner = Inner::at(meta, state);
            inner.check_level(inner.state.level(), level).map_err(anyhow::Error::msg)?;
        }
        snapshots.tidy(newest.as_ref(), true).context("cannot remove old snapshots")?;
        let reached = inner.applied.map_or(0, |id| id.index);
        let shared = Replicated {
            inner: Arc::new(RwLock::new(inner)),
            intents: watch::Sender::new(()),
            reached: watch::Sender::new(reached),
            changes: Arc::new(Mutex::new(Ring::begin(reached))),
        };
        Ok(Machine { shared, database, snapshots, level })
    }

    /// The state with all of the log applied, committed or not.
    pub fn replay(&self) -> anyhow::Result<Replay> {
        let mut inner = self.shared.lock().clone();
        let first = inner.applied.map_or(0, |id| id.index + 1);
        for entry in self.database.entries(first..)? {
            inner.enter(entry);
        }
        let last = inner.applied.context("its log is empty")?;
        Ok(Replay { state: inner.state, last, membership: inner.membership })
    }

    /// Which cluster this is, be it that only the log says so, whose commitment is not known yet.
    pub fn cluster(&self) -> Option<Uuid> {
        let applied = self.shared.read(State::cluster);
        applied.or_else(|| self.replay().ok().and_then(|replay| replay.state.cluster()))
    }

    pub fn replicated(&self) -> Replicated {
        self.shared.clone()
    }
}

const DAMAGED: &str = "the folder is damaged: put back a copy of it, or empty it and have the others replace this member \
                       (`levee meta replace`)";

fn moves_intents(command: &Command) -> bool {
    use Command::*;
    if let Keyed { command, .. } | Of { command, .. } = command {
        return moves_intents(command);
    }
    // All that does not: what only gives out epochs, names or chunks.
    !matches!(
        command,
        Found { .. }
            | SetLevel { .. }
            | PinMember { .. }
            | ReleaseMember { .. }
            | CreateVolume(_)
            | CreateVolumes(_)
            | CreateClones(_)
            | Open { .. }
            | Allocate { .. }
    )
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), NodeError> {
        let inner = self.shared.lock();
        Ok((inner.applied, inner.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Vec<Outcome>>, NodeError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        let mut wake = false;
        {
            let mut inner = self.shared.lock_mut();
            for entry in entries {
                if let EntryPayload::Normal(batch) = &entry.payload {
                    inner
                        .check_level(batch.level, self.level)
                        .map_err(|e| StorageIOError::apply(entry.log_id, any(anyhow::Error::msg(e))))?;
                    wake |= batch.commands.iter().any(moves_intents);
                }
                let index = entry.log_id.index;
                let (outcomes, things) = inner.enter(entry);
                self.shared.changes().note(index, things);
                answers.push(outcomes);
            }
        }
        self.shared.changed(wake);
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let inner = self.shared.lock();
        Builder {
            frozen: Some(inner.state.freeze()),
            meta: inner.meta(),
            database: self.database.clone(),
            snapshots: self.snapshots.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotFile>, NodeError> {
        let file = self.snapshots.receive().await;
        file.map(Box::new).map_err(|e| StorageIOError::write_snapshot(None, any(e.into())).into())
    }

    async fn install_snapshot(&mut self, meta: &Meta, snapshot: Box<SnapshotFile>) -> Result<(), NodeError> {
        let failed = |e| StorageIOError::write_snapshot(Some(meta.signature()), any(e));
        // It was looked through before openraft heard of it: see `receive`.
        let checked = snapshot.into_checked().context("a snapshot that was not checked");
        let (state, path) = checked.map_err(failed)?;
        let inner = Inner::at(meta, state);
        inner.check_level(inner.state.level(), self.level).map_err(|e| failed(anyhow::Error::msg(e)))?;
        self.snapshots.publish(&self.database, path, meta).await.map_err(failed)?;
        *self.shared.changes() = Ring::begin(meta.last_log_id.map_or(0, |id| id.index));
        *self.shared.lock_mut() = inner;
        self.shared.changed(true);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, NodeError> {
        let failed = |e| StorageIOError::read_snapshot(None, any(e));
        let newest = self.snapshots.newest(&self.database).await.map_err(failed)?;
        Ok(newest.map(|(meta, file)| Snapshot { meta, snapshot: Box::new(file) }))
    }
}

/// The state at one moment, on its way into a snapshot.
pub struct Builder {
    frozen: Option<Frozen>,
    meta: Meta,
    database: Database,
    snapshots: Snapshots,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, NodeError> {
        let meta = self.meta.clone();
        let build = async {
            let frozen = self.frozen.take().context("this snapshot was built already")?;
            let (snapshots, named) = (self.snapshots.clone(), meta.clone());
            let partial = tokio::task::spawn_blocking(move || snapshots.write(&named, &frozen)).await??;
            // One that the leader sent meanwhile may be newer.
            self.snapshots.publish(&self.database, partial, &meta).await?;
            let newest = self.snapshots.newest(&self.database).await?;
            let (meta, file) = newest.context("the snapshot that was built is gone")?;
            Ok(Snapshot { meta, snapshot: Box::new(file) })
        };
        build.await.map_err(|e| StorageIOError::write_snapshot(Some(meta.signature()), any(e)).into())
    }
}
