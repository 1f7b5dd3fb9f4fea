//! What happened, as operators are told: the newest events, numbered from the first one of the cluster on.
//!
//! Part of the state, so that every member tells the same, and a new leader goes on where the old one stopped. What only the leader
//! sees (a node that is not heard of any more) it proposes as a command of its own.

use crate::command::{Answer, Outcome, invalid};
use crate::limits::{MAX_EVENTS, MAX_NOTES, MAX_REASON};
use crate::state::State;
use levee_proto::api::{Event, EventKind, EventPage, Problem, Severity};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The newest events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Events {
    /// How many there ever were: the number of the newest.
    pub last: u64,
    /// Without gaps, at most [`MAX_EVENTS`].
    pub kept: VecDeque<Event>,
}

/// An event that is yet to be numbered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub kind: EventKind,
    pub severity: Severity,
    pub subject: String,
    pub text: String,
}

impl Events {
    /// The number of the oldest that is kept.
    pub fn oldest(&self) -> u64 {
        self.kept.front().map_or(self.last + 1, |event| event.seq)
    }
}

pub(crate) fn validate_notes(notes: &[Note]) -> Result<(), Problem> {
    let is_plain = |text: &str| text.len() <= MAX_REASON && !text.chars().any(char::is_control);
    if notes.len() > MAX_NOTES || !notes.iter().all(|note| is_plain(&note.subject) && is_plain(&note.text)) {
        return Err(invalid(format!(
            "at most {MAX_NOTES} events at a time, each of lines of at most {MAX_REASON} bytes"
        )));
    }
    Ok(())
}

impl State {
    pub(crate) fn note(
        &mut self,
        kind: EventKind,
        severity: Severity,
        subject: impl Into<String>,
        text: impl Into<String>,
    ) {
        let at_ms = self.clock_ms();
        let events = &mut self.tables.events;
        events.last += 1;
        let (subject, text) = (subject.into(), text.into());
        events.kept.push_back(Event { seq: events.last, at_ms, kind, severity, subject, text });
        if events.kept.len() > MAX_EVENTS {
            events.kept.pop_front();
        }
    }

    /// The usual case.
    pub(crate) fn tell(&mut self, kind: EventKind, subject: impl Into<String>, text: impl Into<String>) {
        self.note(kind, Severity::Info, subject, text);
    }

    pub(crate) fn add_notes(&mut self, notes: &[Note]) -> Outcome {
        for Note { kind, severity, subject, text } in notes {
            self.note(*kind, *severity, subject, text);
        }
        Ok(Answer::Done)
    }

    /// At most `limit` events after the one with this number.
    pub fn events_after(&self, after: u64, limit: usize) -> EventPage {
        let events = &self.tables.events;
        let skip = usize::try_from(after.saturating_add(1).saturating_sub(events.oldest())).unwrap_or(usize::MAX);
        let page: Vec<Event> = events.kept.iter().skip(skip).take(limit).cloned().collect();
        let next = page.last().map_or(after.min(events.last), |event| event.seq);
        EventPage { events: page, next, oldest: events.oldest(), newest: events.last }
    }

    /// The number of the newest event; 0: there was none.
    pub fn newest_event(&self) -> u64 {
        self.tables.events.last
    }
}
