//! `levee maintenance`.

use crate::client::MetaClient;
use crate::output::Output;
use crate::values::utc;
use levee_proto::api::{MaintenanceInfo, StartMaintenance};

pub async fn start(meta: &MetaClient, request: &StartMaintenance, out: &Output) -> anyhow::Result<()> {
    let info = meta.start_maintenance(request).await?;
    out.result(&info, || describe(&info))
}

pub async fn stop(meta: &MetaClient, node: Option<&str>, out: &Output) -> anyhow::Result<()> {
    let info = meta.end_maintenance(node).await?;
    out.result(&info, || describe(&info))
}

pub async fn status(meta: &MetaClient, out: &Output) -> anyhow::Result<()> {
    let info = meta.maintenance().await?;
    out.result(&info, || describe(&info))
}

pub fn describe(info: &MaintenanceInfo) -> String {
    if info.windows.is_empty() {
        return "No maintenance: what is lost is repaired.".into();
    }
    let window = |window: &levee_proto::api::MaintenanceWindow| {
        let of = window.node.as_ref().map_or("the whole cluster".into(), |node| format!("node {node}"));
        let why = window.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        format!("Maintenance of {of} until {}{why}. Nothing of it is repaired meanwhile.", utc(window.until_ms))
    };
    info.windows.iter().map(window).collect::<Vec<_>>().join("\n")
}
