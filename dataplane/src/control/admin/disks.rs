//! Disks that are added and removed through the admin endpoint, and what is on them.

use super::{Ask, Asks, ask, problem};
use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use levee_proto::api::{AddDisk, AddedDisk, Page, Problem, ProblemKind, RemovedDisk, ReplicaSize};
use levee_proto::{ChunkId, DiskId};
use serde::Deserialize;

/// Replicas in one page.
pub const PAGE: usize = 4096;

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

/// Which page of the replicas.
#[derive(Deserialize)]
pub struct ReplicasQuery {
    /// `next` of the page before.
    after: Option<String>,
}

pub async fn replicas(
    State(asks): State<Asks>,
    query: Result<Query<ReplicasQuery>, QueryRejection>,
) -> Result<Json<Page<ReplicaSize>>, Response> {
    let Query(ReplicasQuery { after }) = query.map_err(|e| problem(ProblemKind::Invalid, &e.body_text()))?;
    let from = match after.as_deref() {
        None => (DiskId(0), ChunkId(0)),
        Some(after) => {
            behind(after).ok_or_else(|| problem(ProblemKind::Invalid, "after must be the 'next' of an earlier page"))?
        }
    };
    ask(&asks, |answer| Ask::Replicas { from, answer }).await.map(Json)
}

/// Cuts a list that was read with one too many into a page.
pub fn page(mut items: Vec<ReplicaSize>) -> Page<ReplicaSize> {
    let more = items.len() > PAGE;
    items.truncate(PAGE);
    let next = items.last().filter(|_| more).map(|last| format!("{}.{}", last.disk, last.chunk));
    Page { items, next }
}

/// Where the page goes on that comes after one that ended so.
fn behind(next: &str) -> Option<(DiskId, ChunkId)> {
    let (disk, chunk) = next.split_once('.')?;
    Some((DiskId(disk.parse().ok()?), ChunkId(chunk.parse::<u64>().ok()?.checked_add(1)?)))
}

#[expect(clippy::result_large_err, reason = "as with axum's handlers, the error is the response itself")]
fn answer<T>(outcome: Result<T, Problem>) -> Result<Json<T>, Response> {
    outcome.map(Json).map_err(|p| problem(p.kind, &p.detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use levee_proto::ReplicaId;

    #[test]
    fn a_page_says_where_the_next_one_begins() {
        let all = |n: u64| {
            (1..=n).map(|n| ReplicaSize { disk: DiskId(7), chunk: ChunkId(n), replica: ReplicaId(n), bytes: 0 })
        };
        assert_eq!(page(all(PAGE as u64).collect()).next, None);
        let page = page(all(PAGE as u64 + 1).collect());
        assert_eq!((page.items.len(), page.next.as_deref()), (PAGE, Some("7.4096")));
        assert_eq!(behind("7.4096"), Some((DiskId(7), ChunkId(4097))));
        for wrong in ["", "7", "7.", "x.1", "7.18446744073709551615", "-1.3"] {
            assert_eq!(behind(wrong), None, "{wrong}");
        }
    }
}
