//! What to start: the cluster's daemons with their command lines, and whether their ports are free.

use super::layout::{Binaries, ClusterFile, DEFAULT_BASE_PORT, Layout, Meta, Node, Shape};
use super::place::Place;
use super::process::PidFile;
use super::spawn;
use crate::cli::Up;
use crate::client::wait_for;
use crate::errors::Usage;
use crate::limits::{KILL_TIMEOUT, PORT_TIMEOUT};
use anyhow::Context;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

const METAD: &str = "levee-metad";
const STORED: &str = "levee-stored";
const DEFAULT_DISK_SIZE: u64 = 16 << 30;
const DEFAULT_NODES: u16 = 3;

/// One process of the cluster.
#[derive(Debug)]
pub struct Daemon {
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub ports: Vec<u16>,
    pub role: Role,
    pub place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Answers the API at this URL.
    Meta { id: u64, url: String },
    /// Answers admin requests at this URL.
    Node { admin: String },
}

/// The cluster as it should be: that of the folder, or a new one; grown if more nodes are asked for.
pub fn cluster(args: &Up, existing: Option<ClusterFile>) -> anyhow::Result<ClusterFile> {
    let metas: Option<u16> = args.metas.as_deref().map(str::parse).transpose()?;
    let Some(mut file) = existing else {
        let shape = Shape {
            base_port: args.base_port.unwrap_or(DEFAULT_BASE_PORT),
            metas: metas.unwrap_or(1),
            nodes: args.nodes.unwrap_or(DEFAULT_NODES),
            cores: args.cores.unwrap_or(1),
            disks_per_node: args.disks_per_node.unwrap_or(1),
            disk_size: args.disk_size.unwrap_or(DEFAULT_DISK_SIZE),
        };
        return ClusterFile::new(shape, args.network.as_ref()).map_err(|e| Usage(e).into());
    };
    let here = file.metas.len() as u64;
    refuse_change("--metas", metas.map(u64::from), here)?;
    refuse_change("--base-port", args.base_port.map(u64::from), file.base_port.into())?;
    refuse_change("--cores", args.cores.map(u64::from), file.cores.into())?;
    refuse_change("--disks-per-node", args.disks_per_node.map(u64::from), file.disks_per_node.into())?;
    refuse_change("--disk-size", args.disk_size, file.disk_size)?;
    if let Some(nodes) = args.nodes {
        let here = file.nodes.len();
        if usize::from(nodes) < here {
            let detail = format!("this cluster has {here} nodes, and nodes cannot be taken away with --nodes {nodes}");
            return Err(Usage(detail).into());
        }
        file.grow(nodes, args.network.as_ref()).map_err(Usage)?;
    }
    Ok(file)
}

fn refuse_change(option: &str, asked: Option<u64>, here: u64) -> anyhow::Result<()> {
    match asked {
        Some(asked) if asked != here => Err(Usage(format!(
            "{option} {asked} differs from this cluster's {here}, which is fixed: leave {option} out, or use another --dir"
        ))
        .into()),
        _ => Ok(()),
    }
}

/// Refuses names that are none of the cluster's daemons.
pub fn check_names(file: &ClusterFile, names: &[String]) -> anyhow::Result<()> {
    match names.iter().find(|name| !file.names().any(|known| known == *name)) {
        Some(name) => {
            let known = file.names().collect::<Vec<_>>().join(", ");
            Err(Usage(format!("this cluster has no daemon '{name}'; it has {known}")).into())
        }
        None => Ok(()),
    }
}

/// Finds the daemons' programs: beside this one, else in PATH.
pub fn find_binaries() -> anyhow::Result<Binaries> {
    Ok(Binaries { metad: find(METAD)?, stored: find(STORED)? })
}

