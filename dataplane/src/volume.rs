//! One volume served by this core: from the meta server's epoch to the socket and back.

mod diff;
mod usage;

use crate::device::VolumeDevice;
use crate::links::VolumeLinks;
use crate::ports::GlommioRuntime;
use crate::stats::{IoSnapshot, IoStats};
use levee_core::gateway::{Gateway, GatewayReport, Options};
use levee_proto::api::{
    DiskState, FrontEndReport, OpenedVolume, STALLED_MS, ScrubEvent, ScrubReport, ServeState, StallReport, VerifyEvent,
    VolumeReport, VolumeVersions,
};
use levee_proto::{DiskId, NodeId, ReplicaId, VolumeId};
use levee_vhost::{Access, FrontEnd, ServerConfig, ServerHandle};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Before a socket that could not be made is tried again.
const SOCKET_RETRY: Duration = Duration::from_secs(1);
/// How long a verification waits for copies that are being caught up.
const VERIFY_PATIENCE: Duration = Duration::from_secs(120);

/// How a volume is to be served.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// `None`: nobody uses the volume, it is opened to make its copies whole.
    pub socket: Option<PathBuf>,
    /// Who may connect to it.
    pub access: Access,
    pub queues: u16,
    pub poll: Duration,
    /// For the data of guests' requests in flight, bytes: of this volume, reads and writes apart, and of all of its core's.
    pub memory: u64,
    pub memory_of_all: u64,
}

/// What is done with volumes beside serving them.
#[derive(Clone, Debug, Default)]
pub struct Background {
    pub leaving: Arc<Leaving>,
    /// Bytes per second that one volume may copy; `None`: no limit.
    pub rate: Option<u64>,
}

/// Replicas that are to be put elsewhere, of all volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaving {
    /// All that are on these disks.
    pub disks: BTreeMap<DiskId, DiskState>,
    /// Single ones.
    pub replicas: BTreeMap<VolumeId, BTreeSet<ReplicaId>>,
}

/// A volume that this core serves, or tries to. A cheap handle.
#[derive(Clone)]
pub struct Volume(Rc<Inner>);

struct Inner {
    id: VolumeId,
    gateway: Gateway<GlommioRuntime, VolumeLinks>,
    opened: OpenedVolume,
    stats: Rc<IoStats>,
    options: ServeOptions,
    state: RefCell<State>,
    longest_cut: Cell<Duration>,
    /// Somebody has asked for a scrub that is not done yet.
    scrubbing: Cell<bool>,
    /// Tells the control thread that there is something new to report.
    news: async_channel::Sender<()>,
}

/// How a volume does.
pub struct VolumeStatus {
    pub name: String,
    /// Its gateway has ended by itself.
    pub stopped: bool,
    pub report: VolumeReport,
    pub counts: Counts,
    /// One per kind of request.
    pub io: Vec<IoSnapshot>,
}

/// What its gateway has counted since it was opened, beside what is reported.
pub struct Counts {
    /// Reads that were sent to a second copy because the first took long.
    pub hedged_reads: u64,
    /// Times that a disk was left behind for being slow.
    pub evictions: u64,
    /// Blocks that were read to find out whether they can be.
    pub scrubbed_blocks: u64,
    /// Blocks found bad.
    pub bad_blocks: u64,
    /// The longest time for which no write could begin because the volume's version was moved.
    pub longest_cut: Duration,
}

enum State {
    Opening,
    Serving(Option<ServerHandle>),
    Closing,
    Failed(String),
}

impl Volume {
    /// Takes the volume over and serves it, in the background.
    pub fn open(
        opened: OpenedVolume,
        node: NodeId,
        links: VolumeLinks,
        options: ServeOptions,
        news: async_channel::Sender<()>,
    ) -> Volume {
        let rt = GlommioRuntime;
        // Nobody uses one without a socket: it is open for its copies' sake.
        let gateway_options = Options { scrub_at_once: options.socket.is_none(), ..Options::default() };
        let gateway = Gateway::open(rt, links, node, opened.clone(), gateway_options);
        let volume = Volume(Rc::new(Inner {
            id: opened.id,
            gateway,
            opened,
            stats: Rc::new(IoStats::new()),
            options,
            state: RefCell::new(State::Opening),
            longest_cut: Cell::default(),
            scrubbing: Cell::new(false),
            news,
        }));
        let this = volume.clone();
        glommio::spawn_local(async move { this.serve().await }).detach();
        volume
    }

    async fn serve(&self) {
        if self.0.gateway.ready().await.is_ok() {
            match &self.0.options.socket {
                Some(socket) => {
                    while self.is_wanted() && !self.listen(socket).await {
                        glommio::timer::sleep(SOCKET_RETRY).await;
                    }
                }
                None if self.is_wanted() => {
                    info!(volume = %self.0.opened.name, epoch = %self.0.opened.epoch, "opened to make its copies whole");
                    self.enter(State::Serving(None));
                }
                None => {}
            }
        }
        let why = self.0.gateway.wait_stopped().await;
        let server = self.shut();
        if let Some(server) = server {
            server.stop().await;
        }
        let closing = matches!(*self.0.state.borrow(), State::Closing);
        if !closing {
            warn!(volume = %self.0.opened.name, "no longer served: {}", why.0);
            self.enter(State::Failed(why.0));
        }
    }

