//! One core of the daemon: its shards, its replicas, its links, and the volumes it serves.
//!
//! The control thread tells it what to do through a bounded channel; everything else stays here.

use crate::asks::Asks;
use crate::disks::{DiskShare, Holdings, PROBE_EVERY, Shards};
use crate::links::{Links, VolumeLinks};
use crate::ports::GlommioRuntime;
use crate::service::{ReplicaLink, Replicas};
use crate::volume::{Background, Leaving, ServeOptions, Volume, VolumeStatus};
use levee_core::shared::SharedBlocks;
use levee_core::store::{LargestIds, Superblock};
use levee_proto::api::{
    DiffEvent, DiffVolume, LinkReport, OpenedVolume, PeerInfo, ReplicaRef, ReplicaSize, ScrubEvent, UsageEvent,
    VerifyEvent, VolumeEra, VolumeVersions,
};
use levee_proto::{Caller, ChunkId, DiskId, NodeId, VolumeId};
use levee_rdma::{Callers, Identity, Server, ServerLimits};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, warn};

type Reply<T> = async_channel::Sender<T>;

/// How often the disks are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What the control thread asks of a core.
pub enum Command {
    /// The cluster knows us: answer other daemons from now on.
    Join {
        cluster: [u8; 16],
        node: NodeId,
        /// Of this process.
        incarnation: [u8; 16],
        /// By position.
        disks: BTreeMap<usize, DiskId>,
        done: Reply<Result<(), String>>,
    },
    /// One more disk: recover the core's shards of it. The bytes that they may hold.
    AddDisk {
        position: usize,
        path: PathBuf,
        superblock: Box<Superblock>,
        done: Reply<Result<u64, String>>,
    },
    /// The cluster knows the disk: answer for its replicas.
    ServeDisk {
        position: usize,
        disk: DiskId,
        done: Reply<()>,
    },
    /// Let go of a disk.
    RemoveDisk {
        position: usize,
        done: Reply<()>,
    },
    /// What each replica on the core's disks takes, by disk and chunk: at most `max` from one on.
    Replicas {
        from: (DiskId, ChunkId),
        max: usize,
        done: Reply<Vec<ReplicaSize>>,
    },
    /// The largest ids on the core's disks.
    LargestIds {
        done: Reply<LargestIds>,
    },
    /// Everything that the core's disks hold.
    Holdings {
        done: Reply<Holdings>,
    },
    Peers(Arc<Vec<PeerInfo>>),
    /// Volumes that are not in their first era.
    Eras(Arc<Vec<VolumeEra>>),
    /// Serve a volume, for an attachment of it; or say why not.
    Open {
        volume: Box<OpenedVolume>,
        attachment: u64,
        serve: ServeOptions,
        done: Reply<Result<(), String>>,
    },
    /// A served volume's versions have changed.
    Versions {
        volume: VolumeId,
        versions: Box<VolumeVersions>,
    },
    Close {
        volume: VolumeId,
        done: Reply<()>,
    },
    Delete {
        replicas: Vec<ReplicaRef>,
        done: Reply<Vec<ReplicaRef>>,
    },
    /// Replicas that are to be put elsewhere.
    Leave(Arc<Leaving>),
    /// Background work allowed to each volume, bytes per second; `None`: no limit.
    BackgroundRate(Option<u64>),
    Report {
        done: Reply<CoreReport>,
    },
    Verify {
        volume: VolumeId,
        events: Reply<VerifyEvent>,
    },
    Diff {
        volume: VolumeId,
        what: DiffVolume,
        events: Reply<DiffEvent>,
    },
    Usage {
        volume: VolumeId,
        events: Reply<UsageEvent>,
    },
    Scrub {
        volume: VolumeId,
        events: Reply<ScrubEvent>,
    },
    /// Close everything; the core ends.
    Stop {
        done: Reply<()>,
    },
}

