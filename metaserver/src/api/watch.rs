//! Following what changes.

use super::Failure;
use super::extract::{Answer, Query};
use crate::app::App;
use axum::extract::State;
use levee_proto::api::*;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use utoipa::IntoParams;

/// Most changes in one answer, but for those of one revision.
const MAX_CHANGES: usize = 1000;
const ALL: [ThingKind; 5] =
    [ThingKind::Cluster, ThingKind::Node, ThingKind::Disk, ThingKind::Volume, ThingKind::Snapshot];

/// From where on, and how long to wait for something to happen.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WatchQuery {
    /// `revision` of the answer before; absent for the first one.
    after: Option<u64>,
    /// Most milliseconds to wait for a change.
    #[serde(default)]
    #[param(maximum = 30000, required = false)]
    wait_ms: u64,
    /// Kinds to tell of, separated by commas: cluster, node, disk, volume, snapshot. All of them if absent.
    #[param(
        example = "volume,snapshot",
        pattern = "^(cluster|node|disk|volume|snapshot)(,(cluster|node|disk|volume|snapshot))*$"
    )]
    kinds: Option<String>,
}

impl WatchQuery {
    fn kinds(&self) -> Result<Vec<ThingKind>, Failure> {
        let Some(text) = &self.kinds else { return Ok(ALL.to_vec()) };
        let kind = |word: &str| {
            serde_json::from_value(word.into()).map_err(|_| {
                let shown = shown_name(word);
                Failure::new(
                    ProblemKind::Invalid,
                    format!("there is no kind '{shown}': use cluster, node, disk, volume, snapshot"),
                )
            })
        };
        text.split(',').map(kind).collect()
    }
}

/// What changed since a revision; waits while nothing has
///
/// The first request is made without `after`: its answer says from which revision on to follow. After `reset`, lists have to be
/// read anew.
#[utoipa::path(get, path = "/v1/watch", tag = "cluster", params(WatchQuery),
    responses((status = 200, body = Changes), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn watch(State(app): State<Arc<App>>, Query(query): Query<WatchQuery>) -> Result<Answer<Changes>, Failure> {
    let kinds = query.kinds()?;
    let look = || app.replicated.changes_after(query.after, &kinds, MAX_CHANGES);
    let wait = Duration::from_millis(query.wait_ms.min(MAX_WAIT_MS));
    let mut moves = app.replicated.moves();
    let mut raft = app.raft.metrics();
    let mut stopping = app.stopping.clone();
    let changed = async {
        while query.after.is_some() {
            let now = look();
            if now.reset || !now.changes.is_empty() || moves.changed().await.is_err() {
                return;
            }
        }
    };
    // Whatever ends the wait: the look below is the truth of that moment.
    tokio::select! {
        () = changed => {}
        () = tokio::time::sleep(wait) => {}
        _ = raft.wait_for(|m| m.current_leader != Some(app.id)) => {}
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    app.barrier.pass().await?;
    Ok(Answer(look()))
}
