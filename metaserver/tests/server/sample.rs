//! The sample configuration file says what the program takes.

use clap::CommandFactory;
use levee_metaserver::args::Args;
use std::ffi::OsString;
use std::path::Path;

fn sample() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/levee-metad.toml");
    std::fs::read_to_string(path).expect("packaging/levee-metad.toml")
}

fn parse(text: &str) -> Result<Args, clap::Error> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("levee-metad.toml");
    std::fs::write(&file, text).unwrap();
    levee_options::try_parse_from(vec!["levee-metad".into(), "--config".into(), OsString::from(file)])
}

#[test]
fn every_option_is_explained() {
    let complaints = levee_options::sample::complaints(&Args::command(), &sample());
    assert!(complaints.is_empty(), "packaging/levee-metad.toml:\n{}", complaints.join("\n"));
}

#[test]
fn it_is_accepted_with_each_of_its_options() {
    for text in levee_options::sample::variants(&sample()) {
        let args = parse(&text).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(args.id, 1);
        args.members("").unwrap_or_else(|e| panic!("{e}"));
    }
}
