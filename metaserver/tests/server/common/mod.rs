//! Real `levee-metad` processes on free ports, and typed requests to them.
#![allow(dead_code)]

use levee_proto::api::*;
use levee_proto::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use uuid::Uuid;

/// Far beyond what is needed: only a hang reaches it, never a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn metad(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_levee-metad"));
    command.args(args).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs to the end; for starts that must fail.
pub fn run(args: &[&str]) -> Output {
    metad(args).output().expect("levee-metad runs")
}

/// A free port that stays free while its member is down: below the range that the kernel takes the
/// ports of outgoing connections from.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let n = std::process::id().wrapping_mul(37).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + u16::try_from(n % 20_000).expect("small");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// One member; killed when dropped.
pub struct Member {
    pub url: String,
    pub dir: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Member {
    fn new(base: &Path, id: u64, ports: &[u16], extra: &[&str]) -> Member {
        let port = ports[usize::try_from(id).unwrap() - 1];
        let dir = base.join(format!("m{id}"));
        let mut args = vec!["--id".to_string(), id.to_string()];
        args.extend(["--listen".into(), format!("127.0.0.1:{port}"), "--dir".into(), dir.display().to_string()]);
        if ports.len() > 1 {
            let peers: Vec<_> = (1..).zip(ports).map(|(id, port)| format!("{id}=http://127.0.0.1:{port}")).collect();
            args.extend(["--peers".into(), peers.join(",")]);
        }
        args.extend(extra.iter().map(|a| a.to_string()));
        Member { url: format!("http://127.0.0.1:{port}"), dir, args, log: base.join(format!("m{id}.log")), child: None }
    }

    /// One that is not in the group yet.
    pub fn joining(group: &Group, id: u64, extra: &[&str]) -> Member {
        let port = free_port();
        let mut member = Member::new(group.base.path(), 1, &[port], &[]);
        member.dir = group.base.path().join(format!("m{id}"));
        member.log = group.base.path().join(format!("m{id}.log"));
        let at: Vec<&str> = group.members.iter().map(|m| m.url.as_str()).collect();
        member.args = ["--id".to_string(), id.to_string(), "--listen".into(), format!("127.0.0.1:{port}")].to_vec();
        member.args.extend(["--dir".into(), member.dir.display().to_string(), "--join".into(), at.join(",")]);
        member.args.extend(extra.iter().map(|a| a.to_string()));
        member
    }

    /// Takes an option and its value away, and others on.
    pub fn change_args(&mut self, without: &str, with: &[&str]) {
        if let Some(at) = self.args.iter().position(|a| a == without) {
            self.args.drain(at..at + 2);
        }
        self.args.extend(with.iter().map(|a| a.to_string()));
    }

    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a running member");
        kill(Pid::from_raw(child.id().cast_signed()), signal).expect("a signal");
    }

    /// Waits until the process has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("a started member");
        let status = patiently("ending", async || child.try_wait().expect("a child")).await;
        self.child = None;
        status
    }

    pub fn start(&mut self) {
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        let log = File::options().create(true).append(true).open(&self.log).expect("a log file");
        self.child = Some(metad(&args).stdout(Stdio::null()).stderr(log).spawn().expect("levee-metad starts"));
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a running member");
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).expect("a signal");
        child.wait().expect("an exit status")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether the member ended because its port was taken meanwhile.
    fn clashed(&mut self) -> bool {
        let ended = self.child.as_mut().is_some_and(|c| c.try_wait().expect("a child").is_some());
        assert!(!ended || self.log().contains("cannot listen"), "levee-metad ended: {}", self.log());
        ended
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.url, self.log());
        }
    }
}

/// A group of members with their folders.
pub struct Group {
    pub members: Vec<Member>,
    pub http: reqwest::Client,
    pub base: TempDir,
}

impl Group {
    /// Starts `size` members and waits until all of them know a leader.
    pub async fn start(size: usize, extra: &[&str]) -> Group {
        let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        loop {
            let base = tempfile::tempdir().expect("a folder");
            let ports: Vec<u16> = (0..size).map(|_| free_port()).collect();
            let mut members: Vec<Member> =
                (1..=size as u64).map(|id| Member::new(base.path(), id, &ports, extra)).collect();
            members.iter_mut().for_each(Member::start);
            let mut group = Group { members, http: http.clone(), base };
            if group.ready().await {
                return group;
            }
        }
    }

