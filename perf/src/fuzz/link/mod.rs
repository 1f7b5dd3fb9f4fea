//! The port that daemons reach each other's copies at.
//!
//! The attacker is a peer that knows how to say hello, and what there is: it names one volume, the *victim*, does to its copies
//! whatever comes to its mind, and damages some of its messages. Another one, the *spent*, it only fences. No message that is
//! understood names the bystander. Afterwards the spent volume must be brought back by the command that is there for it.

mod peer;
mod requests;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use levee_proto::wire::{Hello, REPLY_BIT, Reply, Request};
use levee_proto::{Caller, DiskId, Epoch, Era, NodeId, VolumeId};

use super::bytes::{mutate, odd_number};
use super::{Port, bystander};
use crate::cluster::Cluster;
use crate::limits::{FUZZ_AREA, FUZZ_BATCH, FUZZ_VOLUME, MAX_FUZZ_DISKS};
use crate::rng::Rng;
use crate::torture::{self, Control};
use peer::{Peer, frame};
use requests::Known;

const VICTIM: &str = "victim";
const SPENT: &str = "spent";
/// How long each is written before.
const WRITING: Duration = Duration::from_millis(500);
/// The caller that attacks: no daemon has this number.
const ATTACKER: u32 = 99;

/// A core of a node, and how to reach it.
struct Core {
    node: NodeId,
    core: u16,
    address: String,
}

pub struct LinkPort {
    cluster: [u8; 16],
    cores: Vec<Core>,
    /// Links that are open, by position of the core.
    peers: BTreeMap<usize, Peer>,
    known: Known,
    spent: VolumeId,
    /// What was written to it.
    written: torture::Options,
}

/// Makes a volume, with copies, and nobody who serves it; what was written to it.
fn prepare(cluster: &Cluster, name: &str, seed: u64) -> Result<torture::Options> {
    cluster.create_volume(name, FUZZ_VOLUME)?;
    let attached = cluster.attach_at(name, "node-3")?;
    let all = bystander::options(&attached, seed, cluster.dir().join(format!("{name}.json")));
    let load = torture::Options { size_limit: FUZZ_AREA / 16, time: WRITING, ..all };
    bystander::right(torture::run(&load, &Control::default())?, "before anything was attacked")?;
    cluster.detach(name, super::DETACH_LIMIT)?;
    Ok(load)
}

impl LinkPort {
    pub fn open(cluster: &Cluster, rng: &mut Rng) -> Result<LinkPort> {
        prepare(cluster, VICTIM, rng.next_u64())?;
        let written = prepare(cluster, SPENT, rng.next_u64())?;
        let id = |name: &str| -> Result<VolumeId> {
            Ok(VolumeId(cluster.volume(name)?["id"].as_u64().context("a volume without an id")?))
        };
        let known = Known::new(id(VICTIM)?, id(bystander::NAME)?);
        let (spent, cores) = (id(SPENT)?, cores(cluster)?);
        let mut port = LinkPort { cluster: cluster.id()?, cores, peers: BTreeMap::new(), known, spent, written };
        for at in 0..port.cores.len() {
            port.look_around(rng, at)?;
        }
        Ok(port)
    }

    fn hello(&self, at: usize) -> Hello {
        let Core { node, core, .. } = &self.cores[at];
        let caller = Caller { node: NodeId(ATTACKER), core: 0, incarnation: [9; 16] };
        Hello { cluster: self.cluster, caller, to: *node, core: *core }
    }

    /// Learns which copies of the victim there are, by fencing it.
    fn look_around(&mut self, rng: &mut Rng, at: usize) -> Result<()> {
        // The fence has to be durable before the second is asked.
        for request in self.known.look(rng) {
            self.exchange(at, vec![(request, Bytes::new())], None)?;
        }
        Ok(())
    }

