//! Adding, removing and replacing members, by the leader.

use crate::app::App;
use crate::limits::*;
use levee_meta_state::{Command, Note};
use levee_proto::api::*;
use openraft::{BasicNode, ChangeMembers};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Held by who changes the group: one at a time.
#[derive(Default)]
pub struct Changes(pub(super) Mutex<()>);

fn conflict(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::Conflict, detail)
}

/// The group as this leader sees it.
pub fn status(app: &App) -> Members {
    let metrics = app.raft.metrics().borrow().clone();
    let membership = metrics.membership_config.membership().clone();
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let matched = |id: &u64| {
        if *id == app.id {
            return metrics.last_log_index;
        }
        metrics.replication.as_ref().and_then(|all| all.get(id).copied().flatten()).map(|id| id.index)
    };
    let members = membership.nodes().map(|(id, node)| MemberStatus {
        id: *id,
        url: app.directory().url(*id, Some(&node.addr)).unwrap_or_else(|| node.addr.clone()),
        role: if voters.contains(id) { MemberRole::Voter } else { MemberRole::Learner },
        alive: app.directory().is_alive(*id, ALIVE_WITHIN),
        level: if *id == app.id { Some(app.directory().own.level) } else { app.directory().seen(*id).map(|s| s.level) },
        matched: matched(id),
        trouble: app.directory().trouble_of(*id),
    });
    let members: Vec<MemberStatus> = members.collect();
    let changing = membership.get_joint_config().len() > 1 || members.iter().any(|m| m.role == MemberRole::Learner);
    Members {
        leader: app.id,
        level: app.replicated.read(|state| state.level()),
        last: metrics.last_log_index.unwrap_or(0),
        changing,
        members,
    }
}

/// Takes a new member in as a learner, or notes that one has moved.
pub async fn add(app: &App, request: AddMember) -> Result<(), Problem> {
    let url = checked_url(&request.url)?;
    let _one = app.changes.0.lock().await;
    let hello = hello(app, &url).await?;
    if request.id.is_some_and(|id| id != hello.id) {
        return Err(conflict(format!("{url} is meta server {}, not {}", hello.id, request.id.unwrap_or(0))));
    }
    match url_of(app, hello.id) {
        Some(known) if known == url => check_folder(app, &hello),
        Some(_) => {
            check_folder(app, &hello)?;
            let moved = BTreeMap::from([(hello.id, BasicNode::new(&url))]);
            change(app, ChangeMembers::SetNodes(moved)).await?;
            tell(app, hello.id, &format!("has moved to {url}")).await;
            Ok(())
        }
        None => take_in(app, &hello, &url).await,
    }
}

/// Takes a member out, and has it begin anew if it is there with an empty folder.
pub async fn replace(app: &App, id: u64, request: ReplaceMember, force: bool) -> Result<(), Problem> {
    let _one = app.changes.0.lock().await;
    let known = url_of(app, id);
    let url = match request.url.as_deref().map(checked_url).transpose()?.or_else(|| known.clone()) {
        Some(url) => url,
        None => {
            return Err(Problem::new(ProblemKind::NotFound, format!("there is no meta server {id}: say where it is")));
        }
    };
    let hello = hello(app, &url).await?;
    if hello.id != id {
        return Err(conflict(format!("{url} is meta server {}, not {id}: start it with --id {id}", hello.id)));
    }
    if known.is_some() && app.directory().pinned(id) == Some(hello.folder) {
        return Err(conflict(format!("meta server {id} at {url} has its folder: there is nothing to replace")));
    }
    check_new(app, &hello, &url)?;
    if known.is_some() {
        take_out(app, id, force).await?;
    }
    take_in(app, &hello, &url).await
}

pub async fn remove(app: &App, id: u64, force: bool) -> Result<(), Problem> {
    let _one = app.changes.0.lock().await;
    if url_of(app, id).is_none() {
        return Err(Problem::new(ProblemKind::NotFound, format!("there is no meta server {id}")));
    }
    take_out(app, id, force).await?;
    if id != app.id {
        tell(app, id, "is not in the group any more").await;
    }
    Ok(())
}

fn checked_url(url: &str) -> Result<String, Problem> {
    crate::args::parse_url(url).map_err(|e| Problem::new(ProblemKind::Invalid, format!("'{}': {e}", shown_name(url))))
}

fn url_of(app: &App, id: u64) -> Option<String> {
    let metrics = app.raft.metrics();
    let membership = metrics.borrow().membership_config.clone();
    membership.membership().get_node(&id).map(|node| node.addr.clone())
}

async fn hello(app: &App, url: &str) -> Result<Hello, Problem> {
    let heard = app.network.hello(url).await;
    heard.map_err(|e| {
        conflict(format!("no meta server could be reached at {url} ({e}): start it with --join, then try again"))
    })
}

fn check_folder(app: &App, hello: &Hello) -> Result<(), Problem> {
    let id = hello.id;
    match app.directory().stranger(id, hello.folder) {
        Some(trouble) => Err(conflict(trouble)),
        None if hello.fresh && app.directory().pinned(id).is_none() => Err(conflict(format!(
            "meta server {id} is in the group and its folder is empty: `levee meta replace {id}` has it begin anew"
        ))),
        None => Ok(()),
    }
}

