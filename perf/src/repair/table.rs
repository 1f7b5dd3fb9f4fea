//! The figures for people.

use std::fmt::Write;

use super::{ASKED_P99, ASKED_RATE, Busy, Figures, Idle, Repair};

const MIB: f64 = (1 << 20) as f64;

pub fn show(figures: &Figures) -> String {
    let mut out = String::new();
    if let Some(idle) = &figures.idle {
        let _ = show_idle(&mut out, idle);
    }
    if let Some(busy) = &figures.foreground {
        let _ = show_busy(&mut out, busy);
    }
    out
}

fn show_repair(out: &mut String, r: &Repair) -> std::fmt::Result {
    let mib = |bytes: u64| bytes as f64 / MIB;
    writeln!(
        out,
        "  decision to first changed replica set {:.2} s, to first byte copied {:.2} s, to all copies {:.2} s",
        r.change_s, r.copy_s, r.whole_s
    )?;
    writeln!(
        out,
        "  {:.0} MiB copied; disks of {} daemons read {:.0} MiB, of {} wrote {:.0} MiB meanwhile",
        mib(r.copied_bytes),
        r.sources,
        mib(r.read_bytes),
        r.targets,
        mib(r.written_bytes)
    )
}

fn show_idle(out: &mut String, idle: &Idle) -> std::fmt::Result {
    let (r, [before, after]) = (&idle.repair, idle.baseline);
    writeln!(out, "A disk given up while nobody uses the volume")?;
    show_repair(out, r)?;
    writeln!(out, "  copying files durably: {:.0} MiB/s before, {:.0} after", before / MIB, after / MIB)?;
    for (name, rate) in [("from the decision on", r.rate()), ("from the first change on", r.copy_rate())] {
        let ratio = idle.ratio(rate);
        writeln!(
            out,
            "  repair, {name:<25} {:>6.0} MiB/s, {ratio:.2} of copying files (asked: {ASKED_RATE})",
            rate / MIB
        )?;
    }
    Ok(())
}

fn show_busy(out: &mut String, busy: &Busy) -> std::fmt::Result {
    let r = &busy.repair;
    writeln!(
        out,
        "A disk given up under load: 4 KiB at random, half reads, {:.0} a second of {:.0} at depth 8",
        busy.pace, busy.capability
    )?;
    show_repair(out, r)?;
    writeln!(out, "  repair, from the first change on {:>6.0} MiB/s", r.copy_rate() / MIB)?;
    writeln!(
        out,
        "  {:<15} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "guests", "IOPS", "p50 us", "p99 us", "p99.9 us", "max us"
    )?;
    for (name, l) in [("before", &busy.before), ("while repairing", &busy.during), ("after", &busy.after)] {
        let us = &l.us;
        writeln!(out, "  {name:<15} {:>9.0} {:>9.0} {:>9.0} {:>9.0} {:>9.0}", l.iops, us.p50, us.p99, us.p999, us.max)?;
    }
    writeln!(
        out,
        "  while repairing over without: p50 {:.2}, p99 {:.2} (asked: at most {ASKED_P99}), p99.9 {:.2}",
        busy.ratio(|us| us.p50),
        busy.ratio(|us| us.p99),
        busy.ratio(|us| us.p999)
    )
}

#[cfg(test)]
mod tests {
    use super::super::Latency;
    use super::*;
    use crate::load::latency::Percentiles;

    #[test]
    fn both_parts_are_shown_with_their_ratios() {
        let repair = Repair {
            change_s: 0.5,
            copy_s: 0.75,
            whole_s: 4.5,
            copied_bytes: 900 << 20,
            read_bytes: 950 << 20,
            written_bytes: 1000 << 20,
            sources: 4,
            targets: 3,
        };
        let idle = Idle { baseline: [240.0 * MIB, 260.0 * MIB], repair: repair.clone() };
        let latency = |p99| Latency { iops: 2000.0, us: Percentiles { p99, ..Percentiles::default() } };
        let foreground = Busy {
            capability: 4000.0,
            pace: 2000.0,
            before: latency(500.0),
            during: latency(1000.0),
            after: latency(300.0),
            repair,
        };
        let figures = Figures { nodes: 5, size: 1 << 30, idle: Some(idle), foreground: Some(foreground) };
        let text = show(&figures);
        for words in [
            "200 MiB/s, 0.80 of copying files",
            "225 MiB/s, 0.90 of copying files",
            "of 4 daemons read 950 MiB, of 3 wrote 1000",
            "p99 2.50 (asked",
            "2000 a second of 4000",
        ] {
            assert!(text.contains(words), "{words} is not in\n{text}");
        }
    }
}