/// How a core does.
#[derive(Default)]
pub struct CoreReport {
    pub volumes: Vec<VolumeStatus>,
    /// By position of the disk: this core's share.
    pub disks: BTreeMap<usize, DiskShare>,
    /// How the core sees other nodes.
    pub links: Vec<LinkReport>,
}

/// What a core is started with.
pub struct CoreConfig {
    pub core: u16,
    pub cores: usize,
    /// Path and content; without, the disk cannot be used.
    pub disks: Vec<(PathBuf, Option<Superblock>)>,
    pub listen: SocketAddr,
    pub commands: async_channel::Receiver<Command>,
    pub asks: Asks,
    pub news: async_channel::Sender<()>,
    /// Who calls this process, on whichever core.
    pub callers: Callers,
    /// What all cores remember of snapshots.
    pub shared: Option<SharedBlocks>,
}

/// What a core has once the cluster knows it.
struct Joined {
    node: NodeId,
    /// By position.
    disks: RefCell<BTreeMap<usize, DiskId>>,
    replicas: Replicas,
    links: Links,
    server: Server,
}

struct Core {
    config: CoreConfig,
    shards: Shards,
    joined: RefCell<Option<Joined>>,
    volumes: RefCell<BTreeMap<VolumeId, Volume>>,
    background: RefCell<Background>,
}

/// Recovers the core's shards, says so through `ready`, and serves until told to stop.
pub async fn run(config: CoreConfig, ready: async_channel::Sender<()>) {
    let shards = Shards::open(config.disks.clone(), config.core, config.cores).await;
    let commands = config.commands.clone();
    let core = Rc::new(Core {
        config,
        shards,
        joined: RefCell::default(),
        volumes: RefCell::default(),
        background: RefCell::default(),
    });
    let watcher = core.clone();
    glommio::spawn_local(async move { watcher.watch().await }).detach();
    let _ = ready.send(()).await;
    while let Ok(command) = commands.recv().await {
        if let Command::Stop { done } = command {
            core.stop().await;
            let _ = done.send(()).await;
            return;
        }
        core.clone().carry_out(command).await;
    }
}

impl Core {
    async fn carry_out(self: Rc<Self>, command: Command) {
        match command {
            Command::Join { cluster, node, incarnation, disks, done } => {
                let me = Caller { node, core: self.config.core, incarnation };
                let joined = self.join(cluster, me, disks).await;
                let _ = done.send(joined).await;
            }
            Command::Peers(peers) => {
                if let Some(joined) = &*self.joined.borrow() {
                    joined.links.set_peers(&peers);
                }
            }
            Command::Eras(eras) => {
                if let Some(joined) = &*self.joined.borrow() {
                    joined.replicas.set_eras(eras.iter().map(|e| (e.volume, e.era)));
                }
            }
            Command::Open { volume, attachment, serve, done } => {
                let _ = done.send(self.open(*volume, attachment, serve)).await;
            }
            Command::Versions { volume, versions } => {
                if let Some(volume) = self.volumes.borrow().get(&volume) {
                    volume.set_versions(*versions);
                }
            }
            Command::Close { volume, done } => {
                let volume = self.volumes.borrow_mut().remove(&volume);
                glommio::spawn_local(async move {
                    if let Some(volume) = volume {
                        volume.close("the volume was detached").await;
                    }
                    let _ = done.send(()).await;
                })
                .detach();
            }
            Command::AddDisk { position, path, superblock, done } => {
                let add = async move { done.send(self.add_disk(position, path, *superblock).await).await };
                glommio::spawn_local(add).detach();
            }
            Command::ServeDisk { position, disk, done } => {
                self.serve_disk(position, disk);
                let _ = done.send(()).await;
            }
            Command::RemoveDisk { position, done } => {
                let remove = async move {
                    self.remove_disk(position).await;
                    done.send(()).await
                };
                glommio::spawn_local(remove).detach();
            }
            Command::Replicas { from, max, done } => {
                let _ = done.send(self.replica_sizes(from, max)).await;
            }
            Command::LargestIds { done } => {
                let _ = done.send(self.shards.largest_ids()).await;
            }
            Command::Holdings { done } => {
                let holdings = async move { done.send(self.holdings().await).await };
                glommio::spawn_local(holdings).detach();
            }
            Command::Delete { replicas, done } => {
                glommio::spawn_local(async move { self.delete(replicas, done).await }).detach();
            }
            Command::Leave(leaving) => self.change_background(|b| b.leaving = leaving),
            Command::BackgroundRate(rate) => self.change_background(|b| b.rate = rate),
            Command::Report { done } => {
                let _ = done.send(self.report()).await;
            }
            Command::Verify { volume, events } => {
                let Some(volume) = self.volumes.borrow().get(&volume).cloned() else { return };
                glommio::spawn_local(async move { volume.verify(events).await }).detach();
            }
            Command::Diff { volume, what, events } => {
                let Some(volume) = self.volumes.borrow().get(&volume).cloned() else { return };
                glommio::spawn_local(async move { volume.diff(what, events).await }).detach();
            }
            Command::Usage { volume, events } => {
                let Some(volume) = self.volumes.borrow().get(&volume).cloned() else { return };
                glommio::spawn_local(async move { volume.usage(events).await }).detach();
            }
            Command::Scrub { volume, events } => {
                let Some(volume) = self.volumes.borrow().get(&volume).cloned() else { return };
                glommio::spawn_local(async move { volume.scrub(events).await }).detach();
            }
            Command::Stop { .. } => unreachable!("handled by the caller"),
        }
    }

