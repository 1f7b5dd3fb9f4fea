//! Wakes an executor that sleeps although it has work, and ends the process of one that does nothing any more.
//!
//! When glommio's preemption timer fires between its look at the rings and its task queues, it runs nothing
//! and goes to sleep without a timer, with tasks that could run. A task with a short timer makes that rare; it cannot make it
//! impossible, since it may be among those tasks. A signal interrupts the sleep, as it does other system calls that block.
//!
//! An executor that is not even woken by that holds up every volume and replica of its core, for as long as it lasts. The
//! process is ended then: guests' requests stay in flight and come back to the next one, and other daemons go on without.

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{Pid, getpid, gettid};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// An executor that has not beaten for two looks in a row is woken.
const LOOK: Duration = Duration::from_millis(20);
/// A look that comes later than this says nothing about the executor: the machine was busy, or the process stopped.
const LATE: Duration = Duration::from_millis(100);
/// An executor that has not beaten for so many looks in time is given up: ten seconds.
const GIVE_UP: u32 = 500;
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
    let name = std::thread::current().name().unwrap_or("an executor").to_string();
    std::thread::Builder::new().name("watchdog".into()).spawn(move || {
        if run(&pulse, || interrupt(thread)) == Watched::Stuck {
            give_up(&name);
        }
    })?;
    Ok(())
}

/// How a watch has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    Ended,
    Stuck,
}

fn run(pulse: &Weak<AtomicU64>, interrupt: impl Fn()) -> Watched {
    let (mut last, mut missed) = (0, 0);
    loop {
        let looked = Instant::now();
        std::thread::sleep(LOOK);
        let Some(beats) = pulse.upgrade().map(|p| p.load(Ordering::Relaxed)) else { return Watched::Ended };
        let in_time = looked.elapsed() < LATE;
        missed = if beats == last { missed + u32::from(in_time) } else { 0 };
        last = beats;
        if missed >= 2 {
            interrupt();
        }
        if missed >= GIVE_UP {
            return Watched::Stuck;
        }
    }
}

fn give_up(executor: &str) -> ! {
    let time = LOOK * GIVE_UP;
    tracing::error!(
        "{executor} has made no progress for {time:?}: the daemon ends itself; what guests have in flight is served again \
         when it is started, which systemd does by itself"
    );
    // Nothing can be tidied up that the executor may be holding.
    std::process::abort()
}

fn interrupt(thread: Pid) {
    // SAFETY: the call reads nothing but its numbers. A thread that has ended makes it fail, which is fine.
    unsafe { libc::syscall(libc::SYS_tgkill, getpid().as_raw(), thread.as_raw(), WAKE as i32) };
}

/// A handler that does nothing: without one the signal would end the process, or be dropped without interrupting. What it
/// interrupts is not restarted: who was made to wait is to see that.
fn install_handler() -> io::Result<()> {
    extern "C" fn nothing(_: i32) {}
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler touches nothing, so it may run at any point of any thread.
    unsafe { sigaction(WAKE, &action)? };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn an_executor_that_does_nothing_is_interrupted_and_given_up() {
        let (pulse, interrupted) = (Pulse::default(), Cell::new(0));
        let watched = run(&Arc::downgrade(&pulse.0), || interrupted.set(interrupted.get() + 1));
        assert_eq!(watched, Watched::Stuck);
        assert!(interrupted.get() > GIVE_UP - 10);
    }

    #[test]
    fn one_that_is_woken_goes_on() {
        let (pulse, interrupted) = (Pulse::default(), Cell::new(0));
        let watched = std::thread::scope(|scope| {
            let weak = Arc::downgrade(&pulse.0);
            let beating = scope.spawn(move || {
                for _ in 0..200 {
                    std::thread::sleep(LOOK * 3);
                    pulse.beat();
                }
            });
            let watched = run(&weak, || interrupted.set(interrupted.get() + 1));
            beating.join().unwrap();
            watched
        });
        assert_eq!(watched, Watched::Ended);
    }
}
