//! Snapshots of the state, each a file in the member's folder.
//!
//! ```text
//! magic (8) | length of meta (4) | meta, JSON | state: lines, zstd | CRC-32C of all before (4) | magic (8)
//! ```
//!
//! The database names the newest one. A file is written under another name, synced and renamed before the database names it, and only
//! then are others removed: at any moment the one that is named is whole. What is not named is left over from a crash, and goes at the
//! next start. The same bytes are what other members are sent.
//!
//! One is built in the background while the leader may send another, and others read: who names, removes or looks for the named
//! file has its turn ([`Snapshots::turn`]), and the newest one stays named whoever comes last.

use super::Meta;
use super::database::{self, Database};
use super::sense::is_snapshot_name;
use anyhow::{Context, bail, ensure};
use levee_meta_state::{Frozen, State};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as Waker, Poll};
use tokio::io::{AsyncRead, AsyncSeek, AsyncWrite, ReadBuf};

const MAGIC: &[u8; 8] = b"LVMETA1\n";
const TRAILER: u64 = 4 + MAGIC.len() as u64;
/// Bytes of the meta data: a membership of a few members.
const MAX_META: u32 = 1 << 20;
/// Fast: a snapshot competes with commits for the processor.
const LEVEL: i32 = 1;
const BUFFER: usize = 1 << 20;

/// The folder of snapshots.
#[derive(Clone)]
pub struct Snapshots {
    dir: Arc<PathBuf>,
    next: Arc<AtomicU64>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A snapshot's file, as openraft reads and writes it.
pub struct SnapshotFile {
    file: tokio::fs::File,
    path: PathBuf,
    /// Nobody else has it: it goes when it is dropped.
    partial: bool,
    /// What is in it, once that was checked.
    state: Option<State>,
}

impl Snapshots {
    pub fn open(member: &Path) -> anyhow::Result<Snapshots> {
        let dir = member.join("snapshots");
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create the folder {}", dir.display()))?;
        Ok(Snapshots { dir: Arc::new(dir), next: Arc::default(), turn: Arc::default() })
    }

    pub fn path(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.snapshot"))
    }

    /// Writes the state as the snapshot of `meta`; durable when this returns, but without its name.
    pub fn write(&self, meta: &Meta, state: &Frozen) -> anyhow::Result<PathBuf> {
        let partial = self.partial_path();
        let written = write_file(&partial, meta, state);
        if written.is_err() {
            let _ = std::fs::remove_file(&partial);
        }
        written.with_context(|| format!("cannot write a snapshot in {}", self.dir.display()))?;
        Ok(partial)
    }

    /// Makes a whole and durable file the newest snapshot, unless a newer one is.
    pub async fn publish(&self, database: &Database, partial: PathBuf, meta: &Meta) -> anyhow::Result<()> {
        ensure!(is_snapshot_name(&meta.snapshot_id), "no snapshot is called '{}'", meta.snapshot_id.escape_debug());
        let _turn = self.turn.lock().await;
        let newest = database.get::<Meta>(database::SNAPSHOT_META)?;
        if newest.is_some_and(|newest| newest.last_log_id > meta.last_log_id) {
            std::fs::remove_file(&partial)?;
            return Ok(());
        }
        let (dir, path) = (self.dir.clone(), self.path(&meta.snapshot_id));
        let rename = move || std::fs::rename(partial, path).and_then(|()| File::open(dir.as_path())?.sync_all());
        tokio::task::spawn_blocking(rename).await??;
        let named = meta.clone();
        let write = database.write(move |tx| {
            database::put(tx, database::SNAPSHOT_META, &named)?;
            tx.open_table(database::META)?.remove(database::SNAPSHOT)?;
            Ok(())
        });
        write.await?;
        self.tidy(Some(meta), false)?;
        Ok(())
    }

