//! Snapshots: taking them, waiting for them, and going back to them.

use super::Failure;
use super::extract::{Answer, Body, Path, Query, page};
use super::volumes::change;
use crate::app::App;
use crate::capacity;
use crate::clock::now_ms;
use crate::limits::{DEFAULT_PAGE, OPEN_LOOK, OPEN_WAIT, SNAPSHOT_WAIT};
use crate::proposer::unexpected;
use crate::request::is_repeated;
use axum::extract::State;
use axum::http::StatusCode;
use levee_meta_state as state;
use levee_meta_state::Command;
use levee_proto::api::*;
use levee_proto::{Version, VolumeId};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use utoipa::IntoParams;

/// How long the caller is willing to wait for the gateways.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Waiting {
    /// Most milliseconds to wait until the snapshots are complete, up to 30000; 5000 if absent.
    wait_ms: Option<u64>,
}

/// Takes snapshots of one or several volumes, in one commit
///
/// What a guest was told is written before the request is in. They are complete once enough copies are known to hold all
/// of it; until then they cannot be cloned or rolled back to. Those of several volumes are of one moment: what was written after
/// something else was answered is in none of them that lacks the other. If the gateways do not come to that within a
/// second, none is taken.
#[utoipa::path(post, path = "/v1/snapshots", tag = "snapshots", params(Waiting), request_body = CreateSnapshots,
    responses((status = 201, body = CreatedSnapshots), (status = 202, body = CreatedSnapshots, description = "Some are not complete yet"),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn create(
    State(app): State<Arc<App>>,
    Query(query): Query<Waiting>,
    Body(request): Body<CreateSnapshots>,
) -> Result<(StatusCode, Answer<CreatedSnapshots>), Failure> {
    let names = request.snapshots.clone();
    let first = request.snapshots.first().map(ToString::to_string).unwrap_or_default();
    capacity::check(&app, || format!("snapshot {} cannot be taken", shown_name(&first)))?;
    if names.len() > 1 && !is_repeated() {
        open_unused(&app, &names).await;
    }
    let command = Command::BeginSnapshots { request, created_ms: now_ms() };
    let begun = snapshots(app.proposer.propose(command).await?)?;
    let wait = query.wait_ms.map_or(SNAPSHOT_WAIT, |ms| Duration::from_millis(ms.min(MAX_WAIT_MS)));
    // Whether they are done or the time is over: the look below is the truth of that moment.
    let _ = tokio::time::timeout(wait, complete(&app, &begun)).await;
    let found: Result<Vec<SnapshotInfo>, Problem> =
        app.replicated.read(|state| names.iter().map(|name| state.snapshot_named(name)).collect());
    let snapshots = if names.len() > 1 { found.map_err(|_| given_up(&names))? } else { found? };
    let pending = snapshots.iter().any(|s| s.state == SnapshotState::Pending);
    let status = if pending { StatusCode::ACCEPTED } else { StatusCode::CREATED };
    Ok((status, Answer(CreatedSnapshots { snapshots })))
}

fn given_up(names: &[SnapshotName]) -> Problem {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let why = "a gateway was replaced just then, or could not be reached for a second";
    let detail = format!(
        "no snapshots {} of one moment could be taken, and nothing is left of them: {why}; try again",
        names.join(", ")
    );
    Problem::new(ProblemKind::Conflict, detail)
}

/// Has volumes opened that are not, before answers to writes of others wait for that. Those that cannot be are left to
/// the gateways' patience.
async fn open_unused(app: &App, names: &[SnapshotName]) {
    let unused: Vec<VolumeId> = app.replicated.read(|state| {
        let volumes = names.iter().filter_map(|name| state.volume_named(&name.volume).ok());
        volumes.filter(|v| v.chunks > 0 && !state.is_attached(v.id)).map(|v| v.id).collect()
    });
    for volume in &unused {
        let node =
            app.observed(|observed, now| app.replicated.read(|state| state.repairer(&observed.best(state, now))));
        let Some(node) = node else { return };
        // Refused if somebody has attached it meanwhile.
        let _ = app.proposer.propose(Command::AttachRepair { volume: *volume, node }).await;
    }
    let is_open = |id: &VolumeId| {
        let state =
            app.observed(|observed, _| app.replicated.read(|state| observed.report(state, *id).map(|r| r.state)));
        state == Some(ServeState::Serving)
    };
    let opened = async {
        while !unused.iter().all(is_open) {
            tokio::time::sleep(OPEN_LOOK).await;
        }
    };
    let _ = tokio::time::timeout(OPEN_WAIT, opened).await;
}

/// Returns once none of them is pending any more, the leader is another, or the member stops.
async fn complete(app: &App, begun: &[SnapshotInfo]) {
    let mut intents = app.replicated.intents();
    let mut raft = app.raft.metrics();
    let mut stopping = app.stopping.clone();
    let deposed = raft.wait_for(|m| m.current_leader != Some(app.id));
    let name = |s: &SnapshotInfo| SnapshotName { volume: s.volume.clone(), snapshot: s.name.clone() };
    let names: Vec<SnapshotName> = begun.iter().map(name).collect();
    let is_pending =
        |state: &state::State, name| state.snapshot_named(name).is_ok_and(|s| s.state == SnapshotState::Pending);
    let done = async {
        while app.replicated.read(|state| names.iter().any(|name| is_pending(state, name))) {
            if intents.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = done => {}
        _ = deposed => {}
        _ = stopping.wait_for(|stop| *stop) => {}
    }
}

fn snapshots(answer: state::Answer) -> Result<Vec<SnapshotInfo>, Failure> {
    match answer {
        state::Answer::Snapshots(snapshots) => Ok(snapshots),
        other => Err(unexpected(other).into()),
    }
}

/// Which snapshots.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Listing {
    /// Those of this volume; of all volumes if absent.
    volume: Option<String>,
    /// `next` of the page before; absent for the first one.
    after: Option<String>,
    /// Most items to answer, 1 to 1000.
    limit: Option<usize>,
}

impl Listing {
    fn position(&self) -> Result<(VolumeId, Version), Failure> {
        let Some(text) = self.after.as_ref().filter(|text| !text.is_empty()) else { return Ok(Default::default()) };
        let parts = text.split_once('.').and_then(|(v, n)| Some((VolumeId(v.parse().ok()?), Version(n.parse().ok()?))));
        parts.ok_or_else(|| Failure::new(ProblemKind::Invalid, "after must be the 'next' of an earlier page"))
    }
}

/// The snapshots, by volumes in order of their creation, oldest first
#[utoipa::path(get, path = "/v1/snapshots", tag = "snapshots", params(Listing),
    responses((status = 200, body = Page<SnapshotInfo>), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn list(
    State(app): State<Arc<App>>,
    Query(query): Query<Listing>,
) -> Result<Answer<Page<SnapshotInfo>>, Failure> {
    let limit = query.limit.unwrap_or(DEFAULT_PAGE).min(MAX_PAGE);
    if limit == 0 {
        return Err(Failure::new(ProblemKind::Invalid, "limit must be at least 1"));
    }
    let after = query.position()?;
    app.barrier.pass().await?;
    let found = app.replicated.read(|state| state.snapshots_after(query.volume.as_deref(), after, limit + 1))?;
    let Page { items, next } = page(found, limit, |(id, s)| format!("{id}.{}", s.version));
    Ok(Answer(Page { items: items.into_iter().map(|(_, s)| s).collect(), next }))
}

/// One snapshot
#[utoipa::path(get, path = "/v1/volumes/{name}/snapshots/{snapshot}", tag = "snapshots",
    params(("name" = String, Path, description = "The volume"), ("snapshot" = String, Path, description = "The snapshot")),
    responses((status = 200, body = SnapshotInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn show(
    State(app): State<Arc<App>>,
    Path((volume, snapshot)): Path<(String, String)>,
) -> Result<Answer<SnapshotInfo>, Failure> {
    app.barrier.pass().await?;
    Ok(Answer(app.replicated.read(|state| state.snapshot_named(&SnapshotName { volume, snapshot }))?))
}

/// Deletes a snapshot; while it has clones it stays for them, in state `deleting`
#[utoipa::path(delete, path = "/v1/volumes/{name}/snapshots/{snapshot}", tag = "snapshots",
    params(("name" = String, Path, description = "The volume"), ("snapshot" = String, Path, description = "The snapshot")),
    responses((status = 200, body = SnapshotInfo, description = "As it was, or as it stays"),
        (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn delete(
    State(app): State<Arc<App>>,
    Path((volume, snapshot)): Path<(String, String)>,
) -> Result<Answer<SnapshotInfo>, Failure> {
    let command = Command::DeleteSnapshot(SnapshotName { volume, snapshot });
    let deleted = snapshots(app.proposer.propose(command).await?)?.into_iter().next();
    deleted
        .map(Answer)
        .ok_or_else(|| Failure::new(ProblemKind::Internal, "an answer without the snapshot: please report this"))
}

/// Makes a detached volume what it was when a snapshot was taken
#[utoipa::path(post, path = "/v1/volumes/{name}/rollback", tag = "snapshots", request_body = Rollback,
    params(("name" = String, Path, description = "The volume")),
    responses((status = 200, body = VolumeInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn rollback(
    State(app): State<Arc<App>>,
    Path(volume): Path<String>,
    Body(Rollback { snapshot }): Body<Rollback>,
) -> Result<Answer<VolumeInfo>, Failure> {
    Ok(Answer(change(&app, Command::Rollback(SnapshotName { volume, snapshot })).await?))
}
