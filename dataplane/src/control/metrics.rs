//! Counters in Prometheus' text format.

use super::Control;
use crate::core::CoreReport;
use crate::disks::ShardReport;
use crate::stats::{IoSnapshot, KINDS};
use crate::volume::VolumeStatus;
use levee_core::shared::{SharedBlocks, SharedReport};
use levee_proto::api::{ChunkLoad, LinkReport, VolumeLoad};
use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::path::PathBuf;

/// All metrics of the daemon.
pub async fn render(control: &Control) -> String {
    let cores = control.cores.report().await;
    let paths = control.disks.borrow().paths();
    let failed = control.disk_usage(&cores).iter().map(|d| d.failed.is_some()).collect::<Vec<_>>();
    let mut out = Text::default();
    let volumes: Vec<&VolumeStatus> = cores.iter().flat_map(|c| &c.volumes).collect();
    requests(&mut out, &volumes);
    copies(&mut out, &volumes);
    load(&mut out, &volumes);
    disks(&mut out, &paths, &cores, &failed);
    shards(&mut out, &paths, &cores);
    links(&mut out, &super::report::seen(&cores));
    shared(&mut out, control.shared.as_ref().map(SharedBlocks::report).unwrap_or_default());
    out.0
}

/// A metric: its name, what it says, and where its value comes from.
type Metric<T, V> = (&'static str, &'static str, fn(&T) -> V);

/// The text so far.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family<V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, V)>,
    ) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(self.0, "{name}{{{labels}}} {value}");
        }
    }

    fn gauge<V: Display>(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (String, V)>) {
        self.family(name, "gauge", help, samples);
    }

    fn counter<V: Display>(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (String, V)>) {
        self.family(name, "counter", help, samples);
    }
}

fn volume_label(v: &VolumeStatus) -> String {
    format!("volume=\"{}\"", v.name)
}

/// A disk is named by its path, in which some characters need an escape.
fn disk_label(path: &std::path::Path) -> String {
    let path = path.display().to_string().replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    format!("disk=\"{path}\"")
}

fn requests(out: &mut Text, volumes: &[&VolumeStatus]) {
    let per_kind = |value: fn(&IoSnapshot) -> f64| {
        let of = move |v: &&VolumeStatus| {
            let label = volume_label(v);
            let sample = |(io, kind)| (format!("{label},kind=\"{kind}\""), value(io));
            v.io.iter().zip(KINDS).map(sample).collect::<Vec<_>>()
        };
        volumes.iter().flat_map(of).collect::<Vec<_>>()
    };
    out.counter("levee_volume_requests_total", "Guest requests completed.", per_kind(|io| io.requests as f64));
    out.counter("levee_volume_bytes_total", "Bytes of guest requests completed.", per_kind(|io| io.bytes as f64));
    let help = "Time from a guest's request to its answer, since the volume was opened.";
    let quantiles: [Metric<IoSnapshot, f64>; 3] = [
        ("p50", help, |io| io.p50_us as f64 / 1e6),
        ("p99", help, |io| io.p99_us as f64 / 1e6),
        ("p999", help, |io| io.p999_us as f64 / 1e6),
    ];
    for (quantile, help, value) in quantiles {
        out.gauge(&format!("levee_volume_latency_{quantile}_seconds"), help, per_kind(value));
    }
}

fn copies(out: &mut Text, volumes: &[&VolumeStatus]) {
    let of = |value: fn(&VolumeStatus) -> u64| volumes.iter().map(|v| (volume_label(v), value(v))).collect::<Vec<_>>();
    let gauges: [Metric<VolumeStatus, u64>; 6] = [
        ("chunks_healthy", "Chunks with all copies up to date.", |v| v.report.healthy_chunks.into()),
        ("chunks_degraded", "Chunks with a copy away or behind.", |v| v.report.degraded_chunks.into()),
        ("chunks_waiting", "Chunks that lack a quorum, so that writes there wait, or all requests.", |v| {
            v.report.waiting_chunks.into()
        }),
        ("replicas_leaving", "Copies on disks that are to be emptied.", |v| v.report.leaving_replicas.into()),
        ("full", "1 while writes wait because disks are full.", |v| v.report.full.into()),
        ("stalled_requests", "Guest's requests that have waited for more than a second.", |v| {
            v.report.stall.as_ref().map_or(0, |stall| stall.requests.into())
        }),
    ];
    for (name, help, value) in gauges {
        out.gauge(&format!("levee_volume_{name}"), help, of(value));
    }
    let cuts = volumes.iter().map(|v| (volume_label(v), v.counts.longest_cut.as_secs_f64()));
    let help = "Longest time for which no write could begin because a snapshot was taken or its views changed.";
    out.gauge("levee_volume_longest_cut_seconds", help, cuts);
    let counters: [Metric<VolumeStatus, u64>; 5] = [
        ("copied_bytes", "Bytes copied to make copies whole.", |v| v.report.copied_bytes),
        ("hedged_reads", "Reads sent to a second copy because the first took long.", |v| v.counts.hedged_reads),
        ("evictions", "Times that a disk was left behind for being slow.", |v| v.counts.evictions),
        ("scrubbed_blocks", "Blocks read to find out whether they can be.", |v| v.counts.scrubbed_blocks),
        ("bad_blocks", "Blocks found that cannot be read, or do not match their checksums.", |v| v.counts.bad_blocks),
    ];
    for (name, help, value) in counters {
        out.counter(&format!("levee_volume_{name}_total"), help, of(value));
    }
}

