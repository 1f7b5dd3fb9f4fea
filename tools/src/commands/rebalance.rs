//! `levee rebalance`.

use super::forecast::disk_table;
use crate::client::{MetaClient, wait_for};
use crate::output::{Output, measure_bytes};
use crate::values::utc;
use levee_proto::api::*;
use levee_proto::units::{show_size, show_time};
use std::time::Duration;

/// How long after the last move it may take until all gateways have told that nothing is left of it.
const SETTLED: Duration = Duration::from_secs(10);

pub async fn plan(meta: &MetaClient, request: &RebalanceRequest, out: &Output) -> anyhow::Result<()> {
    let plan = meta.rebalance_plan(request).await?;
    let nodes = if out.json { Vec::new() } else { meta.nodes().await? };
    out.result(&plan, || describe_plan(&plan, &nodes, out))
}

fn ratio(thousandths: u64) -> String {
    format!("{}.{:02}", thousandths / 1000, thousandths % 1000 / 10)
}

fn describe_plan(plan: &RebalancePlan, nodes: &[NodeInfo], out: &Output) -> String {
    let what = match plan.goal {
        RebalanceGoal::Space => "fullest",
        RebalanceGoal::Load => "busiest",
    };
    let now = ratio(plan.imbalance_before);
    let mut text = match plan.count {
        0 => format!("Nothing to move: the {what} disk has {now} times the mean.\n"),
        count => {
            let time =
                plan.seconds.map(|s| format!(", about {} at the present limit", show_time(s))).unwrap_or_default();
            format!(
                "{count} copies to be moved, {}{time}. The {what} disk has {now} times the mean, and would have {}.\n",
                show_size(plan.bytes),
                ratio(plan.imbalance_after)
            )
        }
    };
    if let Some(remark) = &plan.remark {
        text.push_str(&format!("Note: {remark}.\n"));
    }
    if plan.count > 0 {
        text.push('\n');
        text.push_str(&disk_table(&plan.disks, nodes, out));
        text.push_str("\n\n`levee rebalance run` does it.\n");
    }
    text
}

pub async fn run(
    meta: &MetaClient,
    request: &RebalanceRequest,
    wait: Option<Duration>,
    out: &Output,
) -> anyhow::Result<()> {
    let mut status = meta.rebalance(request).await?;
    if let Some(timeout) = wait.filter(|_| status.state == RebalanceState::Running) {
        status = follow(meta, timeout, out).await?;
        wait_for(SETTLED, async || {
            let whole = meta.load(1, "requests").await?.redundancy;
            Ok::<_, anyhow::Error>((whole.leaving_replicas == 0 && whole.degraded_chunks == 0).then_some(()))
        })
        .await?;
    }
    out.result(&status, || describe(&status))
}

async fn follow(meta: &MetaClient, timeout: Duration, out: &Output) -> anyhow::Result<RebalanceStatus> {
    let bar = out.spinner("moving copies");
    let ended = wait_for(timeout, async || {
        let status = meta.rebalance_status().await?;
        measure_bytes(&bar, status.bytes.max(1));
        bar.set_position(status.done_bytes);
        Ok::<_, anyhow::Error>((status.state != RebalanceState::Running).then_some(status))
    })
    .await;
    bar.finish_and_clear();
    match ended? {
        Some(status) => Ok(status),
        None => anyhow::bail!(
            "the rebalance is not done after {} s; it goes on in the background, `levee rebalance status` shows how far it is",
            timeout.as_secs()
        ),
    }
}

pub async fn status(meta: &MetaClient, out: &Output) -> anyhow::Result<()> {
    let status = meta.rebalance_status().await?;
    out.result(&status, || describe(&status))
}

pub async fn cancel(meta: &MetaClient, out: &Output) -> anyhow::Result<()> {
    let status = meta.cancel_rebalance().await?;
    out.result(&status, || describe(&status))
}

fn describe(status: &RebalanceStatus) -> String {
    let RebalanceStatus { moves, done, under_way, skipped, bytes, done_bytes, .. } = status;
    let when = |ms: Option<u64>| ms.map(utc).unwrap_or_default();
    let far = format!("{done} of {moves} copies moved, {} of {}", show_size(*done_bytes), show_size(*bytes));
    let mut text = match status.state {
        RebalanceState::None => "There was no rebalance.".to_string(),
        RebalanceState::Done if *moves == 0 => "Nothing to move: disks are used alike.".to_string(),
        RebalanceState::Running => {
            format!("Running since {}: {far}, {under_way} under way.", when(status.started_ms))
        }
        RebalanceState::Done => format!("Done at {}: {far}.", when(status.ended_ms)),
        RebalanceState::Cancelled => format!("Cancelled at {}: {far}.", when(status.ended_ms)),
    };
    if *skipped > 0 {
        let why = status.last_skip.as_ref().map(|why| format!(" (the last one: {why})")).unwrap_or_default();
        text.push_str(&format!("\n{skipped} moves were given up because something had changed{why}."));
    }
    text
}
