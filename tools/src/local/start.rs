//! Starting daemons and waiting until they are of use. What does not become ready is stopped again,
//! so that a failed start leaves nothing running.

use super::layout::{ClusterFile, Layout};
use super::plan::{Daemon, Role};
use super::process::{Identity, PidFile};
use super::spawn;
use crate::client::{AdminClient, MetaClient};
use crate::limits::*;
use anyhow::Context;
use indicatif::ProgressBar;
use levee_proto::api::NodeState;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Seek, SeekFrom};
use std::process::Child;
use std::time::{Duration, Instant};

/// A daemon that this process started: its child until it is waited for, so the pid is surely its.
pub struct Started {
    pub daemon: Daemon,
    pub child: Child,
    /// Where the log stood when it started, bytes.
    log_start: u64,
}

/// The daemons of one start.
pub struct Start {
    layout: Layout,
    pub started: Vec<Started>,
}

impl Start {
    pub fn new(layout: &Layout) -> Start {
        Start { layout: layout.clone(), started: Vec::new() }
    }

    pub fn launch(&mut self, daemon: Daemon) -> anyhow::Result<()> {
        let log = self.layout.log(&daemon.name);
        let log_start = std::fs::metadata(&log).map_or(0, |meta| meta.len());
        let child = spawn::detached(&daemon.program, &daemon.args, &log, daemon.place.namespace_file().as_deref())
            .with_context(|| format!("cannot start {} for {}", daemon.program.display(), daemon.name))?;
        self.started.push(Started { daemon, child, log_start });
        self.remember(self.started.len() - 1)
    }

    /// Notes which process the daemon is. One that has ended by now is noticed by [`Start::check`].
    fn remember(&self, index: usize) -> anyhow::Result<()> {
        let Started { daemon, child, .. } = &self.started[index];
        let identity = Identity::of(child.id() as i32).with_context(|| format!("cannot identify {}", daemon.name))?;
        match identity {
            Some(identity) => PidFile::of(&self.layout, &daemon.name).store(&identity),
            None => Ok(()),
        }
    }

    /// Waits until everything that was started is ready.
    pub async fn wait(&mut self, file: &ClusterFile, timeout: Duration, bar: &ProgressBar) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            self.check()?;
            let Some((name, reason)) = self.not_ready(file).await else { break };
            if begun.elapsed() >= timeout {
                let log = self.layout.log(&name);
                anyhow::bail!(
                    "{name} was not ready within {} s: {reason}; its log is {}",
                    timeout.as_secs(),
                    log.display()
                );
            }
            bar.set_message(format!("{name}: {reason}"));
            tokio::time::sleep(POLL_PAUSE).await;
        }
        // A script that stood in for a program has made way for it by now.
        (0..self.started.len()).try_for_each(|index| self.remember(index))
    }

    /// Fails if a daemon has ended.
    fn check(&mut self) -> anyhow::Result<()> {
        for started in &mut self.started {
            let name = &started.daemon.name;
            let Some(status) = started.child.try_wait()? else { continue };
            let log = self.layout.log(name);
            let said = last_line(&log, started.log_start).unwrap_or_else(|| "it said nothing".into());
            anyhow::bail!("{name} stopped at its start ({status}): {said}; its log is {}", log.display());
        }
        Ok(())
    }

    /// The first daemon that is not ready yet, and why.
    async fn not_ready(&self, file: &ClusterFile) -> Option<(String, String)> {
        for started in &self.started {
            let reason = match &started.daemon.role {
                Role::Meta { id, url } => meta_not_ready(*id, url).await,
                Role::Node { admin } => node_not_ready(&started.daemon.name, admin, file).await,
            };
            if let Some(reason) = reason {
                return Some((started.daemon.name.clone(), reason));
            }
        }
        None
    }

    /// Stops what was started. Used when the start as a whole has failed.
    pub async fn abandon(&mut self) {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            for started in &mut self.started {
                if matches!(started.child.try_wait(), Ok(None)) {
                    // Not waited for yet, so the pid is still this child's. It may have ended: nothing to do then.
                    let _ = kill(Pid::from_raw(started.child.id() as i32), signal);
                }
            }
            let begun = Instant::now();
            while begun.elapsed() < KILL_TIMEOUT && !self.all_ended() {
                tokio::time::sleep(POLL_PAUSE).await;
            }
        }
        for started in &self.started {
            // Worth nothing without its process; the next start overwrites it.
            let _ = PidFile::of(&self.layout, &started.daemon.name).remove();
        }
    }

    fn all_ended(&mut self) -> bool {
        self.started.iter_mut().all(|started| !matches!(started.child.try_wait(), Ok(None)))
    }
}

async fn meta_not_ready(id: u64, url: &str) -> Option<String> {
    match MetaClient::new(vec![url.into()], "it is being started".into()).cluster().await {
        Ok(cluster) if cluster.member != id => Some(format!("{url} is answered by meta server {}", cluster.member)),
        Ok(cluster) if cluster.leader.is_none() => Some("the meta servers have no leader".into()),
        Ok(_) => None,
        Err(e) => Some(e.to_string()),
    }
}

async fn node_not_ready(name: &str, admin: &str, file: &ClusterFile) -> Option<String> {
    match AdminClient::new(admin).status().await {
        Ok(status) if status.name != name => return Some(format!("{admin} is answered by {}", status.name)),
        Ok(status) if status.node.is_none() => return Some("it has not registered with the meta server".into()),
        Ok(_) => {}
        Err(e) => return Some(e.to_string()),
    }
    match MetaClient::new(file.meta_urls(), "it is being started".into()).nodes().await {
        Ok(nodes) if nodes.iter().any(|node| node.name == name && node.state == NodeState::Up) => None,
        Ok(_) => Some("the meta server does not hear of it".into()),
        Err(e) => Some(e.to_string()),
    }
}

/// The last thing that a log says after position `start`.
fn last_line(log: &std::path::Path, start: u64) -> Option<String> {
    let mut file = std::fs::File::open(log).ok()?;
    let end = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(start.max(end.saturating_sub(LOG_TAIL)))).ok()?;
    let mut tail = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut tail).ok()?;
    let text = String::from_utf8_lossy(&tail);
    text.lines().rev().find(|line| !line.trim().is_empty()).map(|line| line.trim().to_string())
}