type Paths = BTreeMap<usize, PathBuf>;

fn disks(out: &mut Text, paths: &Paths, cores: &[CoreReport], failed: &[bool]) {
    let sum = |value: fn(&crate::disks::DiskShare) -> u64| {
        let of = |(i, path): (&usize, &PathBuf)| {
            (disk_label(path), cores.iter().filter_map(|c| c.disks.get(i)).map(value).sum::<u64>())
        };
        paths.iter().map(of).collect::<Vec<_>>()
    };
    out.gauge("levee_disk_used_bytes", "Live data on a disk.", sum(|d| d.used));
    out.gauge("levee_disk_capacity_bytes", "What a disk may hold.", sum(|d| d.capacity));
    let failed = paths.values().zip(failed).map(|(path, failed)| (disk_label(path), u8::from(*failed)));
    out.gauge("levee_disk_failed", "1 if a disk cannot be used any more.", failed);
    let errors = sum(|d| d.shards.iter().map(|s| u64::from(s.read_errors)).sum());
    out.counter("levee_disk_read_errors_total", "Reads that the disk answered with an error.", errors);
    let both = |read: Samples, write: Samples| {
        let of = |kind: &str, samples: Samples| {
            samples.into_iter().map(|(label, n)| (format!("{label},kind=\"{kind}\""), n)).collect::<Vec<_>>()
        };
        [of("read", read), of("write", write)].concat()
    };
    let help = "Operations of the disk, since its shards were last recovered.";
    out.counter("levee_disk_operations_total", help, both(sum(|d| d.totals.reads), sum(|d| d.totals.writes)));
    let help = "Bytes that the disk read and wrote, since its shards were last recovered.";
    out.counter("levee_disk_bytes_total", help, both(sum(|d| d.totals.read_bytes), sum(|d| d.totals.write_bytes)));
}

/// Labels and values.
type Samples = Vec<(String, u64)>;

/// What guests do, over about ten seconds.
fn load(out: &mut Text, volumes: &[&VolumeStatus]) {
    let of = |value: fn(&VolumeLoad) -> f64| volumes.iter().map(move |v| (volume_label(v), value(&v.report.load)));
    let gauges: [Metric<VolumeLoad, f64>; 4] = [
        ("requests_per_second", "Reads and writes a second, over about ten seconds.", |l| l.load.requests() as f64),
        ("bytes_per_second", "Bytes read and written a second, over about ten seconds.", |l| l.load.bytes() as f64),
        ("recent_latency_p50_seconds", "Time to answer half of the last seconds' requests.", |l| l.p50_us as f64 / 1e6),
        ("recent_latency_p99_seconds", "Time to answer 99 of 100 of them.", |l| l.p99_us as f64 / 1e6),
    ];
    for (name, help, value) in gauges {
        out.gauge(&format!("levee_volume_{name}"), help, of(value));
    }
    let hot = |v: &&VolumeStatus| {
        let label = volume_label(v);
        let of = |c: &ChunkLoad| (format!("{label},chunk=\"{}\"", c.index), c.load.requests());
        v.report.load.hot.iter().map(of).collect::<Vec<_>>()
    };
    let help = "Requests a second to the volume's busiest chunks.";
    out.gauge("levee_volume_hot_chunk_requests_per_second", help, volumes.iter().flat_map(hot));
}

/// How this node sees the others.
fn links(out: &mut Text, links: &[LinkReport]) {
    let label = |l: &LinkReport| format!("node=\"{}\"", l.node);
    let up = links.iter().map(|l| (label(l), u8::from(l.up)));
    out.gauge("levee_link_up", "1 while another node that stores data answers over a data link.", up);
    let latency = links.iter().filter(|l| l.latency_us > 0).map(|l| (label(l), l.latency_us as f64 / 1e6));
    out.gauge("levee_link_latency_seconds", "Time to its answers, smoothed.", latency);
}

