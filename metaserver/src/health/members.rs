//! Meta servers, as their leader sees them.

use super::{Doing, condition};
use levee_proto::api::{Condition, ConditionWord, EventKind, MemberRole, MemberStatus, Members, Severity};

/// Log entries that a member may lack before that is worth a word.
const BEHIND: u64 = 1000;

pub fn derive(members: &Members, all: &mut Vec<Condition>) {
    for member in &members.members {
        let MemberStatus { id, url, .. } = member;
        let add = |word, severity, what: String| {
            condition(EventKind::Member, id, word, severity, format!("meta server {id} at {url} {what}"))
        };
        let lacks = members.last.saturating_sub(member.matched.unwrap_or(0));
        all.extend(if let Some(trouble) = &member.trouble {
            Some(add(ConditionWord::Unfit, Severity::Error, "does not count".into()).doing(trouble))
        } else if !member.alive {
            let what = "does not answer".into();
            let doing = "the others go on as long as most of them answer; start it again, or `levee meta replace` it";
            Some(add(ConditionWord::Silent, Severity::Warning, what).doing(doing))
        } else if member.role == MemberRole::Learner {
            let what = format!("is being given the log: {lacks} entries are left");
            Some(add(ConditionWord::Learning, Severity::Info, what))
        } else if lacks > BEHIND {
            let what = format!("is {lacks} log entries behind");
            Some(add(ConditionWord::Behind, Severity::Warning, what).doing("the leader sends it what it lacks"))
        } else {
            None
        });
    }
}
