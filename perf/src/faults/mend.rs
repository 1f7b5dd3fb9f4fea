//! What an operator does once the cause of a disk's failure is gone: takes the disk back into service, and starts its
//! daemon again if that does not find the disk working by itself.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use super::inject::Injector;

/// How long a daemon may take to find its disk working again, before it is started again.
const PATIENCE: Duration = Duration::from_secs(10);

/// A disk that was given up.
#[derive(Debug, PartialEq, Eq)]
struct Dead {
    disk: u64,
    node: String,
}

/// Takes disks back while the cluster is waited for: one may be given up some time after it failed.
pub struct Mender<'i> {
    injector: &'i Injector<'i>,
    begun: Instant,
    /// Daemons that had to be started again.
    pub restarted: Vec<String>,
}

impl<'i> Mender<'i> {
    pub fn new(injector: &'i Injector<'i>) -> Mender<'i> {
        Mender { injector, begun: Instant::now(), restarted: Vec::new() }
    }

    /// Takes back what can be; tells what cannot, if anything.
    pub fn mend(&mut self) -> Result<Option<String>> {
        let cluster = self.injector.cluster;
        // Where the cluster does not answer there is more to wait for than disks.
        let (Ok(disks), Ok(status)) = (cluster.disks(), cluster.status()) else { return Ok(None) };
        let mut left = None;
        for Dead { disk, node } in dead_disks(&disks, &status) {
            // A refusal says that the daemon still finds the disk failed.
            let Err(refusal) = cluster.undrain(disk) else { continue };
            if self.begun.elapsed() > PATIENCE && !self.restarted.contains(&node) {
                self.injector.restart(std::slice::from_ref(&node))?;
                self.restarted.push(node);
            }
            left = Some(format!("{refusal:#}"));
        }
        Ok(left)
    }
}

fn dead_disks(disks: &[Value], status: &Value) -> Vec<Dead> {
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    let dead = |disk: &Value| -> Option<Dead> {
        let node = nodes.iter().find(|node| node["id"] == disk["node"])?;
        let is_dead = disk["state"] == "dead";
        is_dead.then_some(Dead { disk: disk["id"].as_u64()?, node: node["name"].as_str()?.into() })
    };
    disks.iter().filter_map(dead).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn dead_disks_are_known_with_their_nodes() {
        let status = json!({ "nodes": [{ "id": 1, "name": "node-1" }, { "id": 2, "name": "node-2" }] });
        let disks = [
            json!({ "id": 7, "node": 2, "state": "dead" }),
            json!({ "id": 8, "node": 1, "state": "in-service" }),
            json!({ "id": 9, "node": 3, "state": "dead" }),
        ];
        assert_eq!(dead_disks(&disks, &status), [Dead { disk: 7, node: "node-2".into() }]);
        assert_eq!(dead_disks(&[], &status), []);
        assert_eq!(dead_disks(&disks, &Value::Null), []);
    }
}
