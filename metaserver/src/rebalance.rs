//! What rebalances and forecasts are made from: how large copies are, as their daemons say, and what guests ask of them.
//!
//! Plans look at every chunk of the cluster: they are made on a copy of the state, on a thread of their own, so that commits go on.

use crate::app::App;
use crate::clock::now_ms;
use crate::limits::{DEFAULT_TOLERANCE, DISKS_LOOK, DISKS_WAIT, MAX_PLAN, SIZES_WAIT};
use crate::observe::Observed;
use levee_meta_state::{Bounds, State, Surroundings, Weights};
use levee_proto::api::*;
use levee_proto::{ReplicaId, VolumeId};
use std::collections::BTreeMap;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

fn surroundings(app: &App) -> Surroundings {
    app.observed(|observed, now| {
        app.replicated.read(|state| {
            let used = state.disks().filter_map(|(id, disk)| Some((id, observed.used(disk.node, id)?)));
            Surroundings { alive: observed.best(state, now), full: observed.full_disks(state), used: used.collect() }
        })
    })
}

async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Problem::new(ProblemKind::Internal, "the plan could not be made: please report this"))
}

/// How long copying so many bytes takes at the present limit.
fn seconds(app: &App, bytes: u64) -> Option<u64> {
    let rate = app.policy.rate?.max(1);
    Some(bytes.div_ceil(rate))
}

pub async fn what_if(app: &App, request: WhatIf) -> Result<Forecast, Problem> {
    let around = surroundings(app);
    let frozen = app.replicated.read(State::freeze);
    let mut forecast = apart(move || frozen.what_if(&request, &around)).await??;
    forecast.seconds = seconds(app, forecast.bytes);
    Ok(forecast)
}

/// The plan with all of its moves.
pub async fn plan(app: &App, request: RebalanceRequest) -> Result<RebalancePlan, Problem> {
    let tolerance_percent = request.tolerance_percent.unwrap_or(DEFAULT_TOLERANCE);
    if !(1..=100).contains(&tolerance_percent) {
        let detail = format!("a tolerance of {tolerance_percent} %: 1 to 100 are allowed");
        return Err(Problem::new(ProblemKind::Invalid, detail));
    }
    if app.replicated.read(|state| state.is_maintained(now_ms())) {
        let detail = "the cluster is in maintenance: end that first with `levee maintenance stop`";
        return Err(Problem::new(ProblemKind::Conflict, detail));
    }
    let max_bytes = request.max_bytes.unwrap_or(u64::MAX);
    let bounds = Bounds { goal: request.goal, tolerance_percent, max_bytes, max_moves: MAX_PLAN };
    wait_for_disks(app).await;
    let (bytes, load) = (sizes(app).await, loads(app));
    let weights = Weights { around: surroundings(app), bytes, load };
    let frozen = app.replicated.read(State::freeze);
    let mut plan = apart(move || frozen.plan_rebalance(&weights, bounds)).await?;
    plan.seconds = seconds(app, plan.bytes);
    Ok(plan)
}

/// Disks of nodes that have just joined are measured a moment later: a plan without them would be no good.
async fn wait_for_disks(app: &App) {
    let end = Instant::now() + DISKS_WAIT;
    let look = || app.observed(|observed, now| app.replicated.read(|state| is_unmeasured(state, observed, now)));
    while Instant::now() < end && look() {
        sleep(DISKS_LOOK).await;
    }
}

/// Whether some disk of a node that is up has not been measured.
fn is_unmeasured(state: &State, observed: &Observed, now: std::time::Instant) -> bool {
    let brought = |id, node| state.node(node).is_some_and(|n| n.disks.contains(&id));
    let up = |node| observed.node_state(node, now) != NodeState::Down;
    let mut serving = state.disks().filter(|(_, disk)| disk.state() == DiskState::InService);
    serving.any(|(id, disk)| up(disk.node) && brought(id, disk.node) && observed.used(disk.node, id).is_none())
}

/// What the gateways report of their busiest chunks.
fn loads(app: &App) -> BTreeMap<(VolumeId, u32), Load> {
    app.observed(|observed, _| {
        app.replicated.read(|state| {
            let reports = observed.reports(state);
            reports
                .flat_map(|(id, report)| report.load.hot.iter().map(move |hot| ((id, hot.index), hot.load)))
                .collect()
        })
    })
}

/// How large copies are, as the daemons of all nodes that are up say. One that does not answer is gone without: its copies count as all of one
/// size.
async fn sizes(app: &App) -> BTreeMap<ReplicaId, u64> {
    let urls: Vec<String> = app.observed(|observed, now| {
        app.replicated.read(|state| {
            let up = observed.best(state, now);
            up.iter()
                .filter_map(|id| state.node(*id))
                .filter(|n| !n.disks.is_empty())
                .map(|n| n.admin_url.clone())
                .collect()
        })
    });
    let mut asked = JoinSet::new();
    for url in urls {
        let http = app.http.clone();
        asked.spawn(async move { tokio::time::timeout(SIZES_WAIT, sizes_at(&http, &url)).await? });
    }
    let mut sizes = BTreeMap::new();
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok(Ok(answer)) => sizes.extend(answer),
            Ok(Err(error)) => tracing::warn!("a daemon does not say how large its copies are: {error:#}"),
            Err(_) => {}
        }
    }
    sizes
}

/// What one daemon says, page by page.
async fn sizes_at(http: &reqwest::Client, url: &str) -> anyhow::Result<Vec<(ReplicaId, u64)>> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let request = http.get(format!("{url}/v1/replicas{after}"));
        let answer = request.send().await?.error_for_status()?.bytes().await?;
        let page: Page<ReplicaSize> = serde_json::from_slice(&answer)?;
        all.extend(page.items.iter().map(|one| (one.replica, one.bytes)));
        match page.next {
            Some(next) if !page.items.is_empty() => after = format!("?after={next}"),
            _ => return Ok(all),
        }
    }
}
