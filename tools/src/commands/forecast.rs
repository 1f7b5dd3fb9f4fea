//! What would happen if nodes or disks were emptied or lost.

use crate::client::MetaClient;
use crate::output::Output;
use levee_proto::api::{DiskForecast, Forecast, NodeInfo, WhatIf};
use levee_proto::units::{show_size, show_time};

pub async fn show(meta: &MetaClient, request: &WhatIf, out: &Output) -> anyhow::Result<()> {
    let forecast = meta.what_if(request).await?;
    let nodes = if out.json { Vec::new() } else { meta.nodes().await? };
    out.result(&forecast, || describe(&forecast, &nodes, out))?;
    if forecast.homeless > 0 {
        // Programs see it by the exit status as well.
        anyhow::bail!("{}", forecast.verdict);
    }
    Ok(())
}

fn describe(forecast: &Forecast, nodes: &[NodeInfo], out: &Output) -> String {
    let Forecast { copies, bytes, seconds, disks, verdict, .. } = forecast;
    let time = seconds.map(|s| format!(", about {} at the present limit", show_time(s))).unwrap_or_default();
    let mut text = format!("{copies} copies, {} to be copied{time}: {verdict}.\n", show_size(*bytes));
    if !disks.is_empty() {
        text.push('\n');
        text.push_str(&disk_table(disks, nodes, out));
    }
    text
}

/// What disks hold, and would hold.
pub fn disk_table(disks: &[DiskForecast], nodes: &[NodeInfo], out: &Output) -> String {
    let share = |bytes: u64, capacity: u64| format!("{} %", u128::from(bytes) * 100 / u128::from(capacity.max(1)));
    let rows = disks.iter().map(|disk| {
        vec![
            disk.disk.to_string(),
            super::lists::node_name(disk.node, nodes),
            show_size(disk.capacity),
            show_size(disk.before),
            share(disk.before, disk.capacity),
            show_size(disk.after),
            share(disk.after, disk.capacity),
        ]
    });
    out.table(&["DISK", "NODE", "CAPACITY", "NOW", "", "THEN", ""], rows)
}