    fn is_wanted(&self) -> bool {
        self.0.gateway.stopped().is_none() && !matches!(*self.0.state.borrow(), State::Closing)
    }

    /// Opens the socket; whether that worked.
    async fn listen(&self, socket: &Path) -> bool {
        let device = Rc::new(VolumeDevice {
            gateway: self.0.gateway.clone(),
            serial: format!("levee-{}", self.0.id),
            stats: self.0.stats.clone(),
            content: content(&self.0.opened),
        });
        let options = &self.0.options;
        let news = self.0.news.clone();
        let config = ServerConfig {
            queues: options.queues,
            poll: options.poll,
            memory: options.memory,
            memory_of_all: options.memory_of_all,
            access: options.access,
            changed: Arc::new(move || {
                let _ = news.try_send(());
            }),
            ..ServerConfig::new(socket)
        };
        match levee_vhost::serve(device, config).await {
            Ok(_) if !self.is_wanted() => true,
            Ok(server) => {
                info!(volume = %self.0.opened.name, epoch = %self.0.opened.epoch, "served at {}", socket.display());
                self.enter(State::Serving(Some(server)));
                true
            }
            Err(e) => {
                let why = format!("the socket cannot be opened: {e}");
                warn!(volume = %self.0.opened.name, "{why}");
                self.enter(State::Failed(why));
                false
            }
        }
    }

    fn enter(&self, state: State) {
        *self.0.state.borrow_mut() = state;
        let _ = self.0.news.try_send(());
    }

    fn shut(&self) -> Option<ServerHandle> {
        match &mut *self.0.state.borrow_mut() {
            State::Serving(server) => server.take(),
            _ => None,
        }
    }

    /// Answers what is in flight, closes the socket, and stops the gateway.
    pub async fn close(&self, why: &str) {
        let server = self.shut();
        self.enter(State::Closing);
        if let Some(server) = server {
            server.stop().await;
        }
        self.0.gateway.stop(why);
    }

    /// How it does.
    pub fn status(&self) -> VolumeStatus {
        let gateway = self.0.gateway.report();
        let (state, mut detail) = match &*self.0.state.borrow() {
            State::Opening => (ServeState::Opening, Some("fencing and reconciling the replicas".to_string())),
            State::Serving(_) => (ServeState::Serving, None),
            State::Closing => (ServeState::Closing, None),
            State::Failed(why) => (ServeState::Failed, Some(why.clone())),
        };
        if state == ServeState::Serving {
            detail = what_waits(&gateway);
        }
        let stall = self.stall(&gateway);
        // A copy is being moved: there is one more until it is.
        let one_more = gateway.health.degraded - gateway.health.short;
        let socket = self.0.options.socket.as_ref().filter(|_| state == ServeState::Serving);
        let report = VolumeReport {
            volume: self.0.id,
            epoch: self.0.opened.epoch,
            state,
            socket: socket.map(|path| path.display().to_string()),
            detail,
            healthy_chunks: gateway.health.healthy + one_more,
            degraded_chunks: gateway.health.short + gateway.health.waiting - gateway.health.new,
            waiting_chunks: waiting(&gateway),
            leaving_replicas: gateway.leaving_replicas.max(one_more),
            full: gateway.full,
            copied_bytes: gateway.copied_bytes,
            scrubbed_blocks: gateway.scrubbed_blocks,
            scrub_passes: gateway.scrub_passes,
            versions_progress: self.0.gateway.versions_progress(),
            degraded: gateway.degraded,
            lost: gateway.lost,
            load: self.0.stats.load(),
            front_end: match &*self.0.state.borrow() {
                State::Serving(Some(server)) => front_end(server.front_end()),
                _ => FrontEndReport::default(),
            },
            stall,
        };
        let counts = Counts {
            hedged_reads: gateway.hedged_reads,
            evictions: gateway.evictions,
            scrubbed_blocks: gateway.scrubbed_blocks,
            bad_blocks: gateway.bad_blocks,
            longest_cut: self.0.longest_cut.get(),
        };
        let stopped = state == ServeState::Failed && self.0.gateway.stopped().is_some();
        VolumeStatus { name: self.name().to_string(), stopped, report, counts, io: self.0.stats.snapshot() }
    }

    /// Requests that have waited for long, and what for.
    fn stall(&self, gateway: &GatewayReport) -> Option<StallReport> {
        let (requests, oldest) = self.0.stats.waiting(Duration::from_millis(STALLED_MS))?;
        let why = what_waits(gateway).unwrap_or_else(|| "its copies have not answered".into());
        Some(StallReport { requests: requests as u32, oldest_ms: oldest.as_millis() as u64, why })
    }

    /// Looks at what its guest does: to be called about once a second.
    pub fn sample(&self) {
        self.0.stats.sample(self.0.gateway.hot_chunks());
    }

