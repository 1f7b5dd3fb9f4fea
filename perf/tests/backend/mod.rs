//! A vhost-user-blk daemon on a thread, for testing the front end and the checks: its disk is memory, it
//! tracks what is in flight, completes requests out of order, "crashes" on demand, and can be told to be
//! wrong in one particular way.

mod channel;
mod queue;

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use channel::Connection;

/// What the daemon does wrong, now and then from the write of that number on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Acknowledges a write that it does not do.
    LoseWrite(u64),
    /// Writes to the unit beside the right one.
    MisplaceWrite(u64),
    /// Flips a bit of what it writes.
    CorruptWrite(u64),
    FailWrite(u64),
    /// Completes a request that is not in flight.
    CompleteStranger(u64),
    /// Forgets after a crash what was in flight.
    ForgetInflight,
}

/// What outlives a crash, and the knobs.
pub struct Shared {
    pub disk: Mutex<Vec<u8>>,
    pub fault: Fault,
    /// Crash after so many completions of one connection; 0 is never.
    pub crash_after: u64,
    writes: AtomicU64,
    pub crashes: AtomicU64,
    stop: AtomicBool,
}

/// The daemon, restarted by itself after each crash until dropped.
pub struct Backend {
    pub socket: PathBuf,
    pub shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    pub fn start(dir: &Path, size: usize, fault: Fault, crash_after: u64) -> Backend {
        let socket = dir.join("backend.sock");
        let shared = Arc::new(Shared {
            disk: Mutex::new(vec![0; size]),
            fault,
            crash_after,
            writes: AtomicU64::new(0),
            crashes: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let listener = UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let theirs = shared.clone();
        let thread = std::thread::spawn(move || accept(&listener, &theirs));
        Backend { socket, shared, thread: Some(thread) }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.take().is_some_and(|thread| thread.join().is_ok());
        assert!(ended || std::thread::panicking(), "the test daemon panicked");
    }
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn next_write(&self) -> u64 {
        self.writes.fetch_add(1, Ordering::SeqCst)
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    while !shared.stopped() {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                Connection::new(stream, shared.clone()).serve();
            }
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}
