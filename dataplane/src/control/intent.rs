//! What should be: the volumes that this node serves, who the others are, what is to be done beside.

use super::{Complaint, Control, MetaError, NotTheNode, RETRY};
use crate::core::Command;
use crate::volume::ServeOptions;
use levee_core::sync::join_all;
use levee_proto::VolumeId;
use levee_proto::api::*;
use std::collections::BTreeMap;
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
            match self.meta.intent(self.joined().node, self.incarnation, revision, INTENT_WAIT).await {
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
                    None => complaint.say(&format!("intent: {e}")),
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
        for (volume, attachment) in &served {
            if wanted.get(volume).is_none_or(|w| w.attachment != *attachment) {
                self.close(*volume).await;
            }
        }
        let mut all = true;
        let is_new = |w: &&&AttachIntent| served.get(&w.volume) != Some(&w.attachment);
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
        self.told_versions.forget(volume);
    }

    /// Asks for an epoch and hands the volume to its core; whether that is settled.
    async fn open(&self, want: &AttachIntent) -> bool {
        let node = self.joined().node;
        let ask = OpenVolume { node, incarnation: self.incarnation, attachment: want.attachment };
        let opened = match self.meta.open(&want.name, &ask).await {
            Ok(opened) => opened,
            Err(MetaError::Refused(p)) => {
                // The intent is outdated: a newer one says what to do.
                warn!(volume = %want.name, "not opened: {}", p.detail);
                return p.kind == ProblemKind::Fenced || p.kind == ProblemKind::NotFound;
            }
            Err(e) => {
                warn!(volume = %want.name, "not opened: {e}");
                return false;
            }
        };
        let serve = ServeOptions {
            socket: (!want.repair).then(|| self.args.sockets.join(format!("{}.sock", want.name))),
            queues: self.args.queues,
            poll: Duration::from_micros(self.args.poll_us),
        };
        self.served.borrow_mut().insert(want.volume, want.attachment);
        self.told_versions.note(want.volume, opened.versions.number);
        self.without_chunks.borrow_mut().remove(&want.name);
        let core = self.cores.of_volume(want.volume);
        self.cores.send(core, Command::Open { volume: Box::new(opened), serve }).await;
        true
    }
}
