//! The Raft log and vote in the database.
//!
//! The commit index is not stored: after a restart the state is the newest snapshot until a leader says
//! how far the log behind it is committed.

use super::database::{self, Database};
use super::positions::Positions;
use super::{Entry, LogId, NodeError, Types};
use crate::limits::MAX_MESSAGE;
use anyhow::ensure;
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError, Vote};
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A handle to the member's log.
#[derive(Clone)]
pub struct LogStore {
    database: Database,
    known: Arc<Mutex<Known>>,
}

/// What is in the log, without looking there.
struct Known {
    positions: Positions,
    committed: Option<LogId>,
}

impl LogStore {
    pub fn new(database: Database) -> LogStore {
        let known = Known { positions: database.positions_at_start(), committed: None };
        LogStore { database, known: Arc::new(Mutex::new(known)) }
    }

    // A change is noted whole or not at all.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest entry.
    pub fn last(&self) -> Option<LogId> {
        self.known().positions.last()
    }

    /// Which entries there are.
    pub fn positions(&self) -> Positions {
        self.known().positions.clone()
    }

    /// The last word before what is committed were dropped; messages that would do that are refused before.
    fn check_cut(&self, from: u64) -> anyhow::Result<()> {
        let committed = self.known().committed.map(|id| id.index);
        ensure!(committed < Some(from), "a message would have dropped entry {from} of the log, which is committed");
        Ok(())
    }
}

pub(super) fn any(error: anyhow::Error) -> AnyError {
    AnyError::error(format!("{error:#}"))
}

fn read_error(error: anyhow::Error) -> NodeError {
    StorageIOError::read_logs(any(error)).into()
}

fn write_error(error: anyhow::Error) -> NodeError {
    StorageIOError::write_logs(any(error)).into()
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, NodeError> {
        self.database.entries((range.start_bound().cloned(), range.end_bound().cloned())).map_err(read_error)
    }

    /// What one message to another member takes: it must arrive between two heartbeats.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, NodeError> {
        self.database.some_entries(start..end, MAX_MESSAGE).map_err(read_error)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, NodeError> {
        let purged: Option<LogId> = self.database.get(database::PURGED).map_err(read_error)?;
        let last = self.database.last_entry().map_err(read_error)?;
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.map(|e| e.log_id).or(purged) })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), NodeError> {
        let vote = *vote;
        let saved = self.database.write(move |tx| database::put(tx, database::VOTE, &vote)).await;
        saved.map_err(|e| StorageIOError::write_vote(any(e)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, NodeError> {
        self.database.get(database::VOTE).map_err(|e| StorageIOError::read_vote(any(e)).into())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), NodeError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let (mut ids, mut rows) = (Vec::new(), Vec::new());
        for entry in entries {
            rows.push((entry.log_id.index, serde_json::to_vec(&entry).map_err(|e| write_error(e.into()))?));
            ids.push(entry.log_id);
        }
        let written = self.database.write(move |tx| {
            let mut table = tx.open_table(database::LOG)?;
            for (index, bytes) in &rows {
                table.insert(index, bytes.as_slice())?;
            }
            Ok(())
        });
        let written = written.await.map_err(|e| std::io::Error::other(format!("{e:#}")));
        if written.is_ok() {
            let mut known = self.known();
            ids.into_iter().for_each(|id| known.positions.push(id));
        }
        callback.log_io_completed(written);
        Ok(())
    }

    /// Not stored: see above.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), NodeError> {
        self.known().committed = committed;
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), NodeError> {
        self.check_cut(log_id.index).map_err(write_error)?;
        let cut = self.database.write(move |tx| {
            tx.open_table(database::LOG)?.retain_in(log_id.index.., |_, _| false)?;
            Ok(())
        });
        cut.await.map_err(write_error)?;
        self.known().positions.truncate(log_id.index);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), NodeError> {
        let purged = self.database.write(move |tx| {
            database::put(tx, database::PURGED, &log_id)?;
            tx.open_table(database::LOG)?.retain_in(..=log_id.index, |_, _| false)?;
            Ok(())
        });
        purged.await.map_err(write_error)?;
        self.known().positions.purge(log_id);
        Ok(())
    }
}
