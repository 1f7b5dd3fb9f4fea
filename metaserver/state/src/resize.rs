//! Other sizes of volumes.
//!
//! What a volume gains reads as zeros. It can lose only what surely was never written, for a volume that grows again
//! would bring it back: groups of chunks of which none is allocated, of a volume that has no parent.

use crate::capacity::{promised, promised_to};
use crate::command::{Outcome, invalid};
use crate::snapshots::conflict;
use crate::state::State;
use crate::tables::Volume;
use levee_proto::api::{EventKind, Problem, ResizeVolume};

impl State {
    pub(crate) fn resize(&mut self, name: &str, request: &ResizeVolume) -> Outcome {
        let id = self.user_volume_id(name)?;
        let volume = &self.tables.volumes[&id];
        if request.size < volume.size {
            if !request.allow_shrink {
                return Err(invalid(format!(
                    "volume '{name}' has {} bytes, more than {}: a volume is made smaller only where that is allowed explicitly",
                    volume.size, request.size
                )));
            }
            self.check_detached(id, "made smaller")?;
            check_shrink(volume, request.size)?;
        }
        let (before, after) = (promised_to(volume), promised(request.size, volume.copies));
        self.check_provision(|| format!("volume '{name}' cannot grow"), after.saturating_sub(before))?;
        if request.size != volume.size {
            self.index.provisioned = self.index.provisioned - before + after;
            if let Some(volume) = self.tables.volumes.get_mut(&id) {
                volume.size = request.size;
            }
            self.versions_moved(id);
            self.tell(EventKind::Volume, name, format!("has {} bytes now", request.size));
        }
        self.volume_answer(id)
    }
}

fn check_shrink(volume: &Volume, size: u64) -> Result<(), Problem> {
    let name = &volume.name;
    if volume.parent.is_some() {
        return Err(conflict(format!("volume '{name}' is a clone and cannot be made smaller: flatten it first")));
    }
    // The group that the end falls into counts: its stripes are on all of its chunks.
    let whole_groups = size / volume.geometry.group_size();
    let kept = whole_groups * u64::from(volume.geometry.group_chunks);
    let Some(last) = volume.chunks.keys().next_back().filter(|last| u64::from(**last) >= kept) else { return Ok(()) };
    let groups = u64::from(last / u32::from(volume.geometry.group_chunks)) + 1;
    Err(conflict(format!(
        "volume '{name}' cannot be made smaller than {} bytes: more of it is in use",
        volume.size.min(groups * volume.geometry.group_size())
    )))
}
