//! The cluster as the gateways of one core see it: links to other daemons' cores, and the meta
//! server through the control thread.

use crate::asks::{Asks, Attached};
use bytes::Bytes;
use levee_core::gateway::{Accomplished, AllocError, Cluster, Done, LinkDown};
use levee_core::shared::SharedBlocks;
use levee_proto::api::{
    AttachmentId, ChangedReplicas, ChunkInfo, LinkReport, OpenedVolume, ParentInfo, PeerInfo, ReplicaChange,
    VolumeVersions,
};
use levee_proto::wire::Request;
use levee_proto::{Caller, ChunkId, DiskId, Epoch, NodeId};
use levee_rdma::{Client, ClientConfig, ClientLimits, Service};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

/// Before a call to a node without a known address fails.
const UNKNOWN_PAUSE: Duration = Duration::from_millis(1);

/// The core that keeps a link to every node that stores data, and which core of theirs it is to.
const WATCHING_CORE: u16 = 0;
const WATCHED_CORE: u16 = 0;

/// Links of one core. A cheap handle.
#[derive(Clone)]
pub struct Links(Rc<Inner>);

struct Inner {
    cluster: [u8; 16],
    me: Caller,
    local: Rc<dyn Service>,
    peers: RefCell<BTreeMap<NodeId, PeerInfo>>,
    clients: RefCell<BTreeMap<(NodeId, u16), Client>>,
    asks: Asks,
    /// What all cores remember of snapshots.
    shared: Option<SharedBlocks>,
}

impl Links {
    /// Links of this core, whose own replicas `local` answers for.
    pub fn new(
        cluster: [u8; 16],
        me: Caller,
        local: Rc<dyn Service>,
        asks: Asks,
        shared: Option<SharedBlocks>,
    ) -> Links {
        let (peers, clients) = (RefCell::default(), RefCell::default());
        Links(Rc::new(Inner { cluster, me, local, peers, clients, asks, shared }))
    }

    /// The nodes and where their cores listen, as the meta server says now.
    pub fn set_peers(&self, peers: &[PeerInfo]) {
        *self.0.peers.borrow_mut() = peers.iter().map(|p| (p.node, p.clone())).collect();
        // A node that the cluster has forgotten holds nothing that anybody asks for.
        let gone = |node: &NodeId| *node != self.0.me.node && !self.0.peers.borrow().contains_key(node);
        self.0.clients.borrow_mut().retain(|(node, _), _| !gone(node));
        for ((node, core), client) in self.0.clients.borrow().iter() {
            if let Some(address) = self.address(*node, *core) {
                client.set_address(address);
            }
        }
    }

    /// Nodes that store data, beside this one.
    fn watched(&self) -> Vec<NodeId> {
        let stores = |p: &&PeerInfo| p.node != self.0.me.node && !p.disks.is_empty();
        self.0.peers.borrow().values().filter(stores).map(|p| p.node).collect()
    }

    /// How this core sees the other nodes that store data: those that it has links to. The first core keeps one to each of them,
    /// used or not; an idle link asks for a sign of life once a second.
    pub fn report(&self) -> Vec<LinkReport> {
        let watched = self.watched();
        if self.0.me.core == WATCHING_CORE {
            watched.iter().filter_map(|node| self.client(*node, WATCHED_CORE)).for_each(|client| client.connect());
        }
        let clients = self.0.clients.borrow();
        let of = |node: &NodeId| {
            let links = clients.range((*node, 0)..=(*node, u16::MAX)).map(|(_, client)| client);
            sight(*node, links.map(|client| (client.is_up(), client.latency())))
        };
        watched.iter().filter_map(of).collect()
    }

    fn address(&self, node: NodeId, core: u16) -> Option<String> {
        self.0.peers.borrow().get(&node)?.cores.get(usize::from(core)).cloned()
    }

