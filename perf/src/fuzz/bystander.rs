//! The volume that no message names: verified load while others are attacked, and everything that a volume must be able to do
//! afterwards.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::DETACH_LIMIT;
use crate::cluster::{Attached, Cluster};
use crate::limits::{FUZZ_AREA, FUZZ_STALL, FUZZ_VOLUME};
use crate::torture::{self, Control, Report};

pub const NAME: &str = "bystander";
/// How long it is written once more, after another node has taken it over.
const AGAIN: Duration = Duration::from_secs(2);

pub struct Bystander {
    options: torture::Options,
    control: Arc<Control>,
    load: JoinHandle<Result<Report>>,
}

impl Bystander {
    /// Creates the volume and puts it under load.
    pub fn start(cluster: &Cluster, seed: u64) -> Result<Bystander> {
        cluster.create_volume(NAME, FUZZ_VOLUME)?;
        let attached = cluster.attach_at(NAME, "node-1")?;
        let options = options(&attached, seed, cluster.dir().join("bystander.json"));
        let control = Arc::new(Control::default());
        let (mine, theirs) = (options.clone(), control.clone());
        let load = std::thread::spawn(move || torture::run(&mine, &theirs));
        Ok(Bystander { options, control, load })
    }

    /// Whether its guest is served; the load's own stall limit ends it if not.
    pub fn is_served(&self) -> Result<()> {
        ensure!(!self.load.is_finished(), "the load on the bystander gave up");
        Ok(())
    }

    /// The time that one request in a hundred took at least, since this was asked last, milliseconds.
    pub fn p99_ms(&self) -> f64 {
        self.control.take_latencies().percentiles().p99 / 1000.0
    }

    /// Ends the load, and has another node serve the volume: nothing may be lost, and everything must still be possible.
    /// How many requests had completed.
    pub fn survive(self, cluster: &Cluster) -> Result<u64> {
        self.control.stop();
        let Ok(report) = self.load.join() else { bail!("the thread of the load on the bystander panicked") };
        let report = right(report?, "while others were attacked")?;
        cluster.detach(NAME, DETACH_LIMIT)?;
        let attached = cluster.attach_at(NAME, "node-2").context("the bystander cannot be taken over")?;
        let again = torture::Options { socket: attached.socket, time: AGAIN, fresh: false, ..self.options };
        right(torture::run(&again, &Control::default())?, "after another node took over")?;
        cluster.verify(NAME)?;
        Ok(report.ops.total)
    }
}

pub fn right(report: Report, when: &str) -> Result<Report> {
    ensure!(report.ok(), "a volume was hurt {when}: {report:?}");
    Ok(report)
}

/// Load on a volume, from its beginning.
pub fn options(attached: &Attached, seed: u64, state: PathBuf) -> torture::Options {
    torture::Options {
        socket: attached.socket.clone(),
        time: Duration::MAX,
        seed,
        depth: 4,
        queues: 1,
        size_limit: FUZZ_AREA,
        unit: 4096,
        fresh: true,
        discard_may_keep: false,
        state: Some(state),
        stall_limit: FUZZ_STALL,
    }
}
