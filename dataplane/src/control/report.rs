//! What is: heartbeats to the meta server, and the same for whoever asks the daemon itself.

use super::parts::parts;
use super::{Complaint, Control, MetaError, NotTheNode};
use crate::core::CoreReport;
use crate::links::merge;
use crate::volume::VolumeStatus;
use levee_proto::NodeId;
use levee_proto::api::*;
use std::collections::BTreeMap;
use std::time::Duration;
use tracing::warn;

/// Between heartbeats, unless there is news.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Between any two.
const MIN_PAUSE: Duration = Duration::from_millis(10);
/// How long the last heartbeat may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// Most chunks that are named, over all volumes: a node that was lost degrades thousands.
const MAX_CHUNKS: usize = 1024;

impl Control {
    /// Runs until another process is the node.
    pub(super) async fn beat(&self, news: &async_channel::Receiver<()>) -> NotTheNode {
        let mut complaint = Complaint::new();
        loop {
            let deleted = self.deletes.done();
            let cores = self.cores.report().await;
            let links = seen(&cores);
            self.notice_stopped(&cores);
            let status = self.status_of(cores);
            self.share_background_rate(&status.volumes).await;
            match self.tell(status, &deleted, links).await {
                Ok(()) => self.deletes.reported(&deleted),
                Err(e) => match e.replaced() {
                    Some(other) => return other,
                    None => complaint.say(&format!("heartbeat: {e}")),
                },
            }
            // Front ends that come and go make news as fast as they like.
            tokio::time::sleep(MIN_PAUSE).await;
            let _ = tokio::time::timeout(HEARTBEAT, news.recv()).await;
        }
    }

    /// Tells the meta server how the daemon does, in as many heartbeats as that takes.
    async fn tell(
        &self,
        status: DaemonStatus,
        deleted: &[ReplicaRef],
        links: Vec<LinkReport>,
    ) -> Result<(), MetaError> {
        let (incarnation, disks, held) = (self.incarnation, status.disks, self.disks.borrow().locks());
        for (part, volumes) in parts(status.volumes) {
            let (disks, deleted, links, locks) = (disks.clone(), deleted.to_vec(), links.clone(), held.clone());
            let beat = Heartbeat { incarnation, disks, volumes, part, deleted, links, locks, stopping: false };
            self.meta.heartbeat(self.joined().node, &beat).await?;
        }
        Ok(())
    }

    /// Says that the daemon stops, so that it is not taken for one that has died. Nobody waits for long to hear it.
    pub(super) async fn say_goodbye(&self) {
        let Some(node) = self.node.borrow().as_ref().map(|joined| joined.node) else { return };
        let (incarnation, stopping) = (self.incarnation, true);
        let (disks, volumes, deleted, links, locks) = (vec![], vec![], vec![], vec![], vec![]);
        let beat = Heartbeat { incarnation, disks, volumes, part: None, deleted, links, locks, stopping };
        if !matches!(tokio::time::timeout(GOODBYE, self.meta.heartbeat(node, &beat)).await, Ok(Ok(_))) {
            warn!("the meta servers were not told that this daemon stops");
        }
    }

    /// How the daemon does.
    pub(super) async fn status(&self) -> DaemonStatus {
        self.status_of(self.cores.report().await)
    }