    /// Changes what is done beside serving guests.
    pub fn set_background(&self, background: &Background) {
        self.0.gateway.evacuate(background.leaving.disks.clone());
        let moves = background.leaving.replicas.get(&self.0.id).cloned();
        self.0.gateway.move_replicas(moves.unwrap_or_default());
        self.0.gateway.set_background_rate(background.rate);
    }

    /// Follows the volume's versions and size, as the meta server tells them now.
    pub fn set_versions(&self, versions: VolumeVersions) {
        let (size, begun) = (versions.size, Instant::now());
        let followed = self.0.gateway.set_versions(versions);
        self.0.longest_cut.set(self.0.longest_cut.get().max(begun.elapsed()));
        let followed = followed.and_then(|()| self.grow(size));
        if let Err(why) = followed {
            warn!(volume = %self.name(), "the meta server's versions are refused: {why}");
        }
        let _ = self.0.news.try_send(());
    }

    /// Gives the volume a larger size, and has its guest told. Sizes that are not larger change nothing.
    fn grow(&self, size: u64) -> Result<(), String> {
        if self.0.gateway.grow(size)?
            && let State::Serving(Some(server)) = &*self.0.state.borrow()
        {
            server.resized();
        }
        Ok(())
    }

    pub fn name(&self) -> &str {
        &self.0.opened.name
    }

    /// Compares all copies; tells progress, and last what was found.
    pub async fn verify(&self, events: async_channel::Sender<VerifyEvent>) {
        let tell = |event| {
            // A reader that is slow misses progress, never the outcome.
            let _ = events.try_send(event);
        };
        let last = match self.0.gateway.verify(VERIFY_PATIENCE, tell).await {
            Ok(report) => VerifyEvent::Done(report),
            Err(stopped) => VerifyEvent::Failed { detail: stopped.0 },
        };
        let _ = events.send(last).await;
    }

    /// Reads all copies back, beside what guests do; tells progress, and last what was found.
    pub async fn scrub(&self, events: async_channel::Sender<ScrubEvent>) {
        if self.0.scrubbing.replace(true) {
            let detail = format!("volume '{}' is being scrubbed already: wait for that", self.name());
            let _ = events.send(ScrubEvent::Failed { detail }).await;
            return;
        }
        let tell = |done, total| {
            // A reader that is slow misses progress, never the outcome.
            let _ = events.try_send(ScrubEvent::Progress { done, total });
        };
        let last = match self.0.gateway.scrub(tell).await {
            Ok(found) => ScrubEvent::Done(ScrubReport {
                volume: self.name().to_string(),
                blocks: found.blocks,
                bad_blocks: found.bad,
                different_copies: found.different,
                skipped_copies: found.skipped,
            }),
            Err(stopped) => ScrubEvent::Failed { detail: stopped.0 },
        };
        self.0.scrubbing.set(false);
        let _ = events.send(last).await;
    }
}

/// Tells apart what a guest may find when it comes back: other volumes, and older contents of the same one. Each rollback
/// hides all versions before it, so the highest hidden one grows with every one.
fn content(opened: &OpenedVolume) -> u128 {
    let rolled_back = opened.view.hidden.last().map_or(0, |(_, last)| last.0);
    u128::from(opened.id.0) << 64 | u128::from(rolled_back)
}

fn front_end(front_end: FrontEnd) -> FrontEndReport {
    let FrontEnd { connected, refused, last_refusal } = front_end;
    let seconds = connected.as_ref().map_or(0, |it| it.since.elapsed().as_secs());
    FrontEndReport {
        connected: connected.is_some(),
        process: connected.as_ref().and_then(|it| it.process),
        seconds,
        started: connected.is_some_and(|it| it.started),
        refused,
        last_refusal,
    }
}

/// Chunks that cannot be written, or not even be read, before more copies can be reached.
fn waiting(gateway: &GatewayReport) -> u32 {
    let health = &gateway.health;
    health.waiting - health.new + health.unwritable
}

/// What a volume that is served waits for: one line for a person.
fn what_waits(gateway: &GatewayReport) -> Option<String> {
    let chunks = waiting(gateway);
    let copies = (chunks > 0).then(|| {
        let nodes = unreached(gateway);
        format!("{chunks} chunks wait for copies that cannot be reached{nodes}")
    });
    let space = gateway.full.then(|| "writes wait because disks are full".to_string());
    match (copies, space) {
        (Some(copies), Some(space)) => Some(format!("{copies}; {space}")),
        (copies, space) => copies.or(space),
    }
}

/// Where the copies are that are missing, as far as chunks are named.
fn unreached(gateway: &GatewayReport) -> String {
    let behind =
        gateway.degraded.iter().filter(|chunk| !chunk.served || chunk.current < chunk.wanted).flat_map(|c| &c.behind);
    let nodes: BTreeSet<NodeId> = behind.map(|member| member.node).collect();
    let names: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
    if names.is_empty() { String::new() } else { format!(", on nodes {}", names.join(", ")) }
}
