//! How long changes wait when the leader of the meta servers is killed, stopped or cut off, under API load; and what guests
//! and the record of changes notice of it.
//!
//! Clients create and delete volumes all the time through all meta servers and write down what was answered. Each round
//! takes the leader away; the time runs until the first change is answered that was asked for afterwards. At the end, the list of
//! volumes must agree with everything that was answered.

mod clients;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

pub use report::{FailoverReport, Round};

use crate::cluster::{Cluster, Shape};
use crate::faults::network::Network;
use crate::figures;
use crate::http;
use crate::process::Daemon;
use crate::torture::{self, Control, millis};
use clients::Clients;

const NODES: usize = 3;
const METAS: usize = 3;
const DISK_SIZE: u64 = 8 << 30;
const VOLUME_SIZE: u64 = 1 << 30;
const LOAD_SIZE: u64 = 256 << 20;
const VOLUME: &str = "guest";
const DEPTH: usize = 8;
/// Of load between two rounds.
const BETWEEN: Duration = Duration::from_millis(1500);
/// How long a leader stays away after the others have gone on.
const AWAY: Duration = Duration::from_millis(700);
/// What is beyond this is no failover.
const LIMIT: Duration = Duration::from_secs(60);
/// A client that waits longer for a server that does not answer has chosen to.
const TIMEOUT: Duration = Duration::from_millis(1000);
const GLANCE: Duration = Duration::from_millis(10);
/// A new leader is to serve within this, in 99 of 100 rounds.
pub const ASKED_MS: f64 = 3000.0;

/// What is done to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Kill,
    Stop,
    Cut,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::Stop => "stop",
            Kind::Cut => "cut",
        }
    }
}

#[derive(Clone, Debug)]
pub struct FailoverOptions {
    pub dir: PathBuf,
    pub base_port: u16,
    pub rounds: u32,
    /// Threads that create and delete volumes.
    pub clients: usize,
    /// Where the figures go, as JSON.
    pub out: PathBuf,
    pub progress: fn(&str),
}

/// Runs all rounds; an error only if something could not be measured.
pub fn run(options: &FailoverOptions) -> Result<FailoverReport> {
    ensure!((1..=64).contains(&options.clients), "the clients must be 1 to 64");
    let network = Network::create(NODES, METAS).inspect_err(|e| (options.progress)(&format!("nothing is cut: {e:#}")));
    let network = network.ok();
    let shape = Shape {
        base_port: options.base_port,
        nodes: NODES,
        metas: METAS,
        disks_per_node: 1,
        disk_size: DISK_SIZE,
        network: network.as_ref().map(Network::argument),
        repair_after: None,
    };
    let cluster = Cluster::create_shaped(&options.dir.join("failover"), &shape)?;
    let scene = Scene { options, cluster: &cluster, network: network.as_ref(), metas: metas_of(&cluster)? };
    let report = scene.measure()?;
    figures::write(&options.out, &report)?;
    if report.ok() {
        cluster.destroy()?;
    } else {
        cluster.down()?;
        (options.progress)(&format!("the cluster's logs are kept in {}", cluster.dir().display()));
    }
    Ok(report)
}

/// `host:port` of the meta servers by their ids.
fn metas_of(cluster: &Cluster) -> Result<Vec<(u64, String)>> {
    let status = cluster.status()?;
    let members = status["members"].as_array().cloned().unwrap_or_default();
    let address =
        |m: &serde_json::Value| Some((m["id"].as_u64()?, m["url"].as_str()?.strip_prefix("http://")?.to_string()));
    let metas: Vec<_> = members.iter().filter_map(address).collect();
    ensure!(metas.len() == METAS, "there are {} meta servers, not {METAS}", metas.len());
    Ok(metas)
}

/// Brings a leader back.
type Undo = Box<dyn FnOnce(&Scene<'_>) -> Result<()>>;

/// A running cluster to take leaders away from.
struct Scene<'s> {
    options: &'s FailoverOptions,
    cluster: &'s Cluster,
    network: Option<&'s Network>,
    metas: Vec<(u64, String)>,
}

