//! The figures for people.

use std::fmt::Write;

use super::{
    ASKED_ATTACH_MS, ASKED_CLONES_S, ASKED_CREATE_MS, ASKED_CUT_US, ASKED_DELETE_MS, ASKED_P99, ASKED_READ, Figures,
    Percentiles,
};

const MIB: f64 = (1 << 20) as f64;

pub fn show(f: &Figures) -> String {
    let mut out = String::new();
    let _ = write(&mut out, f);
    out
}

fn write(out: &mut String, f: &Figures) -> std::fmt::Result {
    let ms = |us: f64| us / 1000.0;
    let command = |out: &mut String, name: &str, p: &Percentiles, asked: &str| {
        writeln!(out, "  {name:<28} p50 {:>6.1} ms, p99 {:>6.1}{asked}", ms(p.p50), ms(p.p99))
    };
    writeln!(out, "Commands, as an operator sees them, beside a load; {} snapshots", f.count)?;
    command(out, "one that only commits", &f.commit, "")?;
    let beyond =
        |p: &Percentiles, asked| format!("; {:.1} ms beyond a commit (asked: {asked})", ms(p.p50 - f.commit.p50));
    command(out, "levee snapshot create", &f.create, &beyond(&f.create, ASKED_CREATE_MS))?;
    command(out, "levee snapshot delete", &f.delete, &beyond(&f.delete, ASKED_DELETE_MS))?;
    writeln!(out, "Guests: 4 KiB at random, half reads, paced")?;
    for (name, p) in
        [("alone", &f.alone), ("while snapshots are taken", &f.taking), ("alone, with all snapshots", &f.rested)]
    {
        writeln!(out, "  {name:<28} p50 {:>6.0} us, p99 {:>6.0}, longest {:>8.0}", p.p50, p.p99, p.max)?;
    }
    let beside = [
        ("beside commits, 1 a second", &f.committing, String::new()),
        ("beside deletions, 1 a second", &f.deleting, format!(" (asked: {ASKED_P99})")),
        ("beside deletions in a row", &f.deleting_fast, String::new()),
    ];
    for (name, p, asked) in beside {
        let (p50, p99, longest, ratio) = (p.p50, p.p99, p.max, p.p99 / f.rested.p99);
        writeln!(
            out,
            "  {name:<28} p50 {p50:>6.0} us, p99 {p99:>6.0}, longest {longest:>8.0}; p99 {ratio:.2} of alone{asked}"
        )?;
    }
    writeln!(out, "Longest pause of writes at the gateway: {:.0} us (asked: {ASKED_CUT_US})", f.longest_cut_us)?;
    let median = |all: &[f64]| {
        let mut all = all.to_vec();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let (with, without) = (median(&f.read_with), median(&f.read_without));
    writeln!(
        out,
        "Random reads, one at a time: p50 {with:.1} us with {} snapshots, {without:.1} without: {:.3} (asked: {ASKED_READ})",
        f.count,
        with / without
    )?;
    let [before, full, after] = f.used.map(|bytes| bytes as f64 / MIB);
    writeln!(
        out,
        "Space: {before:.0} MiB before, {full:.0} with the snapshots, {after:.0} after they were deleted, in {:.1} s",
        f.space_s
    )?;
    writeln!(out, "{} clones in {:.2} s (asked: {ASKED_CLONES_S})", f.clones, f.clones_s)?;
    command(out, "attach one, first read", &f.attach, &format!(" (asked: {ASKED_ATTACH_MS})"))
}
