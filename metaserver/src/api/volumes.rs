//! Volumes: their life, where they are attached, and what their gateways ask for.

use super::Failure;
use super::caller::Calling;
use super::extract::{Answer, Body, Paging, Path, Query, page};
use crate::app::App;
use crate::capacity;
use crate::health;
use crate::limits::MAX_SERVED;
use crate::proposer::unexpected;
use crate::request::is_repeated;
use axum::extract::State;
use axum::http::StatusCode;
use levee_meta_state as state;
use levee_meta_state::Command;
use levee_proto::NodeId;
use levee_proto::api::*;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;
use uuid::Uuid;

/// Runs a command that answers with the volume, and adds what its gateway reports.
pub(super) async fn change(app: &App, command: Command) -> Result<VolumeInfo, Failure> {
    match app.proposer.propose(command).await? {
        state::Answer::Volume(mut volume) => {
            fill(app, std::slice::from_mut(&mut volume));
            Ok(volume)
        }
        other => Err(unexpected(other).into()),
    }
}

fn fill(app: &App, volumes: &mut [VolumeInfo]) {
    health::with_view(app, |view| volumes.iter_mut().for_each(|volume| view.fill_volume(volume)));
}

/// The volume as this leader knows it now.
pub(super) fn look_at(app: &App, name: &str) -> Result<VolumeInfo, Problem> {
    let mut volume = app.replicated.read(|state| state.volume_named(name))?;
    fill(app, std::slice::from_mut(&mut volume));
    Ok(volume)
}

