//! The systems under comparison, all running side by side, idle unless it is their turn.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::fio::{self, Durability};
use super::qsd::{self, StorageDaemon};
use super::{Run, SuiteOptions, WORKING_SET, WORKLOADS, Workload};
use crate::cluster::Cluster;
use crate::load::{self, LoadOptions, Pattern, Until};
use crate::process::cpu_time_of;
use crate::rng::Rng;

const VOLUME: &str = "bench";
/// Bytes of one request while preparing.
const PREPARE_BLOCK: usize = 1 << 20;

/// A system that is reached through a vhost-user socket.
struct Served {
    socket: PathBuf,
    /// Whose processor time counts.
    pids: Vec<i32>,
}

/// Those systems that take part.
pub struct Systems {
    raw: PathBuf,
    fio_startup: Duration,
    qsd: Option<(StorageDaemon, PathBuf)>,
    levee: Option<(Cluster, Served)>,
}

impl Systems {
    /// Writes every system's working set, starts the daemons, and reads everything once, so that no layer
    /// below meets data for the first time while it is measured.
    pub fn start(options: &SuiteOptions) -> Result<Systems> {
        let say = options.progress;
        let takes_part = |system| options.systems.contains(&system);
        let uses_fio = takes_part("raw") || takes_part("raw-dsync");
        if uses_fio {
            fio::check()?;
        }
        if takes_part("qsd") {
            qsd::check()?;
        }
        std::fs::create_dir_all(&options.dir).with_context(|| format!("cannot create {}", options.dir.display()))?;
        let dir = options.dir.canonicalize().with_context(|| format!("cannot find {}", options.dir.display()))?;
        let mut systems = Systems { raw: dir.join("raw.data"), fio_startup: Duration::ZERO, qsd: None, levee: None };
        if uses_fio {
            say("writing a file for the raw disk");
            prepare_file(&systems.raw)?;
            systems.fio_startup = fio::startup_cost(&systems.raw, &WORKLOADS[0])?;
        }
        if takes_part("qsd") {
            say("writing a file for qemu-storage-daemon");
            let file = dir.join("qsd.data");
            prepare_file(&file)?;
            systems.qsd = Some((StorageDaemon::start(&dir, &file)?, file));
        }
        if takes_part("levee") {
            say("starting a cluster of three nodes and writing a volume");
            systems.levee = Some(start_levee(&dir.join("cluster"), options.base_port)?);
        }
        Ok(systems)
    }

    pub fn measure(&mut self, system: &'static str, workload: &Workload, time: Duration) -> Result<Run> {
        match (system, &self.qsd, &self.levee) {
            ("raw", ..) => fio::measure(system, &self.raw, workload, Durability::Cached, time, self.fio_startup),
            ("raw-dsync", ..) => fio::measure(system, &self.raw, workload, Durability::Dsync, time, self.fio_startup),
            ("qsd", Some((daemon, _)), _) => measure_socket(system, &daemon.socket, &[daemon.pid()], workload, time),
            ("levee", _, Some((_, served))) => measure_socket(system, &served.socket, &served.pids, workload, time),
            (other, ..) => bail!("there is no system {other}"),
        }
    }

    /// Ends the daemons and deletes all data.
    pub fn stop(self) -> Result<()> {
        if let Some((cluster, _)) = &self.levee {
            cluster.destroy()?;
        }
        let mut files = vec![self.raw];
        if let Some((daemon, file)) = self.qsd {
            drop(daemon);
            files.push(file);
        }
        for file in files.iter().filter(|f| f.exists()) {
            std::fs::remove_file(file).with_context(|| format!("cannot delete {}", file.display()))?;
        }
        Ok(())
    }
}

fn start_levee(dir: &Path, base_port: u16) -> Result<(Cluster, Served)> {
    let cluster = Cluster::create(dir, base_port)?;
    cluster.create_volume(VOLUME, WORKING_SET)?;
    let socket = cluster.attach(VOLUME)?.socket;
    for pattern in [Pattern::Write, Pattern::Read] {
        let prepare = LoadOptions {
            socket: socket.clone(),
            pattern,
            block: 128 << 10,
            depth: 8,
            queues: 1,
            rate: None,
            until: Until::Covered,
            area: Some(WORKING_SET),
        };
        load::run(&prepare).context("preparing the volume")?;
    }
    let pids = cluster.daemons()?.iter().map(|d| d.pid).collect();
    Ok((cluster, Served { socket, pids }))
}

fn prepare_file(path: &Path) -> Result<()> {
    write_file(path)?;
    read_file(path)
}

fn measure_socket(
    system: &'static str,
    socket: &Path,
    pids: &[i32],
    workload: &Workload,
    time: Duration,
) -> Result<Run> {
    let before = cpu_time_of(pids)?;
    let report = load::run(&LoadOptions {
        socket: socket.to_path_buf(),
        pattern: workload.pattern,
        block: workload.block,
        depth: workload.depth,
        queues: 1,
        rate: None,
        until: Until::Elapsed(time),
        area: Some(WORKING_SET),
    })?;
    let cpu = cpu_time_of(pids)?.saturating_sub(before);
    Ok(Run {
        system,
        workload: workload.name,
        iops: report.iops,
        p50_us: report.latency_us.p50,
        p99_us: report.latency_us.p99,
        p999_us: report.latency_us.p999,
        cpu_us_per_io: cpu.as_secs_f64() * 1e6 / report.ios.max(1) as f64,
    })
}

fn write_file(path: &Path) -> Result<()> {
    let mut block = vec![0; PREPARE_BLOCK];
    let mut rng = Rng::new(1);
    for word in block.chunks_exact_mut(8) {
        word.copy_from_slice(&rng.next_u64().to_le_bytes());
    }
    let cannot = || format!("cannot write {}", path.display());
    let mut file = File::create(path).with_context(cannot)?;
    for _ in 0..WORKING_SET / PREPARE_BLOCK as u64 {
        file.write_all(&block).with_context(cannot)?;
    }
    file.sync_all().with_context(cannot)
}

/// Reads a file past the page cache.
fn read_file(path: &Path) -> Result<()> {
    let cannot = || format!("cannot read {}", path.display());
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.read(true).custom_flags(libc::O_DIRECT).open(path).with_context(cannot)?;
    // O_DIRECT wants an aligned buffer: one is found within a larger one.
    let mut memory = vec![0u8; PREPARE_BLOCK + 4096];
    let start = memory.as_ptr().align_offset(4096);
    let block = &mut memory[start..start + PREPARE_BLOCK];
    while file.read(block).with_context(cannot)? > 0 {}
    Ok(())
}
