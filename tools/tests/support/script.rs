//! A server that answers as told, and what the meta server's answers look like.

use super::http::{Request, Response, serve};
use super::{Ran, built, levee};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

pub const UUID: &str = "6f0c3a52-3b1e-4b62-9d53-0f6a4b1c2d3e";

/// Answers to `METHOD /path?query`; the last of several is repeated.
type Script = BTreeMap<String, Vec<Response>>;

/// A server that follows a script, and what it was asked.
pub struct Server {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn start(script: impl IntoIterator<Item = (&'static str, Response)>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut answers = Script::new();
        for (request, response) in script {
            answers.entry(request.into()).or_default().push(response);
        }
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answers, log) = (Mutex::new(answers), asked.clone());
        serve(listener, move |request: &Request| {
            let line = format!("{} {}", request.method, request.target);
            let body = String::from_utf8_lossy(&request.body).into_owned();
            log.lock().unwrap().push(if body.is_empty() { line.clone() } else { format!("{line} {body}") });
            let mut answers = answers.lock().unwrap();
            // An id that the command has made is not in the script.
            let known = if answers.contains_key(&line) {
                line.clone()
            } else {
                line.split("?id=").next().unwrap_or_default().into()
            };
            match answers.get_mut(&known) {
                Some(list) if list.len() > 1 => list.remove(0),
                Some(list) => copy(&list[0]),
                None => problem(500, "internal", &format!("not in the script: {line}")),
            }
        });
        Server { url, asked }
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Runs a command on this cluster.
    pub fn run(&self, args: &[&str]) -> Ran {
        run(args, &self.url)
    }
}

pub fn run(args: &[&str], cluster: &str) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    Ran::of(levee(built(), folder.path()).args(["--cluster", cluster]).args(args))
}

fn copy(response: &Response) -> Response {
    Response { status: response.status, content_type: response.content_type, body: response.body.clone() }
}

pub fn ok(body: Value) -> Response {
    Response::json(200, body)
}

pub fn problem(status: u16, kind: &str, detail: &str) -> Response {
    let body = json!({"type": "about:blank", "title": "T", "status": status, "detail": detail, "kind": kind});
    Response { content_type: "application/problem+json", ..Response::json(status, body) }
}

pub fn volume(attachment: Value) -> Value {
    let status = attachment["report"]["state"].as_str().unwrap_or("detached").to_string();
    json!({"status": status,
           "id": 7, "name": "vm1", "size": 1u64 << 30, "copies": 3, "min_copies": 2, "epoch": 4, "version": 1,
           "geometry": {"stripe_unit": 1 << 20, "group_chunks": 4}, "chunks": 4, "attachment": attachment})
}

pub fn attachment(report: Value) -> Value {
    json!({"node": 1, "node_name": "node-1", "attachment": 3, "report": report})
}

pub fn report(state: &str, socket: Option<&str>, detail: Option<&str>) -> Value {
    json!({"volume": 7, "epoch": 4, "state": state, "socket": socket, "detail": detail,
           "healthy_chunks": 4, "degraded_chunks": 0})
}

pub fn serving() -> Response {
    ok(volume(attachment(report("serving", Some("/run/vm1.sock"), None))))
}

pub fn node(id: u32, admin_url: &str) -> Value {
    json!({"id": id, "name": format!("node-{id}"), "state": "up", "status": "up", "admin_url": admin_url,
           "cores": ["127.0.0.1:1"], "disks": [id]})
}

/// An address at which nobody listens: no other test can be given this port.
pub fn dead_url() -> String {
    "http://127.0.0.1:1".into()
}
