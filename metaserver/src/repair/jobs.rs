//! Cleans up behind commands that died: what they had attached is detached, and what they had made for themselves is deleted. An
//! import that was not finished stays marked: what it has written is no use, but it is not ours to throw away.

use super::View;
use crate::limits::JOB_PATIENCE;
use levee_meta_state::Command;
use levee_proto::VolumeId;
use levee_proto::api::{JobKind, VolumeJob};
use std::collections::BTreeMap;
use std::time::Instant;
use uuid::Uuid;

/// Since when nobody has used the volume of a job that was renewed then.
#[derive(Default)]
pub struct Jobs(BTreeMap<VolumeId, (Renewal, Instant)>);

/// A job, and when its command said last that it goes on.
type Renewal = (Uuid, u64);

impl Jobs {
    pub fn tend(&mut self, view: &View<'_>, commands: &mut Vec<Command>) {
        let jobs: Vec<(VolumeId, VolumeJob)> = view.state.jobs().map(|(id, job)| (id, job.clone())).collect();
        self.0.retain(|id, (last, _)| jobs.iter().any(|(other, job)| other == id && (job.id, job.renewed_ms) == *last));
        for (id, job) in jobs {
            if view.observed.report(view.state, id).is_some_and(|report| report.front_end.connected) {
                self.0.remove(&id);
                continue;
            }
            let (_, since) = *self.0.entry(id).or_insert(((job.id, job.renewed_ms), view.now));
            if view.now.saturating_duration_since(since) >= JOB_PATIENCE {
                commands.extend(clean_up(view, id, &job));
            }
        }
    }
}

/// One step; the next look takes the next one. Nothing is left to do for an import that nobody is attached for.
fn clean_up(view: &View<'_>, id: VolumeId, job: &VolumeJob) -> Option<Command> {
    let volume = view.state.volume(id)?;
    let attached = volume.user().is_some();
    if attached {
        tracing::warn!("volume '{}' is detached: the command that used it ({}) is gone", volume.name, job.by);
    }
    let (job_id, renewed_ms) = (job.id, job.renewed_ms);
    (attached || job.kind != JobKind::Import).then_some(Command::CleanUpJob { volume: id, job: job_id, renewed_ms })
}