    /// Waits until every member answers; false if one of them lost its port.
    pub async fn ready(&mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        for i in 0..self.members.len() {
            while self.members[i].child.is_some() && !self.healthy(i).await {
                if self.members[i].clashed() {
                    return false;
                }
                assert!(Instant::now() < end, "member {} does not get ready", i + 1);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        true
    }

    async fn healthy(&self, i: usize) -> bool {
        self.http.get(format!("{}/v1/cluster", self.members[i].url)).send().await.is_ok_and(|r| r.status() == 200)
    }

    pub fn client(&self, i: usize) -> Client {
        Client { url: self.members[i].url.clone(), http: self.http.clone() }
    }
}

/// Sends requests to one member.
#[derive(Clone)]
pub struct Client {
    pub url: String,
    pub http: reqwest::Client,
}

impl Client {
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        decode(self.http.get(format!("{}{path}", self.url)).send().await.map_err(lost)?).await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Problem> {
        decode(self.http.post(format!("{}{path}", self.url)).json(body).send().await.map_err(lost)?).await
    }

    pub async fn delete(&self, path: &str) -> Result<(), Problem> {
        let response = self.http.delete(format!("{}{path}", self.url)).send().await.map_err(lost)?;
        if response.status() == 204 { Ok(()) } else { decode(response).await }
    }

    /// Deletes, and answers what is left.
    pub async fn delete_for<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        decode(self.http.delete(format!("{}{path}", self.url)).send().await.map_err(lost)?).await
    }

    pub async fn create(&self, name: &str, copies: u8) -> Result<VolumeInfo, Problem> {
        let request = CreateVolume { name: name.into(), size: 1 << 30, copies, min_copies: 1, class: None };
        self.post("/v1/volumes", &request).await
    }

    /// Creates, and tries again while the group chooses a leader.
    pub async fn create_in_the_end(&self, name: &str, copies: u8) {
        patiently("creating a volume", async || match self.create(name, copies).await {
            Ok(_) => Some(()),
            Err(p) if p.kind == ProblemKind::Exists => Some(()),
            Err(p) if p.kind == ProblemKind::Unavailable => None,
            Err(p) => panic!("{p}"),
        })
        .await;
    }

    pub async fn volume(&self, name: &str) -> VolumeInfo {
        self.get(&format!("/v1/volumes/{name}")).await.expect("the volume")
    }

    /// Every volume's name, page by page.
    pub async fn names(&self, limit: usize) -> Vec<String> {
        let mut names = Vec::new();
        let mut after = String::new();
        loop {
            let path = format!("/v1/volumes?limit={limit}&after={after}");
            let page: Page<VolumeInfo> = self.get(&path).await.expect("a page");
            assert!(page.items.len() <= limit);
            names.extend(page.items.into_iter().map(|v| v.name));
            match page.next {
                Some(next) => after = next,
                None => return names,
            }
        }
    }

    /// Registers node `n<i>` with one disk, as incarnation `incarnation`.
    pub async fn register(&self, i: u32, incarnation: u128) -> Registered {
        let request = node(i, incarnation);
        self.post("/v1/nodes", &request).await.expect("registered")
    }

    pub async fn attach(&self, name: &str, node: Option<&str>) -> Result<VolumeInfo, Problem> {
        let request = AttachVolume { node: node.map(Into::into), job: None };
        self.post(&format!("/v1/volumes/{name}/attach"), &request).await
    }

    pub async fn detach(&self, name: &str) -> Result<VolumeInfo, Problem> {
        self.post(&format!("/v1/volumes/{name}/detach"), &()).await
    }

    pub async fn open(&self, name: &str, at: &Attachment, incarnation: u128) -> Result<OpenedVolume, Problem> {
        let incarnation = Uuid::from_u128(incarnation);
        let request = OpenVolume { node: at.node, incarnation, attachment: at.attachment, fenced: None };
        self.post(&format!("/v1/volumes/{name}/open"), &request).await
    }

    pub async fn allocate(&self, name: &str, epoch: Epoch, indexes: Vec<u32>) -> Result<AllocatedChunks, Problem> {
        self.post(&format!("/v1/volumes/{name}/allocate"), &AllocateChunks { epoch, indexes }).await
    }

    pub async fn beat(&self, node: NodeId, beat: &Heartbeat) -> Result<HeartbeatAck, Problem> {
        self.post(&format!("/v1/nodes/{node}/heartbeat"), beat).await
    }
}

pub fn node(i: u32, incarnation: u128) -> RegisterNode {
    let disk = RegisterDisk {
        uuid: Uuid::from_u128(u128::from(i) << 64),
        path: format!("/disk{i}"),
        capacity: 1 << 40,
        shards: 2,
        class: DiskClass::default(),
    };
    RegisterNode {
        name: format!("n{i}"),
        incarnation: Uuid::from_u128(incarnation),
        admin_url: format!("http://127.0.0.1:{i}"),
        cores: vec![format!("127.0.0.1:{i}")],
        cluster: None,
        disks: vec![disk],
        zone: None,
        rack: None,
        leave_out_removed: false,
        locks: Vec::new(),
        missing: Vec::new(),
        seen: Default::default(),
    }
}

/// What a gateway reports of a volume that is served, and of which nothing is to be said.
pub fn well(volume: VolumeId, epoch: Epoch) -> VolumeReport {
    VolumeReport {
        volume,
        epoch,
        state: ServeState::Serving,
        socket: None,
        detail: None,
        healthy_chunks: 1,
        degraded_chunks: 0,
        waiting_chunks: 0,
        leaving_replicas: 0,
        full: false,
        copied_bytes: 0,
        scrubbed_blocks: 0,
        scrub_passes: 1,
        versions_progress: 0,
        degraded: vec![],
        lost: vec![],
        load: VolumeLoad::default(),
        front_end: FrontEndReport::default(),
        stall: None,
    }
}

pub fn heartbeat(incarnation: u128) -> Heartbeat {
    let incarnation = Uuid::from_u128(incarnation);
    let (disks, volumes, deleted) = (vec![], vec![], vec![]);
    Heartbeat { incarnation, disks, volumes, part: None, deleted, links: vec![], locks: vec![], stopping: false }
}

fn lost(error: reqwest::Error) -> Problem {
    Problem::new(ProblemKind::Unavailable, error.to_string())
}

/// The answer, or the problem, which must be a well-formed one.
async fn decode<T: DeserializeOwned>(response: reqwest::Response) -> Result<T, Problem> {
    let status = response.status();
    let kind = response.headers().get("content-type").map(|v| v.to_str().unwrap().to_string());
    let text = response.text().await.map_err(lost)?;
    if status.is_success() {
        return Ok(serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")));
    }
    assert_eq!(kind.as_deref(), Some("application/problem+json"), "{status}: {text}");
    let problem: Problem = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(problem.status, status.as_u16());
    Err(problem)
}

/// Repeats until it answers.
pub async fn patiently<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = attempt().await {
            return answer;
        }
        assert!(Instant::now() < end, "{what} takes for ever");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
