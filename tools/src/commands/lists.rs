//! `levee node list` and `levee disk list`.

use crate::client::MetaClient;
use crate::output::Output;
use levee_proto::api::{DiskClass, DiskInfo, NodeInfo};
use levee_proto::ids::NodeId;
use levee_proto::units::show_size;

pub async fn nodes(meta: &MetaClient, out: &Output) -> anyhow::Result<()> {
    let nodes = meta.nodes().await?;
    out.result(&nodes, || match nodes.as_slice() {
        [] => "No node has registered.".into(),
        nodes => node_table(nodes, out),
    })
}

pub fn node_table(nodes: &[NodeInfo], out: &Output) -> String {
    let rows = nodes.iter().map(|node| {
        vec![
            node.id.to_string(),
            node.name.clone(),
            node.status.clone(),
            place(&node.zone),
            place(&node.rack),
            node.cores.len().to_string(),
            node.disks.len().to_string(),
            node.admin_url.clone(),
        ]
    });
    out.table(&["ID", "NODE", "STATE", "ZONE", "RACK", "CORES", "DISKS", "ADMIN"], rows)
}

pub async fn disks(meta: &MetaClient, out: &Output) -> anyhow::Result<()> {
    let disks = meta.disks().await?;
    // Programs get the ids; only people need the nodes' names.
    let nodes = if out.json { Vec::new() } else { meta.nodes().await? };
    out.result(&disks, || match disks.as_slice() {
        [] => "No disk has been registered.".into(),
        disks => disk_table(disks, &nodes, out),
    })
}

pub fn disk_table(disks: &[DiskInfo], nodes: &[NodeInfo], out: &Output) -> String {
    let rows = disks.iter().map(|disk| {
        vec![
            disk.id.to_string(),
            node_name(disk.node, nodes),
            disk.status.clone(),
            class_word(disk.class).into(),
            disk.weight.to_string(),
            show_size(disk.capacity),
            disk.used.map_or("unknown".into(), show_size),
            disk.replicas.to_string(),
            disk.path.clone(),
            disk.reason.clone().unwrap_or_default(),
        ]
    });
    out.table(&["ID", "NODE", "STATE", "CLASS", "WEIGHT", "CAPACITY", "USED", "REPLICAS", "PATH", "REASON"], rows)
}

/// A zone or rack, if one is known.
pub fn place(name: &Option<String>) -> String {
    name.clone().unwrap_or_else(|| "-".into())
}

fn class_word(class: DiskClass) -> &'static str {
    match class {
        DiskClass::Ssd => "ssd",
        DiskClass::Hdd => "hdd",
    }
}

/// A node's name, or its number if it is not known.
pub fn node_name(id: NodeId, nodes: &[NodeInfo]) -> String {
    nodes.iter().find(|node| node.id == id).map_or_else(|| format!("node {id}"), |node| node.name.clone())
}
