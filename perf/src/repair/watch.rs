//! One repair, from the decision to the last copy.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::scene::{Health, Scene};
use crate::process::{Daemon, DiskTraffic, disk_traffic};

/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// How long a repair may take.
const LIMIT: Duration = Duration::from_secs(1800);
/// A daemon counts as read from when it read at least this part of what was copied.
const READ_PART: f64 = 0.02;

/// What a repair took.
#[derive(Clone, Debug, Serialize)]
pub struct Repair {
    /// Seconds from the decision to the first changed replica set, to the first byte copied, and until all copies were there.
    pub change_s: f64,
    pub copy_s: f64,
    pub whole_s: f64,
    pub copied_bytes: u64,
    /// Bytes that all daemons' disks read and wrote meanwhile, guests' included.
    pub read_bytes: u64,
    pub written_bytes: u64,
    /// Daemons that were read from, and written to.
    pub sources: usize,
    pub targets: usize,
}

impl Repair {
    /// Bytes per second from the decision on.
    pub fn rate(&self) -> f64 {
        self.copied_bytes as f64 / self.whole_s
    }

    /// Bytes per second from the first changed replica set on.
    pub fn copy_rate(&self) -> f64 {
        self.copied_bytes as f64 / (self.whole_s - self.change_s)
    }
}

/// Gives a disk up, and waits until every chunk has its copies again.
pub fn repair(scene: &Scene) -> Result<Repair> {
    let daemons: Vec<Daemon> = scene.cluster.daemons()?.into_iter().filter(Daemon::is_storage).collect();
    let traffic = || daemons.iter().map(|d| disk_traffic(d.pid)).collect::<Result<Vec<_>>>();
    let (placed, before, traffic_before) = (scene.placed()?, scene.health()?, traffic()?);
    ensure!(placed > 0, "nothing is on the disk that is to be given up");
    scene.cluster.fail_disk(scene.victim)?;
    let mut clock = Clock { begun: Instant::now(), change: None, copy: None };
    let after = loop {
        if clock.change.is_none() && scene.placed()? < placed {
            clock.change = Some(clock.begun.elapsed());
        }
        let health = scene.health()?;
        if clock.note(&health, &before) {
            break health;
        }
        ensure!(clock.begun.elapsed() < LIMIT, "the repair takes longer than {} s: {health:?}", LIMIT.as_secs());
        std::thread::sleep(LOOK_PAUSE);
    };
    let whole = clock.begun.elapsed();
    let did: Vec<DiskTraffic> = traffic()?.iter().zip(&traffic_before).map(|(now, then)| since(now, then)).collect();
    let copied = after.copied - before.copied;
    ensure!(copied > 0, "the volume is whole again, but nothing was copied: {after:?}");
    scene.say(&format!("whole after {:.1} s", whole.as_secs_f64()));
    let at_least = (copied as f64 * READ_PART) as u64;
    Ok(Repair {
        change_s: clock.change.unwrap_or(whole).as_secs_f64(),
        copy_s: clock.copy.unwrap_or(whole).as_secs_f64(),
        whole_s: whole.as_secs_f64(),
        copied_bytes: copied,
        read_bytes: did.iter().map(|d| d.read).sum(),
        written_bytes: did.iter().map(|d| d.written).sum(),
        sources: did.iter().filter(|d| d.read >= at_least).count(),
        targets: did.iter().filter(|d| d.written >= at_least).count(),
    })
}

fn since(now: &DiskTraffic, then: &DiskTraffic) -> DiskTraffic {
    DiskTraffic { read: now.read.saturating_sub(then.read), written: now.written.saturating_sub(then.written) }
}

/// When what happened.
struct Clock {
    begun: Instant,
    change: Option<Duration>,
    copy: Option<Duration>,
}

impl Clock {
    /// Whether it is over. Before the first change the volume is whole, too.
    fn note(&mut self, now: &Health, before: &Health) -> bool {
        if self.copy.is_none() && now.copied > before.copied {
            self.copy = Some(self.begun.elapsed());
        }
        self.change.is_some() && self.copy.is_some() && now.is_whole()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repair_is_over_when_it_has_begun_and_all_is_whole() {
        let mut clock = Clock { begun: Instant::now(), change: None, copy: None };
        let health = |copied, degraded| Health { healthy: 3, degraded, leaving: 0, copied };
        let before = health(5, 0);
        assert!(!clock.note(&before, &before), "not begun");
        assert!(!clock.note(&health(6, 0), &before), "no change seen");
        clock.change = Some(Duration::from_millis(1));
        assert!(!clock.note(&health(6, 1), &before), "a chunk lacks a copy");
        assert!(clock.note(&health(7, 0), &before));
    }

    #[test]
    fn rates_are_from_the_decision_and_from_the_first_change() {
        let repair = Repair {
            change_s: 1.0,
            copy_s: 1.5,
            whole_s: 5.0,
            copied_bytes: 1000,
            read_bytes: 0,
            written_bytes: 0,
            sources: 3,
            targets: 2,
        };
        assert_eq!((repair.rate(), repair.copy_rate()), (200.0, 250.0));
    }
}