impl Scene<'_> {
    fn measure(&self) -> Result<FailoverReport> {
        self.cluster.create_volume(VOLUME, VOLUME_SIZE)?;
        let socket = self.cluster.attach(VOLUME)?.socket;
        let control = Arc::new(Control::default());
        let guest = {
            let control = control.clone();
            let load = torture::Options {
                socket,
                time: Duration::MAX,
                seed: 7,
                depth: DEPTH,
                queues: 1,
                size_limit: LOAD_SIZE,
                unit: 4096,
                fresh: true,
                discard_may_keep: false,
                state: None,
                stall_limit: LIMIT,
            };
            std::thread::spawn(move || torture::run(&load, &control))
        };
        let addresses = self.metas.iter().map(|(_, address)| address.clone()).collect();
        let clients = Clients::start(addresses, self.options.clients);
        let rounds = self.rounds(&clients, &control);
        let record = clients.stop();
        control.stop();
        let guest =
            guest.join().map_err(|_| anyhow::anyhow!("the guest's thread panicked"))?.context("the guest's load")?;
        let rounds = rounds?;
        let missing = record.compare(&self.volumes()?);
        Ok(FailoverReport::new(rounds, &record, missing, guest.ok()))
    }

    fn rounds(&self, clients: &Clients, guest: &Control) -> Result<Vec<Round>> {
        let kinds: &[Kind] =
            if self.network.is_some() { &[Kind::Kill, Kind::Stop, Kind::Cut] } else { &[Kind::Kill, Kind::Stop] };
        let mut rounds = Vec::new();
        for (number, kind) in (1..=self.options.rounds).zip(kinds.iter().cycle()) {
            std::thread::sleep(BETWEEN);
            let round = self
                .round(number, *kind, clients, guest)
                .with_context(|| format!("round {number}, {}", kind.name()))?;
            (self.options.progress)(&format!(
                "round {number}/{}: {} meta-{}: a change is answered after {:.0} ms; longest stall of the guest {:.0} ms",
                self.options.rounds, round.kind, round.leader, round.served_ms, round.stall_ms
            ));
            rounds.push(round);
        }
        Ok(rounds)
    }

    fn round(&self, number: u32, kind: Kind, clients: &Clients, guest: &Control) -> Result<Round> {
        let leader = self.agreed_leader()?;
        let name = format!("meta-{leader}");
        let daemon = self.daemon(&name)?;
        guest.take_window();
        let (begun, undo) = self.take_away(kind, &daemon)?;
        let struck = Instant::now();
        while !clients.answered_since(struck) {
            ensure!(begun.elapsed() < LIMIT, "no change was answered for {} s", LIMIT.as_secs());
            std::thread::sleep(GLANCE);
        }
        let served = clients.first_since(struck).context("an answer without a time")?.saturating_duration_since(begun);
        std::thread::sleep(AWAY);
        undo(self)?;
        self.agreed_leader()?;
        let window = guest.take_window();
        Ok(Round {
            number,
            kind: kind.name(),
            leader,
            served_ms: millis(served),
            stall_ms: millis(window.stall),
            guest_errors: window.errors + window.mistakes,
        })
    }

    /// Does it, and answers since when the others are without a leader, and how it is undone.
    fn take_away(&self, kind: Kind, daemon: &Daemon) -> Result<(Instant, Undo)> {
        let (daemon, name) = (daemon.clone(), daemon.name.clone());
        let begun = Instant::now();
        match kind {
            Kind::Kill => {
                daemon.kill_and_wait()?;
                Ok((begun, Box::new(move |scene| scene.cluster.up_only(&[&name]))))
            }
            Kind::Stop => {
                daemon.halt()?;
                Ok((begun, Box::new(move |_| daemon.resume())))
            }
            Kind::Cut => {
                let network = self.network.context("there is no network to cut")?;
                // Each cut takes a while on a busy machine. It leads until it is cut off from the other meta servers.
                let (metas, nodes): (Vec<&str>, Vec<&str>) =
                    network.others(&name).partition(|n| n.starts_with("meta-"));
                let mut cuts = Vec::new();
                for node in nodes {
                    cuts.push(network.cut(&name, node)?);
                    cuts.push(network.cut(node, &name)?);
                }
                let begun = Instant::now();
                for meta in &metas {
                    cuts.push(network.cut(&name, meta)?);
                }
                for meta in &metas {
                    cuts.push(network.cut(meta, &name)?);
                }
                let mend = move |scene: &Scene<'_>| {
                    let network = scene.network.context("there is no network to mend")?;
                    cuts.iter().try_for_each(|cut| network.mend(cut))
                };
                Ok((begun, Box::new(mend)))
            }
        }
    }

    fn daemon(&self, name: &str) -> Result<Daemon> {
        let found = self.cluster.daemons()?.into_iter().find(|daemon| daemon.name == name);
        found.with_context(|| format!("{name} does not run"))
    }

    /// Waits until all meta servers name the same leader.
    fn agreed_leader(&self) -> Result<u64> {
        let begun = Instant::now();
        loop {
            let named = |(_, address): &(u64, String)| {
                http::ask(address, "GET", "/v1/cluster", "", TIMEOUT).ok()?.json().ok()?["leader"].as_u64()
            };
            let leaders: Vec<Option<u64>> = self.metas.iter().map(named).collect();
            if let [Some(first), rest @ ..] = leaders.as_slice()
                && rest.iter().all(|other| other == &Some(*first))
            {
                return Ok(*first);
            }
            if begun.elapsed() > LIMIT {
                bail!("the meta servers do not agree on a leader: {leaders:?}");
            }
            std::thread::sleep(GLANCE * 5);
        }
    }

    /// Names of all volumes.
    fn volumes(&self) -> Result<Vec<String>> {
        let (mut names, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/volumes?limit=1000&after={after}");
            let page = http::ask(&self.metas[0].1, "GET", &path, "", TIMEOUT)?.json()?;
            let items = page["items"].as_array().context("a page without items")?;
            names.extend(items.iter().filter_map(|v| v["name"].as_str().map(str::to_string)));
            match page["next"].as_str() {
                Some(next) => after = next.to_string(),
                None => return Ok(names),
            }
        }
    }
}
