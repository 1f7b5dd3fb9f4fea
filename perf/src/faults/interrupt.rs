//! Ctrl-C and SIGTERM end a run in good order: what was started is stopped, what was mounted unmounted.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use libc::{SIGINT, SIGTERM, c_int, c_void, siginfo_t};
use vmm_sys_util::signal::register_signal_handler;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_: c_int, _: *mut siginfo_t, _: *mut c_void) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// From now on these signals are noted instead of ending the process.
pub fn install() -> Result<()> {
    for signal in [SIGINT, SIGTERM] {
        register_signal_handler(signal, note).context("cannot watch for signals")?;
    }
    Ok(())
}

/// An error once a signal has arrived.
pub fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted")
    }
    Ok(())
}
