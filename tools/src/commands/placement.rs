//! `levee cluster placement`.

use crate::client::MetaClient;
use crate::output::Output;
use levee_proto::api::{ChangePlacement, PlacementPolicy};

pub async fn placement(meta: &MetaClient, change: Option<&ChangePlacement>, out: &Output) -> anyhow::Result<()> {
    let policy = match change {
        Some(change) => meta.set_placement(change).await?,
        None => meta.placement().await?,
    };
    out.result(&policy, || describe(&policy))
}

fn describe(policy: &PlacementPolicy) -> String {
    let width = policy.scatter_width.map_or("no limit".into(), |width| format!("at most {width} other nodes"));
    format!(
        "Scatter width   a node shares chunks with {width}\n\
         Reserve         {} % of each disk for repairs and moves\n\
         Local copy      {}",
        policy.reserve_percent,
        if policy.local_copy { "on the node that serves the volume" } else { "off" }
    )
}
