//! The raw disk: fio with io_uring and O_DIRECT on a file that was written before.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde_json::Value;

use super::{Run, WORKING_SET, Workload};

/// A write is done when it is: in the device's cache, or on the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Cached,
    Dsync,
}

pub fn check() -> Result<()> {
    let found = Command::new("fio").arg("--version").stdout(Stdio::null()).status();
    ensure!(found.is_ok_and(|s| s.success()), "fio does not run: install it, or run `make deps`");
    Ok(())
}

/// Measures one point. `startup` is fio's own processor time apart from its requests.
pub fn measure(
    system: &'static str,
    file: &Path,
    workload: &Workload,
    durability: Durability,
    time: Duration,
    startup: Duration,
) -> Result<Run> {
    let runtime = format!("--runtime={}", time.as_secs_f64().ceil().max(1.0));
    let (answer, cpu) = fio(file, workload, durability, &["--time_based=1", &runtime])?;
    let side = if workload.pattern.is_write() { "write" } else { "read" };
    let job = answer.pointer(&format!("/jobs/0/{side}")).context("fio reported no job")?;
    let number = |pointer: &str| {
        job.pointer(pointer).and_then(Value::as_f64).with_context(|| format!("fio reported no {pointer}"))
    };
    let percentile = |p: &str| Ok::<_, anyhow::Error>(number(&format!("/lat_ns/percentile/{p}"))? / 1000.0);
    let ios = number("/total_ios")?;
    ensure!(ios > 0.0, "fio did nothing");
    Ok(Run {
        system,
        workload: workload.name,
        iops: number("/iops")?,
        p50_us: percentile("50.000000")?,
        p99_us: percentile("99.000000")?,
        p999_us: percentile("99.900000")?,
        cpu_us_per_io: cpu.saturating_sub(startup).as_secs_f64() * 1e6 / ios,
    })
}

/// Processor time that fio takes to start, report and end.
pub fn startup_cost(file: &Path, workload: &Workload) -> Result<Duration> {
    let (_, cpu) = fio(file, workload, Durability::Cached, &["--number_ios=1"])?;
    Ok(cpu)
}

fn fio(file: &Path, workload: &Workload, durability: Durability, more: &[&str]) -> Result<(Value, Duration)> {
    let before = children_cpu()?;
    let mut command = Command::new("fio");
    command
        .args(["--name=point", "--ioengine=io_uring", "--direct=1", "--invalidate=0", "--norandommap=1"])
        .args(["--randrepeat=0", "--fallocate=none", "--output-format=json"])
        .args(["--lat_percentiles=1", "--clat_percentiles=0", "--percentile_list=50:99:99.9"])
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--size={WORKING_SET}"))
        .arg(format!("--rw={}", workload.pattern.name()))
        .arg(format!("--bs={}", workload.block))
        .arg(format!("--iodepth={}", workload.depth))
        .args(more)
        .stdin(Stdio::null());
    if durability == Durability::Dsync {
        command.arg("--sync=dsync");
    }
    let output = command.output().context("cannot run fio")?;
    if !output.status.success() {
        bail!("fio failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    let cpu = children_cpu()?.saturating_sub(before);
    // Notes of fio may stand before the document.
    let start = output.stdout.iter().position(|b| *b == b'{').context("fio printed no JSON document")?;
    let answer = serde_json::from_slice(&output.stdout[start..]).context("fio's JSON document is not understood")?;
    Ok((answer, cpu))
}

/// Processor time of all children that have ended, with their kernel workers.
fn children_cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("cannot read the children's resource usage")?;
    let duration = |t: TimeVal| Duration::from_micros((t.tv_sec() as u64) * 1_000_000 + t.tv_usec() as u64);
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
}