    /// Sends requests over the link to a core, and hears the answers; `damage` is done to their frames.
    fn exchange(&mut self, at: usize, requests: Vec<(Request, Bytes)>, damage: Option<&mut Rng>) -> Result<()> {
        if !self.peers.contains_key(&at) {
            let peer = Peer::connect(&self.cores[at].address, &self.hello(at))?;
            self.peers.insert(at, peer);
        }
        let Some(peer) = self.peers.get_mut(&at) else { return Ok(()) };
        let mut bytes = vec![];
        for (n, (request, data)) in requests.iter().enumerate() {
            bytes.extend(frame(n as u64, request, data));
        }
        if let Some(rng) = damage {
            mutate(rng, &mut bytes);
            // A frame that is cut off would be waited for.
            self.peers.remove(&at).into_iter().for_each(|peer| peer.end_with(&bytes));
            return Ok(());
        }
        let mut answers = vec![];
        let is_open = peer.talk(&bytes, requests.len(), |id, kind, status, meta, data_len| {
            answers.extend(requests.get(id as usize).map(|(request, _)| request).and_then(|request| {
                let kind_fits = kind == request.kind() | REPLY_BIT;
                let reply = Reply::decode(kind, status, meta, data_len).ok().filter(|_| kind_fits)?;
                Some((request.clone(), reply))
            }));
        });
        let node = self.cores[at].node;
        answers.iter().for_each(|(request, reply)| self.known.learn(node, request, reply));
        if !is_open {
            self.peers.remove(&at);
        }
        Ok(())
    }

    /// Fences that leave no epoch to anybody.
    fn spend(&mut self, rng: &mut Rng, at: usize) -> Result<()> {
        let epoch = Epoch((odd_number(rng) as u32 & Epoch::MAX.0).max(1));
        let disks = vec![DiskId(rng.between(1, MAX_FUZZ_DISKS) as u32)];
        let fence = Request::Fence { volume: self.spent, era: Era(0), epoch, disks };
        self.exchange(at, vec![(fence, Bytes::new())], None)
    }

    /// Something that is no link at all, or nearly one.
    fn knock(&mut self, rng: &mut Rng, at: usize) -> Result<()> {
        let mut bytes = frame(0, &Request::Hello(self.hello(at)), &Bytes::new());
        if rng.chance(80) {
            mutate(rng, &mut bytes);
        }
        for n in 0..rng.below(3) {
            let (request, data) = self.known.request(rng, self.cores[at].node);
            bytes.extend(frame(n, &request, &data));
        }
        if rng.chance(30) {
            mutate(rng, &mut bytes);
        }
        Peer::knock(&self.cores[at].address, &bytes)
    }
}

impl Port for LinkPort {
    fn attack(&mut self, rng: &mut Rng) -> Result<()> {
        let at = rng.below(self.cores.len() as u64) as usize;
        let node = self.cores[at].node;
        match rng.below(20) {
            0..=2 => self.knock(rng, at),
            3 => self.look_around(rng, at),
            5 => self.spend(rng, at),
            n => {
                let count = rng.between(1, FUZZ_BATCH);
                let requests = (0..count).map(|_| self.known.request(rng, node)).collect();
                let damage = (n == 4).then_some(rng);
                self.exchange(at, requests, damage)
            }
        }
    }

    /// The spent volume is there again, with what was written to it.
    fn check(&mut self, cluster: &Cluster) -> Result<()> {
        cluster.levee(&["volume", "recover-epochs", SPENT])?;
        let attached = cluster.attach_at(SPENT, "node-1").context("a volume cannot be opened in another era")?;
        let again = torture::Options { socket: attached.socket, fresh: false, ..self.written.clone() };
        bystander::right(torture::run(&again, &Control::default())?, "when its epochs were spent")?;
        cluster.verify(SPENT).map(drop)
    }
}

fn cores(cluster: &Cluster) -> Result<Vec<Core>> {
    let nodes = cluster.levee(&["node", "list"])?;
    let mut cores = vec![];
    for node in nodes.as_array().context("`levee node list --json` printed no list")? {
        let id = NodeId(node["id"].as_u64().context("a node without an id")? as u32);
        let addresses = node["cores"].as_array().context("a node without cores")?;
        for (core, address) in addresses.iter().enumerate() {
            let address = address.as_str().context("a core without an address")?.to_string();
            cores.push(Core { node: id, core: core as u16, address });
        }
    }
    Ok(cores)
}
