//! Levels: which commands the whole group understands, so that its members can be upgraded one by one.
//!
//! Every command needs a level. A program knows all up to its [`LEVEL`]; the state has the level that all members were
//! known to know when it was raised, by [`Command::SetLevel`]. What needs more is refused, so that no member meets a
//! command in the log that it cannot apply. A level is never lowered.
//!
//! Invariant: a program that knows the state's level applies every log up to here as every other one does.

use crate::command::{Answer, Command, Outcome};
use crate::state::State;
use levee_proto::api::{DiskClass, Problem, ProblemKind, RegisterNode};
use serde::{Deserialize, Serialize};

/// The newest level that this program knows.
pub const LEVEL: u32 = 4;
/// From this one on gateways are known by what is never given again, and daemons tell what they have seen.
pub const CALLERS: u32 = 3;
/// From this one on commands mark the volumes that they work on, and conditions are told across leaders.
pub const CONDITIONS: u32 = 4;
/// That of logs and snapshots which name none.
pub const FIRST_LEVEL: u32 = 1;

/// A state's level; that of a new cluster is the newest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Level(u32);

impl Default for Level {
    fn default() -> Level {
        Level(LEVEL)
    }
}

impl Level {
    /// What a snapshot without a level has.
    pub fn first() -> Level {
        Level(FIRST_LEVEL)
    }
}

impl Command {
    /// The level that the command, or something within it, needs.
    pub fn level(&self) -> u32 {
        use Command::*;
        match self {
            SetLevel { level } => *level,
            Keyed { command, .. } => command.level().max(2),
            RecoverEpochs { .. } => 3,
            Of { command, .. } => command.level().max(CALLERS),
            RegisterNode(request) if !request.seen.is_nothing() => CALLERS,
            Open { request, .. } if request.fenced.is_some() => CALLERS,
            BeginJob { .. } | EndJob { .. } | CleanUpJob { .. } | Conditions(_) => CONDITIONS,
            Recover { .. } | Inventory { .. } | AcceptLoss { .. } => CALLERS,
            RegisterNode(request) if names_more_than_level_1(request) => 2,
            CreateVolume(request) if request.class.is_some() => 2,
            Allocate { full, .. } | ChangeReplicas { full, .. } if !full.is_empty() => 2,
            Found { .. } | RegisterNode(_) | CreateVolume(_) | DeleteVolume { .. } | Attach { .. } | Detach { .. } => 1,
            Open { .. } | Allocate { .. } | ConfirmDeleted { .. } | ChangeReplicas { .. } | SetDisk { .. } => 1,
            AttachRepair { .. } | DetachRepair { .. } | SetBackgroundRate { .. } | BeginSnapshots { .. } => 1,
            Moved { .. } | FinishSnapshots { .. } | DeleteSnapshot(_) | Rollback(_) | CreateClones(_) => 1,
            DeleteVolumes(_) | Pruned { .. } | Flatten { .. } | Flattened { .. } | Resize { .. } | SetLimits(_) => 1,
            // Whatever is added needs the level it came with, or a line above.
            _ => 2,
        }
    }
}

fn names_more_than_level_1(request: &RegisterNode) -> bool {
    let classed = request.disks.iter().any(|disk| disk.class != DiskClass::default());
    request.zone.is_some() || request.rack.is_some() || classed
}

impl State {
    /// The beginning of a log: what an older program has written may follow.
    pub fn before_the_log() -> State {
        let mut state = State::default();
        state.tables.level = Level::first();
        state
    }

    /// The level that all members know.
    pub fn level(&self) -> u32 {
        self.tables.level.0
    }

    /// The newest time that a batch of commands brought, milliseconds since 1970; 0 before the first.
    pub fn clock_ms(&self) -> u64 {
        self.tables.clock_ms
    }

    /// A batch of commands follows that was proposed at this time. The clock never goes back.
    pub fn set_clock(&mut self, at_ms: u64) {
        self.tables.clock_ms = self.tables.clock_ms.max(at_ms);
    }

    /// A batch of this level is in the log: everybody knows it.
    pub fn raise_level(&mut self, level: u32) {
        self.tables.level = self.tables.level.max(Level(level));
    }

    pub(crate) fn set_level(&mut self, level: u32) -> Outcome {
        self.raise_level(level);
        Ok(Answer::Done)
    }

    /// Refuses a command that some member may not know.
    pub fn check_level(&self, command: &Command) -> Result<(), Problem> {
        let (needed, level) = (command.level(), self.level());
        if needed <= level || matches!(command, Command::SetLevel { .. }) {
            return Ok(());
        }
        let detail = format!(
            "this needs level {needed} and the meta servers are at level {level}: upgrade those that are older \
             (`levee meta list` shows them), then try again"
        );
        Err(Problem::new(ProblemKind::Unavailable, detail))
    }
}
