//! What gateways follow, and report, of volumes' versions; and what users ask that gateways carry out.

use super::Failure;
use super::caller::Calling;
use super::extract::{Answer, Body, Path, Query};
use super::volumes::change;
use crate::app::App;
use crate::capacity;
use crate::proposer::unexpected;
use axum::extract::State;
use levee_meta_state as state;
use levee_meta_state::Command;
use levee_proto::api::*;
use levee_proto::{Epoch, VolumeId};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// Makes a volume larger, or smaller where nothing was written
#[utoipa::path(post, path = "/v1/volumes/{name}/resize", tag = "volumes", request_body = ResizeVolume,
    params(("name" = String, Path, description = "The volume")),
    responses((status = 200, body = VolumeInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn resize(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Body(request): Body<ResizeVolume>,
) -> Result<Answer<VolumeInfo>, Failure> {
    let size = app.replicated.read(|state| state.volume_named(&name).map(|volume| volume.size));
    if size.is_ok_and(|size| request.size > size) {
        capacity::check(&app, || format!("volume '{}' cannot grow", shown_name(&name)))?;
    }
    Ok(Answer(change(&app, Command::Resize { name, request }).await?))
}

/// Makes a clone independent of its parent; done when the volume has no parent any more
#[utoipa::path(post, path = "/v1/volumes/{name}/flatten", tag = "volumes",
    params(("name" = String, Path, description = "The volume")),
    responses((status = 200, body = VolumeInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn flatten(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Answer<VolumeInfo>, Failure> {
    Ok(Answer(change(&app, Command::Flatten { name }).await?))
}

/// Gives a detached volume its epochs anew, if no gateway can open it any more because its copies were fenced too high
#[utoipa::path(post, path = "/v1/volumes/{name}/recover-epochs", tag = "volumes",
    params(("name" = String, Path, description = "The volume")),
    responses((status = 200, body = VolumeInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn recover_epochs(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Answer<VolumeInfo>, Failure> {
    Ok(Answer(change(&app, Command::RecoverEpochs { name }).await?))
}

/// What the volume's gateway has to know of its versions
#[utoipa::path(get, path = "/v1/volumes/{name}/versions", tag = "gateways",
    params(("name" = String, Path, description = "The volume"), Calling),
    responses((status = 200, body = VolumeVersions), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn show(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(calling): Query<Calling>,
) -> Result<Answer<VolumeVersions>, Failure> {
    let caller = calling.caller()?;
    app.barrier.pass().await?;
    Ok(Answer(app.replicated.read(|state| match caller {
        Some(caller) => state.versions_for(caller, &name),
        None => state.volume_versions(&name),
    })?))
}

/// Where the ancestors of a clone are
#[utoipa::path(get, path = "/v1/volumes/{name}/parent", tag = "gateways",
    params(("name" = String, Path, description = "The volume"), Calling),
    responses((status = 200, body = VolumeParent), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn parent(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(calling): Query<Calling>,
) -> Result<Answer<VolumeParent>, Failure> {
    let caller = calling.caller()?;
    app.barrier.pass().await?;
    Ok(Answer(app.replicated.read(|state| match caller {
        Some(caller) => state.parent_for(caller, &name),
        None => state.volume_parent(&name),
    })?))
}

/// Where to go on in a volume's map, and for whom.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MapQuery {
    /// Index of the last chunk that is known; absent for the first page.
    after: Option<u64>,
    /// Of a gateway that asks for its own volume's map: refused when another has opened the volume since.
    epoch: Option<u32>,
}

/// Where the chunks of a volume are, page by page
#[utoipa::path(get, path = "/v1/maps/{volume}", tag = "gateways",
    params(("volume" = VolumeId, Path, description = "The volume's id"), MapQuery),
    responses((status = 200, body = ChunkPage), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn map(
    State(app): State<Arc<App>>,
    Path(volume): Path<VolumeId>,
    Query(query): Query<MapQuery>,
) -> Result<Answer<ChunkPage>, Failure> {
    app.barrier.pass().await?;
    let after = query.after.map(|index| u32::try_from(index).unwrap_or(u32::MAX));
    Ok(Answer(app.replicated.read(|state| state.map_page(volume, query.epoch.map(Epoch), after))?))
}

async fn report(app: &App, calling: Calling, command: Command) -> Result<Answer<VolumeVersions>, Failure> {
    match app.proposer.propose(calling.command(app, command).await?).await? {
        state::Answer::Versions(versions) => Ok(Answer(versions)),
        other => Err(unexpected(other).into()),
    }
}

/// A gateway reports that its volume has moved beyond the version that a group of snapshots freezes
#[utoipa::path(post, path = "/v1/volumes/{name}/moved", tag = "gateways", request_body = Moved,
    params(("name" = String, Path, description = "The volume"), Calling),
    responses((status = 200, body = VolumeVersions), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn moved(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(calling): Query<Calling>,
    Body(request): Body<Moved>,
) -> Result<Answer<VolumeVersions>, Failure> {
    report(&app, calling, Command::Moved { name, request }).await
}

/// A gateway reports that enough copies hold all up to a version
#[utoipa::path(post, path = "/v1/volumes/{name}/sealed", tag = "gateways", request_body = Sealed,
    params(("name" = String, Path, description = "The volume"), Calling),
    responses((status = 200, body = VolumeVersions), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn sealed(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(calling): Query<Calling>,
    Body(request): Body<Sealed>,
) -> Result<Answer<VolumeVersions>, Failure> {
    report(&app, calling, Command::FinishSnapshots { name, request }).await
}

/// A gateway reports that what nobody sees is dropped
#[utoipa::path(post, path = "/v1/volumes/{name}/pruned", tag = "gateways", request_body = Pruned,
    params(("name" = String, Path, description = "The volume"), Calling),
    responses((status = 200, body = VolumeVersions), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn pruned(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(calling): Query<Calling>,
    Body(request): Body<Pruned>,
) -> Result<Answer<VolumeVersions>, Failure> {
    report(&app, calling, Command::Pruned { name, request }).await
}

/// A gateway reports that a clone has all that its ancestors had
#[utoipa::path(post, path = "/v1/volumes/{name}/flattened", tag = "gateways", request_body = Flattened,
    params(("name" = String, Path, description = "The volume"), Calling),
    responses((status = 200, body = VolumeVersions), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn flattened(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(calling): Query<Calling>,
    Body(request): Body<Flattened>,
) -> Result<Answer<VolumeVersions>, Failure> {
    report(&app, calling, Command::Flattened { name, request }).await
}
