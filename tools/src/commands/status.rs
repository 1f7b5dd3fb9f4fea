//! `levee status`: the cluster at a glance.

use super::lists::node_table;
use super::redundancy;
use super::{capacity, group};
use crate::client::{MetaClient, Survey, Surveyed};
use crate::errors::Found;
use crate::output::Output;
use levee_proto::api::{
    CapacityInfo, Condition, DiskInfo, DiskState, Health, MaintenanceInfo, NodeInfo, NodeState, RebalanceState,
    RebalanceStatus, Severity, VolumeInfo,
};
use levee_proto::units::show_size;
use serde::Serialize;
use serde_json::json;

/// Problems that are shown one by one.
const MAX_SHOWN: usize = 10;

#[derive(Serialize)]
struct Status<'a> {
    cluster: String,
    leader: u64,
    members: Vec<Member>,
    nodes: &'a [NodeInfo],
    disks: DiskTotals,
    volumes: VolumeTotals,
    repair: RepairTotals,
    /// Absent if the meta servers do not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity: Option<CapacityInfo>,
    health: Health,
    maintenance: MaintenanceInfo,
    rebalance: RebalanceStatus,
}

#[derive(Serialize)]
struct Member {
    id: Option<u64>,
    url: String,
    answers: bool,
}

#[derive(Default, Serialize)]
struct DiskTotals {
    count: usize,
    /// Bytes.
    capacity: u64,
    /// Bytes.
    used: u64,
}

#[derive(Default, Serialize)]
struct RepairTotals {
    /// Chunks with fewer copies than they should have.
    degraded_chunks: u64,
    /// Those of them that are not served.
    waiting_chunks: u64,
    /// Copies on disks that are dead or being drained.
    leaving_replicas: u64,
    dead_disks: usize,
    draining_disks: usize,
}

#[derive(Default, Serialize)]
struct VolumeTotals {
    count: usize,
    attached: usize,
    serving: usize,
    degraded: usize,
    /// Their guests' requests have waited for more than a second.
    stalled: usize,
    /// Bytes.
    size: u64,
}

pub async fn status(meta: &MetaClient, out: &Output) -> anyhow::Result<()> {
    let survey = meta.survey().await;
    let Some(leader) = survey.leader() else { return leaderless(meta, &survey, out) };
    let info = survey.best().expect("one of them has named the leader");
    let (nodes, disks, volumes) = (meta.nodes().await?, meta.disks().await?, meta.volumes().await?);
    let status = Status {
        cluster: info.cluster.to_string(),
        leader,
        members: survey.members.iter().map(member).collect(),
        nodes: &nodes,
        disks: disk_totals(&disks),
        volumes: volume_totals(&volumes),
        repair: repair_totals(&disks, &volumes),
        capacity: capacity::look(meta).await?,
        health: group::told(meta).await?,
        // Meta servers of an earlier version do not know.
        maintenance: meta.maintenance().await.unwrap_or_default(),
        rebalance: meta.rebalance_status().await.unwrap_or_default(),
    };
    out.result(&status, || describe(&status, out))
}

/// Nobody can say more than who answers.
pub fn leaderless(meta: &MetaClient, survey: &Survey, out: &Output) -> anyhow::Result<()> {
    let health = group::without_leader(meta, survey)?;
    let members: Vec<Member> = survey.members.iter().map(member).collect();
    out.result(&json!({"leader": null, "members": members, "health": health}), || group::describe(&health))?;
    Err(Found("the meta servers have no leader".into()).into())
}

fn member(asked: &Surveyed) -> Member {
    Member { id: asked.id, url: asked.url.clone(), answers: asked.answer.is_ok() }
}

fn disk_totals(disks: &[DiskInfo]) -> DiskTotals {
    disks.iter().fold(DiskTotals::default(), |sum, disk| DiskTotals {
        count: sum.count + 1,
        capacity: sum.capacity.saturating_add(disk.capacity),
        used: sum.used.saturating_add(disk.used.unwrap_or(0)),
    })
}

