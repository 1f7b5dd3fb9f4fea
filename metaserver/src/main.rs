//! `levee-metad`: parses the command line, runs the server, reports a failure in one line.

use clap::CommandFactory;
use levee_metaserver::{args::Args, server};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Consensus logs every failed contact as an error; what matters of it is said by the server itself.
const DEFAULT_LOG: &str = "info,openraft=off";

fn main() -> ExitCode {
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
    match runtime.and_then(|runtime| runtime.block_on(server::run(args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("levee-metad: {error:#}");
            ExitCode::FAILURE
        }
    }
}
