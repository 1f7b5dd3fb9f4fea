//! Which gateway asks: the query of its calls.

use super::Failure;
use crate::app::App;
use levee_meta_state::{CALLERS, Command};
use levee_proto::VolumeId;
use levee_proto::api::{AttachmentId, ProblemKind};
use serde::Deserialize;
use utoipa::IntoParams;

/// What a gateway is known by: names and epochs are given again, these are not. Daemons that are older give neither.
#[derive(Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Calling {
    /// Id of the volume
    volume: Option<VolumeId>,
    /// The attachment that the gateway serves, as in the node's intent
    attachment: Option<u64>,
}

impl Calling {
    /// Who asks; none: an older daemon, which is known by name and epoch alone.
    pub fn caller(self) -> Result<Option<AttachmentId>, Failure> {
        match (self.volume, self.attachment) {
            (Some(volume), Some(attachment)) => Ok(Some(AttachmentId { volume, attachment })),
            (None, None) => Ok(None),
            _ => Err(Failure::new(ProblemKind::Invalid, "a gateway names both its volume's id and its attachment")),
        }
    }

    /// The command as this gateway's.
    pub async fn command(self, app: &App, command: Command) -> Result<Command, Failure> {
        let Some(caller) = self.caller()? else { return Ok(command) };
        if app.replicated.read(|state| state.level()) >= CALLERS {
            return Ok(Command::Of { caller, command: Box::new(command) });
        }
        // Some member does not know of callers yet: what can be done is to look now, with all that was committed before.
        app.barrier.pass().await?;
        let name = command.called_for().unwrap_or_default();
        app.replicated.read(|state| state.check_caller(caller, name))?;
        Ok(command)
    }
}
