//! Gateways are known by their attachment.
//!
//! A gateway that was replaced goes on asking until it hears of that. Its volume may be gone by then, and another have the name; that
//! one's epochs begin at 1 again, so neither name nor epoch tells the two apart. Ids of volumes and attachments do: they are never given
//! again. So every command of a gateway comes within [`Command::Of`]; bare, only from daemons that are older.

use crate::attach::over;
use crate::command::{Command, Outcome, invalid};
use crate::state::State;
use levee_proto::VolumeId;
use levee_proto::api::{AttachmentId, Problem, VolumeParent, VolumeVersions};

impl Command {
    /// The volume whose gateway gives the command; none if it is no gateway's.
    pub fn called_for(&self) -> Option<&str> {
        use Command::*;
        match self {
            Open { name, .. } | Allocate { name, .. } | ChangeReplicas { name, .. } | Moved { name, .. } => Some(name),
            FinishSnapshots { name, .. } | Pruned { name, .. } | Flattened { name, .. } => Some(name),
            _ => None,
        }
    }
}

pub(crate) fn validate_call(command: &Command) -> Result<(), Problem> {
    if command.called_for().is_none() {
        return Err(invalid("this is not for a gateway to ask"));
    }
    command.validate()
}

impl State {
    pub(crate) fn apply_call(&mut self, caller: AttachmentId, command: &Command) -> Outcome {
        let name = command.called_for().ok_or_else(|| invalid("this is not for a gateway to ask"))?;
        self.check_caller(caller, name)?;
        self.apply(command)
    }

    /// Refuses whoever does not speak for the present attachment of the volume of that name.
    pub fn check_caller(&self, caller: AttachmentId, name: &str) -> Result<VolumeId, Problem> {
        let volume = self.tables.volumes.get(&caller.volume).filter(|volume| volume.name == name);
        let attachment = volume.and_then(|volume| volume.attachment.as_ref());
        match attachment {
            Some(attachment) if attachment.id == caller.attachment => Ok(caller.volume),
            _ => Err(over(name)),
        }
    }

    /// As [`State::volume_versions`], for a gateway.
    pub fn versions_for(&self, caller: AttachmentId, name: &str) -> Result<VolumeVersions, Problem> {
        self.check_caller(caller, name).map(|id| self.versions(id))
    }

    /// As [`State::volume_parent`], for a gateway.
    pub fn parent_for(&self, caller: AttachmentId, name: &str) -> Result<VolumeParent, Problem> {
        self.check_caller(caller, name)?;
        self.volume_parent(name)
    }
}
