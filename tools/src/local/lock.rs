//! One command at a time changes the folder of an embedded cluster.

use super::layout::Layout;
use crate::client::wait_for;
use crate::limits::LOCK_TIMEOUT;
use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::path::Path;

/// Held while daemons are started or stopped. The kernel gives it up with the process.
pub struct Lock(#[allow(dead_code)] Flock<File>);

impl Lock {
    /// Waits for its turn, for a bounded time.
    pub async fn take(layout: &Layout) -> anyhow::Result<Lock> {
        let path = layout.pids().join("lock");
        let lock = wait_for(LOCK_TIMEOUT, async || try_lock(&path)).await?;
        lock.map(Lock).ok_or_else(|| {
            let root = layout.root.display();
            anyhow::anyhow!("another `levee up` or `levee down` is at work in {root}: try again when it is done")
        })
    }
}

fn try_lock(path: &Path) -> anyhow::Result<Option<Flock<File>>> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, e)) => Err(e).with_context(|| format!("cannot lock {}", path.display())),
    }
}
