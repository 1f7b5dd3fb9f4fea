//! Files of options beside command lines.

use super::*;
use clap::Args;
use tempfile::TempDir;

#[derive(Debug, Parser)]
#[command(name = "daemon")]
struct Plain {
    #[arg(long)]
    config: Option<PathBuf>,
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    id: u64,
    #[arg(long, default_value = "here")]
    listen: String,
    #[arg(long, value_delimiter = ',', conflicts_with = "alone")]
    peers: Vec<String>,
    #[arg(long, env = "LEVEE_OPTIONS_TEST_ROOM")]
    room: Option<String>,
    #[arg(long)]
    alone: bool,
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Debug, clap::Subcommand)]
enum Sub {
    Run(Run),
    Other,
}

#[derive(Debug, Args)]
struct Run {
    #[arg(long)]
    config: Option<PathBuf>,
    #[arg(long)]
    disk: Vec<PathBuf>,
}

/// Parses `args`, in which FILE stands for a file with this text.
fn with(text: &str, args: &str) -> Result<Plain, String> {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("options.toml");
    std::fs::write(&file, text).unwrap();
    let args = args.split_whitespace().map(|word| word.replace("FILE", file.to_str().unwrap()).into());
    try_parse_from(std::iter::once("daemon".into()).chain(args).collect()).map_err(|e| e.to_string())
}

#[track_caller]
fn refused(text: &str, args: &str, parts: &[&str]) {
    let message = with(text, args).unwrap_err();
    for part in parts {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

#[test]
fn files_give_what_the_command_line_does_not() {
    let plain = with("id = 3\nlisten = 'there'\npeers = ['a', 'b,c']\nalone = false", "--config FILE").unwrap();
    assert_eq!((plain.id, plain.listen.as_str(), plain.alone), (3, "there", false));
    assert_eq!(plain.peers, ["a", "b", "c"]);
    for args in ["--id 4 --config FILE", "--config=FILE --id=4"] {
        let plain = with("id = 3\nalone = true", args).unwrap();
        assert_eq!((plain.id, plain.listen.as_str(), plain.alone), (4, "here", true));
    }
    let plain = with("peers = ['a', 'b']\nid = 1", "--config FILE --peers x").unwrap();
    assert_eq!(plain.peers, ["x"], "lists are replaced, not joined");
}

#[test]
fn the_environment_wins_over_the_file() {
    let arg = Arg::new("path").long("path").env("PATH");
    assert!(is_given_elsewhere(&arg, &[]));
    let arg = Arg::new("path").long("path").env("LEVEE_OPTIONS_TEST_NONE");
    assert!(!is_given_elsewhere(&arg, &[]));
}

#[test]
fn values_may_look_like_options_and_subcommands() {
    let plain = with("id = 1\nlisten = '--alone'", "--config FILE").unwrap();
    assert_eq!((plain.listen.as_str(), plain.alone), ("--alone", false));
    let plain = with("id = 1", "--listen run --config FILE").unwrap();
    assert_eq!((plain.id, plain.listen.as_str()), (1, "run"));
}

#[test]
fn a_subcommand_has_a_file_of_its_own() {
    let plain = with("disk = ['/a', '/b']", "--id 1 run --config FILE").unwrap();
    let Some(Sub::Run(run)) = plain.command else { panic!("{plain:?}") };
    assert_eq!(run.disk, [PathBuf::from("/a"), "/b".into()]);
    refused("id = 1", "--id 1 run --config FILE", &["line 1", "no option `id`", "disk"]);
    assert!(with("", "--id 1 other --config FILE").is_err());
}

#[test]
fn what_is_wrong_is_told_with_file_line_and_key() {
    let all = "--config FILE";
    refused("id = 1\nlisen = 'x'", all, &["options.toml, line 2", "`lisen`", "did you mean `listen`?"]);
    refused("id = 1\n\nshoe = 1", all, &["line 3", "no option `shoe`", "id, listen, peers, room, alone"]);
    refused("id = 0", all, &["options.toml, line 1 (`id`)", "invalid value '0'"]);
    refused("id = 1\nlisten = ['x']", all, &["line 2", "`listen` takes one value"]);
    refused("id = 1\nalone = 'x'", all, &["line 2", "`alone` is a switch"]);
    refused("id = 1\nconfig = 'x'", all, &["line 2", "`config` cannot be set in a file"]);
    refused("id = 1\nhelp = true", all, &["line 2", "no option `help`"]);
    refused("id = 1\nid = 1", all, &["line 2", "duplicate"]);
    refused("listen = 'x'", all, &["--id <ID>", "not provided", "options.toml"]);
    refused("id = 1\npeers = ['x']", "--config FILE --alone", &["cannot be used with", "line 2 (`peers`)"]);
    refused("", "--id 1 --config FILE.none", &["cannot read the options in", "options.toml.none"]);
}

#[test]
fn what_is_wrong_on_the_command_line_is_not_blamed_on_the_file() {
    let message = with("listen = 'x'", "--config FILE --id 0").unwrap_err();
    assert!(message.contains("invalid value '0'") && !message.contains("options.toml"), "{message}");
}

#[test]
fn help_needs_no_file() {
    assert!(with("nonsense", "--config FILE --help").unwrap_err().contains("Usage"));
}

#[test]
fn typos_are_counted() {
    for (a, b, n) in [("", "", 0), ("peers", "peer", 1), ("listen", "lisetn", 2), ("a", "xyz", 3)] {
        assert_eq!((typos(a, b), typos(b, a)), (n, n));
    }
}
