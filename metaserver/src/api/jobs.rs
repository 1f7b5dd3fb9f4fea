//! What commands do to whole volumes.

use super::Failure;
use super::extract::{Answer, Body, Path, Query};
use super::volumes::{change, look_at};
use crate::app::App;
use crate::clock::now_ms;
use crate::limits::JOB_HOLD;
use crate::request::is_repeated;
use axum::extract::State;
use levee_meta_state::Command;
use levee_proto::api::*;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use utoipa::IntoParams;
use uuid::Uuid;

/// A command begins to fill or to read the volume
#[utoipa::path(post, path = "/v1/volumes/{name}/job", tag = "volumes", request_body = BeginJob,
    params(("name" = String, Path, description = "The volume")),
    responses((status = 200, body = VolumeInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn begin(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Body(request): Body<BeginJob>,
) -> Result<Answer<VolumeInfo>, Failure> {
    if !is_repeated() {
        app.barrier.pass().await?;
        check_free(&look_at(&app, &name)?, &request)?;
    }
    Ok(Answer(change(&app, Command::BeginJob { name, request }).await?))
}

/// A job whose command still uses the volume, or has said a moment ago that it goes on, does not give way.
fn check_free(volume: &VolumeInfo, request: &BeginJob) -> Result<(), Problem> {
    let Some(job) = volume.job.as_ref().filter(|job| job.id != request.id) else { return Ok(()) };
    let report = volume.attachment.as_ref().and_then(|attachment| attachment.report.as_ref());
    let seconds = JOB_HOLD.as_secs();
    let detail = match report.is_some_and(|report| report.front_end.connected) {
        true => format!("volume '{}' is in use by {}: wait for that, or stop it", volume.name, job.by),
        false if Duration::from_millis(now_ms().saturating_sub(job.renewed_ms)) >= JOB_HOLD => return Ok(()),
        false => format!(
            "volume '{}' was in use by {} a moment ago: if that is gone, try again in {seconds} s",
            volume.name, job.by
        ),
    };
    Err(Problem::new(ProblemKind::Conflict, detail))
}

/// Which job has ended.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Ended {
    /// As it was begun.
    id: Uuid,
}

/// The command is done: the volume is what it should be
#[utoipa::path(delete, path = "/v1/volumes/{name}/job", tag = "volumes",
    params(("name" = String, Path, description = "The volume"), Ended),
    responses((status = 200, body = VolumeInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn end(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Query(Ended { id }): Query<Ended>,
) -> Result<Answer<VolumeInfo>, Failure> {
    Ok(Answer(change(&app, Command::EndJob { name, id }).await?))
}