fn shards(out: &mut Text, paths: &Paths, cores: &[CoreReport]) {
    let all: Vec<(String, &ShardReport)> = paths
        .iter()
        .flat_map(|(i, path)| cores.iter().filter_map(move |c| c.disks.get(i)).map(move |share| (path, share)))
        .flat_map(|(path, share)| share.shards.iter().map(move |s| (path, s)))
        .map(|(path, s)| (format!("{},shard=\"{}\"", disk_label(path), s.number), s))
        .collect();
    let of = |value: fn(&ShardReport) -> f64| all.iter().map(move |(label, s)| (label.clone(), value(s)));
    let usage: [Metric<ShardReport, f64>; 5] = [
        ("used_bytes", "Live data.", |s| s.usage.map_or(0.0, |u| u.used as f64)),
        ("capacity_bytes", "What may hold live data.", |s| s.usage.map_or(0.0, |u| u.capacity as f64)),
        ("segments", "Segments.", |s| s.usage.map_or(0.0, |u| u.segments.into())),
        ("free_segments", "Segments that hold nothing.", |s| s.usage.map_or(0.0, |u| u.free_segments.into())),
        ("replay_bytes", "Log that a restart has to replay.", |s| s.usage.map_or(0.0, |u| u.replay as f64)),
    ];
    for (name, help, value) in usage {
        out.gauge(&format!("levee_shard_{name}"), help, of(value));
    }
    out.gauge("levee_shard_in_service", "0 while a shard has failed.", of(|s| f64::from(u8::from(s.in_service))));
    let help = "Age of the oldest operation that the disk has not completed.";
    out.gauge("levee_shard_oldest_io_seconds", help, of(|s| s.oldest_io.as_secs_f64()));
}

fn shared(out: &mut Text, report: SharedReport) {
    let blocks = [("hit", report.hits), ("wait", report.waits), ("miss", report.misses)];
    let of = blocks.map(|(outcome, count)| (format!("outcome=\"{outcome}\""), count));
    let help = "Blocks of snapshots that clones asked for: remembered, being read for another, or read.";
    out.counter("levee_shared_cache_blocks_total", help, of);
    let sizes = [("used", report.bytes), ("capacity", report.capacity)];
    for (name, bytes) in sizes {
        let help = "Memory for blocks of snapshots that clones have read.";
        out.gauge(&format!("levee_shared_cache_{name}_bytes"), help, [(String::new(), bytes)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use levee_core::load::Totals;
    use levee_proto::api::{DiskLoad, Load};
    use std::collections::BTreeSet;

    /// All metrics, of a daemon that has nothing.
    fn names() -> BTreeSet<String> {
        let mut out = Text::default();
        requests(&mut out, &[]);
        copies(&mut out, &[]);
        load(&mut out, &[]);
        disks(&mut out, &Paths::new(), &[], &[]);
        shards(&mut out, &Paths::new(), &[]);
        links(&mut out, &[]);
        shared(&mut out, SharedReport::default());
        let name = |line: &str| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_string());
        out.0.lines().filter_map(name).collect()
    }

    #[test]
    fn every_metric_is_in_the_guide() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations/metrics.md");
        let page = std::fs::read_to_string(path).expect("docs/operations/metrics.md");
        let (_, section) = page.split_once("\n## Storage daemon\n").expect("the heading");
        let section = section.split("\n## ").next().unwrap_or_default();
        let name = |line: &str| Some(line.strip_prefix("| `")?.split('`').next()?.to_string());
        let documented: BTreeSet<_> = section.lines().filter_map(name).collect();
        let exported = names();
        let missing: Vec<_> = exported.difference(&documented).collect();
        let gone: Vec<_> = documented.difference(&exported).collect();
        assert!(missing.is_empty(), "add to \"Storage daemon\" in docs/operations/metrics.md: {missing:?}");
        assert!(gone.is_empty(), "docs/operations/metrics.md names what the daemon does not export: {gone:?}");
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(disk_label("/a \"b\"\\".as_ref()), r#"disk="/a \"b\"\\""#);
    }

    #[test]
    fn shards_are_told_with_their_disk() {
        let shard = |number, in_service| ShardReport {
            number,
            in_service,
            usage: None,
            oldest_io: std::time::Duration::from_millis(1500),
            read_errors: 3,
            totals: Totals::default(),
            load: Load::default(),
        };
        let share = |number| crate::disks::DiskShare {
            capacity: 10,
            used: 4,
            failed: None,
            load: DiskLoad::default(),
            totals: Totals { writes: 5, ..Totals::default() },
            shards: vec![shard(number, number == 0)],
        };
        let cores: Vec<_> = (0..2)
            .map(|n| CoreReport { volumes: vec![], disks: BTreeMap::from([(0, share(n))]), links: vec![] })
            .collect();
        let mut out = Text::default();
        let paths = BTreeMap::from([(0, PathBuf::from("/d"))]);
        disks(&mut out, &paths, &cores, &[true]);
        shards(&mut out, &paths, &cores);
        links(&mut out, &[LinkReport { node: levee_proto::NodeId(2), up: true, latency_us: 1500 }]);
        for line in [
            "levee_disk_used_bytes{disk=\"/d\"} 8",
            "levee_disk_operations_total{disk=\"/d\",kind=\"write\"} 10",
            "levee_link_up{node=\"2\"} 1",
            "levee_link_latency_seconds{node=\"2\"} 0.0015",
            "levee_disk_failed{disk=\"/d\"} 1",
            "levee_disk_read_errors_total{disk=\"/d\"} 6",
            "levee_shard_in_service{disk=\"/d\",shard=\"1\"} 0",
            "levee_shard_oldest_io_seconds{disk=\"/d\",shard=\"0\"} 1.5",
        ] {
            assert!(out.0.lines().any(|l| l == line), "{line} is not in\n{}", out.0);
        }
    }
}
