//! What differs between two versions of a volume, told group of chunks by group of chunks.

use super::Volume;
use levee_proto::api::{ByteRange, DiffEvent, DiffVolume};
use levee_proto::{Version, View};

/// What may hold anything, rather than a difference.
const EVERYTHING: DiffVolume = DiffVolume { from: Version(0), to: None };
/// In one event.
const RANGES: usize = 1024;

impl Volume {
    /// Tells what differs, and last whether that was all.
    pub async fn diff(&self, what: DiffVolume, events: async_channel::Sender<DiffEvent>) {
        let last = match self.tell_changes(what, &events).await {
            Ok(()) => DiffEvent::Done,
            Err(detail) => DiffEvent::Failed { detail },
        };
        let _ = events.send(last).await;
    }

    async fn tell_changes(&self, what: DiffVolume, events: &async_channel::Sender<DiffEvent>) -> Result<(), String> {
        let gateway = &self.0.gateway;
        let stopped = |why: levee_core::gateway::Stopped| why.0;
        gateway.ready().await.map_err(stopped)?;
        let range = |r: std::ops::Range<u64>| ByteRange { offset: r.start, length: r.end - r.start };
        if what == EVERYTHING {
            for ranges in gateway.mapped().chunks(RANGES) {
                let ranges = ranges.iter().cloned().map(range).collect();
                let _ = events.send(DiffEvent::Changed { ranges }).await;
            }
            return Ok(());
        }
        let (from, to) = self.views(what)?;
        for group in gateway.groups() {
            let changed = gateway.changed(group, &from, &to).await.map_err(stopped)?;
            let ranges: Vec<ByteRange> = changed.into_iter().map(range).collect();
            if !ranges.is_empty() && events.send(DiffEvent::Changed { ranges }).await.is_err() {
                // Nobody listens any more.
                return Ok(());
            }
        }
        // Of one that was deleted meanwhile, entries may have been missing.
        self.views(what).map(drop)
    }

    fn views(&self, what: DiffVolume) -> Result<(View, View), String> {
        let gateway = &self.0.gateway;
        let frozen = |version: Version| {
            let gone = || format!("volume '{}' has no snapshot at version {version} any more", self.name());
            gateway.snapshot_view(version).ok_or_else(gone)
        };
        Ok((frozen(what.from)?, what.to.map_or_else(|| Ok(gateway.head_view()), frozen)?))
    }
}
