//! Whether the cluster is whole: all daemons up, all volumes served with all of their copies.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use super::volumes::Loads;
use crate::cluster::Cluster;

/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Name of the meta server that leads, if the meta servers can tell.
pub fn leader(cluster: &Cluster) -> Option<String> {
    let id = cluster.status().ok()?.pointer("/leader")?.as_u64()?;
    Some(format!("meta-{id}"))
}

/// Waits until the meta servers hear a node.
pub fn wait_until_up(cluster: &Cluster, node: &str, limit: Duration) -> Result<()> {
    let begun = Instant::now();
    let is_up = |status: &Value| {
        let nodes = status["nodes"].as_array()?;
        nodes.iter().any(|n| n["name"] == node && n["state"] == "up").then_some(())
    };
    while cluster.status().ok().as_ref().and_then(is_up).is_none() {
        if begun.elapsed() > limit {
            bail!("{node} was not up within {} s", limit.as_secs())
        }
        std::thread::sleep(LOOK_PAUSE);
    }
    Ok(())
}

/// Waits until nothing is missing; an error that says what is, after `limit`. `mend` does what an operator would
/// meanwhile, and tells what it could not do yet.
pub fn wait_until_whole(
    cluster: &Cluster,
    loads: &Loads,
    limit: Duration,
    mut mend: impl FnMut() -> Result<Option<String>>,
) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let unmended = mend()?;
        let Some(missing) = unmended.or_else(|| missing(cluster, &loads.names())) else { return Ok(begun.elapsed()) };
        if begun.elapsed() > limit {
            bail!("the cluster was not whole {} s after the last fault was undone: {missing}", limit.as_secs())
        }
        loads.let_run(LOOK_PAUSE)?;
    }
}

/// The first thing that is missing.
fn missing(cluster: &Cluster, volumes: &[String]) -> Option<String> {
    let status = match cluster.status() {
        Ok(status) => status,
        Err(e) => return Some(format!("{e:#}")),
    };
    if let Some(what) = missing_daemon(&status) {
        return Some(what);
    }
    volumes.iter().find_map(|name| match cluster.volume(name) {
        Ok(volume) => missing_copies(name, &volume),
        Err(e) => Some(format!("{e:#}")),
    })
}

fn missing_daemon(status: &Value) -> Option<String> {
    if status["leader"].is_null() {
        return Some("the meta servers have no leader".into());
    }
    let list = |key: &str| status[key].as_array().cloned().unwrap_or_default();
    if let Some(member) = list("members").iter().find(|member| member["answers"] != true) {
        return Some(format!("meta server {} does not answer", member["id"]));
    }
    let down = list("nodes").into_iter().find(|node| node["state"] != "up")?;
    Some(format!("node {} is {}", down["name"], down["state"]))
}

fn missing_copies(name: &str, volume: &Value) -> Option<String> {
    let report = &volume["attachment"]["report"];
    if report["state"] != "serving" {
        return Some(format!("volume {name} is not served: {report}"));
    }
    let degraded = report["degraded_chunks"].as_u64().unwrap_or(u64::MAX);
    if degraded > 0 {
        return Some(format!("volume {name} has {degraded} degraded chunks: {}", report["degraded"]));
    }
    let leaving = report["leaving_replicas"].as_u64().unwrap_or(0);
    (leaving > 0).then(|| format!("volume {name} has {leaving} copies on disks that are lost or being emptied"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whatever_is_missing_is_named() {
        let mut status = json!({
            "leader": 1,
            "members": [{ "id": 1, "answers": true }, { "id": 2, "answers": true }],
            "nodes": [{ "name": "node-1", "state": "up" }],
        });
        assert_eq!(missing_daemon(&status), None);
        status["nodes"][0]["state"] = json!("down");
        assert!(missing_daemon(&status).unwrap().contains("node-1"));
        status["members"][1]["answers"] = json!(false);
        assert_eq!(missing_daemon(&status).unwrap(), "meta server 2 does not answer");
        status["leader"] = Value::Null;
        assert!(missing_daemon(&status).unwrap().contains("no leader"));
    }

    #[test]
    fn a_volume_is_whole_when_it_is_served_with_all_copies() {
        let volume =
            |state, degraded| json!({ "attachment": { "report": { "state": state, "degraded_chunks": degraded } } });
        assert_eq!(missing_copies("v", &volume("serving", 0)), None);
        assert!(missing_copies("v", &volume("serving", 2)).unwrap().contains("2 degraded"));
        assert!(missing_copies("v", &volume("opening", 0)).unwrap().contains("not served"));
        assert!(missing_copies("v", &json!({ "attachment": null })).is_some());
    }
}
