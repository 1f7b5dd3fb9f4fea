//! How a member gets into a group, and learns that it is not in it any more.
//!
//! A group is founded once: by the member with the lowest id, when all members answer and none of them has a log. A member
//! whose folder was lost must not found another group beside the one that it was in.

use crate::app::App;
use crate::limits::*;
use crate::raft::Contact;
use levee_meta_state::State;
use levee_proto::api::{AddMember, Hello, Members, Problem};
use openraft::{BasicNode, RaftMetrics};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::sleep;
use uuid::Uuid;

/// Sets a new group up, if that is this member's task. `members`: all of it, this one included.
pub async fn found(app: Arc<App>, members: BTreeMap<u64, String>) {
    if members.keys().next() != Some(&app.id) {
        return;
    }
    let mut told = String::new();
    while !app.raft.is_initialized().await.unwrap_or(true) {
        let mut missing = Vec::new();
        for (id, url) in members.iter().filter(|(id, _)| **id != app.id) {
            match app.network.hello(url).await {
                Ok(Hello { fresh: true, .. }) => {}
                Ok(_) => {
                    tracing::error!(
                        "meta server {id} has a log and this one's folder is empty: the group exists. Was the folder lost? \
                         `levee meta replace {}` has this member begin anew",
                        app.id
                    );
                    return;
                }
                Err(why) => missing.push(format!("meta server {id} at {url} ({why})")),
            }
        }
        if missing.is_empty() {
            let nodes: BTreeMap<u64, BasicNode> = members.iter().map(|(id, url)| (*id, BasicNode::new(url))).collect();
            match app.raft.initialize(nodes).await {
                Ok(()) => tracing::info!("a new group of {} begins", members.len()),
                Err(error) => tracing::debug!("the group is not set up here: {error}"),
            }
            return;
        }
        let tell = format!("a new group begins when all members answer; missing: {}", missing.join(", "));
        if tell != told {
            tracing::info!("{tell}");
            told = tell;
        }
        sleep(FOUND_RETRY).await;
    }
}

/// Tells the group that this member is there: a new one that would like in, or one that has moved.
/// `at`: members to ask, if the group is not known yet.
pub async fn announce(app: Arc<App>, at: Vec<String>, told_url: bool) {
    let mut told = None;
    loop {
        let metrics = app.raft.metrics().borrow().clone();
        let recorded = metrics.membership_config.membership().get_node(&app.id).map(|node| node.addr.clone());
        let joined = recorded.is_some();
        let moved = told_url && recorded.is_some_and(|url| url != app.url);
        if joined && !moved {
            return;
        }
        let leader = metrics.current_leader.and_then(|id| app.directory().url(id, None));
        let ask = if joined { leader.into_iter().collect() } else { at.clone() };
        for url in ask {
            match ask_in(&app, &url).await {
                Ok(()) => told = None,
                Err(why) if told.as_ref() != Some(&why) => {
                    tracing::warn!("the group at {url} does not take this member in yet: {why}");
                    told = Some(why);
                }
                Err(_) => continue,
            }
            break;
        }
        sleep(JOIN_RETRY).await;
    }
}

async fn ask_in(app: &App, url: &str) -> Result<(), String> {
    let request = AddMember { id: Some(app.id), url: app.url.clone() };
    let body = serde_json::to_vec(&request).map_err(|e| e.to_string())?;
    let sent = app.http.post(format!("{url}/v1/members")).timeout(FORWARD_WAIT + CHANGE_WAIT).body(body).send().await;
    let response =
        sent.map_err(|e| if e.is_connect() { "nothing listens there".to_string() } else { e.to_string() })?;
    if response.status().is_success() {
        return response.json::<Members>().await.map(drop).map_err(|_| "its answer is not understood".into());
    }
    let status = response.status();
    match response.json::<Problem>().await {
        Ok(problem) => Err(problem.detail),
        Err(_) => Err(format!("status {status}")),
    }
}

/// Looks whether the silence around this member means that the group goes on without it. `cluster`: the one that its
/// folder belonged to at the start, if any; a member that was removed is not told any more what is committed.
pub async fn watch_removal(
    app: Arc<App>,
    cluster: Option<Uuid>,
    contact: Contact,
    fatal: watch::Sender<Option<String>>,
) {
    // A member that is being taken in reads of times when it was not in the group; one that has a log already was in.
    let mut was_in = app.raft.is_initialized().await.unwrap_or(false);
    let mut told = app.raft.metrics();
    let names = |m: &RaftMetrics<u64, BasicNode>| m.membership_config.membership().get_node(&app.id).is_some();
    loop {
        // A member may be taken in and removed again between two looks.
        tokio::select! {
            () = sleep(REMOVED_LOOK) => {}
            named = told.wait_for(names), if !was_in => match named {
                Ok(_) => was_in = true,
                Err(_) => return,
            },
        }
        let metrics = app.raft.metrics().borrow().clone();
        let own = metrics.membership_config.clone();
        let is_in = own.membership().get_node(&app.id).is_some();
        was_in |= is_in;
        // A leader that was removed goes on believing that it leads.
        let leads = is_in && metrics.current_leader == Some(app.id);
        if leads || contact.silence() < REMOVED_LOOK {
            continue;
        }
        let nodes: Vec<(u64, String)> = own
            .membership()
            .nodes()
            .filter(|(id, _)| **id != app.id)
            .map(|(id, node)| (*id, node.addr.clone()))
            .collect();
        for (id, addr) in nodes {
            let url = app.directory().url(id, Some(&addr)).unwrap_or(addr);
            let Ok(hello) = app.network.hello(&url).await else { continue };
            let cluster = cluster.or_else(|| app.replicated.read(State::cluster));
            let same = hello.cluster.is_some() && hello.cluster == cluster;
            let later = hello.members_at >= own.log_id().map_or(0, |id| id.index);
            if was_in && same && later && hello.leader.is_some() && !hello.members.contains(&app.id) {
                fatal.send_replace(Some(format!(
                    "meta server {} was removed from the group: nothing needs it or its folder any more",
                    app.id
                )));
                return;
            }
        }
    }
}
