//! The cores as the control thread sees them: channels.

use crate::core::{Command, CoreReport};
use levee_proto::api::{PeerInfo, ReplicaRef, ReplicaSize, VolumeEra};
use levee_proto::{ChunkId, DiskId, VolumeId};
use std::sync::Arc;

/// Commands that may wait for a core.
pub const QUEUE: usize = 256;

/// Handles to all cores. Cheap to clone.
#[derive(Clone)]
pub struct Cores(Arc<Vec<async_channel::Sender<Command>>>);

impl Cores {
    pub fn new(cores: Vec<async_channel::Sender<Command>>) -> Cores {
        Cores(Arc::new(cores))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Sends to one core. A core that has ended takes nothing.
    pub async fn send(&self, core: usize, command: Command) {
        let _ = self.0[core].send(command).await;
    }

    /// The core that serves a volume.
    pub fn of_volume(&self, volume: VolumeId) -> usize {
        (volume.0 % self.0.len() as u64) as usize
    }

    /// Asks every core the same and gathers the answers of those that live.
    pub async fn ask_all<T>(&self, command: impl Fn(async_channel::Sender<T>) -> Command) -> Vec<T> {
        let mut answers = vec![];
        for core in self.0.iter() {
            let (tx, rx) = async_channel::bounded(1);
            let _ = core.send(command(tx)).await;
            answers.push(rx);
        }
        let mut all = vec![];
        for answer in answers {
            all.extend(answer.recv().await.ok());
        }
        all
    }

    /// Tells every core the same.
    pub async fn tell_all(&self, command: impl Fn() -> Command) {
        for core in self.0.iter() {
            let _ = core.send(command()).await;
        }
    }

    pub async fn peers(&self, peers: &[PeerInfo]) {
        let peers = Arc::new(peers.to_vec());
        self.tell_all(|| Command::Peers(peers.clone())).await;
    }

    pub async fn eras(&self, eras: &[VolumeEra]) {
        if !eras.is_empty() {
            let eras = Arc::new(eras.to_vec());
            self.tell_all(|| Command::Eras(eras.clone())).await;
        }
    }

    pub async fn report(&self) -> Vec<CoreReport> {
        self.ask_all(|done| Command::Report { done }).await
    }

    /// What each replica on the node takes, by disk and chunk: at most `max` from one on.
    pub async fn replicas(&self, from: (DiskId, ChunkId), max: usize) -> Vec<ReplicaSize> {
        let mut all = self.ask_all(|done| Command::Replicas { from, max, done }).await.concat();
        all.sort_by_key(|r| (r.disk, r.chunk));
        all.truncate(max);
        all
    }

    /// Deletes replicas on whichever core has them; returns those that are gone from all.
    pub async fn delete(&self, replicas: &[ReplicaRef]) -> Vec<ReplicaRef> {
        let answers = self.ask_all(|done| Command::Delete { replicas: replicas.to_vec(), done }).await;
        let by_all = |r: &&ReplicaRef| answers.len() == self.len() && answers.iter().all(|gone| gone.contains(r));
        replicas.iter().filter(by_all).copied().collect()
    }

    pub async fn stop(&self) {
        self.ask_all(|done| Command::Stop { done }).await;
    }
}
