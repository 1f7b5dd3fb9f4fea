//! A cluster with one volume, all of it written: what is repaired.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{COPIES, RepairOptions};
use crate::cluster::{Cluster, Shape};
use crate::http;
use crate::load;

const VOLUME: &str = "repair";
/// The node that serves the volume, and the one whose disk is given up.
const GATEWAY: &str = "node-1";
const VICTIM: &str = "node-2";
/// How long the volume may take to be whole after it was written.
const WHOLE_LIMIT: Duration = Duration::from_secs(60);
/// After that: the guest counts as idle, and what the stores do after writing is done.
const SETTLE: Duration = Duration::from_secs(4);
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Disks are multiples of this, and have so many times their share of the data.
const MIN_DISK: u64 = 4 << 30;
const SPARE: u64 = 4;

pub struct Scene {
    pub cluster: Cluster,
    pub socket: PathBuf,
    /// The disk that is given up.
    pub victim: u64,
    /// Where the gateway and the meta server answer.
    gateway_port: u16,
    meta_port: u16,
    progress: fn(&str),
}

/// How the volume does, as its gateway sees it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    pub healthy: u64,
    pub degraded: u64,
    pub leaving: u64,
    pub copied: u64,
}

impl Health {
    fn of(status: &Value) -> Option<Health> {
        let volume = status["volumes"].get(0)?;
        let number = |name: &str| volume[name].as_u64();
        Some(Health {
            healthy: number("healthy_chunks")?,
            degraded: number("degraded_chunks")?,
            leaving: number("leaving_replicas")?,
            copied: number("copied_bytes")?,
        })
    }

    pub fn is_whole(&self) -> bool {
        self.healthy > 0 && self.degraded == 0 && self.leaving == 0
    }
}

impl Scene {
    pub fn start(options: &RepairOptions) -> Result<Scene> {
        let say = options.progress;
        say(&format!("starting a cluster of {} nodes and writing a volume", options.nodes));
        let cluster = Cluster::create_shaped(&options.dir.join("cluster"), &shape(options))?;
        cluster.create_volume(VOLUME, options.size)?;
        let socket = cluster.attach_at(VOLUME, GATEWAY)?.socket;
        let victim = cluster.disk_of(VICTIM)?["id"].as_u64().context("a disk without an id")?;
        let (meta_port, gateway_port) = cluster.ports(GATEWAY)?;
        let scene = Scene { cluster, socket, victim, gateway_port, meta_port, progress: say };
        scene.fill(options.size)?;
        Ok(scene)
    }

    pub fn say(&self, line: &str) {
        (self.progress)(line);
    }

    pub fn health(&self) -> Result<Health> {
        let status = http::get(self.gateway_port, "/v1/status")?;
        Health::of(&status).context("the gateway's status names no volume")
    }

    /// Replicas that the meta server counts on the victim.
    pub fn placed(&self) -> Result<u64> {
        let disks = http::get(self.meta_port, "/v1/disks?limit=1000")?;
        let items = disks["items"].as_array().context("the meta server lists no disks")?;
        let victim = items.iter().find(|disk| disk["id"] == self.victim);
        victim.and_then(|disk| disk["replicas"].as_u64()).context("the meta server does not know the disk")
    }

    /// Ends the daemons and deletes their data.
    pub fn stop(self) -> Result<()> {
        self.cluster.destroy()
    }

    fn fill(&self, size: u64) -> Result<()> {
        load::fill(&self.socket, size).context("writing the volume")?;
        let begun = Instant::now();
        while !self.health()?.is_whole() {
            ensure!(begun.elapsed() < WHOLE_LIMIT, "the volume is not whole {} s after it was written", {
                WHOLE_LIMIT.as_secs()
            });
            std::thread::sleep(LOOK_PAUSE);
        }
        std::thread::sleep(SETTLE);
        Ok(())
    }
}

fn shape(options: &RepairOptions) -> Shape {
    Shape {
        base_port: options.base_port,
        nodes: options.nodes,
        metas: 1,
        disks_per_node: 1,
        disk_size: (options.size * COPIES / options.nodes as u64 * SPARE).next_multiple_of(MIN_DISK),
        network: None,
        repair_after: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_volume_is_whole_when_nothing_is_left_to_do() {
        let volume = |healthy, degraded, leaving| {
            json!({"volumes": [{"healthy_chunks": healthy, "degraded_chunks": degraded,
                                "leaving_replicas": leaving, "copied_bytes": 7}]})
        };
        let health = |v: Value| Health::of(&v).unwrap();
        assert!(health(volume(4, 0, 0)).is_whole());
        assert!(!health(volume(3, 1, 0)).is_whole() && !health(volume(4, 0, 1)).is_whole());
        assert!(!health(volume(0, 0, 0)).is_whole());
        assert_eq!(health(volume(4, 0, 0)).copied, 7);
        assert_eq!(Health::of(&json!({"volumes": []})), None);
    }
}
