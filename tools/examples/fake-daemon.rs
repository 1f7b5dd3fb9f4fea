//! Stands in for `levee-metad` and `levee-stored` in the tests of `levee up`: under the name of
//! either it takes the same command line and answers as much of the API as `levee up` looks at.
//!
//! `LEVEE_FAKE` makes it misbehave: `die` (a storage daemon that stops at its start), `full` (a disk
//! that cannot be formatted), `stubborn` (ignores SIGTERM).

#[path = "../tests/support/http.rs"]
mod http;

use http::{Request, Response, serve};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const UUID: &str = "6f0c3a52-3b1e-4b62-9d53-0f6a4b1c2d3e";

fn main() -> ExitCode {
    let mut args = std::env::args();
    let program = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    let fault = std::env::var("LEVEE_FAKE").unwrap_or_default();
    if fault == "stubborn" {
        let mut terminate = nix::sys::signal::SigSet::empty();
        terminate.add(nix::sys::signal::Signal::SIGTERM);
        terminate.thread_block().expect("signals can be blocked");
    }
    let outcome = match (Path::new(&program).file_name().and_then(|n| n.to_str()), args.first().map(String::as_str)) {
        (Some("levee-metad"), _) => metad(&args),
        (Some("levee-stored"), Some("format")) => format(&args, &fault),
        (Some("levee-stored"), Some("run")) => stored(&args, &fault),
        _ => Err(format!("{program}: unknown program")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn option<'a>(args: &'a [String], name: &str) -> Result<&'a str, String> {
    let at = args.iter().position(|arg| arg == name).ok_or(format!("{name} is missing"))?;
    args.get(at + 1).map(String::as_str).ok_or(format!("{name} has no value"))
}

fn listen(address: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).map_err(|e| format!("cannot listen on {address}: {e}"))
}

fn for_ever() -> ! {
    loop {
        std::thread::park();
    }
}

fn metad(args: &[String]) -> Result<(), String> {
    let id: u64 = option(args, "--id")?.parse().map_err(|_| "bad --id")?;
    option(args, "--dir")?;
    let address = option(args, "--listen")?;
    let url = format!("http://{address}");
    let nodes: Mutex<Vec<Value>> = Mutex::default();
    serve(listen(address)?, move |request: &Request| match (request.method.as_str(), request.target.as_str()) {
        ("GET", "/v1/cluster") => Response::json(
            200,
            json!({"cluster": UUID, "member": id, "leader": 1, "members": [{"id": id, "url": url}], "applied": 1}),
        ),
        ("GET", "/v1/health") => {
            Response::json(200, json!({"healthy": true, "summary": "a few daemons that do nothing", "conditions": []}))
        }
        ("POST", "/v1/nodes") => {
            let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            let mut nodes = nodes.lock().expect("no thread panics");
            nodes.retain(|node| node["name"] != asked["name"]);
            let node = nodes.len() + 1;
            nodes.push(json!({"id": node, "name": asked["name"], "state": "up", "disks": [],
                              "admin_url": asked["admin_url"], "cores": asked["cores"]}));
            Response::json(200, json!({"cluster": UUID, "node": node, "disks": []}))
        }
        ("GET", target) if target.starts_with("/v1/nodes") => {
            Response::json(200, json!({"items": *nodes.lock().expect("no thread panics")}))
        }
        ("GET", target) if target.starts_with("/v1/disks") || target.starts_with("/v1/volumes") => {
            Response::json(200, json!({"items": []}))
        }
        _ => Response::json(404, json!({})),
    });
    for_ever()
}

fn format(args: &[String], fault: &str) -> Result<(), String> {
    let path = args.get(1).ok_or("no path")?;
    option(args, "--size")?;
    option(args, "--cores")?;
    if fault == "full" {
        let _ = std::fs::write(path, "half a disk");
        return Err("no space left on device".into());
    }
    std::fs::OpenOptions::new().write(true).create_new(true).open(path).map(drop).map_err(|e| format!("{path}: {e}"))
}

fn stored(args: &[String], fault: &str) -> Result<(), String> {
    let name = option(args, "--name")?.to_string();
    if fault == "die" {
        return Err("the disk is broken".into());
    }
    for needed in [option(args, "--dir")?, option(args, "--disk")?, option(args, "--sockets")?] {
        std::fs::metadata(needed).map_err(|e| format!("{needed}: {e}"))?;
    }
    let cores: Vec<&str> = option(args, "--data")?.split(',').collect();
    let links: Vec<_> = cores.iter().map(|address| listen(address)).collect::<Result<_, _>>()?;
    let admin = option(args, "--admin")?;
    let registered: &'static AtomicBool = Box::leak(Box::default());
    let status_name = name.clone();
    serve(listen(admin)?, move |_| {
        let node = registered.load(Ordering::SeqCst).then_some(1);
        let pid = std::process::id();
        Response::json(
            200,
            json!({"name": status_name, "node": node, "incarnation": UUID, "pid": pid, "uptime_ms": 1, "volumes": [], "disks": []}),
        )
    });
    let body = json!({"name": name, "admin_url": format!("http://{admin}"), "cores": cores}).to_string();
    let meta = option(args, "--meta")?.split(',').next().unwrap_or_default();
    let meta = meta.trim_start_matches("http://");
    while post(meta, "/v1/nodes", &body).is_err() {
        std::thread::sleep(Duration::from_millis(50));
    }
    registered.store(true, Ordering::SeqCst);
    let _held = links;
    for_ever()
}

fn post(host: &str, path: &str, body: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(host)?;
    let length = body.len();
    write!(stream, "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n{body}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(std::io::Error::other(answer)) }
}
