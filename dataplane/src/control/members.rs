//! Which meta servers there are: the command line's hints, and what they say themselves.

use super::Control;
use anyhow::{Context, Result, ensure};
use levee_core::sync::join_all;
use levee_proto::api::ClusterInfo;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::Notify;
use tracing::{debug, info, warn};
use uuid::Uuid;

const NAME: &str = "meta.json";
/// Longest file that is read, bytes.
const MAX_LEN: u64 = 64 << 10;
/// Most members that are believed.
const MAX_MEMBERS: usize = 16;
/// Longest URL of a member, bytes.
const MAX_URL: usize = 256;
/// How often the members are asked who they are.
const LOOK: Duration = Duration::from_secs(60);
/// And at most, when calls fail.
const SOON: Duration = Duration::from_secs(1);

/// What is remembered between starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    cluster: Uuid,
    urls: Vec<String>,
}

/// The meta servers that are known.
pub struct Members {
    file: PathBuf,
    hints: Vec<String>,
    remembered: RefCell<Remembered>,
    /// The one that answered last.
    good: RefCell<Option<String>>,
    failing: Notify,
    since_failure: Cell<bool>,
}

impl Members {
    /// The command line's, and those that are remembered in the daemon's folder. What is remembered is only help: damaged, it is
    /// left aside.
    pub fn load(hints: &[String], dir: &Path) -> Members {
        let file = dir.join(NAME);
        let remembered = read(&file).unwrap_or_else(|e| {
            warn!("{e:#}; only the meta servers of the command line are known");
            Remembered::default()
        });
        Members {
            file,
            hints: hints.iter().map(|u| u.trim_end_matches('/').to_string()).collect(),
            remembered: RefCell::new(remembered),
            good: RefCell::default(),
            failing: Notify::new(),
            since_failure: Cell::new(false),
        }
    }

    /// All of them, the last good one first, then as the cluster says, then hints.
    pub fn in_order(&self) -> Vec<String> {
        let mut all: Vec<String> = self.good.borrow().iter().cloned().collect();
        // Before anything has been heard, the operator's word counts more than what was right once.
        let (first, second) = match all.is_empty() {
            true => (self.hints.clone(), self.remembered.borrow().urls.clone()),
            false => (self.remembered.borrow().urls.clone(), self.hints.clone()),
        };
        for url in first.into_iter().chain(second) {
            if !all.contains(&url) {
                all.push(url);
            }
        }
        all
    }

    pub fn answered(&self, url: &str) {
        if self.good.borrow().as_deref() != Some(url) {
            *self.good.borrow_mut() = Some(url.to_string());
        }
    }

    /// A call has failed: it may be time to ask who the members are now.
    pub fn failed(&self) {
        if !self.since_failure.replace(true) {
            self.failing.notify_one();
        }
    }

    /// Takes over what the most knowing of the members say. `cluster`: ours, if it is known.
    fn learn(&self, told: Vec<ClusterInfo>, cluster: Option<Uuid>) {
        let ours = told.into_iter().filter(|t| cluster.is_none_or(|c| c == t.cluster));
        let Some(best) = ours.max_by_key(|t| (t.leader.is_some(), t.applied)) else { return };
        let urls = best.members.iter().map(|m| m.url.trim_end_matches('/').to_string());
        let mut urls: Vec<String> = urls.filter(|u| is_plausible(u)).take(MAX_MEMBERS).collect();
        urls.sort();
        let new = Remembered { cluster: best.cluster, urls };
        if new.urls.is_empty() || *self.remembered.borrow() == new {
            return;
        }
        info!("the meta servers are {}", new.urls.join(", "));
        if let Err(e) = write(&self.file, &new) {
            warn!("cannot write {}: {e}; the meta servers will not be known at the next start", self.file.display());
        }
        *self.remembered.borrow_mut() = new;
    }
}

fn is_plausible(url: &str) -> bool {
    url.starts_with("http://") && url.len() <= MAX_URL && url.bytes().all(|b| b.is_ascii_graphic())
}

fn read(file: &Path) -> Result<Remembered> {
    let open = match File::open(file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Remembered::default()),
        open => open.with_context(|| format!("cannot read {}", file.display()))?,
    };
    let mut text = vec![];
    open.take(MAX_LEN + 1).read_to_end(&mut text).with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(text.len() as u64 <= MAX_LEN, "{} is too long", file.display());
    let read: Remembered =
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged: delete it", file.display()))?;
    ensure!(
        read.urls.len() <= MAX_MEMBERS && read.urls.iter().all(|u| is_plausible(u)),
        "{} is damaged",
        file.display()
    );
    Ok(read)
}

/// The file is whole at any moment: another takes its place.
fn write(path: &Path, remembered: &Remembered) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec_pretty(remembered)?)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

impl Control {
    /// Keeps the list of meta servers up to date.
    pub(super) async fn follow_members(&self) {
        let members = &self.meta.members;
        loop {
            let asked = members.in_order();
            let told = join_all(asked.iter().map(|url| self.meta.cluster_at(url))).await;
            let told: Vec<ClusterInfo> = told.into_iter().filter_map(Result::ok).collect();
            debug!("{} of {} meta servers tell who they are", told.len(), asked.len());
            members.learn(told, self.node.borrow().as_ref().map(|j| j.cluster));
            tokio::time::sleep(SOON).await;
            members.since_failure.set(false);
            let _ = tokio::time::timeout(LOOK, members.failing.notified()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use levee_proto::api::MemberInfo;

    fn told(cluster: u128, leader: Option<u64>, applied: u64, urls: &[&str]) -> ClusterInfo {
        let members =
            urls.iter().zip(1..).map(|(url, id)| MemberInfo { id, url: url.to_string(), silent_ms: None }).collect();
        ClusterInfo { cluster: Uuid::from_u128(cluster), member: 1, leader, members, applied, leaderless_ms: None }
    }

    #[test]
    fn hints_come_first_until_somebody_answers_and_what_was_learned_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let hints = ["http://a:1/".to_string()];
        let members = Members::load(&hints, dir.path());
        assert_eq!(members.in_order(), ["http://a:1"]);
        // One that was removed still answers, and knows less.
        let stale = told(7, None, 90, &["http://a:1", "http://b:1"]);
        members.learn(vec![stale, told(7, Some(2), 80, &["http://c:1", "http://b:1"])], None);
        members.learn(vec![told(8, Some(2), 800, &["http://x:1"])], Some(Uuid::from_u128(7)));
        members.learn(vec![told(7, Some(2), 900, &["ftp://x", "http://a b"])], None);
        let again = Members::load(&hints, dir.path());
        assert_eq!(again.in_order(), ["http://a:1", "http://b:1", "http://c:1"]);
        again.answered("http://c:1");
        assert_eq!(again.in_order(), ["http://c:1", "http://b:1", "http://a:1"]);
    }

    #[test]
    fn a_damaged_memory_is_left_aside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), b"{").unwrap();
        assert_eq!(Members::load(&["http://a:1".into()], dir.path()).in_order(), ["http://a:1"]);
    }
}
