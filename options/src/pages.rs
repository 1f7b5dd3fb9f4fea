//! Manual pages and completion, written by the programs themselves from what clap knows of their options.
//!
//! `PROGRAM --write-pages DIR` puts `man1` or `man8`, and `completions`, into DIR. It is for packaging and in no help.

use clap::Command;
use clap::builder::Resettable;
use clap_complete::Shell;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::exit;

const ASKED: &str = "--write-pages";

/// Writes them and exits, if these are the arguments that ask for them.
pub fn write_if_asked(command: Command, args: &[OsString]) {
    let [_, asked, dir] = args else { return };
    if asked != ASKED {
        return;
    }
    let name = command.get_name().to_string();
    match write(command, Path::new(dir)) {
        Ok(()) => exit(0),
        Err(e) => {
            eprintln!("{name}: cannot write pages into {}: {e}", dir.display());
            exit(1)
        }
    }
}

/// Daemons are administrators' programs: section 8.
fn section(name: &str) -> &'static str {
    if name.ends_with('d') { "8" } else { "1" }
}

fn write(command: Command, dir: &Path) -> io::Result<()> {
    let name = command.get_name().to_string();
    let section = section(&name);
    let (man, completions) = (dir.join(format!("man{section}")), dir.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    clap_complete::generate_to(Shell::Bash, &mut command.clone(), &name, &completions)?;
    fs::rename(completions.join(format!("{name}.bash")), completions.join(&name))?;
    let mut command = command.disable_help_subcommand(true);
    command.build();
    page(&command, &name, section, &man)
}

/// A page for the command, and one for each command below it.
fn page(command: &Command, name: &str, section: &str, dir: &Path) -> io::Result<()> {
    let mut file = io::BufWriter::new(fs::File::create(dir.join(format!("{name}.{section}")))?);
    let notes = command.get_after_long_help().or(command.get_after_help()).map(ToString::to_string);
    let shown = command.clone().after_help(Resettable::Reset).after_long_help(Resettable::Reset);
    let man = clap_mangen::Man::new(shown.display_name(name.to_string())).section(section);
    man.date("").source("Levee").manual("Levee").render(&mut file)?;
    file.write_all(as_roff(&notes.unwrap_or_default()).as_bytes())?;
    file.flush()?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        page(sub, &format!("{name}-{}", sub.get_name()), section, dir)?;
    }
    Ok(())
}

/// What help says below the options. Paragraphs with indented lines are examples, which keep their lines.
fn as_roff(notes: &str) -> String {
    let paragraph = |text: &str| {
        let lines: Vec<_> = text.lines().map(escaped).collect();
        let example = text.lines().any(|line| line.starts_with("  "));
        let (before, after) = if example { (".PP\n.nf\n", ".fi\n") } else { (".PP\n", "") };
        format!("{before}{}\n{after}", lines.join("\n"))
    };
    let paragraphs: String = notes.split("\n\n").filter(|text| !text.trim().is_empty()).map(paragraph).collect();
    if paragraphs.is_empty() { paragraphs } else { format!(".SH NOTES\n{paragraphs}") }
}

/// A line of text, of which nothing is a command to roff.
fn escaped(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_keep_their_examples() {
        let roff = as_roff("Some text\nwith a .dot.\n\nExample:\n  run --it \\\n.x");
        assert_eq!(
            roff,
            ".SH NOTES\n.PP\nSome text\nwith a .dot.\n.PP\n.nf\nExample:\n  run \\-\\-it \\e\n\\&.x\n.fi\n"
        );
        assert_eq!(as_roff(""), "");
    }

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let command = Command::new("tool").subcommand(Command::new("do").subcommand(Command::new("it")));
        write(command, dir.path()).unwrap();
        for file in ["man1/tool.1", "man1/tool-do.1", "man1/tool-do-it.1", "completions/tool"] {
            assert!(dir.path().join(file).exists(), "{file}");
        }
        assert_eq!((section("levee"), section("levee-metad"), section("levee-stored")), ("1", "8", "8"));
    }
}
