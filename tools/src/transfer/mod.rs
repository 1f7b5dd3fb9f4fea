//! Moves a whole disk between a file and a volume, through the socket at which the volume is served.
//!
//! The volume is used as a virtual machine uses it, with many large requests in flight; a thread of its own reads or
//! writes the file meanwhile. Nothing of the disk passes through a meta server.
//!
//! All of this blocks. It ends early when its [`Job`] is cancelled, with whatever was done until then.

mod device;
mod drain;
mod fill;
mod part;

pub use drain::drain;
pub use fill::fill;
pub use part::PartFile;

use indicatif::ProgressBar;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One transfer, as seen from outside of it.
#[derive(Clone)]
pub struct Job {
    /// Shows how much of the disk is done, bytes.
    pub bar: ProgressBar,
    /// What is done to what, for the bar.
    pub title: String,
    pub cancelled: Arc<AtomicBool>,
}

impl Job {
    pub fn new(bar: ProgressBar, title: impl Into<String>) -> Job {
        Job { bar, title: title.into(), cancelled: Arc::default() }
    }

    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> anyhow::Result<()> {
        match self.cancelled.load(Ordering::Relaxed) {
            true => anyhow::bail!("interrupted"),
            false => Ok(()),
        }
    }
}

/// What was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes that were not zero, by the pieces that are looked at.
    pub data: u64,
    /// CRC-32C of the whole disk.
    pub checksum: u32,
}
