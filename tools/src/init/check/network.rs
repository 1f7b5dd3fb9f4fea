//! Whether a host has its addresses and ports, and reaches the meta servers; whether another node has its name.

use super::{Finding, Options};
use crate::client::MetaClient;
use levee_proto::api::{NodeInfo, NodeState};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

pub async fn look(meta: Option<&Options>, node: Option<&Options>, patience: Duration) -> Vec<Finding> {
    let mut findings = Vec::new();
    let own: Vec<String> = meta.and_then(|meta| meta.one("listen")).into_iter().collect();
    let admin: Vec<String> = node.and_then(|node| node.one("admin")).into_iter().collect();
    let data = node.map(|node| node.all("data")).unwrap_or_default();

    for address in &own {
        let runs = is_metrics_of(address, "levee_meta_", patience).await;
        findings.push(port("meta server", address, runs));
    }
    let runs = match admin.first() {
        Some(admin) => is_metrics_of(admin, "levee_shared_cache_", patience).await,
        None => false,
    };
    findings.extend(admin.iter().chain(&data).map(|address| port("storage daemon", address, runs)));

    let mut answering = Vec::new();
    for url in told(meta, node) {
        let address = url.trim_start_matches("http://").trim_end_matches('/').to_string();
        if own.contains(&address) {
            continue;
        }
        let (finding, answers) = reach(&address, patience).await;
        findings.push(finding);
        if answers {
            answering.push(url);
        }
    }
    if let (Some(node), false) = (node, answering.is_empty()) {
        findings.extend(name(node, admin.first(), answering, patience).await);
    }
    findings
}

/// Those that either daemon is told of.
pub fn told(meta: Option<&Options>, node: Option<&Options>) -> Vec<String> {
    let peers = meta.map(|meta| meta.all("peers")).unwrap_or_default();
    let peers = peers.iter().filter_map(|peer| peer.split_once('=')).map(|(_, url)| url.to_string());
    let mut urls: Vec<_> = peers.chain(node.map(|node| node.all("meta")).unwrap_or_default()).collect();
    urls.sort();
    urls.dedup();
    urls
}

/// Whether one of our daemons answers there: then it may have the ports.
async fn is_metrics_of(address: &str, name: &str, patience: Duration) -> bool {
    let Ok(http) = reqwest::Client::builder().no_proxy().timeout(patience).build() else { return false };
    let Ok(answer) = http.get(format!("http://{address}/metrics")).send().await else { return false };
    answer.text().await.is_ok_and(|text| text.contains(name))
}

fn port(daemon: &str, address: &str, runs: bool) -> Finding {
    let what = format!("address {address}");
    match TcpListener::bind(address).map_err(|e| (e.kind(), e)) {
        Ok(_) => Finding::ok(what, format!("free for the {daemon}")),
        Err((ErrorKind::AddrInUse, _)) if runs => Finding::ok(what, format!("the {daemon} runs")),
        Err((ErrorKind::AddrInUse, _)) => {
            Finding::missing(what, "another program has the port", "find it with `ss -ltnp`, or choose another port")
        }
        Err((ErrorKind::AddrNotAvailable, _)) => Finding::missing(
            what,
            "this host does not have the address",
            "are these the files of this host? See `ip address`",
        ),
        Err((_, e)) => Finding::missing(what, e.to_string(), "correct the address in the configuration"),
    }
}

async fn reach(address: &str, patience: Duration) -> (Finding, bool) {
    let what = format!("meta server {address}");
    match timeout(patience, TcpStream::connect(address)).await {
        Ok(Ok(_)) => (Finding::ok(what, "answers"), true),
        Ok(Err(e)) if e.kind() == ErrorKind::ConnectionRefused => {
            (Finding::note(what, "the host can be reached, no meta server runs there yet", ""), false)
        }
        Ok(Err(e)) => (Finding::missing(what, e.to_string(), "look at the network, and at firewalls"), false),
        Err(_) => {
            let detail = format!("did not answer within {} s", patience.as_secs_f32());
            (Finding::missing(what, detail, "is the host up? Look at the network, and at firewalls"), false)
        }
    }
}

async fn name(node: &Options, admin: Option<&String>, meta: Vec<String>, patience: Duration) -> Option<Finding> {
    let name = node.one("name")?;
    let own = format!("http://{}", admin?);
    let client = MetaClient::new(meta, String::new());
    let nodes = timeout(patience, client.nodes()).await;
    let Ok(Ok(nodes)) = nodes else {
        let detail = "the meta servers cannot say yet whether another node has the name";
        return Some(Finding::note(format!("name {name}"), detail, ""));
    };
    Some(judge_name(&name, &own, &nodes))
}

fn judge_name(name: &str, own: &str, nodes: &[NodeInfo]) -> Finding {
    let what = format!("name {name}");
    match nodes.iter().find(|node| node.name == name) {
        None => Finding::ok(what, "no other node has it"),
        Some(node) if node.admin_url == own => Finding::ok(what, "known to the cluster as this node"),
        Some(node) if node.state == NodeState::Up => Finding::missing(
            what,
            format!("a node of this name is up at {}", node.admin_url),
            "a name is a node's identity: choose another one",
        ),
        Some(node) => Finding::note(
            what,
            format!("a node of this name was at {}", node.admin_url),
            "right only if this is that node, with its disks, at a new address",
        ),
    }
}
