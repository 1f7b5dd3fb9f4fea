//! `levee-model`: explores the model, within the bounds of named scenarios.

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use comfy_table::{Table, presets};
use levee_model::{Broken, MUTANTS, Mutant, Outcome, Rule, Rules, SCENARIOS, Scenario, explore, scenario};

/// Model checker of levee's replication protocol (docs/protocol.md).
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    /// Threads that explore; with more than one a counterexample may be a step or two longer than the shortest.
    #[arg(long, global = true, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Explore scenarios with all rules in force; fails if an invariant can be broken.
    Check {
        /// Also those that take minutes and gigabytes.
        #[arg(long)]
        large: bool,
        /// Only this one; see `scenarios`.
        #[arg(long)]
        scenario: Option<String>,
    },
    /// Switch every rule off in turn; fails if that breaks nothing.
    Mutants,
    /// Tell, step by step, what goes wrong without a rule; see `rules`.
    Explain {
        /// The rule, as `rules` lists it.
        rule: String,
    },
    /// List the scenarios and their bounds.
    Scenarios,
    /// List the rules.
    Rules,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let threads = usize::from(cli.threads);
    match cli.command {
        Command::Check { large, scenario } => check(large, scenario.as_deref(), threads),
        Command::Mutants => mutants(threads),
        Command::Explain { rule } => explain(&rule, threads),
        Command::Scenarios => {
            list(
                &["scenario", "what", "bounds"],
                SCENARIOS.iter().map(|s| vec![s.name.into(), s.text.into(), bounds(s)]),
            );
            Ok(())
        }
        Command::Rules => {
            let rows = Rule::ALL.iter().map(|r| vec![r.name().into(), r.closes().into(), r.text().into()]);
            list(&["rule", "closes", "what"], rows);
            Ok(())
        }
    }
}

fn list(header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header.to_vec());
    rows.for_each(|row| {
        table.add_row(row);
    });
    println!("{table}");
}

fn bounds(s: &Scenario) -> String {
    let b = &s.bounds;
    let mut text =
        format!("R={} m={} blocks={} epochs={} writes={}", b.copies, b.min, b.blocks, b.epochs, b.budget.writes);
    let more = [
        ("spares", b.spares as u8),
        ("discards", b.budget.discards),
        ("losses", b.budget.losses),
        ("restarts", b.budget.restarts),
        ("damages", b.budget.damages),
        ("changes", b.budget.changes),
    ];
    more.iter().filter(|(_, n)| *n > 0).for_each(|(what, n)| text += &format!(" {what}={n}"));
    text
}

fn find(name: &str) -> anyhow::Result<&'static Scenario> {
    scenario(name).with_context(|| format!("there is no scenario {name}; `levee-model scenarios` lists them"))
}

fn check(large: bool, name: Option<&str>, threads: usize) -> anyhow::Result<()> {
    let chosen: Vec<&Scenario> = match name {
        Some(name) => vec![find(name)?],
        None => SCENARIOS.iter().filter(|s| large || !s.large).collect(),
    };
    let mut failed = vec![];
    for s in chosen {
        let outcome = explore(s, Rules::ALL, true, threads);
        let Outcome { states, depth, took, broken } = &outcome;
        let seconds = took.as_secs_f64();
        println!("{:18} {:58} {states:>9} states  depth {depth:>2} {seconds:>6.1} s", s.name, bounds(s));
        if let Some(broken) = broken {
            tell(broken);
            failed.push(s.name);
        }
    }
    if !failed.is_empty() {
        bail!("an invariant can be broken in {}", failed.join(", "));
    }
    Ok(())
}

fn mutants(threads: usize) -> anyhow::Result<()> {
    let mut missed = vec![];
    let run = |m: &Mutant| -> anyhow::Result<Outcome> {
        Ok(explore(find(m.scenario)?, Rules::without(&m.off()), m.live, threads))
    };
    println!("{:24} {:6} {:14} {:>16} {:>9}  breaks", "without", "closes", "scenario", "caught after", "steps");
    for m in MUTANTS {
        let outcome = run(m)?;
        let states = format!("{} states", outcome.states);
        let (steps, invariant) = match &outcome.broken {
            Some(b) => (b.steps.len().to_string(), b.invariant.map_or("?".into(), |i| format!("{i:?}"))),
            None => ("-".into(), "NOTHING".into()),
        };
        println!("{:24} {:6} {:14} {states:>16} {steps:>9}  {invariant}", m.rule.name(), m.rule.closes(), m.scenario);
        if let Some(with) = m.with {
            println!("  (and without {}, which has the same effect there)", with.name());
        }
        if outcome.broken.is_none() {
            missed.push(m.rule.name());
        }
    }
    if !missed.is_empty() {
        bail!("nothing breaks without {}", missed.join(", "));
    }
    Ok(())
}

fn explain(name: &str, threads: usize) -> anyhow::Result<()> {
    let rule = Rule::ALL.iter().find(|r| r.name() == name);
    let rule = *rule.with_context(|| format!("there is no rule {name}; `levee-model rules` lists them"))?;
    let mutant = Mutant::of(rule).with_context(|| format!("no scenario is known that needs {name}"))?;
    let s = find(mutant.scenario)?;
    println!("Rule: {}.", rule.text());
    if let Some(with) = mutant.with {
        println!("Also off, because it has the same effect here: {}.", with.text());
    }
    println!("Scenario {}: {} ({}).\n\nWithout it:", s.name, s.text, bounds(s));
    match explore(s, Rules::without(&mutant.off()), mutant.live, threads).broken {
        Some(broken) => tell(&broken),
        None => bail!("nothing breaks without {name}"),
    }
    Ok(())
}

fn tell(broken: &Broken) {
    for (n, step) in broken.steps.iter().enumerate() {
        println!("{:>4}. {}", n + 1, step.what);
        step.nodes.iter().for_each(|node| println!("        {node}"));
    }
    if let Some(invariant) = broken.invariant {
        println!("      {invariant:?} is broken: {}.", invariant.text());
    }
}
