//! Counters in Prometheus' text format.

use super::Control;
use crate::stats::KINDS;
use std::fmt::Write;

/// All metrics of the daemon.
pub async fn render(control: &Control) -> String {
    let cores = control.cores.report().await;
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: Vec<(String, f64)>| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(out, "{name}{{{labels}}} {value}");
        }
    };
    let volumes: Vec<_> = cores.iter().flat_map(|c| &c.volumes).collect();
    let per_kind = |value: &dyn Fn(&crate::stats::IoSnapshot) -> f64| {
        let of = |name: &str, kind: &str| format!("volume=\"{name}\",kind=\"{kind}\"");
        volumes
            .iter()
            .flat_map(|v| v.io.iter().zip(KINDS).map(|(io, k)| (of(&v.name, k), value(io))))
            .collect::<Vec<_>>()
    };
    family("levee_volume_requests_total", "counter", "Guest requests completed.", per_kind(&|io| io.requests as f64));
    family(
        "levee_volume_bytes_total",
        "counter",
        "Bytes of guest requests completed.",
        per_kind(&|io| io.bytes as f64),
    );
    for (quantile, value) in [("p50", 0), ("p99", 1), ("p999", 2)] {
        let name = format!("levee_volume_latency_{quantile}_seconds");
        let pick = |io: &crate::stats::IoSnapshot| [io.p50_us, io.p99_us, io.p999_us][value] as f64 / 1e6;
        family(
            &name,
            "gauge",
            "Time from a guest's request to its answer, since the volume was opened.",
            per_kind(&pick),
        );
    }
    let per_volume = |value: &dyn Fn(&levee_proto::api::VolumeReport) -> f64| {
        volumes.iter().map(|v| (format!("volume=\"{}\"", v.name), value(&v.report))).collect::<Vec<_>>()
    };
    family(
        "levee_volume_chunks_degraded",
        "gauge",
        "Chunks with a copy away or behind.",
        per_volume(&|r| f64::from(r.degraded_chunks)),
    );
    family(
        "levee_volume_chunks_healthy",
        "gauge",
        "Chunks with all copies up to date.",
        per_volume(&|r| f64::from(r.healthy_chunks)),
    );
    let disks = control.args.disk.iter().enumerate();
    let used = |i: usize| cores.iter().filter_map(|c| c.disks.get(i)).map(|u| u.used as f64).sum();
    let usage = disks.map(|(i, path)| (format!("disk=\"{}\"", path.display()), used(i))).collect();
    family("levee_disk_used_bytes", "gauge", "Live data on a disk.", usage);
    out
}