    async fn join(&self, cluster: [u8; 16], me: Caller, ids: BTreeMap<usize, DiskId>) -> Result<(), String> {
        let replicas = Replicas::new(GlommioRuntime, self.shards.in_service(&ids));
        let service = Rc::new(ReplicaLink(replicas.clone()));
        let Caller { node, core, .. } = me;
        let listen = self.config.listen.to_string();
        let identity = Identity { cluster, node, core };
        let callers = self.config.callers.clone();
        let server = Server::listen(&listen, identity, callers, service.clone(), ServerLimits::default());
        let server = server.await.map_err(|e| e.to_string())?;
        let links = Links::new(cluster, me, service, self.config.asks.clone(), self.config.shared.clone());
        let disks = RefCell::new(ids);
        *self.joined.borrow_mut() = Some(Joined { node, disks, replicas, links, server });
        Ok(())
    }

    /// Begins to serve a volume. One that is refused is not served: whoever asked has to hear of it.
    fn open(&self, opened: OpenedVolume, attachment: u64, serve: ServeOptions) -> Result<(), String> {
        let joined = self.joined.borrow();
        let joined = joined.as_ref().ok_or("the core has not joined the cluster")?;
        levee_core::gateway::check(&opened)
            .map_err(|why| format!("the meta server's description is refused: {why}"))?;
        let id = opened.id;
        let links = VolumeLinks::new(joined.links.clone(), &opened, attachment);
        let volume = Volume::open(opened, joined.node, links, serve, self.config.news.clone());
        volume.set_background(&self.background.borrow());
        if let Some(old) = self.volumes.borrow_mut().insert(id, volume) {
            warn!(volume = %old.name(), "opened again");
            glommio::spawn_local(async move { old.close("the volume was opened again").await }).detach();
        }
        Ok(())
    }

    fn change_background(&self, change: impl FnOnce(&mut Background)) {
        change(&mut self.background.borrow_mut());
        let background = self.background.borrow();
        self.volumes.borrow().values().for_each(|v| v.set_background(&background));
    }

    async fn delete(&self, refs: Vec<ReplicaRef>, done: Reply<Vec<ReplicaRef>>) {
        let mut gone = vec![];
        let replicas = self.joined.borrow().as_ref().map(|j| j.replicas.clone());
        for r in refs {
            let Some(replicas) = &replicas else { break };
            match replicas.delete(r.disk, r.chunk, r.replica).await {
                Ok(()) => gone.push(r),
                // A disk that is away: it is tried again, and said elsewhere.
                Err(e) => debug!("replica {} cannot be deleted: {e}", r.replica),
            }
        }
        let _ = done.send(gone).await;
    }

