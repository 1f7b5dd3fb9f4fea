//! What the tests share: a device served on an executor of its own, and two kinds of front end.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod driver;
pub mod front;
pub mod held;
pub mod ram;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};
use levee_vhost::{BlockDevice, ServerConfig, serve};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tempfile::TempDir;

/// Longer than any step takes on the slowest machine: reaching it means that something hangs.
const HANG: u16 = 60_000;

/// An executor whose preempt timer fires before its first task ran sleeps for ever: on a busy machine a short timer
/// does. Nothing in the tests has to be preempted.
const PREEMPT_TIMER: Duration = Duration::from_secs(60);

/// A device served by an executor on a thread of its own.
pub struct Served {
    executor: Option<JoinHandle<()>>,
    /// An order tells that the disk has another size; the end of orders is the end of the service.
    orders: async_channel::Sender<()>,
    config: ServerConfig,
    _dir: TempDir,
}

impl Served {
    pub fn start<D: BlockDevice>(disk: impl FnOnce() -> D + Send + 'static) -> Self {
        Self::start_with(disk, |_| {})
    }

    pub fn start_with<D: BlockDevice>(
        disk: impl FnOnce() -> D + Send + 'static,
        configure: impl FnOnce(&mut ServerConfig),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = ServerConfig::new(dir.path().join("disk.sock"));
        configure(&mut config);
        let (orders, received) = async_channel::bounded(1);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let serving = config.clone();
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .preempt_timer(PREEMPT_TIMER)
            .spawn(move || async move {
                glommio::spawn_local(tick()).detach();
                let server = serve(Rc::new(disk()), serving).await.unwrap();
                ready.send(()).unwrap();
                while received.recv().await.is_ok() {
                    server.resized();
                }
                server.stop().await;
            })
            .unwrap();
        is_ready.recv().unwrap();
        let executor = std::thread::spawn(move || executor.join().map(|_| ()).unwrap());
        Served { executor: Some(executor), orders, config, _dir: dir }
    }

    pub fn socket(&self) -> &Path {
        &self.config.socket
    }

    /// Has the device told that its disk has another size.
    pub fn resized(&self) {
        self.orders.send_blocking(()).unwrap();
    }

    /// Ends the service and checks that nothing is left of it.
    pub fn stop(mut self) {
        self.orders.close();
        self.executor.take().unwrap().join().unwrap();
        assert!(!PathBuf::from(self.socket()).exists(), "the socket file is still there");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.orders.close();
    }
}

/// Without it an executor may sleep while tasks are ready.
async fn tick() {
    loop {
        glommio::timer::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until `fd` can be read.
pub fn wait_readable(fd: BorrowedFd<'_>) {
    let mut events = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut events, PollTimeout::from(HANG)).unwrap();
    assert!(ready > 0, "the device does not answer");
}

/// Waits until `done`, which no descriptor tells.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let since = std::time::Instant::now();
    while !done() {
        assert!(since.elapsed() < Duration::from_millis(HANG.into()), "{what}: did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}
