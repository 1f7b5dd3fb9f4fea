//! Whether the state is older than what daemons have seen, and what is left to do if it was.

use super::Failure;
use super::extract::{Answer, Body, Path};
use super::volumes::change;
use crate::app::App;
use crate::clock::now_ms;
use axum::extract::State;
use axum::http::StatusCode;
use levee_meta_state::{CALLERS, Command};
use levee_proto::NodeId;
use levee_proto::api::*;
use std::sync::Arc;

/// A daemon that has seen a newer state has this one gone on with as one that may be too old.
pub(super) async fn heed(app: &App, request: &mut RegisterNode) -> Result<(), Failure> {
    if app.replicated.read(|state| state.level()) < CALLERS {
        // Some member does not know what this is about.
        request.seen = Seen::default();
        return Ok(());
    }
    if !app.replicated.is_older_than(&request.seen.state) {
        return Ok(());
    }
    // It may only not have been applied here yet.
    app.barrier.pass().await?;
    if app.replicated.is_older_than(&request.seen.state) {
        tracing::error!("node '{}' has seen a newer state than the meta servers have", request.name);
        app.proposer.propose(Command::Recover { at_ms: now_ms() }).await?;
    }
    Ok(())
}

/// A daemon reports what its disks hold
#[utoipa::path(post, path = "/v1/nodes/{id}/inventory", tag = "nodes", request_body = Inventory,
    params(("id" = NodeId, Path, description = "The node")),
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn inventory(
    State(app): State<Arc<App>>,
    Path(node): Path<NodeId>,
    Body(request): Body<Inventory>,
) -> Result<StatusCode, Failure> {
    app.proposer.propose(Command::Inventory { node, request }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is left to do since the meta servers went on with a state that may be too old
#[utoipa::path(get, path = "/v1/recovery", tag = "cluster",
    responses((status = 200, body = RecoveryInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn show(State(app): State<Arc<App>>) -> Result<Answer<RecoveryInfo>, Failure> {
    app.barrier.pass().await?;
    Ok(Answer(app.replicated.read(|state| state.recovery_info())))
}

/// Uses a volume again without what was lost of it with the meta servers
#[utoipa::path(post, path = "/v1/volumes/{name}/accept-loss", tag = "volumes",
    params(("name" = String, Path, description = "The volume")),
    responses((status = 200, body = VolumeInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn accept_loss(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Answer<VolumeInfo>, Failure> {
    Ok(Answer(change(&app, Command::AcceptLoss { name }).await?))
}
