//! What commands do to whole volumes: see [`levee_proto::api::VolumeJob`].
//!
//! A mark on the volume that its command sets before it begins and takes away when it is done. What a command that died has left
//! keeps it: an import for ever, the others until the leader has cleaned up behind them.

use crate::command::{Answer, Outcome, invalid};
use crate::snapshots::conflict;
use crate::state::State;
use levee_proto::VolumeId;
use levee_proto::api::{BeginJob, JobKind, MAX_JOB_BY, Problem, VolumeJob};
use uuid::Uuid;

pub(crate) fn validate_job(request: &BeginJob) -> Result<(), Problem> {
    let by = &request.by;
    if by.is_empty() || by.len() > MAX_JOB_BY || by.chars().any(char::is_control) {
        return Err(invalid(format!("who does a job is said in 1 to {MAX_JOB_BY} bytes of plain text")));
    }
    Ok(())
}

impl State {
    /// What a command does to the volume, or has left undone.
    pub fn job(&self, id: VolumeId) -> Option<&VolumeJob> {
        self.tables.jobs.get(&id)
    }

    /// All of them.
    pub fn jobs(&self) -> impl Iterator<Item = (VolumeId, &VolumeJob)> {
        self.tables.jobs.iter().map(|(id, job)| (*id, job))
    }

    /// Takes the place of another one: whether that one's command is gone is the proposer's to know.
    pub(crate) fn begin_job(&mut self, name: &str, request: &BeginJob) -> Outcome {
        let id = self.user_volume_id(name)?;
        if request.kind != JobKind::Import {
            self.check_filled(id)?;
        }
        let volume = &self.tables.volumes[&id];
        if let (Some(user), None) = (volume.user(), self.tables.jobs.get(&id)) {
            return Err(conflict(format!(
                "volume '{name}' is attached to node '{0}': `levee volume detach {name}` first",
                self.node_name(user.node)
            )));
        }
        let BeginJob { id: job, kind, by } = request.clone();
        let renewed_ms = self.clock_ms();
        let before = self.tables.jobs.get(&id).filter(|before| before.id == job);
        let since_ms = before.map_or(renewed_ms, |before| before.since_ms);
        self.tables.jobs.insert(id, VolumeJob { id: job, kind, by, since_ms, renewed_ms });
        self.volume_answer(id)
    }

    /// One that has another job by now keeps it.
    pub(crate) fn end_job(&mut self, name: &str, job: Uuid) -> Outcome {
        let id = self.user_volume_id(name)?;
        if self.tables.jobs.get(&id).is_some_and(|there| there.id == job) {
            self.tables.jobs.remove(&id);
        }
        self.volume_answer(id)
    }

    /// One step of cleaning up behind a command that is dead, unless it has said meanwhile that it goes on, or somebody else has the
    /// volume.
    pub(crate) fn clean_up_job(&mut self, volume: VolumeId, job: Uuid, renewed_ms: u64) -> Outcome {
        let unchanged = |there: &&VolumeJob| there.id == job && there.renewed_ms == renewed_ms;
        let Some(kind) = self.tables.jobs.get(&volume).filter(unchanged).map(|there| there.kind) else {
            return Ok(Answer::Done);
        };
        let name = self.tables.volumes[&volume].name.clone();
        if self.tables.volumes[&volume].user().is_some() {
            self.detach(&name)?;
        } else if kind == JobKind::Copy {
            self.delete_volume(&name)?;
        } else if kind == JobKind::Export {
            self.tables.jobs.remove(&volume);
        }
        Ok(Answer::Done)
    }

    /// Refuses what makes no sense for a volume that is only filled in part.
    pub fn check_filled(&self, id: VolumeId) -> Result<(), Problem> {
        match self.tables.jobs.get(&id) {
            Some(VolumeJob { kind: JobKind::Import, by, .. }) => Err(conflict(format!(
                "volume '{0}' is only filled in part: an import by {by} has not finished. If that is gone, import again, or \
                 `levee volume delete {0}`",
                self.tables.volumes[&id].name
            ))),
            _ => Ok(()),
        }
    }

    /// The volume holds what it should: an image is made of it.
    pub(crate) fn filled(&mut self, id: VolumeId) {
        if self.tables.jobs.get(&id).is_some_and(|job| job.kind == JobKind::Import) {
            self.tables.jobs.remove(&id);
        }
    }
}
