//! How a command fails: one line for a person on standard error, a document for a program on
//! standard output, and the exit status.

use crate::client::ClientError;
use crate::output::Output;
use std::fmt;
use std::process::ExitCode;

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;

/// The command line asks for something that makes no sense: exit status 2.
#[derive(Debug)]
pub struct Usage(pub String);

/// The command did its work and printed its document, but what it found is a failure.
#[derive(Debug)]
pub struct Found(pub String);

impl Found {
    /// For what goes wrong when the document is out already: there must not be a second one.
    pub fn after_document(error: anyhow::Error) -> anyhow::Error {
        if error.is::<ReaderGone>() { error } else { Found(format!("{error:#}")).into() }
    }
}

/// The reader of standard output has gone away: nothing is left to say.
#[derive(Debug)]
pub struct ReaderGone;

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody reads the output")
    }
}

impl std::error::Error for Usage {}
impl std::error::Error for Found {}
impl std::error::Error for ReaderGone {}

/// Reports why a command failed.
pub fn report(error: &anyhow::Error, out: &Output) -> ExitCode {
    if error.is::<ReaderGone>() {
        return ExitCode::from(FAILED);
    }
    let line = one_line(&format!("{error:#}"));
    if out.json && !error.is::<Found>() {
        // The reader may be gone; the exit status still tells.
        let _ = out.document(&document(kind(error), &line));
    }
    eprintln!("levee: {line}");
    ExitCode::from(if error.is::<Usage>() { WRONG_USAGE } else { FAILED })
}

/// Reports that the command line could not be understood, or prints the help that it asked for.
pub fn refuse(refusal: clap::Error) -> ExitCode {
    if !refusal.use_stderr() {
        return if refusal.print().is_ok() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) };
    }
    if std::env::args_os().take_while(|arg| arg != "--").any(|arg| arg == "--json") {
        let text = refusal.to_string();
        let detail = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let _ = Output::new(true).document(&document("usage", detail));
    }
    let _ = refusal.print();
    ExitCode::from(WRONG_USAGE)
}

fn document(kind: &str, detail: &str) -> serde_json::Value {
    serde_json::json!({ "error": { "kind": kind, "detail": detail } })
}

/// The stable word for a program: a [`levee_proto::api::ProblemKind`], or one of our own.
fn kind(error: &anyhow::Error) -> &'static str {
    use levee_proto::api::ProblemKind::*;
    if error.is::<Usage>() {
        return "usage";
    }
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Problem(problem)) => match problem.kind {
            Invalid => "invalid",
            NotFound => "not-found",
            Exists => "exists",
            Conflict => "conflict",
            Fenced => "fenced",
            NoSpace => "no-space",
            Unavailable => "unavailable",
            TooMany => "too-many",
            Internal => "internal",
        },
        Some(ClientError::Unreachable { .. }) => "unreachable",
        Some(ClientError::NoAnswer { .. }) => "no-answer",
        Some(ClientError::Unexpected { .. }) => "unexpected",
        None => "failed",
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
