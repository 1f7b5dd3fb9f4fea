//! Uses a volume on this machine for the time of one command: attached before, detached after, whatever happens.

use super::attach::{Unserved, wait_served};
use super::job::{Marked, keep};
use super::{diff, gateway, redundancy};
use crate::client::{AdminClient, MetaClient};
use crate::limits::DETACH_PATIENCE;
use crate::signals::Signals;
use crate::transfer::Job;
use anyhow::Context;
use levee_proto::api::{AttachVolume, ByteRange, JobKind, NodeInfo, NodeState, VolumeInfo};
use std::cell::Cell;
use std::net::{IpAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::time::Duration;

/// Which volume, and where and how long its gateway is waited for.
pub struct Borrow<'a> {
    pub meta: &'a MetaClient,
    pub volume: &'a str,
    /// What it is used for, as the cluster is told.
    pub kind: JobKind,
    /// It is not all that is to be done with the volume: the mark stays.
    pub goes_on: bool,
    pub node: Option<&'a str>,
    pub timeout: Duration,
}

impl Borrow<'_> {
    /// Has `work` done with the volume's socket, on a thread that may block. Signals cancel the job.
    pub async fn run<T: Send + 'static>(
        &self,
        signals: &mut Signals,
        job: &Job,
        work: impl FnOnce(Borrowed) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let before = self.free().await?;
        let begun = Cell::new(false);
        let marked = Marked::begin(self.meta, &before, self.kind).await?;
        let outcome = self.attached(marked.as_ref(), &before, &begun, signals, job, work).await;
        let Some(marked) = marked else { return outcome };
        let unfinished = before.job.as_ref().is_some_and(|job| job.kind == JobKind::Import);
        match self.kind {
            // Nothing was written, and what was there before is whole.
            JobKind::Import if outcome.is_err() && !begun.get() && !unfinished => marked.end().await?,
            // What has failed half-way leaves something that is no use: the mark says so.
            JobKind::Import if outcome.is_err() || self.goes_on => {}
            JobKind::Import => marked.end().await?,
            // It was only read. If the mark stays the cluster takes it away.
            JobKind::Export | JobKind::Copy => drop(marked.end().await),
        }
        outcome
    }

    async fn attached<T: Send + 'static>(
        &self,
        marked: Option<&Marked<'_>>,
        before: &VolumeInfo,
        begun: &Cell<bool>,
        signals: &mut Signals,
        job: &Job,
        work: impl FnOnce(Borrowed) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        if redundancy::user(before).is_some() {
            // Its job was left by a command that is gone, or it would not have given way.
            self.meta.detach_unused(self.volume, DETACH_PATIENCE).await?;
        }
        let volume = self.attach(marked).await?;
        let outcome = tokio::select! {
            borrowed = self.borrowed(&volume, before, job) => Some(borrowed),
            never = keep(marked) => match never {},
            () = signals.next() => None,
        };
        let outcome = match outcome {
            Some(Ok(borrowed)) => {
                begun.set(true);
                tokio::select! {
                    outcome = finish(signals, job, move || work(borrowed)) => outcome,
                    never = keep(marked) => match never {},
                }
            }
            Some(Err(e)) => Err(e),
            None => Err(anyhow::anyhow!("interrupted")),
        };
        let detached = self.meta.detach_unused(self.volume, DETACH_PATIENCE).await;
        let outcome = outcome?;
        detached.with_context(|| format!("all is done, but volume {} cannot be detached again", self.volume))?;
        Ok(outcome)
    }

    /// The volume, which nobody uses, unless it was left by a command that was killed.
    async fn free(&self) -> anyhow::Result<VolumeInfo> {
        let name = self.volume;
        let before = self.meta.volume(name).await?;
        if let (Some(attachment), None) = (redundancy::user(&before), &before.job) {
            let node = &attachment.node_name;
            anyhow::bail!("volume {name} is in use on {node}: shut its user down and `levee volume detach {name}`");
        }
        Ok(before)
    }

    async fn attach(&self, marked: Option<&Marked<'_>>) -> anyhow::Result<VolumeInfo> {
        let name = self.volume;
        let node = match self.node {
            Some(node) => Some(node.to_string()),
            None => self.node_here().await?,
        };
        Ok(self.meta.attach(name, &AttachVolume { node, job: marked.map(Marked::id) }).await?)
    }

    /// A node of this machine. That it counts as up is not enough: its daemon may have died a moment ago.
    async fn node_here(&self) -> anyhow::Result<Option<String>> {
        for node in self.meta.nodes().await?.into_iter().filter(is_here) {
            if AdminClient::new(node.admin_url).status().await.is_ok() {
                return Ok(Some(node.name));
            }
        }
        Ok(None)
    }

    async fn borrowed(&self, volume: &VolumeInfo, before: &VolumeInfo, job: &Job) -> anyhow::Result<Borrowed> {
        let socket = self.socket(volume, job).await?;
        let gateway = gateway::find(self.meta, self.volume).await?;
        // An older daemon does not know: all of the volume is looked at then.
        let mapped = diff::ranges(&gateway, self.volume, &diff::EVERYTHING).await.ok();
        // Known only now: what a command before this one had on its way is over since that was detached.
        let fresh = volume.chunks == 0 && volume.parent.is_none() && before.job.is_none();
        Ok(Borrowed { socket, mapped, fresh })
    }

    async fn socket(&self, volume: &VolumeInfo, job: &Job) -> anyhow::Result<PathBuf> {
        let served = wait_served(self.meta, volume, self.timeout, &job.bar, Unserved::IsDetached).await?;
        let socket = PathBuf::from(&served.socket);
        let is_socket = std::fs::metadata(&socket).is_ok_and(|found| found.file_type().is_socket());
        if !is_socket {
            let (name, node, path) = (self.volume, &served.node, socket.display());
            anyhow::bail!(
                "volume {name} was served by {node}, but its socket {path} is not on this machine: run this on a machine \
                 with a storage daemon, and name it with --node"
            );
        }
        Ok(socket)
    }
}

/// A volume that is served to us.
pub struct Borrowed {
    pub socket: PathBuf,
    /// Where it may hold anything, in order; `None`: anywhere.
    pub mapped: Option<Vec<ByteRange>>,
    /// It has never held anything.
    pub fresh: bool,
}

/// Waits for the work to end; a signal makes it end soon.
async fn finish<T: Send + 'static>(
    signals: &mut Signals,
    job: &Job,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let mut work = tokio::task::spawn_blocking(work);
    let outcome = tokio::select! {
        outcome = &mut work => outcome,
        () = signals.next() => {
            job.cancel();
            work.await
        }
    };
    outcome.context("the transfer broke off")?
}

/// Whether a node runs on this machine: only here can its address be listened at.
fn is_here(node: &NodeInfo) -> bool {
    let host = reqwest::Url::parse(&node.admin_url).ok().and_then(|url| url.host_str().map(String::from));
    let address = host.and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
    node.state == NodeState::Up && address.is_some_and(|address| TcpListener::bind((address, 0)).is_ok())
}
