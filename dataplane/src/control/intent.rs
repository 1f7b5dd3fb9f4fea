//! What should be: the volumes that this node serves, who the others are, what is to be done beside.

use super::{Complaint, Control, MetaError, NotTheNode, RETRY, Serving};
use crate::asks::Attached;
use crate::core::{Command, CoreReport};
use crate::volume::{ServeOptions, VolumeStatus};
use levee_core::sync::join_all;
use levee_proto::api::*;
use levee_proto::{Epoch, VolumeId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::warn;

/// How long one look at the intent may wait for a change.
const INTENT_WAIT: Duration = Duration::from_secs(10);
/// Volumes opened at a time: each takes a commit of the meta servers, which many can share.
const OPENS: usize = 64;

impl Control {
    /// Runs until another process is the node.
    pub(super) async fn follow_intent(&self) -> NotTheNode {
        let mut complaint = Complaint::new();
        let mut revision = 0;
        loop {
            let asked = tokio::select! {
                asked = self.meta.intent(self.joined().node, self.incarnation, revision, INTENT_WAIT) => asked,
                () = self.stopping.notified() => {
                    // What was done about this intent is not any more.
                    revision = 0;
                    continue;
                }
            };
            match asked {
                Ok(intent) if !self.is_newer(&intent).await => {}
                Ok(intent) => {
                    revision = match self.fulfil(&intent).await {
                        true => intent.revision,
                        // Something could not be done yet: look at the same intent again.
                        false => revision,
                    };
                    if revision == intent.revision {
                        continue;
                    }
                }
                Err(e) => match e.replaced() {
                    Some(other) => return other,
                    None => {
                        complaint.say(&format!("intent: {e}"));
                        self.join_again(&e).await;
                    }
                },
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Makes it so; whether everything was done.
    async fn fulfil(&self, intent: &Intent) -> bool {
        self.cores.peers(&intent.peers).await;
        // Before volumes are opened: gateways of this node find its own copies ready.
        self.cores.eras(&intent.eras).await;
        self.follow_background(intent).await;
        let wanted: BTreeMap<VolumeId, &AttachIntent> = intent.attach.iter().map(|a| (a.volume, a)).collect();
        let served = self.served.borrow().clone();
        for (volume, serving) in &served {
            if wanted.get(volume).is_none_or(|w| w.attachment != serving.attachment) {
                self.close(*volume).await;
            }
        }
        let is_wanted = |volume: &VolumeId| wanted.contains_key(volume);
        self.not_opened.borrow_mut().retain(|volume, _| is_wanted(volume));
        self.said.borrow_mut().retain(|volume, _| is_wanted(volume));
        if !self.tell_inventory(intent.state.generation).await {
            return false;
        }
        let mut all = true;
        let stopped = self.stopped.borrow().clone();
        let is_served = |w: &AttachIntent| served.get(&w.volume).is_some_and(|s| s.attachment == w.attachment);
        let is_new = |w: &&&AttachIntent| !is_served(w) || stopped.contains(&w.volume);
        let new: Vec<&AttachIntent> = wanted.values().filter(is_new).copied().collect();
        for some in new.chunks(OPENS) {
            let opened = join_all(some.iter().map(|want| self.open(want))).await;
            all &= opened.into_iter().all(|settled| settled);
        }
        for want in wanted.values() {
            all &= self.follow_versions(want).await;
        }
        self.deletes.want(&intent.deletes);
        all
    }

    async fn close(&self, volume: VolumeId) {
        let (done, closed) = async_channel::bounded(1);
        self.cores.send(self.cores.of_volume(volume), Command::Close { volume, done }).await;
        let _ = closed.recv().await;
        self.served.borrow_mut().remove(&volume);
        self.stopped.borrow_mut().remove(&volume);
        self.told_versions.forget(volume);
    }

    /// Notices volumes whose gateways have stopped by themselves although they are to be served: they are opened anew.
    pub(super) fn notice_stopped(&self, cores: &[CoreReport]) {
        let served = self.served.borrow();
        let now = |v: &&VolumeStatus| served.get(&v.report.volume).is_some_and(|s| s.epoch == v.report.epoch);
        let over = cores.iter().flat_map(|core| &core.volumes).filter(|v| v.stopped).filter(now);
        for volume in over {
            if self.stopped.borrow_mut().insert(volume.report.volume) {
                self.stopping.notify_one();
            }
        }
    }

    /// Asks for an epoch and hands the volume to its core; whether that is settled.
    async fn open(&self, want: &AttachIntent) -> bool {
        // It is only here if its gateway has stopped by itself.
        let fenced = self.served.borrow().get(&want.volume).map(|serving| serving.epoch);
        let node = self.joined().node;
        let ask = OpenVolume { node, incarnation: self.incarnation, attachment: want.attachment, fenced };
        let opened = match self.meta.open(&attached(want), &ask).await {
            Ok(opened) => opened,
            Err(MetaError::Refused(p)) => {
                // The intent is outdated: a newer one says what to do.
                self.say_not_opened(want, &p.detail);
                return p.kind == ProblemKind::Fenced || p.kind == ProblemKind::NotFound;
            }
            Err(e) => {
                self.say_not_opened(want, &e.to_string());
                return false;
            }
        };
        let (epoch, number) = (opened.epoch, opened.versions.number);
        if fenced.is_some_and(|before| epoch <= before) {
            // Another gateway of one epoch would use its sequence numbers again.
            self.say_not_opened(want, &format!("epoch {epoch} was given to a gateway of this process already"));
            return false;
        }
        match self.hand_over(want, opened).await {
            Ok(()) => {
                self.not_opened.borrow_mut().remove(&want.volume);
                self.said.borrow_mut().remove(&want.volume);
                self.stopped.borrow_mut().remove(&want.volume);
                self.served.borrow_mut().insert(want.volume, Serving { attachment: want.attachment, epoch });
                self.told_versions.note(want.volume, number);
                self.without_chunks.borrow_mut().remove(&want.volume);
                true
            }
            Err(why) => {
                self.say_not_opened(want, &why);
                self.not_opened.borrow_mut().insert(want.volume, failed(want.volume, epoch, why));
                false
            }
        }
    }

    /// It is tried again and again: the same is said once.
    fn say_not_opened(&self, want: &AttachIntent, why: &str) {
        if self.said.borrow_mut().insert(want.volume, why.to_string()).is_none_or(|before| before != why) {
            warn!(volume = %want.name, "not opened: {why}");
        }
    }

    /// Gives an opened volume to its core, which may not take it.
    async fn hand_over(&self, want: &AttachIntent, opened: OpenedVolume) -> Result<(), String> {
        if opened.id != want.volume {
            return Err(format!("the meta server has opened volume {} instead of {}", opened.id, want.volume));
        }
        let serve = ServeOptions {
            socket: (!want.repair).then(|| socket_path(&self.args.sockets, &want.name, want.volume)),
            access: self.access,
            queues: self.args.queues,
            poll: Duration::from_micros(self.args.poll_us),
            memory: self.args.volume_memory / 2,
            memory_of_all: self.args.guest_memory / self.args.data.len().max(1) as u64,
        };
        let (core, attachment, volume) = (self.cores.of_volume(want.volume), want.attachment, Box::new(opened));
        let (done, taken) = async_channel::bounded(1);
        self.cores.send(core, Command::Open { volume, attachment, serve, done }).await;
        taken.recv().await.unwrap_or_else(|_| Err("its core has ended".into()))
    }
}

/// Longest path of a socket, bytes: what an address has room for, with its end.
pub(super) const MAX_SOCKET_PATH: usize = 107;

/// Where guests of a volume connect: at its name, or at its number if the name makes too long a path. No name begins like that.
fn socket_path(folder: &Path, name: &str, volume: VolumeId) -> PathBuf {
    let named = folder.join(format!("{name}.sock"));
    match named.as_os_str().len() <= MAX_SOCKET_PATH {
        true => named,
        false => numbered_socket(folder, volume),
    }
}

/// The shortest path that a volume's socket may have.
pub(super) fn numbered_socket(folder: &Path, volume: VolumeId) -> PathBuf {
    folder.join(format!("@{}.sock", volume.0))
}

/// Whose gateway speaks.
pub(super) fn attached(want: &AttachIntent) -> Attached {
    let caller = AttachmentId { volume: want.volume, attachment: want.attachment };
    Attached { name: want.name.as_str().into(), caller }
}

/// What is reported of a volume that no core has.
fn failed(volume: VolumeId, epoch: Epoch, why: String) -> VolumeReport {
    VolumeReport {
        volume,
        epoch,
        state: ServeState::Failed,
        socket: None,
        detail: Some(why),
        healthy_chunks: 0,
        degraded_chunks: 0,
        waiting_chunks: 0,
        leaving_replicas: 0,
        full: false,
        copied_bytes: 0,
        versions_progress: 0,
        scrubbed_blocks: 0,
        scrub_passes: 0,
        degraded: vec![],
        lost: vec![],
        load: VolumeLoad::default(),
        stall: None,
        front_end: FrontEndReport::default(),
    }
}
