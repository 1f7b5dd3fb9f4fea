//! Packs the commands that wait into one Raft entry.
//!
//! While one entry is being committed the next one fills: a commit costs a flush on a majority of the
//! members, and sharing it is what makes thousands of small requests a second possible.

use crate::clock::now_ms;
use crate::limits::*;
use crate::meters::Histogram;
use crate::raft::{Batch, Raft, Replicated};
use crate::request::keyed;
use levee_meta_state::{Answer, Command, Outcome};
use levee_proto::api::{Problem, ProblemKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

type Reply = oneshot::Sender<Outcome>;
type Waiting = (Command, Reply);

/// Takes commands from requests.
#[derive(Clone)]
pub struct Proposer {
    queue: mpsc::Sender<Waiting>,
    replicated: Replicated,
    counts: Arc<Counts>,
}

/// What went through since the start.
#[derive(Default)]
pub struct Counts {
    pub commands: AtomicU64,
    pub entries: AtomicU64,
    /// Entries whose outcome nobody heard: without a leader, or without a majority.
    pub failures: AtomicU64,
    /// From the proposal of an entry until it was applied.
    pub commits: Histogram,
}

impl Proposer {
    /// `level`: the newest that this member knows.
    pub fn start(raft: Raft, replicated: Replicated, level: u32) -> Proposer {
        let (queue, waiting) = mpsc::channel(MAX_QUEUE);
        let counts = Arc::new(Counts::default());
        let stamps = Stamps { replicated: replicated.clone(), level, last_ms: 0 };
        tokio::spawn(collect(raft, waiting, counts.clone(), stamps));
        Proposer { queue, replicated, counts }
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Commands that wait to be proposed.
    pub fn waiting(&self) -> u64 {
        self.queue.max_capacity().saturating_sub(self.queue.capacity()) as u64
    }

    /// Commits the command and answers its outcome. `Unavailable` means that the outcome is unknown:
    /// the command may still take effect.
    pub async fn propose(&self, command: Command) -> Outcome {
        let command = keyed(command);
        command.validate()?;
        self.replicated.read(|state| state.check_level(&command))?;
        let (reply, answer) = oneshot::channel();
        self.queue.try_send((command, reply)).map_err(|_| unavailable("too many requests are waiting"))?;
        match tokio::time::timeout(COMMIT_WAIT, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(unavailable("this member is stopping")),
            Err(_) => Err(unavailable("a majority of the meta servers does not answer")),
        }
    }
}

pub(crate) fn unavailable(why: &str) -> Problem {
    Problem::new(ProblemKind::Unavailable, format!("{why}: try again in a moment"))
}

/// Makes entries of commands.
struct Stamps {
    replicated: Replicated,
    level: u32,
    last_ms: u64,
}

impl Stamps {
    fn batch(&mut self, commands: Vec<Command>) -> Batch {
        let (state_level, clock_ms) = self.replicated.read(|state| {
            // A new cluster begins at the newest level.
            let level = if state.cluster().is_some() { state.level() } else { self.level };
            (level, state.clock_ms())
        });
        let needed = commands.iter().map(Command::level).max().unwrap_or(0);
        self.last_ms = now_ms().max(self.last_ms).max(clock_ms);
        Batch { level: state_level.max(needed), at_ms: self.last_ms, commands }
    }
}

async fn collect(raft: Raft, mut waiting: mpsc::Receiver<Waiting>, counts: Arc<Counts>, mut stamps: Stamps) {
    while let Some(first) = waiting.recv().await {
        let (commands, replies) = gather(first, &mut waiting);
        if commands.is_empty() {
            continue;
        }
        counts.commands.fetch_add(commands.len() as u64, Ordering::Relaxed);
        counts.entries.fetch_add(1, Ordering::Relaxed);
        // Giving up the wait does not take the entry back, it lets those behind it have their turn.
        let begun = Instant::now();
        let outcomes = match tokio::time::timeout(COMMIT_WAIT, raft.client_write(stamps.batch(commands))).await {
            Ok(Ok(response)) => Ok(response.data),
            Ok(Err(error)) => {
                tracing::debug!("a proposal failed: {error}");
                Err(unavailable("the meta servers are choosing a leader"))
            }
            Err(_) => Err(unavailable("a majority of the meta servers does not answer")),
        };
        match &outcomes {
            Ok(_) => counts.commits.add(begun.elapsed()),
            Err(_) => _ = counts.failures.fetch_add(1, Ordering::Relaxed),
        }
        answer(replies, outcomes);
    }
}

/// What is queued now, up to the bounds; requests that were given up are left out.
fn gather(first: Waiting, waiting: &mut mpsc::Receiver<Waiting>) -> (Vec<Command>, Vec<Reply>) {
    let (mut commands, mut replies, mut weight) = (Vec::new(), Vec::new(), 0);
    let mut next = Some(first);
    while let Some((command, reply)) = next {
        if !reply.is_closed() {
            weight += command.weight();
            commands.push(command);
            replies.push(reply);
        }
        let full = commands.len() >= MAX_BATCH || weight >= MAX_BATCH_WEIGHT;
        next = if full { None } else { waiting.try_recv().ok() };
    }
    (commands, replies)
}

fn answer(replies: Vec<Reply>, outcomes: Result<Vec<Outcome>, Problem>) {
    // A requester that is gone needs no answer.
    match outcomes {
        Ok(outcomes) => replies.into_iter().zip(outcomes).for_each(|(reply, outcome)| {
            let _ = reply.send(outcome);
        }),
        Err(problem) => replies.into_iter().for_each(|reply| {
            let _ = reply.send(Err(problem.clone()));
        }),
    }
}

/// The answer is of another kind than the command: a bug.
pub(crate) fn unexpected(answer: Answer) -> Problem {
    Problem::new(ProblemKind::Internal, format!("unexpected answer {answer:?}: please report this"))
}
