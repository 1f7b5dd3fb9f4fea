//! A medium that fails to keep what was written, and what a start makes of it.

use super::*;
use levee_meta_state::LEVEL;
use redb::StorageBackend;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// A file as the system shows it, and what of it is on the medium. A failed sync is told once; what it was about can be read
/// as before, and is never written.
#[derive(Clone, Debug, Default)]
struct Medium {
    shown: Arc<Mutex<Vec<u8>>>,
    kept: Arc<Mutex<Vec<u8>>>,
    fails: Arc<AtomicBool>,
}

impl StorageBackend for Medium {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.shown.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let at = offset as usize;
        out.copy_from_slice(&self.shown.lock().unwrap()[at..at + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.shown.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(io::Error::other("the medium does not take it"));
        }
        let shown = self.shown.lock().unwrap().clone();
        *self.kept.lock().unwrap() = shown;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let at = offset as usize;
        self.shown.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn create(medium: &Medium) -> redb::Database {
    redb::Database::builder().create_with_backend(medium.clone()).expect("a database")
}

fn save_vote(file: &redb::Database, term: u64) -> Result<(), redb::Error> {
    commit(file, |tx| put(tx, VOTE, &Vote::<u64>::new(term, 1)))
}

/// The vote in a file with this content.
fn vote_in(content: &[u8]) -> Option<Vote<u64>> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(NAME), content).unwrap();
    let file = open_file(dir.path()).unwrap();
    let table = file.begin_read().unwrap().open_table(META).unwrap();
    table.get(VOTE).unwrap().map(|bytes| serde_json::from_slice(bytes.value()).unwrap())
}

#[test]
fn after_a_write_that_did_not_last_nothing_is_written_and_what_is_read_may_not_last() {
    let medium = Medium::default();
    let file = create(&medium);
    save_vote(&file, 1).expect("a vote");
    medium.fails.store(true, Ordering::Relaxed);
    save_vote(&file, 2).expect_err("it does not last");
    medium.fails.store(false, Ordering::Relaxed);
    save_vote(&file, 3).expect_err("nothing is trusted after that: openraft hears of it, and the member ends");
    drop(file);
    let (shown, kept) = (medium.shown.lock().unwrap().clone(), medium.kept.lock().unwrap().clone());
    assert_eq!(vote_in(&kept).map(|vote| vote.leader_id.term), Some(1));
    // Why a start writes anew what it reads: this vote would be answered for, and gone after a loss of power.
    assert!(shown != kept && vote_in(&shown).is_some());
}

#[test]
fn a_start_trusts_only_what_it_has_written_itself() {
    let dir = tempfile::tempdir().unwrap();
    let first = Database::open(dir.path(), 1, LEVEL).expect("new");
    save_vote(&first.file, 7).expect("a vote");
    let folder = first.folder();
    drop(first);
    let path = dir.path().join(NAME);
    let before = std::fs::metadata(&path).unwrap().ino();
    let again = Database::open(dir.path(), 1, LEVEL).expect("as it was");
    assert_ne!(std::fs::metadata(&path).unwrap().ino(), before, "the file was written anew");
    assert_eq!(again.get::<Vote<u64>>(VOTE).unwrap(), Some(Vote::new(7, 1)));
    assert_eq!(again.folder(), folder);
}

#[test]
fn a_term_without_room_is_told_at_the_start_and_one_that_goes_on_alone_has_room() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::open(dir.path(), 1, LEVEL).expect("new");
    let id = LogId::new(CommittedLeaderId::new(4, 1), 0);
    let entry = Entry { log_id: id, payload: EntryPayload::Blank };
    let row = serde_json::to_vec(&entry).unwrap();
    let poison = Vote::<u64>::new_committed(u64::MAX, 7);
    commit(&database.file, |tx| {
        put(tx, VOTE, &poison)?;
        tx.open_table(LOG)?.insert(0, row.as_slice())?;
        Ok(())
    })
    .expect("what earlier versions took");
    let told = database.check_term().expect_err("no election is possible").to_string();
    assert!(told.contains("levee meta replace") && told.contains("recover"), "{told}");
    let batch = Batch { level: LEVEL, at_ms: 0, commands: vec![] };
    database.begin_alone(1, "http://127.0.0.1:1", batch).expect("alone");
    database.check_term().expect("there is room");
    assert_eq!(database.last_entry().unwrap().expect("the batch").log_id.leader_id.term, 5);
}
