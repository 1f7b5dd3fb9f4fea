//! Names that lead to something else than before: paths of disks, and nodes' names.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::{Done, GLANCE, Injector, last, node_name};
use crate::cluster::beside_this_program;
use crate::faults::health;
use crate::faults::interrupt;
use crate::faults::schedule::Who;

/// The disks whose names are exchanged: no file system lies over them.
pub const SWAPPED: [&str; 2] = ["disk-2.img", "disk-3.img"];
/// How long a node may take to be up, and a second daemon to be refused.
const LIMIT: Duration = Duration::from_secs(60);
/// Exit status of a daemon that is not the node that it says it is.
const NOT_THE_NODE: i32 = 3;
/// How long the real daemon is watched afterwards: it would hear within this that it was replaced.
const AFTERWARDS: Duration = Duration::from_secs(2);

impl Injector<'_> {
    pub(super) fn swap_disks(&self, node: usize) -> Result<Done> {
        let name = node_name(node);
        let [one, other] = SWAPPED.map(|disk| self.cluster.dir().join(&name).join(disk));
        self.kill_and(&self.find(Who::Node(node), None)?, || {
            renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE)
                .with_context(|| format!("cannot exchange {} and {}", one.display(), other.display()))
        })?;
        let done = Done::new("disk names swapped", vec![name], "while it was down".into());
        Ok(Done { down: Some(Duration::ZERO), ..done })
    }

    pub(super) fn second_daemon(&self, node: usize) -> Result<Done> {
        let name = node_name(node);
        health::wait_until_up(self.cluster, &name, LIMIT)?;
        // Not within the cluster's folder: it is none of its daemons.
        let dir = self.cluster.dir().with_file_name("second-daemon");
        let begun = Instant::now();
        let output = self.start_second(&name, &dir)?;
        let said = String::from_utf8_lossy(&output.stderr);
        let killed = output.status.signal().map(|signal| format!(" (signal {signal})")).unwrap_or_default();
        ensure!(
            output.status.code() == Some(NOT_THE_NODE) && said.contains("is alive"),
            "a second daemon named {name} was not refused as it should be: {}{killed}: {said}",
            output.status
        );
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot delete {}", dir.display()))?;
        let after = begun.elapsed();
        last(AFTERWARDS);
        let detail = format!("refused after {} ms", after.as_millis());
        // It strikes nobody: the real daemon must not notice.
        Ok(Done { what: format!("second daemon: of {name}, {detail}"), ..Done::new("second daemon", vec![], detail) })
    }

    /// Starts a daemon with the node's name, and nothing else of it; what it said when it has ended.
    fn start_second(&self, name: &str, dir: &Path) -> Result<Output> {
        let program = beside_this_program("levee-stored")?;
        let mut command = Command::new(&program);
        command.args(["run", "--name", name, "--admin", "127.0.0.1:0", "--data", "127.0.0.1:0"]);
        command.args(["--meta", &self.cluster.meta_urls()?.join(",")]);
        command.arg("--dir").arg(dir.join("state")).arg("--sockets").arg(dir.join("run"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        end_of(child)
    }
}

/// Waits until a process ends; one that does not is killed.
fn end_of(mut child: Child) -> Result<Output> {
    let begun = Instant::now();
    while child.try_wait()?.is_none() {
        if begun.elapsed() > LIMIT || interrupt::check().is_err() {
            child.kill()?;
            let output = child.wait_with_output()?;
            bail!("a second daemon was not refused: {}", String::from_utf8_lossy(&output.stderr));
        }
        std::thread::sleep(GLANCE);
    }
    Ok(child.wait_with_output()?)
}
