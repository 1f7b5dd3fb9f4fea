//! `levee`: the operators' command line.
//!
//! It owns no state of its own except the folder of an embedded cluster (`levee up`). Exit status:
//! 0 done, 1 failed, 2 wrong usage. With `--json` standard output carries exactly one JSON document,
//! also on failure; what goes wrong is told in one line on standard error.
#![deny(unsafe_code)]

mod cli;
mod client;
mod cluster;
mod commands;
mod errors;
mod init;
mod limits;
mod local;
mod output;
mod signals;
mod transfer;
mod values;

use clap::{CommandFactory, Parser};
use std::process::ExitCode;

fn main() -> ExitCode {
    levee_options::pages::write_if_asked(cli::Cli::command(), &std::env::args_os().collect::<Vec<_>>());
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(refusal) => return errors::refuse(refusal),
    };
    let out = output::Output::new(cli.global.json);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return errors::report(&anyhow::Error::new(e).context("cannot start"), &out),
    };
    match runtime.block_on(commands::run(cli, &out)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => errors::report(&e, &out),
    }
}