    fn report(&self) -> CoreReport {
        CoreReport {
            volumes: self.volumes.borrow().values().map(Volume::status).collect(),
            disks: self.shards.report(),
            links: self.joined.borrow().as_ref().map(|j| j.links.report()).unwrap_or_default(),
        }
    }

    /// Recovers the core's shards of one more disk.
    async fn add_disk(&self, position: usize, path: PathBuf, superblock: Superblock) -> Result<u64, String> {
        self.shards.add(position, path, superblock).await
    }

    fn serve_disk(&self, position: usize, id: DiskId) {
        if let Some(joined) = &*self.joined.borrow() {
            joined.disks.borrow_mut().insert(position, id);
        }
        self.put_back(position);
    }

    /// Answers for a disk's replicas no more, and closes its shards.
    async fn remove_disk(&self, position: usize) {
        if let Some(joined) = &*self.joined.borrow()
            && let Some(id) = joined.disks.borrow_mut().remove(&position)
        {
            joined.replicas.remove_disk(id);
        }
        self.shards.remove(position).await;
    }

    /// What this core's replicas take, by disk and chunk, from one on.
    fn replica_sizes(&self, (first, from): (DiskId, ChunkId), max: usize) -> Vec<ReplicaSize> {
        let joined = self.joined.borrow();
        let mut disks: Vec<_> = joined.iter().flat_map(|j| j.disks.borrow().clone()).map(|(at, id)| (id, at)).collect();
        disks.retain(|(disk, _)| *disk >= first);
        disks.sort_unstable();
        let mut all = vec![];
        for (disk, position) in disks {
            let from = if disk == first { from } else { ChunkId(0) };
            let sizes = self.shards.replica_sizes(position, from, max - all.len()).into_iter();
            all.extend(sizes.map(|r| ReplicaSize { disk, chunk: r.chunk, replica: r.replica, bytes: r.bytes }));
        }
        all
    }

    /// Bit by bit: guests are served meanwhile.
    async fn holdings(&self) -> Holdings {
        let disks = self.joined.borrow().as_ref().map(|j| j.disks.borrow().clone()).unwrap_or_default();
        let mut all = Holdings::default();
        for (position, disk) in disks {
            all.add(disk, self.shards.of_disk(position)).await;
        }
        all
    }

    /// Notices disks that fail, and takes those back into service that work again. Samples what disks and volumes do.
    async fn watch(self: Rc<Self>) {
        let (mut probed, mut sampled) = (Instant::now(), Instant::now());
        loop {
            glommio::timer::sleep(LOOK).await;
            self.shards.sample(sampled.elapsed());
            sampled = Instant::now();
            self.volumes.borrow().values().for_each(Volume::sample);
            if probed.elapsed() >= PROBE_EVERY {
                self.shards.probe();
                probed = Instant::now();
            }
            if self.shards.look() {
                let _ = self.config.news.try_send(());
            }
            for place in self.shards.due() {
                let this = self.clone();
                glommio::spawn_local(async move {
                    if this.shards.try_again(place).await {
                        this.put_back(place.0);
                    }
                })
                .detach();
            }
        }
    }

    /// Serves a disk again, one of whose shards has been recovered. Gateways have to fence it anew.
    fn put_back(&self, position: usize) {
        if let Some(joined) = &*self.joined.borrow()
            && let Some(id) = joined.disks.borrow().get(&position)
            && let Some(shards) = self.shards.of_disk(position)
        {
            joined.replicas.replace_disk(*id, shards);
        }
    }

    async fn stop(&self) {
        let volumes = std::mem::take(&mut *self.volumes.borrow_mut());
        for volume in volumes.values() {
            volume.close("the daemon stops").await;
        }
        let joined = self.joined.borrow_mut().take();
        if let Some(joined) = joined {
            joined.server.stop().await;
        }
        self.shards.close().await;
    }
}