/// A new member must bring nothing along, and understand everything.
fn check_new(app: &App, hello: &Hello, url: &str) -> Result<(), Problem> {
    if !hello.fresh {
        let whose = hello.cluster.map_or("another group".into(), |cluster| format!("cluster {cluster}"));
        return Err(conflict(format!(
            "meta server {} at {url} has the log of {whose}: stop it, start it with an empty folder, and try again",
            hello.id
        )));
    }
    let level = app.replicated.read(|state| state.level());
    if hello.level < level {
        return Err(conflict(format!(
            "meta server {} at {url} is older than the group: {}",
            hello.id,
            crate::raft::too_old(level, hello.level)
        )));
    }
    Ok(())
}

async fn take_in(app: &App, hello: &Hello, url: &str) -> Result<(), Problem> {
    check_new(app, hello, url)?;
    if let Some(other) = status(app).members.iter().find(|m| m.role == MemberRole::Learner) {
        return Err(conflict(format!("meta server {} is still being taken in: wait for it, or remove it", other.id)));
    }
    let id = hello.id;
    app.directory().begins_anew(id);
    if app.directory().pinned(id).is_some_and(|folder| folder != hello.folder) {
        app.proposer.propose(Command::ReleaseMember { id }).await?;
    }
    if app.replicated.read(|state| state.level()) > levee_meta_state::FIRST_LEVEL {
        app.proposer.propose(Command::PinMember { id, folder: hello.folder }).await?;
    }
    change(app, ChangeMembers::AddNodes(BTreeMap::from([(id, BasicNode::new(url))]))).await?;
    tell(app, id, &format!("at {url} is being taken in")).await;
    Ok(())
}

async fn take_out(app: &App, id: u64, force: bool) -> Result<(), Problem> {
    let before = status(app);
    let is_voter = |m: &&MemberStatus| m.role == MemberRole::Voter;
    let voter = before.members.iter().filter(is_voter).any(|m| m.id == id);
    if voter {
        let left: Vec<_> = before.members.iter().filter(is_voter).filter(|m| m.id != id).cloned().collect();
        let there = answering(app, &left).await;
        if left.is_empty() {
            return Err(conflict(format!("meta server {id} is the last one: add another one first")));
        }
        if there.len() * 2 <= left.len() && !force {
            let missing = left.iter().map(|m| m.id).filter(|id| !there.contains(id)).map(|id| id.to_string());
            return Err(conflict(format!(
                "without meta server {id} there are {}, of which these do not answer: {}. The rest is no majority: start \
                 them first, or force it",
                left.len(),
                missing.collect::<Vec<_>>().join(", ")
            )));
        }
    }
    let ids = BTreeSet::from([id]);
    change(app, if voter { ChangeMembers::RemoveVoters(ids) } else { ChangeMembers::RemoveNodes(ids) }).await?;
    app.directory().trouble(id, None);
    // Not before: as long as it votes, no other folder may speak for it. If this is not done, who takes the next member of
    // this number in does it.
    if id != app.id && app.directory().pinned(id).is_some() {
        let _ = app.proposer.propose(Command::ReleaseMember { id }).await;
    }
    Ok(())
}

/// Which of these would count at this moment. One that died within the last seconds still passes for alive, and a change
/// that needs its voice holds up everything behind it.
pub(super) async fn answering(app: &App, members: &[MemberStatus]) -> BTreeSet<u64> {
    let mut asked = JoinSet::new();
    for member in members.iter().filter(|m| m.trouble.is_none() && m.id != app.id) {
        let (network, id, url) = (app.network.clone(), member.id, member.url.clone());
        asked.spawn(async move { network.hello(&url).await.ok().filter(|hello| hello.id == id) });
    }
    let own = members.iter().filter(|m| m.id == app.id).map(|m| m.id);
    let counts = |hello: &Hello| app.directory().stranger(hello.id, hello.folder).is_none();
    own.chain(asked.join_all().await.into_iter().flatten().filter(counts).map(|hello| hello.id)).collect()
}

/// Tells operators of a change; that it is done counts, not that it is told.
pub(super) async fn tell(app: &App, id: u64, text: &str) {
    tracing::info!("meta server {id} {text}");
    if app.replicated.read(|state| state.level()) > levee_meta_state::FIRST_LEVEL {
        let (kind, severity, subject) = (EventKind::Member, Severity::Info, id.to_string());
        let _ = app.proposer.propose(Command::Note(vec![Note { kind, severity, subject, text: text.into() }])).await;
    }
}

/// Commits one change of the membership, with all its steps.
pub(super) async fn change(app: &App, change: ChangeMembers<u64, BasicNode>) -> Result<(), Problem> {
    let unfinished = |why: String| {
        Problem::new(ProblemKind::Unavailable, format!("the group could not be changed ({why}): try again"))
    };
    // Learners stay what they are; who is no voter any more leaves.
    let retain = !matches!(change, ChangeMembers::RemoveVoters(_) | ChangeMembers::ReplaceAllVoters(_));
    match timeout(CHANGE_WAIT, app.raft.change_membership(change, retain)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(unfinished(error.to_string())),
        Err(_) => Err(unfinished("a majority does not answer".into())),
    }
}
