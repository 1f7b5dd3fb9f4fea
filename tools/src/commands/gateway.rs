//! Has something done by the daemon that serves a volume, which is attached for that if nobody uses it.

use super::attach::{Unserved, wait_served};
use super::job::{Marked, keep};
use super::redundancy;
use crate::client::{AdminClient, MetaClient};
use crate::limits::DETACH_PATIENCE;
use crate::signals::Signals;
use anyhow::Context;
use indicatif::ProgressBar;
use levee_proto::api::{AttachVolume, JobKind, NodeInfo};
use std::time::Duration;

/// The daemon that serves a volume.
pub struct Gateway {
    pub client: AdminClient,
    /// Name of its node.
    pub node: String,
    pub nodes: Vec<NodeInfo>,
}

/// What came of it, and whether the volume is free again if it was.
pub type Outcome<T> = (T, anyhow::Result<()>);

/// Signals end the work. The volume is detached again in any case, if it was attached for this.
pub async fn at_gateway<T>(
    meta: &MetaClient,
    name: &str,
    timeout: Duration,
    bar: &ProgressBar,
    work: impl AsyncFnOnce(Gateway) -> anyhow::Result<T>,
) -> anyhow::Result<Outcome<T>> {
    let mut signals = Signals::install()?;
    let mut volume = meta.volume(name).await?;
    let attached_here = redundancy::user(&volume).is_none();
    let before = volume.clone();
    let marked = if attached_here { Marked::begin(meta, &before, JobKind::Export).await? } else { None };
    if attached_here {
        let job = marked.as_ref().map(Marked::id);
        volume = meta.attach(name, &AttachVolume { node: None, job }).await?;
    }
    let work = async {
        let unserved = if attached_here { Unserved::IsDetached } else { Unserved::StaysAttached };
        wait_served(meta, &volume, timeout, bar, unserved).await?;
        work(find(meta, name).await?).await
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        never = keep(marked.as_ref()) => match never {},
        () = signals.next() => Err(anyhow::anyhow!("interrupted")),
    };
    let detached = if attached_here { meta.detach_unused(name, DETACH_PATIENCE).await.map(|_| ()) } else { Ok(()) };
    if let Some(marked) = marked {
        // If it stays, the cluster takes it away.
        let _ = marked.end().await;
    }
    bar.finish_and_clear();
    Ok((outcome?, detached.with_context(|| format!("all is done, but volume {name} cannot be detached again"))))
}

/// The daemon that serves a volume now, or makes its copies whole.
pub async fn find(meta: &MetaClient, name: &str) -> anyhow::Result<Gateway> {
    let attachment = meta.volume(name).await?.attachment;
    let gateway = attachment.with_context(|| format!("volume {name} was detached meanwhile"))?;
    let nodes = meta.nodes().await?;
    let node = nodes.iter().find(|node| node.id == gateway.node);
    let node = node.with_context(|| format!("{}, which serves volume {name}, is not known", gateway.node_name))?;
    Ok(Gateway { client: AdminClient::new(node.admin_url.clone()), node: node.name.clone(), nodes })
}
