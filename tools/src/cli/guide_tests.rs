//! The commands that the pages of `docs/operations` name are there.

use super::Cli;
use clap::{Command, CommandFactory};
use std::path::Path;

/// What stands in backquotes, and in blocks between lines of three of them.
fn code(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            found.push(line.trim().to_string());
        } else {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_string));
        }
    }
    found
}

/// The part of a line that names a command: `None` if all of it is there.
fn unknown(root: &Command, line: &str) -> Option<String> {
    let mut command = root;
    let mut path = Vec::new();
    for word in line.split_whitespace().skip(1) {
        if !command.has_subcommands()
            || !word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
            || word.starts_with('-')
        {
            return None;
        }
        path.push(word);
        match command.find_subcommand(word) {
            Some(sub) => command = sub,
            None => return Some(path.join(" ")),
        }
    }
    None
}

#[test]
fn commands_of_the_guide_exist() {
    let root = Cli::command();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operations");
    let mut complaints = Vec::new();
    for entry in std::fs::read_dir(folder).expect("docs/operations") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let page = std::fs::read_to_string(&path).expect("a page");
        let lines = code(&page).into_iter().filter(|line| line.starts_with("levee "));
        for (line, unknown) in lines.filter_map(|line| Some((line.clone(), unknown(&root, &line)?))) {
            complaints.push(format!("{}: there is no `levee {unknown}`: {line}", path.display()));
        }
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn commands_are_followed_to_their_end() {
    let root = Cli::command();
    for (line, missing) in [
        ("levee volume create vm1 --size 10G", None),
        ("levee --json status", None),
        ("levee volume frobnicate", Some("volume frobnicate")),
        ("levee frobnicate now", Some("frobnicate")),
        ("levee volume", None),
    ] {
        assert_eq!(unknown(&root, line).as_deref(), missing, "{line}");
    }
    assert_eq!(code("a `x y` b\n```\nlevee up\n```\n`z`"), ["x y", "levee up", "z"]);
}
