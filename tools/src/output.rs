//! What a command prints: tables and lines for people, or one JSON document for programs.

use crate::errors::ReaderGone;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Where results go. Standard output carries results only; hints and progress go to standard error.
pub struct Output {
    pub json: bool,
    terminal: bool,
}

impl Output {
    pub fn new(json: bool) -> Output {
        Output { json, terminal: std::io::stdout().is_terminal() }
    }

    /// Prints the command's result: `document` for programs, or what `text` makes for people.
    pub fn result<T: Serialize>(&self, document: &T, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        if self.json { self.document(document) } else { self.lines(&text()) }
    }

    /// Prints a JSON document.
    pub fn document<T: Serialize>(&self, document: &T) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(document)?;
        text.push('\n');
        write(&text)
    }

    fn lines(&self, text: &str) -> anyhow::Result<()> {
        let text = text.trim_end();
        if text.is_empty() { Ok(()) } else { write(&format!("{text}\n")) }
    }

    /// A table: ruled on a terminal, plain columns elsewhere.
    pub fn table(&self, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
        let mut table = Table::new();
        if self.terminal {
            table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
        } else {
            table.load_preset(presets::NOTHING);
        }
        table.set_content_arrangement(ContentArrangement::Disabled).set_header(header.to_vec());
        for row in rows {
            table.add_row(row);
        }
        // Cells are padded on both sides: without borders that is white space around the lines.
        let lines: Vec<_> = table.lines().map(|line| trim_padding(&line, self.terminal)).collect();
        lines.join("\n")
    }

    /// A line for a person that is not the result: a warning, a hint.
    pub fn note(&self, text: &str) {
        eprintln!("{text}");
    }

    /// Progress of something that has no measure yet. Shown on a terminal only.
    pub fn spinner(&self, text: impl Into<String>) -> ProgressBar {
        let bar = ProgressBar::new_spinner().with_message(text.into());
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }
}

/// Turns a spinner into a bar of `total` parts.
pub fn measure(bar: &ProgressBar, total: u64) {
    if bar.length() == Some(total) {
        return;
    }
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len}, {eta} left") {
        bar.set_style(style);
    }
    bar.set_length(total);
}

/// Turns a spinner into a bar of `total` bytes.
pub fn measure_bytes(bar: &ProgressBar, total: u64) {
    let template = "{msg} {bar:30} {binary_bytes}/{binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_length(total);
}

fn trim_padding(line: &str, ruled: bool) -> String {
    if ruled { line.to_string() } else { line.strip_prefix(' ').unwrap_or(line).trim_end().to_string() }
}

fn write(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        Err(e) => Err(anyhow::Error::new(e).context("cannot write to standard output")),
    }
}
