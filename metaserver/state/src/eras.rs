//! Giving a volume its epochs anew.
//!
//! Replicas refuse whoever is below a volume's fence, for ever. If a fence was set at an epoch that the meta server never gave
//! out, no gateway that it lets in can pass. In another era it can: daemons put a fence of a later era above all of earlier ones,
//! and learn of eras from the meta server alone ([`levee_proto::Fence`]).
//!
//! Nobody who was deposed can write by this. Epochs go on as they were, so every gateway of an earlier era has a smaller
//! one; and fences are only ever raised. A daemon that has not heard of the era yet serves nobody who names it, and is waited for like
//! one that is away.

use crate::command::Outcome;
use crate::limits::MAX_ERAS;
use crate::snapshots::conflict;
use crate::state::State;
use levee_proto::api::{EventKind, VolumeEra};
use levee_proto::{Era, VolumeId};

impl State {
    pub(crate) fn begin_era(&mut self, name: &str) -> Outcome {
        let id = self.user_volume_id(name)?;
        self.check_detached(id, "given its epochs anew")?;
        let Some(era) = self.era(id).next() else {
            return Err(conflict(format!("volume '{name}' has used up its eras: copy it to a new volume")));
        };
        if self.tables.eras.len() >= MAX_ERAS && !self.tables.eras.contains_key(&id) {
            return Err(conflict(format!(
                "{MAX_ERAS} volumes were given their epochs anew, the most: delete one of them"
            )));
        }
        // Whoever has the volume open to make its copies whole has an epoch of the era before.
        self.drop_attachment(id);
        self.tables.eras.insert(id, era);
        self.touch_all();
        self.tell(EventKind::Volume, name, format!("was given its epochs anew: era {era}"));
        self.volume_answer(id)
    }

    pub(crate) fn era(&self, id: VolumeId) -> Era {
        self.tables.eras.get(&id).copied().unwrap_or_default()
    }

    /// The volumes that are not in their first era.
    pub(crate) fn eras(&self) -> Vec<VolumeEra> {
        self.tables.eras.iter().map(|(volume, era)| VolumeEra { volume: *volume, era: *era }).collect()
    }
}
