//! Which cluster a command speaks to.

use crate::cli::Global;
use crate::client::MetaClient;
use crate::errors::Usage;
use crate::init::check::meta_servers;
use crate::local::layout::{ClusterFile, DEFAULT_DIR, Layout};
use crate::values;
use std::path::{Path, PathBuf};

/// Environment variable with the URLs of the meta servers.
pub const CLUSTER_VARIABLE: &str = "LEVEE_CLUSTER";
/// Where the daemons of an installed host have their files.
const CONFIG_DIR: &str = "/etc/levee";
const DEFAULT_URL: &str = "http://127.0.0.1:7400";
const HINT: &str = "`levee up` starts a cluster on this machine";

/// The folder that `levee up` and `levee down` work on.
pub fn local_dir(global: &Global) -> PathBuf {
    global.dir.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_DIR))
}

/// The cluster to speak to. What is on the command line goes before the environment, and that
/// before a cluster in the current folder, and that before what this host's daemons are told of.
pub fn connect(global: &Global) -> anyhow::Result<MetaClient> {
    if !global.cluster.is_empty() {
        return Ok(MetaClient::new(global.cluster.clone(), HINT.into()));
    }
    if let Some(dir) = &global.dir {
        return embedded(dir)?.ok_or_else(|| {
            let dir = dir.display();
            anyhow::anyhow!("there is no cluster in {dir}: `levee up --dir {dir}` creates one")
        });
    }
    if let Some(urls) = from_environment()? {
        return Ok(MetaClient::new(urls, HINT.into()));
    }
    if let Some(client) = embedded(Path::new(DEFAULT_DIR))? {
        return Ok(client);
    }
    Ok(match installed(Path::new(CONFIG_DIR)) {
        Some(urls) => MetaClient::new(urls, format!("the files in {CONFIG_DIR} name them; --cluster names others")),
        None => MetaClient::new(vec![DEFAULT_URL.into()], HINT.into()),
    })
}

/// The meta servers that this host's own daemons are told of.
fn installed(folder: &Path) -> Option<Vec<String>> {
    let urls = meta_servers(folder);
    let urls: Vec<String> = urls.iter().filter_map(|url| values::url(url).ok()).collect();
    (!urls.is_empty()).then_some(urls)
}

fn embedded(dir: &Path) -> anyhow::Result<Option<MetaClient>> {
    let layout = Layout::at(dir)?;
    Ok(ClusterFile::load(&layout)?.map(|file| {
        let hint = format!("`levee up --dir {}` starts what is missing", dir.display());
        MetaClient::new(file.meta_urls(), hint)
    }))
}

fn from_environment() -> anyhow::Result<Option<Vec<String>>> {
    let Some(text) = std::env::var_os(CLUSTER_VARIABLE).filter(|text| !text.is_empty()) else { return Ok(None) };
    let urls: Result<Vec<_>, _> = text.to_string_lossy().split(',').map(values::url).collect();
    match urls {
        Ok(urls) => Ok(Some(urls)),
        Err(e) => Err(Usage(format!("environment variable {CLUSTER_VARIABLE}: {e}")).into()),
    }
}
