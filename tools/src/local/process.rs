//! Which process is which daemon, and ending it.
//!
//! A pid alone says nothing: it may have been given to another process since. A daemon is known by
//! its pid, its start time, the machine's boot and its program; a process that differs in any of
//! them is a stranger and is never signalled.

use super::layout::{Layout, write_atomically};
use anyhow::Context;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Fields `num_threads` and `starttime` of `/proc/PID/stat`, counted from the one after the command's name.
const THREADS_FIELD: usize = 17;
const START_TIME_FIELD: usize = 19;
/// What the kernel adds to the path of a program that was replaced while it runs.
const REPLACED: &str = " (deleted)";

/// A process that cannot be mistaken for another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: i32,
    /// Clock ticks since the machine's start.
    start: u64,
    /// The machine's boot.
    boot: String,
    exe: PathBuf,
}

/// What `/proc` shows of a pid.
enum Seen {
    /// No process, or one that somebody else runs.
    Nothing,
    /// A process on its way out: it has no program any more, but may still hold sockets and files.
    Ending {
        start: u64,
    },
    Running(Identity),
}

impl Identity {
    /// The process that has `pid` now; `None` if there is none, it has ended, or it belongs to somebody else.
    pub fn of(pid: i32) -> io::Result<Option<Identity>> {
        Ok(match look(pid)? {
            Seen::Running(identity) => Some(identity),
            Seen::Ending { .. } | Seen::Nothing => None,
        })
    }

    /// Whether this very process still runs, or has not yet let go of all that it held.
    pub fn is_running(&self) -> io::Result<bool> {
        if self.pid <= 1 {
            return Ok(false);
        }
        Ok(match look(self.pid)? {
            Seen::Nothing => false,
            Seen::Ending { start } => start == self.start && boot_id()? == self.boot,
            Seen::Running(identity) => identity == *self,
        })
    }

    /// Whether this very process is on its way out: it will not serve again, but still holds what it had.
    pub fn is_ending(&self) -> io::Result<bool> {
        Ok(match look(self.pid)? {
            Seen::Ending { start } => start == self.start && boot_id()? == self.boot,
            Seen::Nothing | Seen::Running(_) => false,
        })
    }

    /// Signals the process if it still runs; tells whether it did.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        if !self.is_running()? {
            return Ok(false);
        }
        match nix::sys::signal::kill(Pid::from_raw(self.pid), signal) {
            Ok(()) => Ok(true),
            Err(nix::errno::Errno::ESRCH) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

fn look(pid: i32) -> io::Result<Seen> {
    let stat = match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(e) if is_gone(&e) => return Ok(Seen::Nothing),
        Err(e) => return Err(e),
    };
    let Some(Stat { state, threads, start }) = parse_stat(&stat) else {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("/proc/{pid}/stat is not understood")));
    };
    if matches!(state, 'Z' | 'X') {
        // A zombie has ended, only its parent has not looked yet; unless other threads are still at it.
        return Ok(if threads <= 1 { Seen::Nothing } else { Seen::Ending { start } });
    }
    let exe = match std::fs::read_link(format!("/proc/{pid}/exe")) {
        Ok(exe) => exe,
        // Its memory is gone; sockets and files are closed after that.
        Err(e) if is_gone(&e) => return Ok(Seen::Ending { start }),
        Err(e) if e.kind() == ErrorKind::PermissionDenied => return Ok(Seen::Nothing),
        Err(e) => return Err(e),
    };
    let exe = match exe.to_str().and_then(|text| text.strip_suffix(REPLACED)) {
        Some(path) => PathBuf::from(path),
        None => exe,
    };
    Ok(Seen::Running(Identity { pid, start, boot: boot_id()?, exe }))
}

fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_string())
}

/// A process that ends between two looks reads as ENOENT or ESRCH.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32)
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    threads: u32,
    start: u64,
}

/// The command's name stands in parentheses and may contain anything, so fields are counted after
/// the last one.
fn parse_stat(stat: &str) -> Option<Stat> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        threads: fields.get(THREADS_FIELD)?.parse().ok()?,
        start: fields.get(START_TIME_FIELD)?.parse().ok()?,
    })
}

/// The file that remembers a daemon's process. It stays when the daemon dies and goes when the
/// daemon is stopped: that is how the two are told apart.
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    pub fn of(layout: &Layout, daemon: &str) -> PidFile {
        PidFile { path: layout.pids().join(format!("{daemon}.json")) }
    }

    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    pub fn store(&self, identity: &Identity) -> anyhow::Result<()> {
        write_atomically(&self.path, &serde_json::to_vec(identity)?)
            .with_context(|| format!("cannot write {}", show(&self.path)))
    }

    /// The daemon's process, if it runs.
    pub fn running(&self) -> anyhow::Result<Option<Identity>> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", show(&self.path))),
        };
        let identity: Identity = serde_json::from_slice(&text).with_context(|| {
            format!("{} is damaged: make sure that the daemon does not run, then delete it", show(&self.path))
        })?;
        Ok(identity.is_running()?.then_some(identity))
    }

    pub fn remove(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(e).with_context(|| format!("cannot delete {}", show(&self.path)))
            }
            _ => Ok(()),
        }
    }
}

fn show(path: &Path) -> std::path::Display<'_> {
    path.display()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    struct Sleeper(Child);

    impl Sleeper {
        fn start() -> Sleeper {
            Sleeper(Command::new("sleep").arg("1000").spawn().unwrap())
        }

        fn identity(&self) -> Identity {
            Identity::of(self.0.id() as i32).unwrap().unwrap()
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn stat_is_read_whatever_the_name() {
        let tail = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
        assert_eq!(parse_stat(&format!("12 (a b) S {tail}")), Some(Stat { state: 'S', threads: 17, start: 4711 }));
        assert_eq!(parse_stat(&format!("12 (a) Z 9 9) R {tail}")), Some(Stat { state: 'R', threads: 17, start: 4711 }));
        assert_eq!(parse_stat("12 (a) R 1 2"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn a_stranger_is_never_signalled() {
        let mut sleeper = Sleeper::start();
        let real = sleeper.identity();
        assert!(real.is_running().unwrap());
        let strangers = [
            Identity { start: real.start + 1, ..real.clone() },
            Identity { exe: "/bin/other".into(), ..real.clone() },
            Identity { boot: "another".into(), ..real.clone() },
        ];
        for stranger in strangers {
            assert!(!stranger.signal(Signal::SIGKILL).unwrap());
        }
        assert!(sleeper.0.try_wait().unwrap().is_none());
        assert!(real.signal(Signal::SIGKILL).unwrap());
    }

    #[test]
    fn a_zombie_does_not_run() {
        let mut sleeper = Sleeper::start();
        let identity = sleeper.identity();
        sleeper.0.kill().unwrap();
        // Not waited for: the process stays as a zombie once it has died.
        while identity.is_running().unwrap() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(!identity.signal(Signal::SIGTERM).unwrap());
    }

    #[test]
    fn pid_files_remember_and_forget() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::at(dir.path()).unwrap();
        std::fs::create_dir(layout.pids()).unwrap();
        let file = PidFile::of(&layout, "node-1");
        assert_eq!(file.running().unwrap(), None);
        let sleeper = Sleeper::start();
        let real = sleeper.identity();
        file.store(&real).unwrap();
        assert_eq!(file.running().unwrap(), Some(real.clone()));
        file.store(&Identity { start: real.start + 1, ..real }).unwrap();
        assert_eq!(file.running().unwrap(), None);
        file.remove().unwrap();
        file.remove().unwrap();
        assert!(!file.exists());
    }
}
