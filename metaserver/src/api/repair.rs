//! Repair: how the cluster goes about it, and disks in and out of service.

use super::Failure;
use super::extract::{Answer, Body, Path};
use crate::app::App;
use crate::health;
use crate::proposer::unexpected;
use crate::request::is_repeated;
use axum::extract::State;
use levee_meta_state as state;
use levee_meta_state::{Command, Decider};
use levee_proto::DiskId;
use levee_proto::api::*;
use std::sync::Arc;

/// How the cluster keeps its copies whole
#[utoipa::path(get, path = "/v1/repair", tag = "repair",
    responses((status = 200, body = RepairInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn show(State(app): State<Arc<App>>) -> Result<Answer<RepairInfo>, Failure> {
    app.barrier.pass().await?;
    let policy = app.policy;
    Ok(Answer(RepairInfo { after_s: policy.after.as_secs(), rate: policy.rate, held: app.repair_held() }))
}

/// Decides what becomes of the replicas on a disk
#[utoipa::path(post, path = "/v1/disks/{id}/state", tag = "repair", request_body = SetDiskState,
    params(("id" = DiskId, Path, description = "The disk")),
    responses((status = 200, body = DiskInfo), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn set_disk_state(
    State(app): State<Arc<App>>,
    Path(disk): Path<DiskId>,
    Body(request): Body<SetDiskState>,
) -> Result<Answer<DiskInfo>, Failure> {
    if request.state != DiskState::Dead && !is_repeated() {
        check_works(&app, disk)?;
    }
    let SetDiskState { state, reason } = request;
    match app.proposer.propose(Command::SetDisk { disk, state, reason, by: Decider::Operator }).await? {
        state::Answer::Disk(mut disk) => {
            health::with_view(&app, |view| view.fill_disk(&mut disk));
            Ok(Answer(disk))
        }
        other => Err(unexpected(other).into()),
    }
}

/// A disk that reports a failure would be given up again at once.
fn check_works(app: &App, id: DiskId) -> Result<(), Failure> {
    let node = app.replicated.read(|state| state.disk(id).map(|d| d.node));
    let failed = |node| app.observed(|observed, _| observed.disk_failure(node, id).map(String::from));
    match node.and_then(failed) {
        None => Ok(()),
        Some(why) => Err(Failure::new(
            ProblemKind::Conflict,
            format!("disk {id} has failed: {why}; once it works again, restart its daemon, and repeat this"),
        )),
    }
}
