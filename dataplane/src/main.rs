//! `levee-stored`: Levee's storage daemon.

use anyhow::Result;
use levee_dataplane::NotTheNode;
use levee_dataplane::args::{Cli, Command};
use std::process::ExitCode;

/// Exit status of a daemon that was refused, or replaced, because another one is the node.
const NOT_THE_NODE: u8 = 3;

/// Requests allocate a few small objects and one buffer each: an allocator made for that saves a tenth of the CPU.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli: Cli = levee_options::parse();
    let done: Result<()> = match cli.command {
        Command::Format(args) => levee_dataplane::format(&args),
        Command::Run(args) => levee_dataplane::run(*args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("levee-stored: {e:#}");
            match e.is::<NotTheNode>() {
                true => NOT_THE_NODE.into(),
                false => ExitCode::FAILURE,
            }
        }
    }
}