    fn client(&self, node: NodeId, core: u16) -> Option<Client> {
        if let Some(client) = self.0.clients.borrow().get(&(node, core)) {
            return Some(client.clone());
        }
        let limits = ClientLimits::default();
        let Inner { cluster, me, .. } = *self.0;
        let client = if (node, core) == (me.node, me.core) {
            Client::loopback(node, self.0.local.clone(), &limits)
        } else {
            let address = self.address(node, core)?;
            Client::tcp(ClientConfig { cluster, caller: me, to: node, core, address, limits })
        };
        self.0.clients.borrow_mut().insert((node, core), client.clone());
        Some(client)
    }
}

/// The links of one core as one volume's gateway uses them.
pub struct VolumeLinks {
    links: Links,
    volume: Attached,
    epoch: Epoch,
}

impl VolumeLinks {
    pub fn new(links: Links, opened: &OpenedVolume, attachment: u64) -> VolumeLinks {
        let caller = AttachmentId { volume: opened.id, attachment };
        VolumeLinks { links, volume: Attached { name: opened.name.as_str().into(), caller }, epoch: opened.epoch }
    }
}

impl Cluster for VolumeLinks {
    fn cores(&self, node: NodeId) -> u16 {
        self.links.0.peers.borrow().get(&node).map_or(0, |p| p.cores.len() as u16)
    }

    fn core_of(&self, node: NodeId, disk: DiskId, chunk: ChunkId) -> u16 {
        let peers = self.links.0.peers.borrow();
        let Some(peer) = peers.get(&node) else { return 0 };
        let shards = peer.disks.iter().find(|d| d.disk == disk).map_or(1, |d| d.shards.max(1));
        core_of_shard((chunk.0 % u64::from(shards)) as u16, peer.cores.len())
    }

    fn call(&self, node: NodeId, core: u16, request: Request, data: Bytes, done: Done) {
        match self.links.client(node, core) {
            Some(client) => {
                client.call(request, data, move |answer| done(answer.map_err(|e| LinkDown(e.to_string()))));
            }
            None => {
                let unknown = async move {
                    // Never answered from inside.
                    glommio::timer::sleep(UNKNOWN_PAUSE).await;
                    done(Err(LinkDown("its address is not known".into())));
                };
                glommio::spawn_local(unknown).detach();
            }
        }
    }

    fn change(
        &self,
        changes: Vec<ReplicaChange>,
    ) -> impl Future<Output = Result<ChangedReplicas, AllocError>> + 'static {
        self.links.0.asks.change(&self.volume, self.epoch, changes)
    }

    fn allocate(&self, indexes: Vec<u32>) -> impl Future<Output = Result<Vec<ChunkInfo>, AllocError>> + 'static {
        self.links.0.asks.allocate(&self.volume, self.epoch, indexes)
    }

    fn accomplished(&self, what: Accomplished) -> impl Future<Output = Result<VolumeVersions, AllocError>> + 'static {
        self.links.0.asks.accomplished(&self.volume, self.epoch, what)
    }

    fn parent(&self) -> impl Future<Output = Result<Option<ParentInfo>, AllocError>> + 'static {
        self.links.0.asks.parent(&self.volume)
    }

    fn shared(&self) -> Option<&SharedBlocks> {
        self.links.0.shared.as_ref()
    }
}

/// What several links to one node come to: it is up if one of them is. `None`: there is no link.
fn sight(node: NodeId, links: impl Iterator<Item = (bool, Option<Duration>)>) -> Option<LinkReport> {
    let sights = links.map(|(up, latency)| {
        let latency_us = latency.filter(|_| up).map_or(0, |l| (l.as_micros() as u64).max(1));
        LinkReport { node, up, latency_us }
    });
    sights.reduce(|a, b| merge(&a, &b))
}

/// Two sights of the same node: it is up if one says so. Of two latencies the longer one counts.
pub fn merge(a: &LinkReport, b: &LinkReport) -> LinkReport {
    LinkReport { node: a.node, up: a.up || b.up, latency_us: a.latency_us.max(b.latency_us) }
}

/// The core that owns a shard, on a node with so many cores.
pub fn core_of_shard(shard: u16, cores: usize) -> u16 {
    shard % (cores.max(1) as u16)
}
