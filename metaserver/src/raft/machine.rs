//! The replicated state in memory, moved by committed log entries only, and its snapshots.

use super::batch::Batch;
use super::database::{self, Database};
use super::log::any;
use super::{Entry, LogId, Membership, Meta, NodeError, Types};
use crate::changes::{self, Ring};
use anyhow::Context;
use levee_meta_state::{Command, Outcome, State};
use levee_proto::api::{Changes, ThingKind};
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError};
use std::io::Cursor;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

/// The state as this member has applied it. Others only read it.
#[derive(Clone)]
pub struct Replicated {
    inner: Arc<RwLock<Inner>>,
    /// Moves when an intent may have changed.
    intents: watch::Sender<()>,
    /// Moves when anything was applied.
    moves: watch::Sender<()>,
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

    /// Wakes whenever an intent may have changed.
    pub fn intents(&self) -> watch::Receiver<()> {
        self.intents.subscribe()
    }

    /// What changed after a revision, of what this member has applied.
    pub fn changes_after(&self, after: Option<u64>, kinds: &[ThingKind], limit: usize) -> Changes {
        self.changes().after(after, kinds, limit)
    }

    /// Wakes whenever something was applied.
    pub fn moves(&self) -> watch::Receiver<()> {
        self.moves.subscribe()
    }

    // An entry's changes are noted whole or not at all.
    fn changes(&self) -> MutexGuard<'_, Ring> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The state machine does not panic half-way through a command: a poisoned lock guards a whole state.
    fn lock(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_mut(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What openraft drives.
pub struct Machine {
    shared: Replicated,
    database: Database,
}

impl Machine {
    /// Starts from the newest snapshot; openraft applies the log behind it.
    pub fn load(database: Database) -> anyhow::Result<Machine> {
        let mut inner = Inner::empty();
        if let Some(meta) = database.get::<Meta>(database::SNAPSHOT_META)? {
            let bytes = database.get_bytes(database::SNAPSHOT)?.context("the snapshot is missing")?;
            inner = decode(&meta, &bytes).context("the snapshot cannot be read")?;
        }
        let revision = inner.applied.map_or(0, |id| id.index);
        let shared = Replicated {
            inner: Arc::new(RwLock::new(inner)),
            intents: watch::Sender::new(()),
            moves: watch::Sender::new(()),
            changes: Arc::new(Mutex::new(Ring::begin(revision))),
        };
        Ok(Machine { shared, database })
    }

    pub fn replicated(&self) -> Replicated {
        self.shared.clone()
    }
}

fn decode(meta: &Meta, bytes: &[u8]) -> anyhow::Result<Inner> {
    let state = serde_json::from_slice(bytes)?;
    Ok(Inner { state, applied: meta.last_log_id, membership: meta.last_membership.clone() })
}

async fn save(database: &Database, meta: Meta, bytes: Arc<Vec<u8>>) -> anyhow::Result<()> {
    let saved = database.write(move |tx| {
        database::put(tx, database::SNAPSHOT_META, &meta)?;
        tx.open_table(database::META)?.insert(database::SNAPSHOT, bytes.as_slice())?;
        Ok(())
    });
    saved.await
}

fn moves_intents(command: &Command) -> bool {
    use Command::*;
    if let Keyed { command, .. } = command {
        return moves_intents(command);
    }
    // All that does not: what only gives out epochs, names or chunks.
    !matches!(
        command,
        Found { .. }
            | SetLevel { .. }
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
                inner.applied = Some(entry.log_id);
                answers.push(match entry.payload {
                    EntryPayload::Blank => Vec::new(),
                    EntryPayload::Normal(batch) => {
                        wake |= batch.commands.iter().any(moves_intents);
                        let outcomes = inner.apply(&batch);
                        let pairs = batch.commands.iter().zip(&outcomes);
                        let things = pairs.flat_map(|(c, o)| changes::of(c, o, &inner.state)).collect();
                        self.shared.changes().note(entry.log_id.index, things);
                        outcomes
                    }
                    EntryPayload::Membership(membership) => {
                        inner.membership = Membership::new(Some(entry.log_id), membership);
                        Vec::new()
                    }
                });
            }
        }
        if wake {
            self.shared.intents.send_replace(());
        }
        self.shared.moves.send_replace(());
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { inner: self.shared.lock().clone(), database: self.database.clone() }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, NodeError> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &Meta, snapshot: Box<Cursor<Vec<u8>>>) -> Result<(), NodeError> {
        let bytes = Arc::new(snapshot.into_inner());
        let inner = decode(meta, &bytes).map_err(|e| StorageIOError::read_snapshot(Some(meta.signature()), any(e)))?;
        save(&self.database, meta.clone(), bytes)
            .await
            .map_err(|e| StorageIOError::write_snapshot(Some(meta.signature()), any(e)))?;
        *self.shared.changes() = Ring::begin(meta.last_log_id.map_or(0, |id| id.index));
        *self.shared.lock_mut() = inner;
        self.shared.moves.send_replace(());
        self.shared.intents.send_replace(());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, NodeError> {
        let read = || -> anyhow::Result<_> {
            let Some(meta) = self.database.get::<Meta>(database::SNAPSHOT_META)? else { return Ok(None) };
            let bytes = self.database.get_bytes(database::SNAPSHOT)?.context("the snapshot is missing")?;
            Ok(Some(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) }))
        };
        read().map_err(|e| StorageIOError::read_snapshot(None, any(e)).into())
    }
}

/// A copy of the state at one moment, on its way into a snapshot.
pub struct Builder {
    inner: Inner,
    database: Database,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, NodeError> {
        let Inner { state, applied, membership } = self.inner.clone();
        let snapshot_id = applied.map_or_else(|| "0".to_string(), |id| format!("{}-{}", id.leader_id, id.index));
        let meta = Meta { last_log_id: applied, last_membership: membership, snapshot_id };
        let build = async {
            let bytes = Arc::new(tokio::task::spawn_blocking(move || serde_json::to_vec(&state)).await??);
            save(&self.database, meta.clone(), bytes.clone()).await?;
            anyhow::Ok(bytes)
        };
        let bytes = build.await.map_err(|e| StorageIOError::write_snapshot(Some(meta.signature()), any(e)))?;
        let bytes = Arc::try_unwrap(bytes).unwrap_or_else(|shared| shared.to_vec());
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
    }
}
