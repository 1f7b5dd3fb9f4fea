//! Wakes an executor that sleeps although it has work.
//!
//! When glommio's preemption timer fires between its look at the rings and its task queues, it runs nothing
//! and goes to sleep without a timer, with tasks that could run. A task with a short timer makes that rare; it cannot make it
//! impossible, since it may be among those tasks. A signal interrupts the sleep.

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{Pid, getpid, gettid};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// An executor that has not beaten for two looks in a row is woken.
const LOOK: Duration = Duration::from_millis(20);
const WAKE: Signal = Signal::SIGUSR1;

/// Counts the turns of one executor's permanent task.
#[derive(Clone, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// The executor runs its tasks.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Watches the calling thread, which runs an executor, until its [`Pulse`] is dropped.
pub fn watch(pulse: &Pulse) -> io::Result<()> {
    install_handler()?;
    let (thread, pulse) = (gettid(), Arc::downgrade(&pulse.0));
    std::thread::Builder::new().name("watchdog".into()).spawn(move || run(thread, &pulse))?;
    Ok(())
}

fn run(thread: Pid, pulse: &Weak<AtomicU64>) {
    let (mut last, mut missed) = (0, 0);
    loop {
        std::thread::sleep(LOOK);
        let Some(beats) = pulse.upgrade().map(|p| p.load(Ordering::Relaxed)) else { return };
        missed = if beats == last { missed + 1 } else { 0 };
        last = beats;
        if missed >= 2 {
            interrupt(thread);
        }
    }
}

fn interrupt(thread: Pid) {
    // SAFETY: the call reads nothing but its numbers. A thread that has ended makes it fail, which is fine.
    unsafe { libc::syscall(libc::SYS_tgkill, getpid().as_raw(), thread.as_raw(), WAKE as i32) };
}

/// A handler that does nothing: without one the signal would end the process, or be dropped without interrupting.
fn install_handler() -> io::Result<()> {
    extern "C" fn nothing(_: i32) {}
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler touches nothing, so it may run at any point of any thread.
    unsafe { sigaction(WAKE, &action)? };
    Ok(())
}