fn find(name: &str) -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe().context("cannot find out where this program is")?;
    let beside = here.parent().map(|folder| folder.join(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).filter(|folder| folder.is_absolute()).map(|folder| folder.join(name));
    beside.into_iter().chain(in_path).find(|candidate| is_program(candidate)).ok_or_else(|| {
        anyhow::anyhow!("cannot find {name}: install it beside {} or in a folder of PATH", here.display())
    })
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Every daemon of the cluster, meta servers first.
pub fn daemons(file: &ClusterFile, binaries: &Binaries, layout: &Layout) -> Vec<Daemon> {
    let metas = file.metas.iter().map(|meta| meta_daemon(meta, file, binaries, layout));
    let nodes = file.nodes.iter().map(|node| node_daemon(node, file, binaries, layout));
    metas.chain(nodes).collect()
}

fn meta_daemon(meta: &Meta, file: &ClusterFile, binaries: &Binaries, layout: &Layout) -> Daemon {
    let mut args: Vec<OsString> = ["--id".into(), meta.id.to_string().into()].into();
    args.extend(["--listen".into(), meta.listen().into()]);
    args.extend(["--dir".into(), layout.state(&meta.name).into()]);
    if file.metas.len() > 1 {
        let peers: Vec<_> = file.metas.iter().map(|peer| format!("{}={}", peer.id, peer.url())).collect();
        args.extend(["--peers".into(), peers.join(",").into()]);
    }
    if let Some(seconds) = file.repair_after {
        args.extend(["--repair-after".into(), seconds.to_string().into()]);
    }
    Daemon {
        name: meta.name.clone(),
        program: binaries.metad.clone(),
        args,
        ports: vec![meta.port],
        role: Role::Meta { id: meta.id.into(), url: meta.url() },
        place: meta.place.clone(),
    }
}

fn node_daemon(node: &Node, file: &ClusterFile, binaries: &Binaries, layout: &Layout) -> Daemon {
    let mut args: Vec<OsString> = ["run".into(), "--name".into(), node.name.clone().into()].into();
    args.extend(["--meta".into(), file.meta_urls().join(",").into()]);
    args.extend(["--dir".into(), layout.state(&node.name).into()]);
    for disk in &node.disks {
        args.extend(["--disk".into(), layout.root.join(disk).into()]);
    }
    args.extend(["--admin".into(), node.admin().into()]);
    args.extend(["--data".into(), node.data().join(",").into()]);
    args.extend(["--sockets".into(), layout.sockets().into()]);
    Daemon {
        name: node.name.clone(),
        program: binaries.stored.clone(),
        args,
        ports: std::iter::once(node.admin_port).chain(node.data_ports.iter().copied()).collect(),
        role: Role::Node { admin: node.admin_url() },
        place: node.place.clone(),
    }
}

/// Those of `daemons` that do not run, and are asked for if any are. One that was killed a moment ago is
/// waited for, so that it counts as missing.
pub async fn missing(daemons: Vec<Daemon>, names: &[String], layout: &Layout) -> anyhow::Result<Vec<Daemon>> {
    let mut missing = Vec::new();
    for daemon in daemons {
        let wanted = names.is_empty() || names.contains(&daemon.name);
        if wanted && !is_running(&PidFile::of(layout, &daemon.name)).await? {
            missing.push(daemon);
        }
    }
    Ok(missing)
}

async fn is_running(pid_file: &PidFile) -> anyhow::Result<bool> {
    let Some(identity) = pid_file.running()? else { return Ok(false) };
    let gone = wait_for(KILL_TIMEOUT, async || anyhow::Ok((!identity.is_ending()?).then_some(())));
    match gone.await? {
        Some(()) => Ok(identity.is_running()?),
        None => anyhow::bail!("process {} does not end although it was killed: look at it with ps", identity.pid),
    }
}

fn bind(place: &Place, port: u16) -> std::io::Result<TcpListener> {
    let bind = || TcpListener::bind((place.host, port));
    match place.namespace_file() {
        Some(namespace) => spawn::within(&namespace, bind),
        None => bind(),
    }
}

/// Makes sure that the daemons will get their ports.
pub async fn check_ports(daemons: &[Daemon]) -> anyhow::Result<()> {
    let ports = daemons.iter().flat_map(|daemon| daemon.ports.iter().map(move |port| (daemon, *port)));
    for (Daemon { name, place, .. }, port) in ports {
        let free = wait_for(PORT_TIMEOUT, async || match bind(place, port) {
            Ok(_) => Ok(Some(())),
            Err(e) if e.kind() == ErrorKind::AddrInUse => Ok(None),
            Err(e) => Err(e),
        });
        if free.await.with_context(|| format!("port {port} of {name} cannot be used"))?.is_none() {
            anyhow::bail!(
                "port {port} of {name} is in use by another program: stop that, or choose other ports with --base-port"
            );
        }
    }
    Ok(())
}
