//! Many new volumes by one command.

use crate::capacity::promised;
use crate::command::{Answer, Outcome, invalid};
use crate::limits::MAX_BATCH_VOLUMES;
use crate::state::State;
use levee_proto::api::*;
use std::collections::BTreeSet;

pub(crate) fn validate_batch(request: &CreateVolumes) -> Result<(), Problem> {
    let count = request.volumes.len();
    if (1..=MAX_BATCH_VOLUMES).contains(&count) {
        return Ok(());
    }
    Err(invalid(format!("{count} volumes in one batch: 1 to {MAX_BATCH_VOLUMES} are allowed")))
}

impl State {
    /// Each by itself; or, if `atomic`, all of them or none.
    pub(crate) fn create_volumes(&mut self, request: &CreateVolumes) -> Outcome {
        if request.atomic {
            self.check_all(&request.volumes)?;
        }
        let created = request.volumes.iter().map(|volume| {
            let created = crate::command::validate_volume(volume).and_then(|()| self.add_volume(volume));
            let (id, problem) = match created {
                Ok(Answer::Volume(info)) => (Some(info.id), None),
                Ok(_) => (None, None),
                Err(problem) => (None, Some(problem)),
            };
            CreatedVolume { name: shown_name(&volume.name), id, problem }
        });
        let created: Vec<CreatedVolume> = created.collect();
        let done: Vec<&CreatedVolume> = created.iter().filter(|one| one.id.is_some()).collect();
        if let [first, others @ ..] = done.as_slice() {
            let text = if others.is_empty() {
                "was created".into()
            } else {
                format!("was created, with {} others", others.len())
            };
            self.tell(EventKind::Volume, &first.name, text);
        }
        Ok(Answer::Created(created))
    }

    /// Whether all of them can be created, one after the other.
    fn check_all(&self, volumes: &[CreateVolume]) -> Result<(), Problem> {
        let mut names = BTreeSet::new();
        let mut promise = 0_u128;
        for (i, volume) in volumes.iter().enumerate() {
            let checked = crate::command::validate_volume(volume).and_then(|()| {
                promise = promise.saturating_add(promised(volume.size, volume.copies));
                if !names.insert(&volume.name) {
                    let detail = format!("volume '{}' is named twice", volume.name);
                    return Err(Problem::new(ProblemKind::Exists, detail));
                }
                self.check_creation(volume, i, promise)
            });
            checked.map_err(|problem| {
                let detail = format!("nothing was created, because of item {i}: {}", problem.detail);
                Problem { detail, ..problem }
            })?;
        }
        Ok(())
    }
}
