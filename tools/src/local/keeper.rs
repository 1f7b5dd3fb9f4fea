//! `levee up` in the foreground: tells when a daemon dies, and stops all of them at the end.

use super::down;
use super::layout::{ClusterFile, Layout};
use super::process::{Identity, PidFile};
use super::start::Started;
use crate::limits::POLL_PAUSE;
use crate::output::Output;
use crate::signals::Signals;
use std::collections::BTreeSet;
use std::time::Duration;

/// Stands beside the daemons' names, and cannot be one.
const KEEPER: &str = "levee-up";
/// How long the daemons may take to stop at Ctrl-C.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// The foreground `levee up` of this folder, if there is one.
pub fn running(layout: &Layout) -> anyhow::Result<Option<Identity>> {
    PidFile::of(layout, KEEPER).running()
}

/// Notes that this process keeps the cluster.
pub fn enter(layout: &Layout) -> anyhow::Result<()> {
    match Identity::of(std::process::id() as i32)? {
        Some(identity) => PidFile::of(layout, KEEPER).store(&identity),
        None => anyhow::bail!("cannot identify this process in /proc"),
    }
}

/// Stays until a signal arrives or the daemons have been stopped by `levee down`.
pub async fn keep(
    layout: &Layout,
    file: &ClusterFile,
    mut children: Vec<Started>,
    signals: &mut Signals,
    out: &Output,
) -> anyhow::Result<()> {
    let ended = tokio::select! {
        ended = watch(layout, file, &mut children, out) => ended,
        () = signals.next() => down::stop(layout, file, &[], STOP_TIMEOUT).await.map(|_| ()),
    };
    PidFile::of(layout, KEEPER).remove()?;
    ended
}

async fn watch(layout: &Layout, file: &ClusterFile, children: &mut [Started], out: &Output) -> anyhow::Result<()> {
    let mut dead = BTreeSet::new();
    loop {
        tokio::time::sleep(5 * POLL_PAUSE).await;
        for child in children.iter_mut() {
            // Takes the zombie away; whether the daemon runs is seen below, however it was started.
            let _ = child.child.try_wait();
        }
        let (mut running, mut known) = (0, 0);
        for name in file.names() {
            let pid_file = PidFile::of(layout, name);
            known += usize::from(pid_file.exists());
            if pid_file.running()?.is_some() {
                running += 1;
                dead.remove(name);
            } else if pid_file.exists() && dead.insert(name) {
                let (dir, log) = (layout.root.display(), layout.log(name));
                out.note(&format!(
                    "{name} has died: its log is {}; `levee up --dir {dir}` starts it again",
                    log.display()
                ));
            }
        }
        if known == 0 {
            out.note("the cluster has been stopped");
            return Ok(());
        }
        if running == 0 {
            anyhow::bail!("all daemons have died: their logs are in {}", layout.logs().display());
        }
    }
}
