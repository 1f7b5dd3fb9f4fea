//! Tells what begins and what ends, as events.
//!
//! What has been told is part of the state ([`levee_meta_state`]): a new leader compares with it what it finds. It ends nothing
//! before it can have heard of everybody.

use super::{View, derive};
use crate::limits::{LINK_PATIENCE, SETTLE};
use crate::repair::one_line;
use levee_meta_state::limits::{MAX_NOTES, MAX_TOLD};
use levee_meta_state::{CONDITIONS, Command, ConditionChange, Note};
use levee_proto::DiskId;
use levee_proto::api::{Condition, ConditionKey, ConditionWord, EventKind, Members, Severity};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What is remembered from one look to the next, within a term.
#[derive(Default)]
pub struct Teller {
    /// When this term's first look was.
    begun: Option<Instant>,
    /// What has changed and is not told yet: since when.
    pending: BTreeMap<ConditionKey, Instant>,
}

impl Teller {
    pub fn tell(&mut self, view: &View<'_>, members: &Members, commands: &mut Vec<Command>) {
        if self.begun.is_none() && view.state.level() > 1 {
            commands.push(Command::Note(vec![leads(members)]));
        }
        let begun = *self.begun.get_or_insert(view.now);
        if view.state.level() < CONDITIONS {
            return;
        }
        let found: BTreeMap<ConditionKey, Condition> =
            derive(view, members).into_iter().map(|c| (c.key(), c)).collect();
        let told: BTreeSet<ConditionKey> = view.state.told_conditions().map(|(key, _)| key.clone()).collect();
        let new = found.keys().filter(|key| !told.contains(*key)).cloned();
        let gone = told.iter().filter(|key| !found.contains_key(*key)).cloned();
        let changed: BTreeSet<ConditionKey> = new.chain(gone).collect();
        self.pending.retain(|key, _| changed.contains(key));
        let knows_all = view.now.saturating_duration_since(begun) >= view.observed.down_after() + LINK_PATIENCE;
        let mut change = ConditionChange::default();
        let room = MAX_TOLD.saturating_sub(told.len()).min(MAX_TOLD / 2);
        for key in changed {
            let since = *self.pending.entry(key.clone()).or_insert(view.now);
            let begins = found.contains_key(&key);
            let ripe = view.now.saturating_duration_since(since) >= patience(key.kind, key.word, begins);
            match found.get(&key) {
                Some(condition) if ripe && change.began.len() < room => {
                    change.notes.extend(began(condition));
                    change.began.push(key);
                }
                None if ripe && (knows_all || is_surely_over(view, &key)) => {
                    change.notes.extend(ended(view, &key));
                    change.ended.push(key);
                }
                _ => {}
            }
        }
        change.ended.truncate(MAX_TOLD / 2);
        change.notes.truncate(MAX_NOTES);
        if !(change.began.is_empty() && change.ended.is_empty()) {
            commands.push(Command::Conditions(change));
        }
    }
}

/// That a node is up is known as soon as it is heard of, however new this leader is.
fn is_surely_over(view: &View<'_>, key: &ConditionKey) -> bool {
    let is_up = || view.state.node_named(&key.subject).is_some_and(|id| view.is_up(id));
    key.kind == EventKind::Node && matches!(key.word, ConditionWord::Down | ConditionWord::Stopped) && is_up()
}

fn leads(members: &Members) -> Note {
    let subject = members.leader.to_string();
    Note { kind: EventKind::Member, severity: Severity::Info, subject, text: "leads the meta servers now".into() }
}

/// How long a change must last before it is told: what comes and goes in a moment is no news.
fn patience(kind: EventKind, word: ConditionWord, begins: bool) -> Duration {
    use ConditionWord::*;
    match word {
        Degraded | Slow | Waiting | Opening | Behind | Silent | Leaving | NoPlace => SETTLE,
        Down if kind == EventKind::Volume => SETTLE,
        Stalled | Full | Filling if !begins => SETTLE,
        _ => Duration::ZERO,
    }
}

/// What operators have done themselves, and what has events of its own, is not told once more.
fn is_told(kind: EventKind, word: ConditionWord) -> bool {
    use ConditionWord::*;
    match kind {
        EventKind::Maintenance | EventKind::Rebalance => false,
        EventKind::Volume => matches!(word, Down | Unserved | Stalled | Waiting | Full | Lost),
        _ => !matches!(word, Draining | Dead | Doubled | Awaited | Leaving | Learning | Unknown),
    }
}

fn began(condition: &Condition) -> Option<Note> {
    let Condition { kind, subject, word, severity, text, doing, .. } = condition;
    if !is_told(*kind, *word) {
        return None;
    }
    use ConditionWord::*;
    let explained = matches!(word, Partitioned | Slow | Flapping | Unfit | Stalled);
    let why = doing.first().filter(|_| explained).map(|why| format!(": {why}")).unwrap_or_default();
    // The event names its subject before its text.
    let names = ["node", "volume", "disk", "meta server"].map(|what| format!("{what} {subject}"));
    let rest =
        names.iter().find_map(|name| text.strip_prefix(name.as_str())).unwrap_or(text).trim_start_matches([' ', ':']);
    // What daemons say may be of several lines.
    let text = one_line(&format!("{rest}{why}"));
    Some(Note { kind: *kind, severity: *severity, subject: subject.clone(), text })
}

/// What is said when it is over; nothing of what is not there any more.
fn ended(view: &View<'_>, key: &ConditionKey) -> Option<Note> {
    let ConditionKey { kind, subject, word } = key;
    let is_there = match kind {
        EventKind::Node => view.state.node_named(subject).is_some(),
        EventKind::Disk => subject.parse().is_ok_and(|id| view.state.disk(DiskId(id)).is_some()),
        EventKind::Volume => view.state.volume_named(subject).is_ok(),
        _ => true,
    };
    let text = is_there.then(|| over(*kind, *word)).flatten()?;
    is_told(*kind, *word).then(|| Note {
        kind: *kind,
        severity: Severity::Info,
        subject: subject.clone(),
        text: text.into(),
    })
}

fn over(kind: EventKind, word: ConditionWord) -> Option<&'static str> {
    use ConditionWord::*;
    Some(match (kind, word) {
        (EventKind::Node, Down | Stopped) => "is up",
        (EventKind::Node, Partitioned) => "is reached by the others again",
        (EventKind::Node, Slow) => "answers in time again",
        (EventKind::Node, Flapping) => "has stayed",
        (EventKind::Link, Cut) => "the two reach each other again",
        (EventKind::Disk, Failed) => "works again, or is given up",
        (_, Full) => "has room again",
        (EventKind::Capacity, Filling) => "fills up no more",
        (EventKind::Volume, Down | Unserved) => "is served, or detached",
        (EventKind::Volume, Stalled) => "its guest's requests are answered again",
        (EventKind::Volume, Waiting) => "has enough copies to be written again",
        (EventKind::Volume, Lost) => "can be read everywhere again",
        (EventKind::Repair, Held) => "repair goes on",
        (EventKind::Repair, Degraded) => "all chunks of served volumes have all their copies",
        (EventKind::Repair, NoPlace) => "there are places for copies again",
        (EventKind::Member, Silent) => "answers again",
        (EventKind::Member, Behind) => "has all of the log again",
        (EventKind::Member, Unfit) => "counts again, or has left",
        _ => return None,
    })
}
