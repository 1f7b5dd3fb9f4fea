//! Operators' decisions about nodes and disks.

use super::Failure;
use super::extract::{Answer, Body, Path, Query};
use crate::app::App;
use crate::health;
use crate::proposer::unexpected;
use axum::extract::State;
use levee_meta_state as state;
use levee_meta_state::Command;
use levee_proto::api::*;
use levee_proto::{DiskId, NodeId};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// Whether to give up what is there.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Removal {
    /// Also if it holds copies: they count as lost, and are made anew elsewhere.
    #[serde(default)]
    #[param(required = false)]
    force: bool,
}

async fn change_node(app: &App, command: Command) -> Result<Answer<NodeInfo>, Failure> {
    match app.proposer.propose(command).await? {
        state::Answer::Node(mut node) => {
            health::with_view(app, |view| view.fill_node(&mut node));
            Ok(Answer(node))
        }
        other => Err(unexpected(other).into()),
    }
}

async fn change_disk(app: &App, command: Command) -> Result<Answer<DiskInfo>, Failure> {
    match app.proposer.propose(command).await? {
        state::Answer::Disk(mut disk) => {
            health::with_view(app, |view| view.fill_disk(&mut disk));
            Ok(Answer(disk))
        }
        other => Err(unexpected(other).into()),
    }
}

/// Empties a node, or takes that back
///
/// Its copies are put elsewhere, and it takes no new ones and no new volumes. What it serves stays there until it is detached.
#[utoipa::path(post, path = "/v1/nodes/{id}/state", tag = "nodes", request_body = SetNodeState,
    params(("id" = NodeId, Path, description = "The node")),
    responses((status = 200, body = NodeInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn set_node_state(
    State(app): State<Arc<App>>,
    Path(node): Path<NodeId>,
    Body(request): Body<SetNodeState>,
) -> Result<Answer<NodeInfo>, Failure> {
    change_node(&app, Command::SetNode { node, request }).await
}

/// Takes a node out of the cluster, with its disks
///
/// At once if it holds nothing. With `force` what it holds is made anew elsewhere, and it leaves when that is done.
#[utoipa::path(delete, path = "/v1/nodes/{id}", tag = "nodes",
    params(("id" = NodeId, Path, description = "The node"), Removal),
    responses((status = 200, body = NodeInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn remove_node(
    State(app): State<Arc<App>>,
    Path(node): Path<NodeId>,
    Query(removal): Query<Removal>,
) -> Result<Answer<NodeInfo>, Failure> {
    let is_up = app.observed(|observed, now| observed.node_state(node, now) == NodeState::Up);
    let holds = app.replicated.read(|state| state.disks().any(|(_, disk)| disk.node == node && disk.live() > 0));
    if removal.force && is_up && holds {
        return Err(Failure::new(
            ProblemKind::Conflict,
            format!("node {node} is up and holds copies: empty it with `levee node drain`, or stop its daemon first"),
        ));
    }
    change_node(&app, Command::RemoveNode { node, force: removal.force }).await
}

/// Takes a disk out of the cluster
///
/// At once if it holds nothing. With `force` what it holds is made anew elsewhere, and it leaves when that is done.
#[utoipa::path(delete, path = "/v1/disks/{id}", tag = "nodes",
    params(("id" = DiskId, Path, description = "The disk"), Removal),
    responses((status = 200, body = DiskInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn remove_disk(
    State(app): State<Arc<App>>,
    Path(disk): Path<DiskId>,
    Query(removal): Query<Removal>,
) -> Result<Answer<DiskInfo>, Failure> {
    change_disk(&app, Command::RemoveDisk { disk, force: removal.force }).await
}

/// Says what share of the data a disk is to hold
#[utoipa::path(post, path = "/v1/disks/{id}/weight", tag = "nodes", request_body = SetDiskWeight,
    params(("id" = DiskId, Path, description = "The disk")),
    responses((status = 200, body = DiskInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn set_disk_weight(
    State(app): State<Arc<App>>,
    Path(disk): Path<DiskId>,
    Body(request): Body<SetDiskWeight>,
) -> Result<Answer<DiskInfo>, Failure> {
    change_disk(&app, Command::SetDiskWeight { disk, weight: request.weight }).await
}
