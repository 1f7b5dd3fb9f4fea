//! The redb file of one member: its Raft log, vote and newest snapshot.
//!
//! redb is blocking and has one writer, so all writes go through one thread, each as its own durable
//! transaction: when [`Database::write`] returns, the data is on the medium. Reads go to memory-cached
//! pages and are made in place. The file is damaged if anything in it cannot be decoded or the log has a
//! hole; that is found at start rather than in the middle of an election.
//!
//! After a write that could not be made durable nothing more is written, and the member ends: what the system
//! still has in its memory of that write may never get to the medium, though it can be read, also by the next
//! process. So a start trusts nothing that it has not written itself: it copies the file, makes the copy durable,
//! and puts it in the file's place, before it reads a vote or an entry.

use super::batch::Batch;
use super::positions::Positions;
use super::sense::MAX_TERM;
use super::{Entry, LogId, Meta};
use crate::limits::{DATABASE_CACHE, MAX_WRITES};
use anyhow::{Context, bail, ensure};
use openraft::{BasicNode, CommittedLeaderId, EntryPayload, Membership, Vote};
use redb::{Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokio::sync::oneshot;
use uuid::Uuid;

/// Log entries (JSON) by index.
pub const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// Everything else (JSON) by the names below.
pub const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

pub const VOTE: &str = "vote";
pub const PURGED: &str = "purged";
pub const SNAPSHOT_META: &str = "snapshot-meta";
pub const SNAPSHOT: &str = "snapshot";
const FORMAT: &str = "format";
const MEMBER: &str = "member";
const FOLDER: &str = "folder";

/// The file's name in the member's folder.
const NAME: &str = "meta.redb";

/// Version of what is in the file.
const FORMAT_NOW: u32 = 1;

type Work = Box<dyn FnOnce(&WriteTransaction) -> Result<(), redb::Error> + Send>;
type Job = (Work, oneshot::Sender<Result<(), redb::Error>>);

/// A handle to the file; the last one closes it.
#[derive(Clone)]
pub struct Database {
    file: Arc<redb::Database>,
    jobs: SyncSender<Job>,
    folder: Uuid,
    positions: Arc<Positions>,
    _lock: Arc<File>,
}

impl Database {
    /// Opens or creates the file of `member` in `dir`. `level` is the newest that this program knows.
    pub fn open(dir: &Path, member: u64, level: u32) -> anyhow::Result<Database> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create the folder {}", dir.display()))?;
        let lock = lock(dir)?;
        write_anew(dir).with_context(|| format!("cannot write the database in {} anew", dir.display()))?;
        let file = Arc::new(open_file(dir)?);
        let (jobs, queue) = sync_channel(MAX_WRITES);
        let writer = file.clone();
        std::thread::Builder::new()
            .name("meta-writer".into())
            .spawn(move || write_loop(&writer, &queue))
            .context("cannot start the writer thread")?;
        let mut database =
            Database { file, jobs, folder: Uuid::nil(), positions: Arc::default(), _lock: Arc::new(lock) };
        database.claim(dir, member)?;
        database.folder = database.number_folder().map_err(|error| damaged(dir, &error))?;
        let (newest, positions) = database.check().map_err(|error| damaged(dir, &error))?;
        ensure!(newest <= level, super::too_old(newest, level));
        database.positions = Arc::new(positions);
        Ok(database)
    }

    /// Which entries the log had when it was opened.
    pub fn positions_at_start(&self) -> Positions {
        Positions::clone(&self.positions)
    }

    /// An earlier version may have stored a term that leaves no room for elections.
    pub fn check_term(&self) -> anyhow::Result<()> {
        let term = self.get::<Vote<u64>>(VOTE)?.map_or(0, |vote| vote.leader_id.term);
        ensure!(
            term < MAX_TERM,
            "this member once took a senseless message that spoke of term {term}, and cannot take part in an election any \
             more: empty its folder and have the others replace it (`levee meta replace`), or, if all of them are like \
             this, have one go on alone (`levee-metad recover`)"
        );
        Ok(())
    }

    /// The number that this folder was given when it was new: a promise made in another one is not known here.
    pub fn folder(&self) -> Uuid {
        self.folder
    }

    fn number_folder(&self) -> anyhow::Result<Uuid> {
        if let Some(number) = self.get(FOLDER)? {
            return Ok(number);
        }
        let number = Uuid::new_v4();
        self.blocking_write(move |tx| put(tx, FOLDER, &number))?;
        Ok(number)
    }

    /// Records whose file it is, or refuses another's.
    fn claim(&self, dir: &Path, member: u64) -> anyhow::Result<()> {
        let format: Option<u32> = self.get(FORMAT).map_err(|e| damaged(dir, &e))?;
        let Some(format) = format else {
            return self.blocking_write(move |tx| {
                put(tx, FORMAT, &FORMAT_NOW)?;
                put(tx, MEMBER, &member)?;
                tx.open_table(LOG)?;
                Ok(())
            });
        };
        if format != FORMAT_NOW {
            bail!(
                "{} has format {format}, this levee-metad reads {FORMAT_NOW}: use the matching version",
                dir.display()
            );
        }
        match self.get::<u64>(MEMBER).map_err(|e| damaged(dir, &e))? {
            Some(owner) if owner == member => Ok(()),
            Some(owner) => {
                bail!("{} belongs to member {owner}, not {member}: use --id {owner}, or another --dir", dir.display())
            }
            None => Err(damaged(dir, &anyhow::anyhow!("it does not say whose it is"))),
        }
    }

    /// Decodes everything that will be needed; answers the newest level in the log, and what it holds.
    fn check(&self) -> anyhow::Result<(u32, Positions)> {
        let _: Option<openraft::Vote<u64>> = self.get(VOTE)?;
        let _: Option<Meta> = self.get(SNAPSHOT_META)?;
        let purged: Option<LogId> = self.get(PURGED)?;
        let first = purged.map_or(0, |id| id.index + 1);
        let (mut level, mut positions) = (0, Positions::after(purged));
        for (expected, row) in (first..).zip(self.file.begin_read()?.open_table(LOG)?.iter()?) {
            let (index, bytes) = row?;
            ensure!(index.value() == expected, "entry {expected} of the log is missing");
            let entry: Entry = serde_json::from_slice(bytes.value())?;
            ensure!(entry.log_id.index == expected, "entry {expected} of the log holds another");
            level = level.max(super::entry_level(&entry));
            positions.push(entry.log_id);
        }
        Ok((level, positions))
    }

    /// The value under `name`, if there is one.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> anyhow::Result<Option<T>> {
        self.get_bytes(name)?.map(|bytes| serde_json::from_slice(&bytes).map_err(Into::into)).transpose()
    }

    pub fn get_bytes(&self, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
        match self.file.begin_read()?.open_table(META) {
            Ok(table) => Ok(table.get(name)?.map(|value| value.value().to_vec())),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The log's entries within the range that are there.
    pub fn entries(&self, range: impl std::ops::RangeBounds<u64>) -> anyhow::Result<Vec<Entry>> {
        let table = self.file.begin_read()?.open_table(LOG)?;
        table.range(range)?.map(|row| Ok(serde_json::from_slice(row?.1.value())?)).collect()
    }

    /// The first of them, up to so many bytes; one at least, if there is one.
    pub fn some_entries(&self, range: std::ops::Range<u64>, bytes: usize) -> anyhow::Result<Vec<Entry>> {
        let table = self.file.begin_read()?.open_table(LOG)?;
        let (mut entries, mut length) = (Vec::new(), 0);
        for row in table.range(range)? {
            let (_, entry) = row?;
            length += entry.value().len();
            if length > bytes && !entries.is_empty() {
                break;
            }
            entries.push(serde_json::from_slice(entry.value())?);
        }
        Ok(entries)
    }

    pub fn last_entry(&self) -> anyhow::Result<Option<Entry>> {
        let table = self.file.begin_read()?.open_table(LOG)?;
        table.last()?.map(|(_, bytes)| serde_json::from_slice(bytes.value()).map_err(Into::into)).transpose()
    }

    /// Ends the log with a membership of `id` alone, in a term above all that it has seen, and then `batch`.
    pub fn begin_alone(&self, id: u64, url: &str, batch: Batch) -> anyhow::Result<()> {
        let seen: Option<Vote<u64>> = self.get(VOTE)?;
        let last = self.last_entry()?.map(|entry| entry.log_id).or(self.get(PURGED)?).context("the log is empty")?;
        // A term that leaves no room for others was never one: see `check_term`.
        let seen = seen.map(|vote| vote.leader_id.term).filter(|term| *term < MAX_TERM);
        let term = seen.unwrap_or(0).max(last.leader_id.term) + 1;
        let vote = Vote::new(term, id);
        let nodes = BTreeMap::from([(id, BasicNode::new(url))]);
        let membership = EntryPayload::Membership(Membership::new(vec![BTreeSet::from([id])], nodes));
        let entry = |at, payload| Entry { log_id: LogId::new(CommittedLeaderId::new(term, id), at), payload };
        let entries = [entry(last.index + 1, membership), entry(last.index + 2, EntryPayload::Normal(batch))];
        let lines = entries.map(|entry| (entry.log_id.index, serde_json::to_vec(&entry)));
        self.blocking_write(move |tx| {
            put(tx, VOTE, &vote)?;
            let mut log = tx.open_table(LOG)?;
            for (index, bytes) in lines {
                log.insert(index, bytes.map_err(std::io::Error::from)?.as_slice())?;
            }
            Ok(())
        })
    }

    /// Makes a change durable, or fails without it.
    pub async fn write(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error> + Send + 'static,
    ) -> anyhow::Result<()> {
        let (reply, answer) = oneshot::channel();
        // Bounded and drained by its own thread: a full queue is a disk that does not keep up, and
        // consensus has at most a handful of writes under way.
        self.jobs
            .try_send((Box::new(work), reply))
            .map_err(|_| anyhow::anyhow!("the database's writer has stopped"))?;
        answer.await.context("the database's writer has stopped")?.map_err(Into::into)
    }

    fn blocking_write(&self, work: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>) -> anyhow::Result<()> {
        commit(&self.file, work).map_err(Into::into)
    }
}

/// Writes one value within a transaction.
pub fn put(tx: &WriteTransaction, name: &str, value: &impl Serialize) -> Result<(), redb::Error> {
    let bytes = serde_json::to_vec(value).map_err(std::io::Error::from)?;
    tx.open_table(META)?.insert(name, bytes.as_slice())?;
    Ok(())
}

fn write_loop(file: &redb::Database, queue: &Receiver<Job>) {
    while let Ok((work, reply)) = queue.recv() {
        // The asker may be gone; the change is made all the same.
        let _ = reply.send(commit(file, work));
    }
}

fn commit(
    file: &redb::Database,
    work: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
) -> Result<(), redb::Error> {
    let mut tx = file.begin_write()?;
    tx.set_durability(Durability::Immediate)?;
    work(&tx)?;
    tx.commit()?;
    Ok(())
}

fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join("LOCK");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot write in the folder {}", dir.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("{} is in use by another levee-metad: stop it, or use another --dir", dir.display())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// Has what can be read of the file on the medium: see above.
fn write_anew(dir: &Path) -> std::io::Result<()> {
    let (path, copy) = (dir.join(NAME), dir.join("meta.redb.new"));
    let mut from = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut to = File::create(&copy)?;
    std::io::copy(&mut from, &mut to)?;
    to.sync_all()?;
    std::fs::rename(&copy, &path)?;
    File::open(dir)?.sync_all()
}

fn open_file(dir: &Path) -> anyhow::Result<redb::Database> {
    let path = dir.join(NAME);
    // A header that lies may also trip an assertion inside redb.
    let opened =
        catch_unwind(AssertUnwindSafe(|| redb::Database::builder().set_cache_size(DATABASE_CACHE).create(&path)));
    match opened {
        Ok(Ok(file)) => Ok(file),
        Ok(Err(redb::DatabaseError::Storage(redb::StorageError::Io(error))))
            if !matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            Err(error).with_context(|| format!("cannot open {}", path.display()))
        }
        Ok(Err(error)) => Err(damaged(dir, &error.into())),
        Err(_) => Err(damaged(dir, &anyhow::anyhow!("its structure is inconsistent"))),
    }
}

fn damaged(dir: &Path, error: &anyhow::Error) -> anyhow::Error {
    anyhow::anyhow!(
        "the database in {} is damaged ({error:#}): put back a copy of the folder, or empty it and have the \
         others replace this member (`levee meta replace`)",
        dir.display()
    )
}

#[cfg(test)]
#[path = "database_tests.rs"]
mod tests;