/// Creates a volume
#[utoipa::path(post, path = "/v1/volumes", tag = "volumes", request_body = CreateVolume,
    responses((status = 201, body = VolumeInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn create(
    State(app): State<Arc<App>>,
    Body(request): Body<CreateVolume>,
) -> Result<(StatusCode, Answer<VolumeInfo>), Failure> {
    capacity::check(&app, || format!("volume '{}' cannot be created", shown_name(&request.name)))?;
    let volume = change(&app, Command::CreateVolume(request)).await?;
    Ok((StatusCode::CREATED, Answer(volume)))
}

/// The volumes, in order of their names
#[utoipa::path(get, path = "/v1/volumes", tag = "volumes", params(Paging),
    responses((status = 200, body = Page<VolumeInfo>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn list(
    State(app): State<Arc<App>>,
    Query(paging): Query<Paging>,
) -> Result<Answer<Page<VolumeInfo>>, Failure> {
    let limit = paging.limit()?;
    app.barrier.pass().await?;
    let after = paging.after.as_deref().unwrap_or_default();
    let mut volumes = app.replicated.read(|state| state.volumes_after(after, limit + 1));
    fill(&app, &mut volumes);
    Ok(Answer(page(volumes, limit, |v| v.name.clone())))
}

/// One volume; or a snapshot as the read-only volume that it is while it is attached
#[utoipa::path(get, path = "/v1/volumes/{name}", tag = "volumes",
    params(("name" = String, Path, description = "The volume, or VOLUME@NAME of a snapshot")),
    responses((status = 200, body = VolumeInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn show(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Answer<VolumeInfo>, Failure> {
    app.barrier.pass().await?;
    Ok(Answer(look_at(&app, &name)?))
}

/// Deletes a volume that is not attached
#[utoipa::path(delete, path = "/v1/volumes/{name}", tag = "volumes",
    params(("name" = String, Path, description = "The volume")),
    responses((status = 204), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn delete(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<StatusCode, Failure> {
    app.proposer.propose(Command::DeleteVolume { name }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Has a node serve the volume
///
/// A snapshot is attached as `VOLUME@NAME`, for reading only, whether its volume is attached or not. It is not deleted
/// while it is attached.
#[utoipa::path(post, path = "/v1/volumes/{name}/attach", tag = "volumes", request_body = AttachVolume,
    params(("name" = String, Path, description = "The volume, or VOLUME@NAME of a snapshot")),
    responses((status = 200, body = VolumeInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn attach(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Body(request): Body<AttachVolume>,
) -> Result<Answer<VolumeInfo>, Failure> {
    let AttachVolume { node, job } = request;
    if !is_repeated() {
        app.barrier.pass().await?;
        check_filled(&app, &name, job)?;
    }
    let alive = app.observed(|observed, now| {
        app.replicated.read(|state| match &node {
            Some(node) => check_serves_more(state, &name, node).map(|()| observed.alive(state, now)),
            None => Ok(observed.best(state, now).into_iter().filter(|node| serves_more(state, *node)).collect()),
        })
    })?;
    let volume = change(&app, Command::Attach { name: name.clone(), node, alive }).await?;
    take_over(&app, &name, job).await?;
    Ok(Answer(volume))
}

/// What a command has left attached is the user's from now on: nobody is to clean up behind that command any more. Comes after the
/// attachment, which is the first part of the request whether there is a job or not.
async fn take_over(app: &App, name: &str, job: Option<Uuid>) -> Result<(), Failure> {
    let there = app.replicated.read(|state| state.volume_named(name).ok().and_then(|volume| volume.job));
    if let (Some(there), None) = (there, job) {
        app.proposer.propose(Command::EndJob { name: name.into(), id: there.id }).await?;
    }
    Ok(())
}

/// What is filled only in part is attached for the command alone that fills it.
fn check_filled(app: &App, name: &str, job: Option<Uuid>) -> Result<(), Problem> {
    app.replicated.read(|state| match state.volume_named(name) {
        Ok(volume) if volume.job.as_ref().is_none_or(|there| Some(there.id) != job) => state.check_filled(volume.id),
        // The command itself says what is wrong.
        _ => Ok(()),
    })
}

fn serves_more(state: &state::State, node: NodeId) -> bool {
    state.attached_to(node) < MAX_SERVED
}

/// A node that serves so many volumes gets no other ones.
fn check_serves_more(state: &state::State, volume: &str, node: &str) -> Result<(), Problem> {
    let is_there = |id: NodeId| {
        let attachment = state.volume_named(volume).ok().and_then(|v| v.attachment);
        attachment.is_some_and(|a| a.node == id && !a.repair)
    };
    match state.node_named(node) {
        Some(id) if !serves_more(state, id) && !is_there(id) => {
            let (volume, node) = (shown_name(volume), shown_name(node));
            let why = format!(
                "volume '{volume}' cannot be attached to node '{node}', which serves {MAX_SERVED} volumes, the most"
            );
            Err(Problem::new(ProblemKind::Conflict, format!("{why}: choose another node")))
        }
        _ => Ok(()),
    }
}

/// Has the volume's node stop serving it
#[utoipa::path(post, path = "/v1/volumes/{name}/detach", tag = "volumes",
    params(("name" = String, Path, description = "The volume, or VOLUME@NAME of a snapshot"), Forced),
    responses((status = 200, body = VolumeInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn detach(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(forced): Query<Forced>,
) -> Result<Answer<VolumeInfo>, Failure> {
    if !forced.force {
        app.barrier.pass().await?;
        let volume = look_at(&app, &name)?;
        let is_up = |node| app.observed(|observed, now| observed.node_state(node, now) == NodeState::Up);
        check_unused(&volume, is_up)?;
    }
    Ok(Answer(change(&app, Command::Detach { name }).await?))
}

/// Whether a guest may lose what it uses.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Forced {
    /// Take the volume away from the guest that is connected.
    #[serde(default)]
    force: bool,
}

/// A volume whose socket somebody is connected to is not taken away without a word. What a node said last that is away now
/// does not count: volumes of a lost node are moved.
fn check_unused(volume: &VolumeInfo, is_up: impl FnOnce(NodeId) -> bool) -> Result<(), Problem> {
    let Some(attachment) = volume.attachment.as_ref().filter(|attachment| !attachment.repair) else { return Ok(()) };
    let Some(front_end) = attachment.report.as_ref().map(|report| &report.front_end).filter(|it| it.connected) else {
        return Ok(());
    };
    if !is_up(attachment.node) {
        return Ok(());
    }
    let process = front_end.process.map_or_else(|| "a process".into(), |pid| format!("process {pid}"));
    let (name, node) = (&volume.name, &attachment.node_name);
    let why = format!("volume '{name}' is in use: {process} on node '{node}' is connected to it, QEMU if nothing else");
    Err(Problem::new(
        ProblemKind::Conflict,
        format!("{why}; shut its guest down first, or use --force (`?force=true`) to take it away from the guest"),
    ))
}

/// A gateway asks for its epoch and the volume's map
#[utoipa::path(post, path = "/v1/volumes/{name}/open", tag = "gateways", request_body = OpenVolume,
    params(("name" = String, Path, description = "The volume"), Calling),
    responses((status = 200, body = OpenedVolume), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn open(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(calling): Query<Calling>,
    Body(request): Body<OpenVolume>,
) -> Result<Answer<OpenedVolume>, Failure> {
    match app.proposer.propose(calling.command(&app, Command::Open { name, request }).await?).await? {
        state::Answer::Opened(opened) => Ok(Answer(opened)),
        other => Err(unexpected(other).into()),
    }
}

/// A gateway asks for chunks
#[utoipa::path(post, path = "/v1/volumes/{name}/allocate", tag = "gateways", request_body = AllocateChunks,
    params(("name" = String, Path, description = "The volume"), Calling),
    responses((status = 200, body = AllocatedChunks), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn allocate(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(calling): Query<Calling>,
    Body(request): Body<AllocateChunks>,
) -> Result<Answer<AllocatedChunks>, Failure> {
    let (alive, full) =
        app.observed(|seen, now| app.replicated.read(|state| (seen.alive(state, now), seen.full_disks(state))));
    let command = calling.command(&app, Command::Allocate { name, request, alive, full }).await?;
    match app.proposer.propose(command).await? {
        state::Answer::Allocated(allocated) => Ok(Answer(allocated)),
        other => Err(unexpected(other).into()),
    }
}

/// A gateway asks for other replica sets
#[utoipa::path(post, path = "/v1/volumes/{name}/replicas", tag = "gateways", request_body = ChangeReplicas,
    params(("name" = String, Path, description = "The volume"), Calling),
    responses((status = 200, body = ChangedReplicas), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn change_replicas(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(calling): Query<Calling>,
    Body(request): Body<ChangeReplicas>,
) -> Result<Answer<ChangedReplicas>, Failure> {
    let (alive, full) =
        app.observed(|seen, now| app.replicated.read(|state| (seen.best(state, now), seen.full_disks(state))));
    let command = calling.command(&app, Command::ChangeReplicas { name, request, alive, full }).await?;
    match app.proposer.propose(command).await? {
        state::Answer::Changed(changed) => Ok(Answer(changed)),
        other => Err(unexpected(other).into()),
    }
}