fn volume_totals(volumes: &[VolumeInfo]) -> VolumeTotals {
    volumes.iter().fold(VolumeTotals::default(), |sum, volume| {
        let report = volume.attachment.as_ref().and_then(|attachment| attachment.report.as_ref());
        VolumeTotals {
            count: sum.count + 1,
            attached: sum.attached + usize::from(redundancy::user(volume).is_some()),
            serving: sum.serving + usize::from(volume.status.starts_with("serving")),
            degraded: sum.degraded + usize::from(report.is_some_and(|r| r.degraded_chunks > 0)),
            stalled: sum.stalled + usize::from(report.is_some_and(|r| r.stall.is_some())),
            size: sum.size.saturating_add(volume.size),
        }
    })
}

fn repair_totals(disks: &[DiskInfo], volumes: &[VolumeInfo]) -> RepairTotals {
    let count = |state| disks.iter().filter(|d| d.state == state).count();
    let reports = volumes.iter().filter_map(|v| v.attachment.as_ref()?.report.as_ref());
    let leaving = disks.iter().filter(|d| d.state != DiskState::InService).map(|d| d.replicas);
    let totals = RepairTotals {
        leaving_replicas: leaving.sum(),
        dead_disks: count(DiskState::Dead),
        draining_disks: count(DiskState::Draining),
        ..RepairTotals::default()
    };
    reports.fold(totals, |sum, report| RepairTotals {
        degraded_chunks: sum.degraded_chunks + u64::from(report.degraded_chunks),
        waiting_chunks: sum.waiting_chunks + u64::from(report.waiting_chunks),
        ..sum
    })
}

/// Nothing if all is whole and nothing is to be moved.
fn repair_line(repair: &RepairTotals) -> Option<String> {
    let RepairTotals { degraded_chunks, waiting_chunks, leaving_replicas, dead_disks, draining_disks } = repair;
    if degraded_chunks + leaving_replicas == 0 && dead_disks + draining_disks == 0 {
        return None;
    }
    Some(format!(
        "Repair        {degraded_chunks} chunks below their copies, {waiting_chunks} of them wait; {leaving_replicas} copies \
         on {dead_disks} dead and {draining_disks} draining disks: see `levee doctor`\n"
    ))
}

fn describe(status: &Status<'_>, out: &Output) -> String {
    let answering = status.members.iter().filter(|member| member.answers).count();
    let up = status.nodes.iter().filter(|node| node.state == NodeState::Up).count();
    let DiskTotals { count: disks, capacity, used } = status.disks;
    let volumes = &status.volumes;
    let mut text = format!(
        "Cluster       {}\n\
         Meta servers  {answering} of {} answer, leader {}\n\
         Nodes         {up} of {} up\n\
         Disks         {disks}, {} of {} used\n\
         Volumes       {}, {} attached, {} serving, {} degraded, {} stalled\n",
        status.cluster,
        status.members.len(),
        status.leader,
        status.nodes.len(),
        show_size(used),
        show_size(capacity),
        volumes.count,
        volumes.attached,
        volumes.serving,
        volumes.degraded,
        volumes.stalled,
    );
    text.extend(repair_line(&status.repair));
    let detail = status.capacity.as_ref().and_then(|capacity| capacity.detail.as_ref());
    text.extend(detail.map(|detail| format!("Capacity      {detail}\n")));
    if status.rebalance.state == RebalanceState::Running {
        let RebalanceStatus { done, moves, .. } = status.rebalance;
        text.push_str(&format!("Rebalance     {done} of {moves} copies moved\n"));
    }
    if !status.maintenance.windows.is_empty() {
        text.push_str(&format!("{}\n", super::maintenance::describe(&status.maintenance)));
    }
    let problems: Vec<&Condition> = status.health.conditions.iter().filter(|c| c.severity > Severity::Info).collect();
    for problem in problems.iter().take(MAX_SHOWN) {
        text.push_str(&format!("Problem       {}\n", problem.text));
    }
    if problems.len() > MAX_SHOWN {
        text.push_str(&format!("{} more problems: see `levee doctor`.\n", problems.len() - MAX_SHOWN));
    }
    if !status.nodes.is_empty() {
        text.push('\n');
        text.push_str(&node_table(status.nodes, out));
    }
    text
}
