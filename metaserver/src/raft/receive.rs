//! Another member's snapshot on its way in.
//!
//! It is written beside the snapshots that count, and checked whole, before openraft hears of it: openraft takes the member for
//! as far as the snapshot says before its content was looked at.

use super::gate::Gate;
use super::sense::Refusal;
use super::snapshots::{SnapshotFile, Snapshots};
use super::{Meta, Types};
use crate::limits::{MAX_SNAPSHOT, MAX_SNAPSHOT_PIECE};
use openraft::SnapshotSegmentId;
use openraft::error::{InstallSnapshotError, RaftError, SnapshotMismatch};
use openraft::raft::{InstallSnapshotRequest, InstallSnapshotResponse};
use std::io::SeekFrom;
use std::sync::Arc;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::sync::Mutex;

/// Takes one snapshot at a time.
#[derive(Clone)]
pub struct Receiver {
    gate: Gate,
    snapshots: Snapshots,
    /// The newest level that this member knows.
    level: u32,
    under_way: Arc<Mutex<Option<Arriving>>>,
}

struct Arriving {
    meta: Meta,
    file: SnapshotFile,
    length: u64,
}

type Answer = Result<InstallSnapshotResponse<u64>, RaftError<u64, InstallSnapshotError>>;

impl Receiver {
    pub fn new(gate: Gate, snapshots: Snapshots, level: u32) -> Receiver {
        Receiver { gate, snapshots, level, under_way: Arc::default() }
    }

    pub async fn piece(&self, mut rpc: InstallSnapshotRequest<Types>) -> Result<Answer, Refusal> {
        check_piece(&rpc)?;
        if let Some(vote) = self.gate.check_snapshot(&rpc).await? {
            return Ok(Ok(InstallSnapshotResponse { vote }));
        }
        let vote = rpc.vote;
        let data = std::mem::take(&mut rpc.data);
        let mut under_way = self.under_way.lock().await;
        let arriving = match under_way.take() {
            Some(arriving) if arriving.meta == rpc.meta && rpc.offset <= arriving.length => arriving,
            other if rpc.offset > 0 => {
                *under_way = other;
                return Ok(Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(from_the_start(&rpc)))));
            }
            _ => Arriving { meta: rpc.meta.clone(), file: self.snapshots.receive().await.map_err(unable)?, length: 0 },
        };
        let arriving = arriving.add(rpc.offset, &data).await.map_err(unable)?;
        if !rpc.done {
            *under_way = Some(arriving);
            return Ok(Ok(InstallSnapshotResponse { vote }));
        }
        drop(under_way);
        let file = self.whole(arriving).await?;
        let vote = self.gate.install(rpc, file).await?;
        Ok(Ok(InstallSnapshotResponse { vote }))
    }

    /// Checks all of it, and that this member understands it.
    async fn whole(&self, mut arriving: Arriving) -> Result<SnapshotFile, Refusal> {
        arriving.file.flush().await.map_err(unable)?;
        let Arriving { meta, mut file, .. } = arriving;
        let checked = tokio::task::spawn_blocking(move || file.check(&meta).map(|()| file)).await;
        let file =
            checked.map_err(unable)?.map_err(|e| Refusal::Senseless(format!("the snapshot is damaged: {e:#}")))?;
        match file.level() {
            Some(level) if level > self.level => Err(Refusal::Level(level)),
            _ => Ok(file),
        }
    }
}

impl Arriving {
    /// A piece may come twice, if its answer was lost.
    async fn add(mut self, offset: u64, data: &[u8]) -> std::io::Result<Arriving> {
        if offset != self.length {
            self.file.seek(SeekFrom::Start(offset)).await?;
        }
        self.file.write_all(data).await?;
        self.length = offset + data.len() as u64;
        Ok(self)
    }
}

fn check_piece(rpc: &InstallSnapshotRequest<Types>) -> Result<(), Refusal> {
    let length = rpc.data.len() as u64;
    let fits = length <= MAX_SNAPSHOT_PIECE && rpc.offset <= MAX_SNAPSHOT - length && (rpc.done || length > 0);
    let why = || Refusal::Senseless(format!("{length} bytes at {} are no piece of a snapshot", rpc.offset));
    if fits { Ok(()) } else { Err(why()) }
}

fn unable(error: impl std::fmt::Display) -> Refusal {
    Refusal::Unable(format!("a snapshot cannot be received: {error}"))
}

fn from_the_start(rpc: &InstallSnapshotRequest<Types>) -> SnapshotMismatch {
    let at = |offset| SnapshotSegmentId { id: rpc.meta.snapshot_id.clone(), offset };
    SnapshotMismatch { expect: at(0), got: at(rpc.offset) }
}
