//! The folder of an embedded cluster and its `cluster.json`.
//!
//! `cluster.json` is written whole or not at all, before the first daemon starts. Paths in it are
//! relative to the folder.

use super::place::{Network, Place};
use crate::limits::*;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

pub const DEFAULT_DIR: &str = "./levee-data";
pub const DEFAULT_BASE_PORT: u16 = 7400;

const KIND: &str = "levee-cluster";
const FORMAT: u32 = 1;

/// Where things are in the folder.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Absolute.
    pub root: PathBuf,
}

impl Layout {
    pub fn at(dir: &Path) -> anyhow::Result<Layout> {
        let root = std::path::absolute(dir).with_context(|| format!("{} is no folder", dir.display()))?;
        Ok(Layout { root })
    }

    pub fn cluster_file(&self) -> PathBuf {
        self.root.join("cluster.json")
    }

    pub fn logs(&self) -> PathBuf {
        self.root.join("log")
    }

    pub fn log(&self, daemon: &str) -> PathBuf {
        self.logs().join(format!("{daemon}.log"))
    }

    pub fn pids(&self) -> PathBuf {
        self.root.join("pid")
    }

    /// The volumes' sockets.
    pub fn sockets(&self) -> PathBuf {
        self.root.join("run")
    }

    /// State of one daemon.
    pub fn state(&self, daemon: &str) -> PathBuf {
        self.root.join(daemon)
    }
}

/// What the cluster consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFile {
    kind: String,
    format: u32,
    pub base_port: u16,
    pub cores: u16,
    pub disks_per_node: u16,
    /// Bytes.
    pub disk_size: u64,
    pub metas: Vec<Meta>,
    pub nodes: Vec<Node>,
    /// For the meta servers, seconds; absent: their own default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair_after: Option<u64>,
    /// The programs that were started last.
    #[serde(default)]
    pub binaries: Option<Binaries>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Raft id, from 1.
    pub id: u16,
    pub name: String,
    pub port: u16,
    #[serde(flatten)]
    pub place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
    pub admin_port: u16,
    /// One per core.
    pub data_ports: Vec<u16>,
    pub disks: Vec<PathBuf>,
    #[serde(flatten)]
    pub place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binaries {
    pub metad: PathBuf,
    pub stored: PathBuf,
}

/// How many of what a new cluster gets.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub base_port: u16,
    pub metas: u16,
    pub nodes: u16,
    pub cores: u16,
    pub disks_per_node: u16,
    pub disk_size: u64,
}

impl Meta {
    pub fn listen(&self) -> String {
        self.place.with_port(self.port)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listen())
    }
}

impl Node {
    pub fn admin(&self) -> String {
        self.place.with_port(self.admin_port)
    }

    pub fn admin_url(&self) -> String {
        format!("http://{}", self.admin())
    }

    pub fn data(&self) -> Vec<String> {
        self.data_ports.iter().map(|port| self.place.with_port(*port)).collect()
    }
}

impl ClusterFile {
    pub fn new(shape: Shape, network: Option<&Network>) -> Result<ClusterFile, String> {
        let mut file = ClusterFile {
            kind: KIND.into(),
            format: FORMAT,
            base_port: shape.base_port,
            cores: shape.cores,
            disks_per_node: shape.disks_per_node,
            disk_size: shape.disk_size,
            metas: Vec::new(),
            nodes: Vec::new(),
            repair_after: None,
            binaries: None,
        };
        file.metas = (1..=shape.metas)
            .map(|id| {
                let name = format!("meta-{id}");
                let place = Place::of(network, &name, META_HOSTS_OFFSET + id);
                Meta { id, port: shape.base_port.saturating_add(id - 1), name, place }
            })
            .collect();
        file.grow(shape.nodes, network)?;
        Ok(file)
    }

    /// Adds nodes until there are `nodes`.
    pub fn grow(&mut self, nodes: u16, network: Option<&Network>) -> Result<(), String> {
        let last = u32::from(self.base_port)
            + u32::from(NODE_PORTS_OFFSET)
            + u32::from(PORTS_PER_NODE) * u32::from(nodes.saturating_sub(1))
            + u32::from(self.cores);
        if last > u32::from(u16::MAX) {
            let base = self.base_port;
            return Err(format!(
                "{nodes} nodes from base port {base} on would need port {last}: use a lower --base-port"
            ));
        }
        for number in self.nodes.len() as u16 + 1..=nodes {
            let name = format!("node-{number}");
            let admin_port = self.base_port + NODE_PORTS_OFFSET + PORTS_PER_NODE * (number - 1);
            self.nodes.push(Node {
                admin_port,
                data_ports: (1..=self.cores).map(|core| admin_port + core).collect(),
                disks: (1..=self.disks_per_node).map(|d| Path::new(&name).join(format!("disk-{d}.img"))).collect(),
                place: Place::of(network, &name, number),
                name,
            });
        }
        Ok(())
    }

