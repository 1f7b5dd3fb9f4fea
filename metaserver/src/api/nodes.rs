//! Storage daemons: registration, heartbeats, intents; nodes and disks as lists.

use super::Failure;
use super::extract::{Answer, Body, Paging, Path, Query, page};
use super::recovery;
use crate::app::App;
use crate::health;
use crate::observe::Observed;
use crate::proposer::unexpected;
use crate::successor;
use axum::extract::State;
use levee_meta_state as state;
use levee_meta_state::limits::MAX_DELETES;
use levee_meta_state::{Command, Note, validate_locks};
use levee_proto::api::*;
use levee_proto::{DiskId, NodeId};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use utoipa::IntoParams;
use uuid::Uuid;

/// Introduces a daemon; sent at each of its starts
#[utoipa::path(post, path = "/v1/nodes", tag = "nodes", request_body = RegisterNode,
    responses((status = 200, body = Registered), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn register(
    State(app): State<Arc<App>>,
    Body(mut request): Body<RegisterNode>,
) -> Result<Answer<Registered>, Failure> {
    validate_locks(&request.locks)?;
    refuse_stranger(&app, &request).await?;
    recovery::heed(&app, &mut request).await?;
    // What the process has at hand is the leader's to know, not the log's.
    let proposal = RegisterNode { locks: Vec::new(), missing: Vec::new(), ..request.clone() };
    match app.proposer.propose(Command::RegisterNode(proposal)).await? {
        state::Answer::Registered(registered) => {
            let (node, locks) = (registered.node, std::mem::take(&mut request.locks));
            let holds = app.replicated.read(|state| successor::brought(state, node, &request));
            app.observed(|observed, now| observed.registered(node, locks, holds, now));
            Ok(Answer(registered))
        }
        other => Err(unexpected(other).into()),
    }
}

/// Two daemons with one name would take the node from each other: the second one is refused, and it is told.
async fn refuse_stranger(app: &App, request: &RegisterNode) -> Result<(), Failure> {
    app.barrier.pass().await?;
    let check = |observed: &mut Observed, now| {
        let verdict = app.replicated.read(|state| successor::check(state, observed, request, now));
        verdict.map_err(|(problem, node)| (problem, node.is_some_and(|node| observed.refused(node, request, now))))
    };
    let Err((problem, is_news)) = app.observed(check) else { return Ok(()) };
    if is_news {
        tracing::warn!("{} asks to be node '{}' and is refused: {}", request.admin_url, request.name, problem.detail);
        let text = successor::told(&request.admin_url);
        let note = Note { kind: EventKind::Node, severity: Severity::Warning, subject: request.name.clone(), text };
        if let Err(e) = app.proposer.propose(Command::Note(vec![note])).await {
            tracing::debug!("it is not among the events: {e}");
        }
    }
    Err(problem.into())
}

/// The storage daemons
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes", params(Paging),
    responses((status = 200, body = Page<NodeInfo>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn list_nodes(
    State(app): State<Arc<App>>,
    Query(paging): Query<Paging>,
) -> Result<Answer<Page<NodeInfo>>, Failure> {
    let (limit, after) = (paging.limit()?, paging.after_number()?);
    app.barrier.pass().await?;
    let mut nodes = app.replicated.read(|state| state.nodes_after(NodeId(after), limit + 1));
    health::with_view(&app, |view| nodes.iter_mut().for_each(|node| view.fill_node(node)));
    Ok(Answer(page(nodes, limit, |n| n.id.to_string())))
}

/// The disks of all nodes
#[utoipa::path(get, path = "/v1/disks", tag = "nodes", params(Paging),
    responses((status = 200, body = Page<DiskInfo>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn list_disks(
    State(app): State<Arc<App>>,
    Query(paging): Query<Paging>,
) -> Result<Answer<Page<DiskInfo>>, Failure> {
    let (limit, after) = (paging.limit()?, paging.after_number()?);
    app.barrier.pass().await?;
    let mut disks = app.replicated.read(|state| state.disks_after(DiskId(after), limit + 1));
    health::with_view(&app, |view| disks.iter_mut().for_each(|disk| view.fill_disk(disk)));
    Ok(Answer(page(disks, limit, |d| d.id.to_string())))
}

/// A daemon reports what is
#[utoipa::path(post, path = "/v1/nodes/{id}/heartbeat", tag = "nodes", request_body = Heartbeat,
    params(("id" = NodeId, Path, description = "The node")),
    responses((status = 200, body = HeartbeatAck), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn heartbeat(
    State(app): State<Arc<App>>,
    Path(node): Path<NodeId>,
    Body(mut beat): Body<Heartbeat>,
) -> Result<Answer<HeartbeatAck>, Failure> {
    let deleted = std::mem::take(&mut beat.deleted);
    if deleted.len() > MAX_DELETES {
        return Err(Failure::new(
            ProblemKind::Invalid,
            format!("at most {MAX_DELETES} deleted replicas in a heartbeat"),
        ));
    }
    validate_locks(&beat.locks)?;
    check_incarnation(&app, node, beat.incarnation).await?;
    app.observed(|observed, now| observed.heartbeat(node, beat, now));
    if app.replicated.read(|state| state.awaits_deletion(node, &deleted)) {
        app.proposer.propose(Command::ConfirmDeleted { node, replicas: deleted }).await?;
    }
    let revision = app.replicated.read(|state| state.intent_revision(node)).ok_or_else(|| no_node(node))?;
    Ok(Answer(HeartbeatAck { revision }))
}

/// Only the process that registered last speaks for the node. A refusal must not come from a leader that
/// has not caught up: the daemon would stop for nothing.
async fn check_incarnation(app: &App, node: NodeId, speaker: Uuid) -> Result<(), Failure> {
    let registered = || app.replicated.read(|state| state.node(node).map(|n| n.incarnation));
    if registered() == Some(speaker) {
        return Ok(());
    }
    app.barrier.pass().await?;
    match registered() {
        None => Err(no_node(node)),
        Some(incarnation) if incarnation == speaker => Ok(()),
        Some(_) => Err(Failure::new(
            ProblemKind::Fenced,
            format!("another daemon has registered as node {node} since: this one must stop"),
        )),
    }
}

pub(super) fn no_node(node: NodeId) -> Failure {
    Failure::new(ProblemKind::NotFound, format!("there is no node {node}: register it first"))
}

/// What a daemon has, and how long it is willing to wait for something else.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct IntentQuery {
    /// Revision of the intent that the node has; absent for the first one.
    after: Option<u64>,
    /// Most milliseconds to wait for another revision, up to 30000.
    #[serde(default)]
    wait_ms: u64,
    /// The process that asks ([`RegisterNode::incarnation`]): one that was replaced is refused as fenced.
    incarnation: Option<Uuid>,
}

/// What a node should do; waits while it is no other than the node has
#[utoipa::path(get, path = "/v1/nodes/{id}/intent", tag = "nodes",
    params(("id" = NodeId, Path, description = "The node"), IntentQuery),
    responses((status = 200, body = Intent), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn intent(
    State(app): State<Arc<App>>,
    Path(node): Path<NodeId>,
    Query(query): Query<IntentQuery>,
) -> Result<Answer<Intent>, Failure> {
    let wait = Duration::from_millis(query.wait_ms.min(MAX_WAIT_MS));
    // Whether it moved or the time is over: the answer below is the truth of that moment.
    let _ = tokio::time::timeout(wait, moved(&app, node, query.after)).await;
    app.barrier.pass().await?;
    if let Some(speaker) = query.incarnation {
        check_incarnation(&app, node, speaker).await?;
    }
    app.replicated.intent(node).map(Answer).ok_or_else(|| no_node(node))
}

/// Returns once the node's intent is another than `after`, this member knows no leader, or it stops.
async fn moved(app: &App, node: NodeId, after: Option<u64>) {
    let mut intents = app.replicated.intents();
    let mut raft = app.raft.metrics();
    let mut stopping = app.stopping.clone();
    let deposed = raft.wait_for(|m| m.current_leader.is_none());
    let changed = async {
        while after.is_some() && app.replicated.read(|state| state.intent_revision(node)) == after {
            if intents.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = changed => {}
        _ = deposed => {}
        _ = stopping.wait_for(|stop| *stop) => {}
    }
}
