//! Runs `levee` as a user would.
#![allow(dead_code)]

pub mod http;
pub mod ports;
pub mod script;

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// A `levee` that sees neither the environment's cluster nor one in the current folder.
pub fn levee(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_remove("LEVEE_CLUSTER").env_remove("LEVEE_FAKE").current_dir(folder);
    command
}

pub fn built() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_levee"))
}

/// What a command did.
pub struct Ran {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(command: &mut Command) -> Ran {
        let Output { status, stdout, stderr } = command.output().expect("levee runs");
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        Ran { status: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) }
    }

    #[track_caller]
    pub fn expect(self, status: i32) -> Ran {
        assert_eq!(self.status, status, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Standard output as the one JSON document that it must be.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e} in: {}", self.stdout))
    }
}
