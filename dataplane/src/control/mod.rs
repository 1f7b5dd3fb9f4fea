//! The control thread: makes what is, what the meta server says should be, and reports it.
//!
//! The data path never waits for it, except to allocate chunks.

mod admin;
mod cores;
mod meta;
mod metrics;

use crate::args::RunArgs;
use crate::core::{Command, VolumeStatus};
use crate::disks::OwnedDisk;
use crate::links::AllocateAsk;
use crate::volume::ServeOptions;
use anyhow::{Context, Result, bail};
pub use cores::{Cores, QUEUE};
use levee_core::gateway::AllocError;
use levee_proto::api::*;
use levee_proto::{NodeId, VolumeId};
use meta::{MetaClient, MetaError};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tracing::{info, warn};
use uuid::Uuid;

/// Between heartbeats, unless there is news.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Before a meta server that could not be reached is tried again.
const RETRY: Duration = Duration::from_millis(200);
/// How long one look at the intent may wait for a change.
const INTENT_WAIT: Duration = Duration::from_secs(10);
/// A message about the same trouble is repeated no more often.
const COMPLAIN: Duration = Duration::from_secs(10);
/// Allocations asked for at the same time.
const ALLOCATIONS: usize = 16;

/// The control thread's state.
pub struct Control {
    args: RunArgs,
    meta: MetaClient,
    cores: Cores,
    incarnation: Uuid,
    started: Instant,
    node: RefCell<Option<Joined>>,
    /// Volumes given to cores, and the attachment that each is served for.
    served: RefCell<BTreeMap<VolumeId, u64>>,
    /// Replicas that are gone, to be reported.
    deleted: RefCell<Vec<ReplicaRef>>,
    /// Served volumes that cannot get chunks for now, by name, and why.
    without_chunks: RefCell<BTreeMap<String, String>>,
}

#[derive(Clone)]
struct Joined {
    node: NodeId,
    disks: Vec<levee_proto::DiskId>,
}

/// What the control thread hears from the cores.
pub struct FromCores {
    pub allocate: async_channel::Receiver<AllocateAsk>,
    pub news: async_channel::Receiver<()>,
}

/// Runs until a signal asks to stop. The disks stay locked meanwhile.
pub async fn run(args: RunArgs, disks: Vec<OwnedDisk>, cores: Cores, from_cores: FromCores) -> Result<()> {
    let control = Rc::new(Control {
        meta: MetaClient::new(&args.meta),
        args,
        cores,
        incarnation: Uuid::new_v4(),
        started: Instant::now(),
        node: RefCell::default(),
        served: RefCell::default(),
        deleted: RefCell::default(),
        without_chunks: RefCell::default(),
    });
    let admin = admin::listen(control.clone()).await?;
    let work = async {
        let _disks = control.join(disks).await?;
        tokio::join!(control.beat(&from_cores.news), control.follow_intent(), control.allocate(&from_cores.allocate));
        Ok(())
    };
    let ended: Result<()> = tokio::select! {
        done = work => done,
        done = admin => done,
        name = signal() => {
            info!("{name}: stopping");
            Ok(())
        }
    };
    control.cores.stop().await;
    info!("stopped");
    ended
}

async fn signal() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}

impl Control {
    /// Registers with the cluster, claims the disks for it, and opens the cores to other daemons.
    async fn join(&self, mut disks: Vec<OwnedDisk>) -> Result<Vec<OwnedDisk>> {
        let registered = self.register(&disks).await?;
        if registered.disks.len() != disks.len() {
            bail!("the meta server named {} disks for {}", registered.disks.len(), disks.len());
        }
        for (disk, id) in disks.iter_mut().zip(&registered.disks) {
            disk.claim(registered.cluster, registered.node, *id)?;
        }
        let (cluster, node) = (*registered.cluster.as_bytes(), registered.node);
        let join = |done| Command::Join { cluster, node, disks: registered.disks.clone(), done };
        for outcome in self.cores.ask_all(join).await {
            outcome.map_err(|why| anyhow::anyhow!("cannot serve other daemons: {why}"))?;
        }
        info!("node {} ({}) of cluster {}", registered.node, self.args.name, registered.cluster);
        *self.node.borrow_mut() = Some(Joined { node: registered.node, disks: registered.disks });
        Ok(disks)
    }

