//! What the cluster is busy with, and was.

use super::Failure;
use super::extract::{Answer, Query};
use crate::app::App;
use crate::health::{self, View, words};
use crate::history;
use axum::extract::State;
use levee_meta_state as state;
use levee_proto::api::*;
use levee_proto::{NodeId, VolumeId};
use serde::Deserialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::IntoParams;

/// Items of each kind if the request names no number.
const DEFAULT_BUSY: usize = 20;
/// Most of them.
const MAX_BUSY: usize = 1000;

/// Which of the busiest.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Busiest {
    /// Most items of each kind.
    #[param(minimum = 1, maximum = 1000, default = 20)]
    limit: Option<usize>,
    /// What they are ordered by.
    #[serde(default)]
    #[param(inline, required = false)]
    by: BusyBy,
}

/// How many volumes.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// Most volumes.
    #[param(minimum = 1, maximum = 1000, default = 20)]
    limit: Option<usize>,
}

fn checked(limit: Option<usize>) -> Result<usize, Failure> {
    match limit.unwrap_or(DEFAULT_BUSY) {
        limit @ 1..=MAX_BUSY => Ok(limit),
        _ => Err(Failure::new(ProblemKind::Invalid, format!("limit must be 1 to {MAX_BUSY}"))),
    }
}

/// The busiest volumes, chunks, disks and nodes
#[utoipa::path(get, path = "/v1/load", tag = "cluster", params(Busiest),
    responses((status = 200, body = ClusterLoad), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn show(State(app): State<Arc<App>>, Query(query): Query<Busiest>) -> Result<Answer<ClusterLoad>, Failure> {
    let limit = checked(query.limit)?;
    app.barrier.pass().await?;
    let mut load = health::with_view(&app, gather);
    order(&mut load, query.by);
    load.volumes.truncate(limit);
    load.chunks.truncate(limit);
    load.disks.truncate(limit);
    load.nodes.truncate(limit);
    Ok(Answer(load))
}

/// How busy volumes were over the last ten minutes
#[utoipa::path(get, path = "/v1/history", tag = "cluster", params(HistoryQuery),
    responses((status = 200, body = LoadHistory), (status = "default", body = Problem, content_type = "application/problem+json")))]
pub async fn history(
    State(app): State<Arc<App>>,
    Query(query): Query<HistoryQuery>,
) -> Result<Answer<LoadHistory>, Failure> {
    let limit = checked(query.limit)?;
    app.barrier.pass().await?;
    Ok(Answer(history::show(&app, limit)))
}

fn order(load: &mut ClusterLoad, by: BusyBy) {
    let key = |load: &Load| match by {
        BusyBy::Bytes => load.bytes(),
        BusyBy::Requests | BusyBy::Latency => load.requests(),
    };
    let latency = by == BusyBy::Latency;
    load.volumes.sort_by_key(|v| Reverse((if latency { v.p99_us } else { key(&v.load) }, v.load.requests())));
    load.chunks.sort_by_key(|c| Reverse(key(&c.chunk.load)));
    load.disks.sort_by_key(|d| Reverse((if latency { d.load.oldest_io_us } else { key(&d.load.load) }, d.used)));
    load.nodes.sort_by_key(|n| (Reverse(key(&n.guests.plus(&n.disks))), n.node));
}

fn gather(view: &View<'_>) -> ClusterLoad {
    let View { state, observed, .. } = *view;
    let mut load = ClusterLoad::default();
    let mut nodes: BTreeMap<NodeId, BusyNode> = state.node_ids().map(|id| (id, idle(view, id))).collect();
    for (id, report) in observed.reports(state) {
        add_volume(&mut load, &mut nodes, view, id, report);
    }
    for (id, disk) in state.disks() {
        let usage = observed.usage(disk.node, id);
        let up = nodes.get(&disk.node).is_some_and(|node| node.state == NodeState::Up);
        let busy = usage.filter(|_| up).map(|usage| usage.load).unwrap_or_default();
        load.disk_load = load.disk_load.plus(&busy.load);
        if let Some(node) = nodes.get_mut(&disk.node) {
            node.disks = node.disks.plus(&busy.load);
        }
        load.disks.push(BusyDisk {
            disk: id,
            node: disk.node,
            node_name: name(state, disk.node),
            path: disk.path.clone(),
            state: disk.state(),
            status: words::disk(view, id, disk),
            capacity: disk.capacity,
            used: usage.map(|usage| usage.used),
            load: busy,
        });
    }
    load.nodes = nodes.into_values().collect();
    load
}

fn idle(view: &View<'_>, node: NodeId) -> BusyNode {
    BusyNode {
        node,
        name: name(view.state, node),
        state: view.observed.node_state(node, view.now),
        status: words::node(view, node),
        guests: Load::default(),
        disks: Load::default(),
        volumes: 0,
    }
}

fn name(state: &state::State, node: NodeId) -> String {
    state.node(node).map(|n| n.name.clone()).unwrap_or_default()
}

fn add_volume(
    load: &mut ClusterLoad,
    nodes: &mut BTreeMap<NodeId, BusyNode>,
    view: &View<'_>,
    id: VolumeId,
    report: &VolumeReport,
) {
    let sum = &mut load.redundancy;
    sum.volumes += 1;
    sum.healthy_chunks += u64::from(report.healthy_chunks);
    sum.degraded_chunks += u64::from(report.degraded_chunks);
    sum.waiting_chunks += u64::from(report.waiting_chunks);
    sum.leaving_replicas += u64::from(report.leaving_replicas);
    sum.copied_bytes = sum.copied_bytes.saturating_add(report.copied_bytes);
    sum.stalled_volumes += u64::from(report.stall.is_some());
    let Some(volume) = view.state.volume(id) else { return };
    let Some(node) = volume.attachment.as_ref().map(|attachment| attachment.node) else { return };
    let VolumeLoad { load: guest, p50_us, p99_us, hot } = &report.load;
    load.guests = load.guests.plus(guest);
    if let Some(node) = nodes.get_mut(&node) {
        node.guests = node.guests.plus(guest);
        node.volumes += 1;
    }
    let chunk = |chunk: &ChunkLoad| BusyChunk { volume: volume.name.clone(), chunk: *chunk };
    load.chunks.extend(hot.iter().take(MAX_HOT_CHUNKS).map(chunk));
    load.volumes.push(BusyVolume {
        volume: volume.name.clone(),
        node,
        node_name: name(view.state, node),
        load: *guest,
        p50_us: *p50_us,
        p99_us: *p99_us,
        stalled_ms: report.stall.as_ref().map_or(0, |stall| stall.oldest_ms),
        status: words::gateway(view, node, Some(report)),
    });
}