    fn status_of(&self, cores: Vec<CoreReport>) -> DaemonStatus {
        let disks = self.disk_usage(&cores);
        let mut volumes = self.volumes(cores);
        bound_chunks(&mut volumes, MAX_CHUNKS);
        DaemonStatus {
            name: self.args.name.clone(),
            node: self.node.borrow().as_ref().map(|j| j.node),
            incarnation: self.incarnation,
            pid: std::process::id(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            disks,
            volumes,
        }
    }

    /// The node's disks, once it has joined.
    pub(super) fn disk_usage(&self, cores: &[CoreReport]) -> Vec<DiskUsage> {
        let joined = self.node.borrow();
        let disks = joined.iter().flat_map(|j| &j.disks);
        let usage = |(i, disk): (&usize, &super::JoinedDisk)| {
            let shares = || cores.iter().filter_map(move |c| c.disks.get(i));
            let failed = disk.missing.clone().or_else(|| shares().find_map(|s| s.failed.clone()));
            let load = shares().fold(DiskLoad::default(), |sum, s| DiskLoad {
                load: sum.load.plus(&s.load.load),
                oldest_io_us: sum.oldest_io_us.max(s.load.oldest_io_us),
            });
            DiskUsage { disk: disk.id, used: shares().map(|s| s.used).sum(), failed, load }
        };
        disks.map(usage).collect()
    }

    /// What the cores report, and what they would not take.
    fn volumes(&self, cores: Vec<CoreReport>) -> Vec<VolumeReport> {
        let served = cores.into_iter().flat_map(|c| c.volumes).map(|v| self.complete(v));
        served.chain(self.not_opened.borrow().values().cloned()).collect()
    }

    /// A core's report of a volume, with what the core does not know.
    fn complete(&self, volume: VolumeStatus) -> VolumeReport {
        let VolumeStatus { mut report, .. } = volume;
        if let (Some(why), ServeState::Serving) = (self.without_chunks.borrow().get(&report.volume), report.state) {
            let waiting = format!("writes to parts that were never written wait for new chunks: {why}");
            if let Some(stall) = &mut report.stall {
                stall.why = waiting.clone();
            }
            report.detail = Some(match report.detail.take() {
                Some(detail) => format!("{detail}; {waiting}"),
                None => waiting,
            });
        }
        report
    }
}

/// How the node sees the others: what its cores see, taken together.
pub(super) fn seen(cores: &[CoreReport]) -> Vec<LinkReport> {
    let mut all: BTreeMap<NodeId, LinkReport> = BTreeMap::new();
    for link in cores.iter().flat_map(|c| &c.links) {
        all.entry(link.node).and_modify(|l| *l = merge(l, link)).or_insert(*link);
    }
    all.into_values().collect()
}

/// Leaves chunks, and ranges that are lost, out so that at most `most` are named, and each volume names some.
fn bound_chunks(volumes: &mut [VolumeReport], most: usize) {
    let naming = volumes.iter().filter(|v| !v.degraded.is_empty() || !v.lost.is_empty()).count();
    let each = (most / naming.max(1)).max(1);
    let mut left = most;
    for volume in volumes {
        volume.degraded.truncate(each.min(left));
        left -= volume.degraded.len();
        volume.lost.truncate(each.min(left));
        left -= volume.lost.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use levee_proto::{Epoch, VolumeId};

    fn volume(degraded: usize) -> VolumeReport {
        let chunk = |index| ChunkReport { index, current: 2, wanted: 3, served: true, behind: vec![] };
        VolumeReport {
            volume: VolumeId(1),
            epoch: Epoch(1),
            state: ServeState::Serving,
            socket: None,
            detail: None,
            healthy_chunks: 0,
            degraded_chunks: degraded as u32,
            waiting_chunks: 0,
            leaving_replicas: 0,
            full: false,
            copied_bytes: 0,
            scrubbed_blocks: 0,
            scrub_passes: 1,
            versions_progress: 0,
            degraded: (0..degraded as u32).map(chunk).collect(),
            lost: vec![],
            load: VolumeLoad::default(),
            front_end: FrontEndReport::default(),
            stall: None,
        }
    }

    #[test]
    fn a_bounded_number_of_chunks_is_named() {
        for (given, left) in [
            (vec![3, 0, 4], vec![3, 0, 4]),
            (vec![8, 8, 8], vec![3, 3, 3]),
            (vec![10, 0, 0], vec![9, 0, 0]),
            (vec![1; 12], vec![1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0]),
        ] {
            let mut volumes: Vec<_> = given.iter().map(|n| volume(*n)).collect();
            bound_chunks(&mut volumes, 9);
            assert_eq!(volumes.iter().map(|v| v.degraded.len()).collect::<Vec<_>>(), left);
        }
    }
}
