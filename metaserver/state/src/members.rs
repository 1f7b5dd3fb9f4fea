//! Which folder each meta server has.
//!
//! A member's promises (votes, log entries that it acknowledged) are in its folder. A member that comes back with another folder
//! has forgotten them: counting it could undo what was answered. So the folder's number is noted when a member is first heard, and
//! a member with another one counts for nothing until an operator has replaced it.

use crate::command::{Answer, Outcome};
use crate::state::State;
use levee_proto::api::{Problem, ProblemKind};
use uuid::Uuid;

/// Most members that are remembered.
const MAX_MEMBERS: usize = 64;

impl State {
    /// The folder that a member's promises are in, if it is known.
    pub fn member_folder(&self, id: u64) -> Option<Uuid> {
        self.tables.members.get(&id).copied()
    }

    pub(crate) fn pin_member(&mut self, id: u64, folder: Uuid) -> Outcome {
        let members = &mut self.tables.members;
        match members.get(&id) {
            Some(known) if *known != folder => {
                let detail = format!("meta server {id} is known with another folder: `levee meta replace {id}`");
                return Err(Problem::new(ProblemKind::Conflict, detail));
            }
            None if members.len() >= MAX_MEMBERS => {
                let detail = format!("{MAX_MEMBERS} meta servers are known already: remove some");
                return Err(Problem::new(ProblemKind::Conflict, detail));
            }
            _ => {}
        }
        members.insert(id, folder);
        Ok(Answer::Done)
    }

    pub(crate) fn release_member(&mut self, id: u64) -> Outcome {
        self.tables.members.remove(&id);
        Ok(Answer::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;

    #[test]
    fn a_folder_stays_the_same_until_it_is_released() {
        let mut state = State::default();
        let (first, second) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let pin = |folder| Command::PinMember { id: 3, folder };
        state.apply(&pin(first)).expect("the first");
        state.apply(&pin(first)).expect("the same");
        let refused = state.apply(&pin(second)).expect_err("another");
        assert!(refused.detail.contains("levee meta replace 3"), "{refused}");
        assert_eq!(state.member_folder(3), Some(first));
        state.apply(&Command::ReleaseMember { id: 3 }).expect("released");
        state.apply(&pin(second)).expect("a new one");
        assert_eq!(state.member_folder(3), Some(second));
    }
}
