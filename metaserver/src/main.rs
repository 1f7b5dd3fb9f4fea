//! `levee-metad`: parses the command line, runs the server, reports a failure in one line.

use clap::{CommandFactory, Parser};
use levee_metaserver::{args::Args, recover, server};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Consensus logs every failed contact as an error; what matters of it is said by the server itself.
const DEFAULT_LOG: &str = "info,openraft=off";

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|first| first == "recover") {
        let words = std::env::args_os().enumerate().filter(|(i, _)| *i != 1).map(|(_, word)| word);
        return end(recover::run(&recover::Args::parse_from(words)));
    }
    let args: Args = levee_options::parse();
    if let Err(message) = args.members("") {
        Args::command().error(clap::error::ErrorKind::ValueValidation, message).exit();
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .enable_all()
        .build()
        .map_err(anyhow::Error::from);
    end(runtime.and_then(|runtime| runtime.block_on(server::run(args))))
}

fn end(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("levee-metad: {error:#}");
            ExitCode::FAILURE
        }
    }
}