    /// Reads the folder's cluster file; `None` if there is none.
    pub fn load(layout: &Layout) -> anyhow::Result<Option<ClusterFile>> {
        let path = layout.cluster_file();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        let file: ClusterFile = serde_json::from_slice(&text)
            .with_context(|| format!("{} does not describe a Levee cluster", path.display()))?;
        file.check().map_err(|why| anyhow::anyhow!("{} does not describe a Levee cluster: {why}", path.display()))?;
        Ok(Some(file))
    }

    /// A file that was edited must not lead a command out of the folder.
    fn check(&self) -> Result<(), String> {
        if self.kind != KIND {
            return Err(format!("its kind is '{}'", self.kind));
        }
        if self.format != FORMAT {
            return Err(format!("its format is {}, this program knows format {FORMAT}", self.format));
        }
        if self.metas.is_empty() {
            return Err("it has no meta server".into());
        }
        let plain = |name: &str| levee_proto::api::is_valid_name(name);
        if let Some(name) = self.names().find(|name| !plain(name)) {
            return Err(format!("'{name}' cannot be the name of a daemon"));
        }
        let inside = |disk: &Path| disk.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let mut places = self.metas.iter().map(|meta| &meta.place).chain(self.nodes.iter().map(|node| &node.place));
        if let Some(place) = places.find(|place| !place.is_plain()) {
            return Err(format!("'{}' and {:?} are no place for a daemon", place.host, place.namespace));
        }
        match self.nodes.iter().flat_map(|node| &node.disks).find(|disk| !inside(disk)) {
            Some(disk) => Err(format!("disk {} is outside of the folder", disk.display())),
            None => Ok(()),
        }
    }

    /// Writes the file so that a crash leaves the old or the new one.
    pub fn store(&self, layout: &Layout) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let path = layout.cluster_file();
        write_atomically(&path, &text).with_context(|| format!("cannot write {}", path.display()))
    }

    pub fn meta_urls(&self) -> Vec<String> {
        self.metas.iter().map(Meta::url).collect()
    }

    /// All daemons, meta servers first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.metas.iter().map(|meta| meta.name.as_str()).chain(self.nodes.iter().map(|node| node.name.as_str()))
    }
}

/// Replaces a file whole or not at all.
pub fn write_atomically(path: &Path, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape { base_port: 7400, metas: 3, nodes: 2, cores: 2, disks_per_node: 1, disk_size: 16 << 30 }
    }

    #[test]
    fn ports_follow_from_the_base() {
        let file = ClusterFile::new(shape(), None).unwrap();
        assert_eq!(file.meta_urls(), ["http://127.0.0.1:7400", "http://127.0.0.1:7401", "http://127.0.0.1:7402"]);
        assert_eq!(file.nodes[1].admin_port, 7510);
        assert_eq!(file.nodes[1].data_ports, [7511, 7512]);
        assert_eq!(file.nodes[1].disks, [Path::new("node-2/disk-1.img")]);
    }

    #[test]
    fn daemons_are_placed_in_namespaces_on_demand() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::at(dir.path()).unwrap();
        let network = Network { prefix: "test-1".into(), subnet: [10, 1, 2] };
        let mut file = ClusterFile::new(shape(), Some(&network)).unwrap();
        assert_eq!(file.meta_urls()[1], "http://10.1.2.202:7401");
        assert_eq!(file.nodes[1].data(), ["10.1.2.2:7511", "10.1.2.2:7512"]);
        assert_eq!(file.nodes[1].place.namespace.as_deref(), Some("test-1-node-2"));
        file.store(&layout).unwrap();
        assert_eq!(ClusterFile::load(&layout).unwrap().as_ref(), Some(&file));
        file.nodes[1].place.namespace = Some("../elsewhere".into());
        file.store(&layout).unwrap();
        assert!(ClusterFile::load(&layout).is_err());
    }

    #[test]
    fn growing_keeps_what_is_there() {
        let mut file = ClusterFile::new(shape(), None).unwrap();
        let before = file.nodes.clone();
        file.grow(4, None).unwrap();
        assert_eq!(file.nodes[..2], before);
        assert_eq!(file.nodes[3].name, "node-4");
    }

    #[test]
    fn ports_beyond_the_last_are_refused() {
        assert!(ClusterFile::new(Shape { base_port: 65_500, ..shape() }, None).is_err());
    }

    #[test]
    fn a_file_that_leads_elsewhere_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::at(dir.path()).unwrap();
        assert_eq!(ClusterFile::load(&layout).unwrap(), None);
        let good = ClusterFile::new(shape(), None).unwrap();
        good.store(&layout).unwrap();
        assert_eq!(ClusterFile::load(&layout).unwrap(), Some(good.clone()));
        let mut bad = good.clone();
        bad.nodes[0].disks[0] = "../elsewhere".into();
        bad.store(&layout).unwrap();
        assert!(ClusterFile::load(&layout).is_err());
        let mut bad = good;
        bad.kind = "other".into();
        bad.store(&layout).unwrap();
        assert!(ClusterFile::load(&layout).is_err());
    }
}
