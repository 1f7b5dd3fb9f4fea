//! The figures for people.

use std::fmt::Write;

use super::{Figures, SYSTEMS, WORKLOADS};
use crate::load::latency::Percentiles;

/// A table per workload, Levee's ratios to its peers, and latency over its floor.
pub fn show(figures: &Figures, round_trip: &Percentiles) -> String {
    let mut out = String::new();
    show_points(&mut out, figures);
    show_ratios(&mut out, figures);
    show_floor(&mut out, figures, round_trip);
    out
}

// Writing to a string cannot fail.
fn line(out: &mut String, args: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{args}");
}

fn show_points(out: &mut String, figures: &Figures) {
    line(
        out,
        format_args!("raw: fio, one copy in place; raw-dsync: the same, each write durable; qsd: qemu-storage-daemon,"),
    );
    line(
        out,
        format_args!(
            "one copy, writes not flushed; levee: three copies, each write durable on two before it is answered"
        ),
    );
    line(
        out,
        format_args!(
            "\n{:<15} {:<10} {:>9} {:>9} {:>9} {:>9} {:>10}",
            "workload", "system", "IOPS", "p50 us", "p99 us", "p99.9 us", "CPU us/IO"
        ),
    );
    for workload in &WORKLOADS {
        for system in SYSTEMS {
            let Some(r) = figures.find(system, workload.name) else { continue };
            line(
                out,
                format_args!(
                    "{:<15} {:<10} {:>9.0} {:>9.0} {:>9.0} {:>9.0} {:>10.1}",
                    r.workload, r.system, r.iops, r.p50_us, r.p99_us, r.p999_us, r.cpu_us_per_io
                ),
            );
        }
    }
}

fn show_ratios(out: &mut String, figures: &Figures) {
    line(out, format_args!("\nLevee's IOPS over its peers'"));
    line(out, format_args!("{:<15} {:>10} {:>10} {:>10}", "workload", "raw-dsync", "raw", "qsd"));
    for workload in &WORKLOADS {
        let Some(levee) = figures.find("levee", workload.name) else { continue };
        let over = |system| match figures.find(system, workload.name) {
            Some(peer) if peer.iops > 0.0 => format!("{:.2}", levee.iops / peer.iops),
            _ => "-".into(),
        };
        line(
            out,
            format_args!("{:<15} {:>10} {:>10} {:>10}", workload.name, over("raw-dsync"), over("raw"), over("qsd")),
        );
    }
}

fn show_floor(out: &mut String, figures: &Figures, round_trip: &Percentiles) {
    line(
        out,
        format_args!(
            "\nloopback TCP, 4 KiB and a small answer: p50 {:.0} us, p99 {:.0} us",
            round_trip.p50, round_trip.p99
        ),
    );
    let write = |system| figures.find(system, "randwrite-qd1").map(|r| r.p50_us);
    if let (Some(levee), Some(dsync)) = (write("levee"), write("raw-dsync")) {
        let floor = dsync + round_trip.p50;
        line(
            out,
            format_args!(
                "a write at depth 1 takes {levee:.0} us (p50): {:.2} times one durable disk write and one round trip ({floor:.0} us)",
                levee / floor
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::Run;
    use super::*;

    #[test]
    fn ratios_and_floor_are_shown() {
        let run = |system, iops, p50_us| Run {
            system,
            workload: "randwrite-qd1",
            iops,
            p50_us,
            p99_us: 2.0,
            p999_us: 3.0,
            cpu_us_per_io: 4.0,
        };
        let runs = vec![run("raw", 4000.0, 50.0), run("raw-dsync", 1000.0, 100.0), run("levee", 2000.0, 300.0)];
        let figures = Figures { runs };
        let text = show(&figures, &Percentiles { p50: 50.0, ..Percentiles::default() });
        assert!(text.contains("randwrite-qd1         2.00       0.50          -"), "{text}");
        assert!(text.contains("2.00 times one durable"), "{text}");
        let json = serde_json::to_value(&figures).unwrap();
        let mut keys: Vec<_> = json["runs"][0].as_object().unwrap().keys().cloned().collect();
        keys.sort();
        assert_eq!(keys, ["cpu_us_per_io", "iops", "p50_us", "p999_us", "p99_us", "system", "workload"]);
    }
}
