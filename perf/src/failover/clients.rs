//! Clients that change things all the time, and remember what they were answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::http;

/// One volume in so many is deleted again.
const DELETE_EVERY: u64 = 3;
/// Pause after a request that failed, so that a dead server is not asked without end.
const FAILED_PAUSE: Duration = Duration::from_millis(20);
/// Pause between two requests of a client.
const PACE: Duration = Duration::from_millis(10);
const SIZE: u64 = 1 << 30;

/// What is known of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Exists,
    Gone,
    /// The last request about it was not answered.
    Unknown,
}

/// What was answered, of all clients.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub volumes: BTreeMap<String, Known>,
    pub answered: u64,
    pub unanswered: u64,
}

impl Record {
    /// What contradicts the volumes that there are.
    pub fn compare(&self, there: &[String]) -> Vec<String> {
        let there: BTreeSet<&str> = there.iter().map(String::as_str).collect();
        let wrong = self.volumes.iter().filter_map(|(name, known)| match (known, there.contains(name.as_str())) {
            (Known::Exists, false) => Some(format!("{name} was created and is not there")),
            (Known::Gone, true) => Some(format!("{name} was deleted and is there")),
            _ => None,
        });
        wrong.collect()
    }
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// When the change that was answered last was asked for and answered, and the first one since each look.
    answers: Mutex<Vec<(Instant, Instant)>>,
    record: Mutex<Record>,
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answers(&self) -> MutexGuard<'_, Vec<(Instant, Instant)>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Each client goes from one server to the next when one fails it.
    pub fn start(addresses: Vec<String>, count: usize) -> Clients {
        let shared = Arc::new(Shared::default());
        let client = |number: usize| {
            let (shared, addresses) = (shared.clone(), addresses.clone());
            std::thread::spawn(move || work(number, &addresses, &shared))
        };
        Clients { threads: (0..count).map(client).collect(), shared: shared.clone() }
    }

    /// Whether a change was answered that was asked for after `since`.
    pub fn answered_since(&self, since: Instant) -> bool {
        self.first_since(since).is_some()
    }

    /// When the first such change was answered. Forgets older ones.
    pub fn first_since(&self, since: Instant) -> Option<Instant> {
        let mut answers = self.shared.answers();
        answers.retain(|(asked, _)| *asked > since);
        answers.iter().map(|(_, answered)| *answered).min()
    }

    pub fn stop(self) -> Record {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // One that panicked has nothing more to say.
            let _ = thread.join();
        }
        self.shared.record().clone()
    }
}

fn work(number: usize, addresses: &[String], shared: &Shared) {
    let mut server = number;
    for n in 0u64.. {
        let name = format!("f{number}-{n}");
        let body = format!("{{\"name\":\"{name}\",\"size\":{SIZE},\"copies\":3,\"min_copies\":2}}");
        if !insist(&mut server, addresses, shared, &name, ("POST", "/v1/volumes", &body), (Known::Exists, &[201, 409]))
        {
            return;
        }
        let path = format!("/v1/volumes/{name}");
        if n % DELETE_EVERY == 0
            && !insist(&mut server, addresses, shared, &name, ("DELETE", &path, ""), (Known::Gone, &[204, 404]))
        {
            return;
        }
        std::thread::sleep(PACE);
    }
}

/// Repeats a change until it is answered: `good` are the statuses that say that it is done. False when the clients stop.
fn insist(
    server: &mut usize,
    addresses: &[String],
    shared: &Shared,
    name: &str,
    (method, path, body): (&str, &str, &str),
    (becomes, good): (Known, &[u16]),
) -> bool {
    shared.record().volumes.insert(name.into(), Known::Unknown);
    while !shared.stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let answer = http::ask(&addresses[*server % addresses.len()], method, path, body, super::TIMEOUT);
        if answer.is_ok_and(|answer| good.contains(&answer.status)) {
            shared.answers().push((asked, Instant::now()));
            let mut record = shared.record();
            record.volumes.insert(name.into(), becomes);
            record.answered += 1;
            return true;
        }
        shared.record().unanswered += 1;
        *server += 1;
        std::thread::sleep(FAILED_PAUSE);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_answered_must_be_so() {
        let volumes = [("a", Known::Exists), ("b", Known::Gone), ("c", Known::Unknown), ("d", Known::Exists)];
        let volumes = volumes.map(|(name, known)| (name.to_string(), known)).into();
        let record = Record { volumes, ..Record::default() };
        let names = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
        assert!(record.compare(&names(&["a", "d", "other"])).is_empty());
        assert!(record.compare(&names(&["a", "c", "d"])).is_empty());
        assert_eq!(
            record.compare(&names(&["a", "b"])),
            ["b was deleted and is there", "d was created and is not there"]
        );
    }
}