    /// The newest one; none if there is none, or if it is still where earlier versions kept it: the next one will be a file.
    pub async fn newest(&self, database: &Database) -> anyhow::Result<Option<(Meta, SnapshotFile)>> {
        let _turn = self.turn.lock().await;
        let Some(meta) = database.get::<Meta>(database::SNAPSHOT_META)? else { return Ok(None) };
        match self.open_file(&meta).await {
            Ok(file) => Ok(Some((meta, file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads and checks a snapshot.
    pub fn read(&self, meta: &Meta) -> anyhow::Result<State> {
        let path = self.path(&meta.snapshot_id);
        read_file(&path, meta).with_context(|| format!("the snapshot {} cannot be read", path.display()))
    }

    /// A file to receive another member's snapshot in.
    pub async fn receive(&self) -> io::Result<SnapshotFile> {
        let path = self.partial_path();
        let options = File::options().create_new(true).read(true).write(true).to_owned();
        let file = tokio::fs::OpenOptions::from(options).open(&path).await?;
        Ok(SnapshotFile { file, path, partial: true, state: None })
    }

    async fn open_file(&self, meta: &Meta) -> io::Result<SnapshotFile> {
        let path = self.path(&meta.snapshot_id);
        Ok(SnapshotFile { file: tokio::fs::File::open(&path).await?, path, partial: false, state: None })
    }

    /// Removes all but the newest one, and what was begun before this start if `all`.
    pub fn tidy(&self, newest: Option<&Meta>, all: bool) -> io::Result<()> {
        let keep = newest.map(|meta| self.path(&meta.snapshot_id));
        for entry in std::fs::read_dir(self.dir.as_path())? {
            let path = entry?.path();
            let partial = path.extension().is_some_and(|e| e == "partial");
            if Some(&path) != keep.as_ref() && (all || !partial) {
                std::fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn partial_path(&self) -> PathBuf {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{}-{n}.partial", std::process::id()))
    }
}

impl SnapshotFile {
    /// Reads what was received, to the end, and remembers it; durable when this returns.
    pub fn check(&mut self, meta: &Meta) -> anyhow::Result<()> {
        self.state = Some(read_file(&self.path, meta)?);
        File::open(&self.path)?.sync_all()?;
        Ok(())
    }

    /// The level of what was checked.
    pub fn level(&self) -> Option<u32> {
        self.state.as_ref().map(State::level)
    }

    /// What was checked, and where it is; nobody removes that any more.
    pub fn into_checked(mut self) -> Option<(State, PathBuf)> {
        let state = self.state.take()?;
        self.partial = false;
        Some((state, self.path.clone()))
    }
}

fn write_file(path: &Path, meta: &Meta, state: &Frozen) -> anyhow::Result<()> {
    let file = File::options().create_new(true).write(true).open(path)?;
    let mut summed = Summed { inner: BufWriter::with_capacity(BUFFER, file), sum: 0 };
    let head = serde_json::to_vec(meta)?;
    summed.write_all(MAGIC)?;
    summed.write_all(&u32::try_from(head.len())?.to_le_bytes())?;
    summed.write_all(&head)?;
    let mut encoder = zstd::stream::write::Encoder::new(&mut summed, LEVEL)?;
    state.save(&mut encoder)?;
    encoder.finish()?;
    let Summed { mut inner, sum } = summed;
    inner.write_all(&sum.to_le_bytes())?;
    inner.write_all(MAGIC)?;
    inner.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(())
}

fn read_file(path: &Path, meta: &Meta) -> anyhow::Result<State> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    ensure!(length > TRAILER + 12, "it has {length} bytes only");
    let mut trailer = [0; TRAILER as usize];
    file.seek(io::SeekFrom::End(-(TRAILER as i64)))?;
    file.read_exact(&mut trailer)?;
    let (sum, magic) = trailer.split_at(4);
    ensure!(magic == MAGIC, "it ends early");
    file.rewind()?;
    let mut summed = Summed { inner: BufReader::with_capacity(BUFFER, file.take(length - TRAILER)), sum: 0 };
    check_head(&mut summed, meta)?;
    let state = {
        let decoder = zstd::stream::read::Decoder::new(&mut summed)?;
        State::load(BufReader::with_capacity(BUFFER, decoder)).map_err(anyhow::Error::msg)
    };
    // A wrong sum tells more than what the wrong bytes led to.
    io::copy(&mut summed, &mut io::sink())?;
    ensure!(summed.sum.to_le_bytes() == sum, "its checksum is wrong");
    state
}

fn check_head(from: &mut impl Read, meta: &Meta) -> anyhow::Result<()> {
    let (mut magic, mut length) = ([0; 8], [0; 4]);
    from.read_exact(&mut magic)?;
    ensure!(&magic == MAGIC, "it is no snapshot of this format");
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    ensure!(length <= MAX_META, "its head is damaged");
    let mut head = vec![0; length as usize];
    from.read_exact(&mut head)?;
    let found: Meta = serde_json::from_slice(&head).context("its head is damaged")?;
    if found != *meta {
        bail!("it is the snapshot {}, not {}", found.snapshot_id, meta.snapshot_id);
    }
    Ok(())
}

/// Sums up what goes through.
struct Summed<T> {
    inner: T,
    sum: u32,
}

impl<T: Write> Write for Summed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.sum = crc32c::crc32c_append(self.sum, &bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Summed<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(bytes)?;
        self.sum = crc32c::crc32c_append(self.sum, &bytes[..n]);
        Ok(n)
    }
}

impl Drop for SnapshotFile {
    fn drop(&mut self) {
        if self.partial {
            // Renamed if it was installed; else nobody needs it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl AsyncRead for SnapshotFile {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Waker<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_read(cx, to)
    }
}

impl AsyncWrite for SnapshotFile {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Waker<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.file).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Waker<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Waker<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_shutdown(cx)
    }
}

impl AsyncSeek for SnapshotFile {
    fn start_seek(mut self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.file).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Waker<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.file).poll_complete(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use levee_meta_state::Command;
    use uuid::Uuid;

    fn state() -> State {
        let mut state = State::default();
        state.apply(&Command::Found { cluster: Uuid::from_u128(7) }).expect("founded");
        state
    }

    fn meta(id: &str) -> Meta {
        Meta { last_log_id: None, last_membership: Default::default(), snapshot_id: id.into() }
    }

    #[test]
    fn what_was_written_is_read_and_every_damage_is_found() {
        let base = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(base.path()).unwrap();
        let partial = snapshots.write(&meta("1-1-5"), &state().freeze()).unwrap();
        std::fs::rename(partial, snapshots.path("1-1-5")).unwrap();
        assert_eq!(snapshots.read(&meta("1-1-5")).unwrap(), state());
        assert!(snapshots.read(&meta("1-1-6")).is_err(), "there is none");
        let path = snapshots.path("1-1-5");
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            std::fs::write(&path, bad).unwrap();
            assert!(snapshots.read(&meta("1-1-5")).is_err(), "byte {at}");
            std::fs::write(&path, &good[..at]).unwrap();
            assert!(snapshots.read(&meta("1-1-5")).is_err(), "{at} bytes");
        }
    }

    /// A snapshot of a state that no other index has.
    fn meta_at(index: u64) -> Meta {
        let last = crate::raft::LogId::new(openraft::CommittedLeaderId::new(1, 1), index);
        Meta { last_log_id: Some(last), ..meta(&format!("1-1-{index}")) }
    }

    async fn build(snapshots: &Snapshots, database: &Database, index: u64) {
        let partial = snapshots.write(&meta_at(index), &state().freeze()).unwrap();
        snapshots.publish(database, partial, &meta_at(index)).await.unwrap();
    }

    #[tokio::test]
    async fn one_that_was_built_too_slowly_does_not_take_the_place_of_what_the_leader_sent() {
        let base = tempfile::tempdir().unwrap();
        let (database, snapshots) = (Database::open(base.path(), 1, 2).unwrap(), Snapshots::open(base.path()).unwrap());
        let slow = snapshots.write(&meta_at(5), &state().freeze()).unwrap();
        build(&snapshots, &database, 9).await;
        snapshots.publish(&database, slow.clone(), &meta_at(5)).await.unwrap();
        let (newest, _) = snapshots.newest(&database).await.unwrap().expect("a snapshot");
        assert_eq!(newest, meta_at(9), "the log before it may be gone already");
        assert_eq!(snapshots.read(&newest).unwrap(), state());
        assert!(!slow.exists() && !snapshots.path("1-1-5").exists());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_looks_for_the_newest_while_others_are_made_finds_one() {
        let base = tempfile::tempdir().unwrap();
        let (database, snapshots) = (Database::open(base.path(), 1, 2).unwrap(), Snapshots::open(base.path()).unwrap());
        build(&snapshots, &database, 1).await;
        let (writer, named) = (database.clone(), snapshots.clone());
        let building = tokio::spawn(async move {
            for index in 2..60 {
                build(&named, &writer, index).await;
            }
        });
        while !building.is_finished() {
            assert!(snapshots.newest(&database).await.unwrap().is_some(), "a leader without one would end");
        }
        building.await.unwrap();
    }

    #[test]
    fn only_the_newest_is_kept() {
        let base = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(base.path()).unwrap();
        let names = || {
            let files = std::fs::read_dir(base.path().join("snapshots")).unwrap();
            let mut names: Vec<_> = files.map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        for id in ["1-1-5", "1-1-9"] {
            let partial = snapshots.write(&meta(id), &state().freeze()).unwrap();
            std::fs::rename(partial, snapshots.path(id)).unwrap();
        }
        std::fs::write(base.path().join("snapshots/7-0.partial"), b"torn").unwrap();
        snapshots.tidy(Some(&meta("1-1-9")), false).unwrap();
        assert_eq!(names(), ["1-1-9.snapshot", "7-0.partial"]);
        snapshots.tidy(Some(&meta("1-1-9")), true).unwrap();
        assert_eq!(names(), ["1-1-9.snapshot"]);
    }
}
