//! The sample configuration file says what the program takes.

use clap::CommandFactory;
use levee_dataplane::args::{Cli, Command, RunArgs};
use std::path::Path;

fn sample() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/levee-stored.toml");
    std::fs::read_to_string(path).expect("packaging/levee-stored.toml")
}

fn parse(text: &str) -> Result<RunArgs, clap::Error> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("levee-stored.toml");
    std::fs::write(&file, text).unwrap();
    let args = ["levee-stored".into(), "run".into(), "--config".into(), file.into_os_string()];
    match levee_options::try_parse_from::<Cli>(args.into())?.command {
        Command::Run(run) => Ok(*run),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_option_is_explained() {
    let command = Cli::command();
    let run = command.find_subcommand("run").expect("the subcommand");
    let complaints = levee_options::sample::complaints(run, &sample());
    assert!(complaints.is_empty(), "packaging/levee-stored.toml:\n{}", complaints.join("\n"));
}

#[test]
fn it_is_accepted_with_each_of_its_options() {
    for text in levee_options::sample::variants(&sample()) {
        let args = parse(&text).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((args.name.as_str(), args.data.len()), ("host-1", 2));
    }
}