    async fn register(&self, disks: &[OwnedDisk]) -> Result<Registered> {
        let claimed: Vec<Uuid> = disks
            .iter()
            .filter(|d| d.superblock.is_claimed())
            .map(|d| Uuid::from_bytes(d.superblock.cluster_uuid))
            .collect();
        if claimed.windows(2).any(|w| w[0] != w[1]) {
            bail!("the disks belong to different clusters: start one daemon for each");
        }
        let request = RegisterNode {
            name: self.args.name.clone(),
            incarnation: self.incarnation,
            admin_url: format!("http://{}", self.args.admin),
            cores: self.args.data.iter().map(ToString::to_string).collect(),
            cluster: claimed.first().copied(),
            disks: self.describe(disks).await,
        };
        let mut complaint = Complaint::new();
        loop {
            match self.meta.register(&request).await {
                Ok(registered) => return Ok(registered),
                Err(MetaError::Refused(p)) => bail!("the cluster does not take this node: {}", p.detail),
                Err(MetaError::Unreachable(why)) => complaint.say(&format!("waiting to join: {why}")),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn describe(&self, disks: &[OwnedDisk]) -> Vec<RegisterDisk> {
        let cores = self.cores.report().await;
        let capacity = |i: usize| cores.iter().filter_map(|c| c.disks.get(i)).map(|u| u.capacity).sum();
        let one = |(i, disk): (usize, &OwnedDisk)| RegisterDisk {
            uuid: Uuid::from_bytes(disk.superblock.disk_uuid),
            path: disk.path.display().to_string(),
            capacity: capacity(i),
            shards: disk.superblock.shards,
        };
        disks.iter().enumerate().map(one).collect()
    }

    fn joined(&self) -> Joined {
        self.node.borrow().clone().expect("only used once joined")
    }

    async fn beat(&self, news: &async_channel::Receiver<()>) {
        let mut complaint = Complaint::new();
        loop {
            let deleted = self.deleted.borrow().clone();
            let beat = self.heartbeat(deleted.clone()).await;
            match self.meta.heartbeat(self.joined().node, &beat).await {
                Ok(_) => self.deleted.borrow_mut().retain(|r| !deleted.contains(r)),
                Err(e) => complaint.say(&format!("heartbeat: {e}")),
            }
            let _ = tokio::time::timeout(HEARTBEAT, news.recv()).await;
        }
    }

    async fn heartbeat(&self, deleted: Vec<ReplicaRef>) -> Heartbeat {
        let status = self.status().await;
        Heartbeat { incarnation: self.incarnation, disks: status.disks, volumes: status.volumes, deleted }
    }

    /// How the daemon does.
    async fn status(&self) -> DaemonStatus {
        let cores = self.cores.report().await;
        let joined = self.node.borrow().clone();
        let ids = joined.iter().flat_map(|j| &j.disks).enumerate();
        let used = |i: usize| cores.iter().filter_map(|c| c.disks.get(i)).map(|u| u.used).sum();
        DaemonStatus {
            name: self.args.name.clone(),
            node: joined.as_ref().map(|j| j.node),
            incarnation: self.incarnation,
            pid: std::process::id(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            disks: ids.map(|(i, disk)| DiskUsage { disk: *disk, used: used(i), failed: None }).collect(),
            volumes: cores.into_iter().flat_map(|c| c.volumes).map(|v| self.complete(v)).collect(),
        }
    }

    /// A core's report of a volume, with what the core does not know.
    fn complete(&self, volume: VolumeStatus) -> VolumeReport {
        let VolumeStatus { name, mut report, .. } = volume;
        if let (Some(why), ServeState::Serving) = (self.without_chunks.borrow().get(&name), report.state) {
            let waiting = format!("writes to parts that were never written wait for new chunks: {why}");
            report.detail = Some(match report.detail.take() {
                Some(detail) => format!("{detail}; {waiting}"),
                None => waiting,
            });
        }
        report
    }

    async fn follow_intent(&self) {
        let mut complaint = Complaint::new();
        let mut revision = 0;
        loop {
            match self.meta.intent(self.joined().node, revision, INTENT_WAIT).await {
                Ok(intent) => {
                    revision = match self.fulfil(&intent).await {
                        true => intent.revision,
                        // Something could not be done yet: look at the same intent again.
                        false => revision,
                    };
                    if revision == intent.revision {
                        continue;
                    }
                }
                Err(e) => complaint.say(&format!("intent: {e}")),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Makes it so; whether everything was done.
    async fn fulfil(&self, intent: &Intent) -> bool {
        self.cores.peers(&intent.peers).await;
        let wanted: BTreeMap<VolumeId, &AttachIntent> = intent.attach.iter().map(|a| (a.volume, a)).collect();
        let served = self.served.borrow().clone();
        for (volume, attachment) in &served {
            if wanted.get(volume).is_none_or(|w| w.attachment != *attachment) {
                self.close(*volume).await;
            }
        }
        let mut all = true;
        for want in wanted.values().filter(|w| served.get(&w.volume) != Some(&w.attachment)) {
            all &= self.open(want).await;
        }
        if !intent.deletes.is_empty() {
            let known = self.deleted.borrow().clone();
            let due: Vec<_> = intent.deletes.iter().filter(|r| !known.contains(r)).copied().collect();
            let gone = self.cores.delete(&due).await;
            all &= gone.len() == due.len();
            self.deleted.borrow_mut().extend(gone);
        }
        all
    }

    async fn close(&self, volume: VolumeId) {
        let (done, closed) = async_channel::bounded(1);
        self.cores.send(self.cores.of_volume(volume), Command::Close { volume, done }).await;
        let _ = closed.recv().await;
        self.served.borrow_mut().remove(&volume);
    }

    /// Asks for an epoch and hands the volume to its core; whether that is settled.
    async fn open(&self, want: &AttachIntent) -> bool {
        let node = self.joined().node;
        let ask = OpenVolume { node, incarnation: self.incarnation, attachment: want.attachment };
        let opened = match self.meta.open(&want.name, &ask).await {
            Ok(opened) => opened,
            Err(MetaError::Refused(p)) => {
                // The intent is outdated: a newer one says what to do.
                warn!(volume = %want.name, "not opened: {}", p.detail);
                return p.kind == ProblemKind::Fenced || p.kind == ProblemKind::NotFound;
            }
            Err(e) => {
                warn!(volume = %want.name, "not opened: {e}");
                return false;
            }
        };
        let serve = ServeOptions {
            socket: self.args.sockets.join(format!("{}.sock", want.name)),
            queues: self.args.queues,
            poll: Duration::from_micros(self.args.poll_us),
        };
        self.served.borrow_mut().insert(want.volume, want.attachment);
        self.without_chunks.borrow_mut().remove(&want.name);
        let core = self.cores.of_volume(want.volume);
        self.cores.send(core, Command::Open { volume: Box::new(opened), serve }).await;
        true
    }

    async fn allocate(self: &Rc<Self>, asks: &async_channel::Receiver<AllocateAsk>) {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let slots = Rc::new(tokio::sync::Semaphore::new(ALLOCATIONS));
                while let Ok(ask) = asks.recv().await {
                    let (this, slots) = (self.clone(), slots.clone());
                    tokio::task::spawn_local(async move {
                        let _slot = slots.acquire().await;
                        let answer = this.allocate_one(&ask).await;
                        let _ = ask.answer.send(answer).await;
                    });
                }
            })
            .await;
    }

    async fn allocate_one(&self, ask: &AllocateAsk) -> std::result::Result<Vec<ChunkInfo>, AllocError> {
        let request = AllocateChunks { epoch: ask.epoch, indexes: ask.indexes.clone() };
        match self.meta.allocate(&ask.volume, &request).await {
            Ok(allocated) => {
                self.without_chunks.borrow_mut().remove(&ask.volume);
                Ok(allocated.chunks)
            }
            Err(MetaError::Refused(p)) if matches!(p.kind, ProblemKind::Fenced | ProblemKind::NotFound) => {
                Err(AllocError::Fenced(p.detail))
            }
            Err(e) => {
                self.without_chunks.borrow_mut().insert(ask.volume.clone(), e.to_string());
                Err(AllocError::Retry(e.to_string()))
            }
        }
    }
}

/// Says the same thing only now and then.
struct Complaint(Option<Instant>);

impl Complaint {
    fn new() -> Complaint {
        Complaint(None)
    }

    fn say(&mut self, what: &str) {
        if self.0.is_none_or(|at| at.elapsed() > COMPLAIN) {
            warn!("{what}");
            self.0 = Some(Instant::now());
        }
    }
}

/// Checks what can be checked before anything is started: addresses that are free, folders that can be made.
pub fn check(args: &RunArgs) -> Result<()> {
    if !is_valid_name(&args.name) {
        bail!("'{}' cannot name a node: use letters, digits, '.', '_' and '-', at most {MAX_NAME} of them", args.name);
    }
    for address in args.data.iter().chain([&args.admin]) {
        if let Err(e) = std::net::TcpListener::bind(address) {
            bail!("cannot listen on {address}: {e}; stop the process that uses it or choose another port");
        }
    }
    std::fs::create_dir_all(&args.sockets).with_context(|| format!("cannot create {}", args.sockets.display()))?;
    if args.meta.iter().any(|u| !u.starts_with("http://")) {
        bail!("--meta takes URLs such as http://10.0.0.1:7400, separated by commas");
    }
    Ok(())
}
