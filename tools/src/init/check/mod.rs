//! `levee init check`: what a host lacks for the configuration that it has. Looks, and changes nothing.

mod disk;
mod host;
mod network;
#[allow(unsafe_code)]
mod uring;

use super::files::{META_FILE, NODE_FILE};
use crate::cli::InitCheck;
use crate::errors::Found;
use crate::output::Output;
use anyhow::bail;
use levee_options::file::{self, Given, Text};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The user that the services run as.
const USER: &str = "levee";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Not yet as it will be, and no obstacle.
    Note,
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    verdict: Verdict,
    detail: String,
    /// What the operator should do.
    #[serde(skip_serializing_if = "Option::is_none")]
    to_do: Option<String>,
}

impl Finding {
    fn ok(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Finding { what: what.into(), verdict: Verdict::Ok, detail: detail.into(), to_do: None }
    }

    fn note(what: impl Into<String>, detail: impl Into<String>, to_do: &str) -> Self {
        let to_do = Some(to_do.to_string()).filter(|text| !text.is_empty());
        Finding { what: what.into(), verdict: Verdict::Note, detail: detail.into(), to_do }
    }

    fn missing(what: impl Into<String>, detail: impl Into<String>, to_do: impl Into<String>) -> Self {
        Finding { what: what.into(), verdict: Verdict::Missing, detail: detail.into(), to_do: Some(to_do.into()) }
    }
}

#[derive(Serialize)]
struct Findings {
    ready: bool,
    findings: Vec<Finding>,
}

pub async fn check(args: &InitCheck, out: &Output) -> anyhow::Result<()> {
    let (meta, node) = (Options::read(&args.config, META_FILE), Options::read(&args.config, NODE_FILE));
    if meta.is_none() && node.is_none() {
        let folder = args.config.display();
        bail!(
            "{folder} has neither {META_FILE} nor {NODE_FILE}: put this host's files there, or name their folder with --config"
        );
    }
    let mut findings = Vec::new();
    let meta = usable(meta, &mut findings);
    let node = usable(node, &mut findings);
    findings.extend(host::services());
    if let Some(node) = &node {
        findings.extend(host::kernel());
        let cores = node.all("data").len();
        findings.extend(node.all("disk").iter().map(|disk| disk::look(disk_path(disk), cores)));
    }
    findings.extend(network::look(meta.as_ref(), node.as_ref(), args.timeout).await);

    let missing = findings.iter().filter(|finding| finding.verdict == Verdict::Missing).count();
    let findings = Findings { ready: missing == 0, findings };
    out.result(&findings, || describe(&findings))?;
    match missing {
        0 => Ok(()),
        1 => Err(Found("1 thing is missing".into()).into()),
        count => Err(Found(format!("{count} things are missing")).into()),
    }
}

/// URLs of the meta servers that the files in a folder name; none if there are no such files, or they cannot be read.
pub fn meta_servers(folder: &Path) -> Vec<String> {
    let (meta, node) = (Options::read(folder, META_FILE), Options::read(folder, NODE_FILE));
    network::told(meta.as_ref(), node.as_ref())
}

fn describe(all: &Findings) -> String {
    let mut text = String::new();
    for finding in &all.findings {
        let word = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Missing => "MISSING",
        };
        text.push_str(&format!("{word:<8} {}: {}\n", finding.what, finding.detail));
        text.extend(finding.to_do.iter().map(|to_do| format!("         {to_do}\n")));
    }
    text + if all.ready { "This host is ready.\n" } else { "" }
}

/// A daemon's options, as far as they are looked at here; the daemon itself checks the rest.
struct Options {
    file: PathBuf,
    given: Result<Vec<Given>, String>,
}

impl Options {
    /// `None`: the host does not run this daemon.
    fn read(folder: &Path, name: &str) -> Option<Self> {
        let file = folder.join(name);
        file.exists().then(|| Options { given: file::read(&file), file })
    }

    /// All values of an option.
    fn all(&self, key: &str) -> Vec<String> {
        let given = self.given.iter().flatten().find(|given| given.key == key);
        match given.map(|given| &given.value) {
            Some(Text::Many(values)) => values.clone(),
            Some(Text::One(value)) if key == "disk" => vec![value.clone()],
            Some(Text::One(value)) => value.split(',').map(str::to_string).collect(),
            Some(Text::Switch(on)) => vec![on.to_string()],
            None => vec![],
        }
    }

    fn one(&self, key: &str) -> Option<String> {
        self.all(key).into_iter().next()
    }
}

/// A disk's path, without its class.
fn disk_path(option: &str) -> &Path {
    Path::new(option.rsplit_once(",class=").map_or(option, |(path, _)| path))
}

/// Options that can be read; else says why not.
fn usable(options: Option<Options>, findings: &mut Vec<Finding>) -> Option<Options> {
    let options = options?;
    let what = options.file.display().to_string();
    match &options.given {
        Ok(_) => {
            findings.push(Finding::ok(what, "can be read"));
            Some(options)
        }
        Err(why) => {
            findings.push(Finding::missing(what, why, "correct the file"));
            None
        }
    }
}
