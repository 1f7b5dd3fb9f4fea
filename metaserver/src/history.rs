//! How busy volumes were: a ring of moments, kept by the leader in memory, begun anew in every term.

use crate::app::App;
use crate::clock::now_ms;
use crate::limits::{HISTORY_LENGTH, HISTORY_STEP, MAX_HISTORY_VOLUMES};
use crate::observe::Observed;
use levee_meta_state::State;
use levee_proto::VolumeId;
use levee_proto::api::{LoadHistory, LoadPoint, VolumeHistory};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Moments of one term, oldest first.
#[derive(Default)]
pub struct History {
    term: u64,
    moments: VecDeque<Moment>,
}

struct Moment {
    at_ms: u64,
    volumes: BTreeMap<VolumeId, LoadPoint>,
}

impl History {
    fn enter(&mut self, term: u64) {
        if self.term != term {
            *self = History { term, moments: VecDeque::new() };
        }
    }

    /// Adds a moment: of the busiest volumes, if there are very many.
    fn note(&mut self, at_ms: u64, mut points: Vec<(VolumeId, LoadPoint)>) {
        points.sort_by_key(|(id, point)| (std::cmp::Reverse(point.requests), *id));
        points.truncate(MAX_HISTORY_VOLUMES);
        if self.moments.len() >= HISTORY_LENGTH {
            self.moments.pop_front();
        }
        self.moments.push_back(Moment { at_ms, volumes: points.into_iter().collect() });
    }

    /// The busiest `limit` volumes, busiest first.
    fn show(&self, limit: usize, name: impl Fn(VolumeId) -> Option<String>) -> LoadHistory {
        let mut sums: BTreeMap<VolumeId, u64> = BTreeMap::new();
        for (id, point) in self.moments.iter().flat_map(|m| &m.volumes) {
            let sum = sums.entry(*id).or_default();
            *sum = sum.saturating_add(point.requests);
        }
        let mut order: Vec<(VolumeId, u64)> = sums.into_iter().collect();
        order.sort_by_key(|(id, sum)| (std::cmp::Reverse(*sum), *id));
        let volumes = order.into_iter().take(limit).filter_map(|(id, _)| {
            let points = self.moments.iter().map(|m| m.volumes.get(&id).copied()).collect();
            Some(VolumeHistory { volume: name(id)?, points })
        });
        LoadHistory {
            step_ms: u64::try_from(HISTORY_STEP.as_millis()).unwrap_or(u64::MAX),
            volumes: volumes.collect(),
            moments: self.moments.iter().map(|m| m.at_ms).collect(),
        }
    }
}

/// What the leader remembers.
pub fn show(app: &App, limit: usize) -> LoadHistory {
    app.history(|history| {
        history.enter(app.term());
        app.replicated.read(|state| history.show(limit, |id| state.volume(id).map(|v| v.name.clone())))
    })
}

/// Runs as long as the member.
pub async fn run(app: Arc<App>) {
    let mut stopping = app.stopping.clone();
    loop {
        tokio::select! {
            () = tokio::time::sleep(HISTORY_STEP) => {}
            _ = stopping.wait_for(|stop| *stop) => return,
        }
        let term = app.term();
        if app.leader() != Some(app.id) {
            continue;
        }
        let points = app.observed(|observed, _| app.replicated.read(|state| points(state, observed)));
        app.history(|history| {
            history.enter(term);
            history.note(now_ms(), points);
        });
    }
}

fn points(state: &State, observed: &Observed) -> Vec<(VolumeId, LoadPoint)> {
    let point = |(id, report): (VolumeId, &levee_proto::api::VolumeReport)| {
        let load = &report.load;
        let (requests, bytes) = (load.load.requests(), load.load.bytes());
        (id, LoadPoint { requests, bytes, p50_us: load.p50_us, p99_us: load.p99_us })
    };
    observed.reports(state).map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(requests: u64) -> LoadPoint {
        LoadPoint { requests, bytes: requests * 4096, p50_us: 100, p99_us: 200 }
    }

    #[test]
    fn the_ring_is_bounded_and_begins_anew_with_a_term() {
        let mut history = History::default();
        history.enter(1);
        for at in 0..HISTORY_LENGTH as u64 + 5 {
            history.note(at, vec![(VolumeId(1), point(1)), (VolumeId(2), point(at))]);
        }
        let shown = history.show(10, |id| Some(id.to_string()));
        assert_eq!((shown.moments.len(), shown.moments[0]), (HISTORY_LENGTH, 5));
        assert_eq!(shown.volumes.iter().map(|v| v.volume.as_str()).collect::<Vec<_>>(), ["2", "1"]);
        assert!(shown.volumes.iter().all(|v| v.points.len() == HISTORY_LENGTH));
        assert_eq!(history.show(1, |_| Some(String::new())).volumes.len(), 1);
        assert!(history.show(9, |_| None).volumes.is_empty(), "volumes that are gone");
        history.enter(2);
        assert!(history.show(9, |_| Some(String::new())).moments.is_empty());
    }

    #[test]
    fn a_volume_that_came_later_has_gaps() {
        let mut history = History::default();
        history.note(1, vec![(VolumeId(1), point(5))]);
        history.note(2, vec![(VolumeId(1), point(5)), (VolumeId(2), point(6))]);
        let shown = history.show(9, |id| Some(id.to_string()));
        assert_eq!(shown.volumes[1].points, [None, Some(point(6))]);
        let many = (0..MAX_HISTORY_VOLUMES as u64 + 9).map(|i| (VolumeId(i), point(i))).collect();
        history.note(3, many);
        assert_eq!(history.moments[2].volumes.len(), MAX_HISTORY_VOLUMES);
        assert!(!history.moments[2].volumes.contains_key(&VolumeId(0)), "the idlest are left out");
    }
}
