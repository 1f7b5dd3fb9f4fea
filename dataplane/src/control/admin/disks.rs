//! Disks that are added and removed through the admin endpoint, and what is on them.

use super::{Ask, Asks, ask, problem};
use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::response::Response;
use levee_proto::DiskId;
use levee_proto::api::{AddDisk, AddedDisk, Problem, ProblemKind, RemovedDisk, ReplicaSizes};

pub async fn add(
    State(asks): State<Asks>,
    body: Result<Json<AddDisk>, JsonRejection>,
) -> Result<Json<AddedDisk>, Response> {
    let Json(disk) = body.map_err(|e| problem(ProblemKind::Invalid, &e.body_text()))?;
    answer(ask(&asks, |answer| Ask::AddDisk { disk, answer }).await?)
}

pub async fn remove(
    State(asks): State<Asks>,
    disk: Result<Path<u32>, PathRejection>,
) -> Result<Json<RemovedDisk>, Response> {
    let Path(disk) = disk.map_err(|_| problem(ProblemKind::Invalid, "a disk is named by its number"))?;
    answer(ask(&asks, |answer| Ask::RemoveDisk { disk: DiskId(disk), answer }).await?)
}

pub async fn replicas(State(asks): State<Asks>) -> Result<Json<ReplicaSizes>, Response> {
    ask(&asks, Ask::Replicas).await.map(Json)
}

#[expect(clippy::result_large_err, reason = "as with axum's handlers, the error is the response itself")]
fn answer<T>(outcome: Result<T, Problem>) -> Result<Json<T>, Response> {
    outcome.map(Json).map_err(|p| problem(p.kind, &p.detail))
}
