//! Daemons seen from outside: who they are, what processor time they used, and ending them.
//!
//! A daemon belongs to a cluster when its command line names a folder inside of the cluster's own, so
//! nothing else is ever signalled, whatever pid files may say.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// How long a killed process may take to die, and the pause between two looks.
const DEATH_LIMIT: Duration = Duration::from_secs(15);
const DEATH_PAUSE: Duration = Duration::from_millis(1);

/// A running daemon of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Daemon {
    /// Name of its folder: `node-1`, `meta-1`.
    pub name: String,
    /// `levee-stored` or `levee-metad`.
    pub program: String,
    pub pid: i32,
}

impl Daemon {
    pub fn is_storage(&self) -> bool {
        self.program == "levee-stored"
    }

    /// Ends the daemon without warning. That it is gone already is no error.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::SIGKILL)
    }

    /// Ends the daemon and waits until it can do nothing any more.
    pub fn kill_and_wait(&self) -> Result<()> {
        self.kill()?;
        let begun = Instant::now();
        // What is left of a dead process has no command line.
        while std::fs::read(format!("/proc/{}/cmdline", self.pid)).is_ok_and(|line| !line.is_empty()) {
            ensure!(begun.elapsed() < DEATH_LIMIT, "{} (process {}) does not die", self.name, self.pid);
            std::thread::sleep(DEATH_PAUSE);
        }
        Ok(())
    }

    /// Halts the daemon until [`Daemon::resume`].
    pub fn halt(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(e) => Err(e).with_context(|| format!("cannot send {signal} to {} (process {})", self.name, self.pid)),
        }
    }
}

/// The daemons whose folder lies in `cluster`, an absolute path without links, in order of name.
pub fn daemons_of(cluster: &Path) -> Result<Vec<Daemon>> {
    let mut daemons = Vec::new();
    for entry in std::fs::read_dir("/proc").context("cannot list processes")? {
        let Some(pid) = entry.ok().and_then(|e| e.file_name().to_str()?.parse().ok()) else { continue };
        // A process that ended meanwhile has no command line any more.
        let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { continue };
        if let Some((program, name)) = parse_command_line(&line, cluster) {
            daemons.push(Daemon { name, program, pid });
        }
    }
    daemons.sort();
    Ok(daemons)
}

fn parse_command_line(line: &[u8], cluster: &Path) -> Option<(String, String)> {
    let arguments: Vec<&str> = line.split(|b| *b == 0).map(std::str::from_utf8).collect::<Result<_, _>>().ok()?;
    let program = Path::new(arguments.first()?).file_name()?.to_str()?;
    if program != "levee-stored" && program != "levee-metad" {
        return None;
    }
    let at = arguments.iter().position(|a| *a == "--dir")?;
    let folder = PathBuf::from(arguments.get(at + 1)?);
    let name = folder.strip_prefix(cluster).ok()?.to_str()?;
    (!name.is_empty()).then(|| (program.to_string(), name.to_string()))
}

/// User and system time that a process has used, all of its threads together.
pub fn cpu_time(pid: i32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let ticks = parse_cpu_ticks(&stat).with_context(|| format!("{path} is not understood"))?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("the system does not tell its clock tick")?;
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// Fields 14 and 15 of `/proc/PID/stat`; the name before them may contain anything.
fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Processor time of several processes together.
pub fn cpu_time_of(pids: &[i32]) -> Result<Duration> {
    pids.iter().map(|pid| cpu_time(*pid)).sum()
}

/// Bytes that a process has had disks read and write, all of its threads together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskTraffic {
    pub read: u64,
    pub written: u64,
}

pub fn disk_traffic(pid: i32) -> Result<DiskTraffic> {
    let path = format!("/proc/{pid}/io");
    let io = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse_disk_traffic(&io).with_context(|| format!("{path} is not understood"))
}

fn parse_disk_traffic(io: &str) -> Option<DiskTraffic> {
    let field = |name: &str| io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Some(DiskTraffic { read: field("read_bytes:")?, written: field("write_bytes:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_daemons_of_the_cluster_are_recognised() {
        let cluster = Path::new("/srv/c");
        let stored = b"/usr/bin/levee-stored\0run\0--name\0node-1\0--dir\0/srv/c/node-1\0--disk\0/srv/c/node-1/disk\0";
        assert_eq!(parse_command_line(stored, cluster), Some(("levee-stored".into(), "node-1".into())));
        for other in [
            &b"/usr/bin/levee-stored\0run\0--dir\0/srv/cc/node-1\0"[..],
            b"/usr/bin/levee-stored\0run\0--dir\0/srv/c\0",
            b"/usr/bin/levee-stored\0run\0--dir\0",
            b"vi\0--dir\0/srv/c/node-1\0",
            b"",
        ] {
            assert_eq!(parse_command_line(other, cluster), None);
        }
    }

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "12 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 70 30 0 0 20 0 5";
        assert_eq!(parse_cpu_ticks(stat), Some(100));
        assert_eq!(parse_cpu_ticks("12 (a) S 1"), None);
        assert!(cpu_time(std::process::id() as i32).is_ok());
    }

    #[test]
    fn disk_traffic_is_found_among_the_other_counters() {
        let io = "rchar: 1\nwchar: 2\nread_bytes: 8192\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n";
        assert_eq!(parse_disk_traffic(io), Some(DiskTraffic { read: 8192, written: 4096 }));
        assert_eq!(parse_disk_traffic("rchar: 1\n"), None);
        assert!(disk_traffic(std::process::id() as i32).is_ok());
    }
}
