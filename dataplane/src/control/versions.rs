//! Snapshots and clones: what changes of a served volume's versions is fetched and passed on, and what its gateway has done
//! about them is reported.

use super::Control;
use super::allocate::refusal;
use super::intent::attached;
use crate::asks::{ParentAsk, VersionsAsk};
use crate::core::Command;
use levee_core::gateway::Accomplished;
use levee_proto::VolumeId;
use levee_proto::api::*;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use tracing::warn;

/// Questions of gateways that are answered at the same time.
const ASKS: usize = 16;

/// What the cores were told last of each volume's versions, by number.
#[derive(Default)]
pub(super) struct Told(RefCell<BTreeMap<VolumeId, u64>>);

impl Told {
    pub fn note(&self, volume: VolumeId, number: u64) {
        self.0.borrow_mut().insert(volume, number);
    }

    pub fn forget(&self, volume: VolumeId) {
        self.0.borrow_mut().remove(&volume);
    }

    fn is_behind(&self, want: &AttachIntent) -> bool {
        self.0.borrow().get(&want.volume).is_some_and(|told| *told < want.versions)
    }
}

impl Control {
    /// Passes on the versions of a served volume if they have moved; whether that is settled.
    pub(super) async fn follow_versions(&self, want: &AttachIntent) -> bool {
        if !self.told_versions.is_behind(want) {
            return true;
        }
        match self.meta.versions(&attached(want)).await {
            Ok(versions) => {
                self.told_versions.note(want.volume, versions.number);
                let (volume, versions) = (want.volume, Box::new(versions));
                self.cores.send(self.cores.of_volume(volume), Command::Versions { volume, versions }).await;
                true
            }
            Err(e) => {
                warn!(volume = %want.name, "its versions cannot be fetched: {e}");
                false
            }
        }
    }

    /// Reports what gateways have done.
    pub(super) async fn report_versions(self: &Rc<Self>, asks: &async_channel::Receiver<VersionsAsk>) {
        let answer = async |this: Rc<Control>, ask: VersionsAsk| {
            let _ = ask.answer.send(this.accomplished(&ask).await.map_err(refusal)).await;
        };
        self.answer_all(asks, answer).await;
    }

    async fn accomplished(&self, ask: &VersionsAsk) -> Result<VolumeVersions, super::MetaError> {
        let (volume, epoch) = (&ask.volume, ask.epoch);
        match ask.what {
            Accomplished::Moved(version) => self.meta.moved(volume, &Moved { epoch, version, held: true }).await,
            Accomplished::Parted(version) => self.meta.moved(volume, &Moved { epoch, version, held: false }).await,
            Accomplished::Sealed(version) => self.meta.sealed(volume, &Sealed { epoch, version }).await,
            Accomplished::Pruned(number) => self.meta.pruned(volume, &Pruned { epoch, number }).await,
            Accomplished::Flattened => self.meta.flattened(volume, &Flattened { epoch }).await,
        }
    }

    /// Finds out where volumes' ancestors are.
    pub(super) async fn find_parents(self: &Rc<Self>, asks: &async_channel::Receiver<ParentAsk>) {
        let answer = async |this: Rc<Control>, ask: ParentAsk| {
            let found = this.meta.parent(&ask.volume).await;
            let _ = ask.answer.send(found.map(|p| p.parent).map_err(refusal)).await;
        };
        self.answer_all(asks, answer).await;
    }

    /// Answers questions as they come, some at a time.
    async fn answer_all<A: 'static>(
        self: &Rc<Self>,
        asks: &async_channel::Receiver<A>,
        answer: impl AsyncFn(Rc<Control>, A) + Copy + 'static,
    ) {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let slots = Rc::new(tokio::sync::Semaphore::new(ASKS));
                while let Ok(ask) = asks.recv().await {
                    let (this, slots) = (self.clone(), slots.clone());
                    tokio::task::spawn_local(async move {
                        let _slot = slots.acquire().await;
                        answer(this, ask).await;
                    });
                }
            })
            .await;
    }
}
