//! The figures for people.

use std::fmt::Write;

use super::{ASKED_MOVED, ASKED_STALL_MS, ASKED_USE, COPIES, Figures, Phase};

const MIB: f64 = (1 << 20) as f64;

pub fn show(f: &Figures) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, f);
    out
}

fn write(out: &mut String, f: &Figures) -> std::fmt::Result {
    let (r, d) = (&f.rebalance, &f.drain);
    writeln!(
        out,
        "{:.0} MiB with {COPIES} copies of all, verified load of {} requests at a time",
        f.size as f64 / MIB,
        f.depth
    )?;
    phase(out, "the load alone", &f.alone)?;
    phase(out, "a new node gets its share", &r.phase)?;
    writeln!(
        out,
        "    fullest disk over the mean: {:.3} before, {:.3} after (asked: {ASKED_USE}); {} moves, {} given up",
        r.before, r.after, r.moves, r.skipped
    )?;
    writeln!(
        out,
        "    {:.0} MiB moved, {:.0} necessary: {:.3} (asked: {ASKED_MOVED})",
        r.moved as f64 / MIB,
        r.necessary as f64 / MIB,
        r.moved as f64 / r.necessary as f64
    )?;
    phase(out, "a node is emptied", &d.phase)?;
    writeln!(
        out,
        "    {} copies before, {} left; {:.0} MiB used before, {:.1} left",
        d.copies,
        d.left,
        d.used as f64 / MIB,
        d.used_left as f64 / MIB
    )?;
    phase(out, "a disk is taken out with its copies", &f.removal)?;
    writeln!(
        out,
        "  asked of moves: stalls at most {ASKED_STALL_MS} ms, never fewer than {COPIES} copies (2 after a disk was taken out)"
    )?;
    writeln!(out, "  {} operations checked: {} lost or wrong, {} failed", f.operations, f.mistakes, f.errors)
}

fn phase(out: &mut String, name: &str, p: &Phase) -> std::fmt::Result {
    writeln!(
        out,
        "  {name:<36} {:>6.1} s, {:>6.0} MiB copied, never fewer than {} copies; longest stall {:.1} ms, slowest request {:.1} ms",
        p.seconds,
        p.copied_bytes as f64 / MIB,
        p.fewest_copies,
        p.stall_ms,
        p.slowest_ms
    )
}
