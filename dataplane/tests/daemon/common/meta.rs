//! A meta server that takes any node and remembers what it is told.

use axum::extract::{Path, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use levee_proto::api::{
    AttachIntent, ClusterInfo, DiskInfo, DiskState, Heartbeat, HeartbeatAck, Intent, MemberInfo, OpenedVolume, Page,
    PeerDisk, PeerInfo, Problem, ProblemKind, RegisterNode, Registered, SetDiskState, StateMark,
};
use levee_proto::{DiskId, NodeId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use uuid::Uuid;

/// What it was told last.
#[derive(Default)]
pub struct Told {
    pub registered: Option<RegisterNode>,
    pub heartbeat: Option<Heartbeat>,
    /// The last heartbeat of each node, by name.
    pub heartbeats: BTreeMap<String, Heartbeat>,
    /// Ids of requests.
    pub request_ids: Vec<String>,
    /// What an operator, or a daemon, has said about disks.
    pub states: BTreeMap<DiskId, DiskState>,
    /// Replicas on each disk.
    pub replicas: BTreeMap<DiskId, u64>,
    /// URLs of all meta servers.
    pub members: Vec<String>,
    /// Another daemon is the node that asks.
    pub fenced: bool,
    /// A volume that is attached to whoever asks, as it is opened.
    pub volume: Option<OpenedVolume>,
    /// How often it was.
    pub opens: u64,
    /// Disks by uuid: the position is the id, less one.
    disks: Vec<Uuid>,
    /// The position is the id, less one.
    nodes: Vec<RegisterNode>,
}

type Shared = Arc<Mutex<Told>>;
type Answer<T> = Result<Json<T>, (axum::http::StatusCode, Json<Problem>)>;

/// Runs until it is dropped.
pub struct FakeMeta {
    pub url: String,
    told: Shared,
    _runtime: tokio::runtime::Runtime,
}

impl FakeMeta {
    pub fn start() -> FakeMeta {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let told = Shared::default();
        let router = Router::new()
            .route("/v1/cluster", get(cluster))
            .route("/v1/nodes", post(register))
            .route("/v1/nodes/{id}/heartbeat", post(heartbeat))
            .route("/v1/nodes/{id}/intent", get(intent))
            .route("/v1/volumes/{name}/open", post(open))
            .route("/v1/disks", get(disks))
            .route("/v1/disks/{id}/state", post(set_state))
            .layer(axum::middleware::from_fn_with_state(told.clone(), note_id))
            .with_state(told.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        told.lock().unwrap().members = vec![url.clone()];
        runtime.spawn(async move { axum::serve(listener, router).await });
        FakeMeta { url, told, _runtime: runtime }
    }

    /// Looks at what it was told.
    pub fn told<T>(&self, look: impl FnOnce(&Told) -> T) -> T {
        look(&self.told.lock().unwrap())
    }

    /// Changes what it says.
    pub fn say(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.told.lock().unwrap());
    }

    /// Forgets it, so that what is seen next is new.
    pub fn forget(&self) {
        let told = &mut *self.told.lock().unwrap();
        (told.registered, told.heartbeat) = (None, None);
        told.heartbeats.clear();
    }

    /// Why a disk cannot be used, by position, as the last heartbeat says; `None` before there was one.
    pub fn failures(&self) -> Option<Vec<Option<String>>> {
        self.told(|t| Some(t.heartbeat.as_ref()?.disks.iter().map(|d| d.failed.clone()).collect()))
    }
}

async fn note_id(State(told): State<Shared>, request: Request, next: Next) -> Response {
    let id = request.headers().get("x-request-id").and_then(|v| v.to_str().ok()).unwrap_or_default();
    told.lock().unwrap().request_ids.push(id.to_string());
    next.run(request).await
}

async fn cluster(State(told): State<Shared>) -> Json<ClusterInfo> {
    let urls = told.lock().unwrap().members.clone();
    let members = urls.into_iter().zip(1..).map(|(url, id)| MemberInfo { id, url, silent_ms: None }).collect();
    Json(ClusterInfo {
        cluster: Uuid::from_u128(1),
        member: 1,
        leader: Some(1),
        members,
        applied: 1,
        leaderless_ms: None,
    })
}

/// What a daemon is told that is not the node.
fn fenced<T>() -> Answer<T> {
    let problem = Problem::new(ProblemKind::Fenced, "another daemon is this node");
    Err((axum::http::StatusCode::CONFLICT, Json(problem)))
}

async fn register(State(told): State<Shared>, Json(node): Json<RegisterNode>) -> Answer<Registered> {
    let told = &mut *told.lock().unwrap();
    if told.fenced {
        return fenced();
    }
    let mut id = |uuid: Uuid| {
        let known = told.disks.iter().position(|d| *d == uuid);
        let position = known.unwrap_or_else(|| {
            told.disks.push(uuid);
            told.disks.len() - 1
        });
        DiskId(position as u32 + 1)
    };
    let disks = node.disks.iter().map(|d| id(d.uuid)).collect();
    told.registered = Some(node.clone());
    let known = told.nodes.iter().position(|n| n.name == node.name);
    let position = known.unwrap_or(told.nodes.len());
    match known {
        Some(position) => told.nodes[position] = node,
        None => told.nodes.push(node),
    }
    Ok(Json(Registered { cluster: Uuid::from_u128(1), node: NodeId(position as u32 + 1), disks, removed: vec![] }))
}

async fn heartbeat(
    State(told): State<Shared>,
    Path(node): Path<u32>,
    Json(beat): Json<Heartbeat>,
) -> Answer<HeartbeatAck> {
    let told = &mut *told.lock().unwrap();
    if told.fenced {
        return fenced();
    }
    if let Some(name) = told.nodes.get(node as usize - 1).map(|n| n.name.clone()) {
        told.heartbeats.insert(name, beat.clone());
    }
    told.heartbeat = Some(beat);
    Ok(Json(HeartbeatAck { revision: 1 }))
}

async fn intent(State(told): State<Shared>) -> Json<Intent> {
    // Nothing else ever changes than who is there: a long poll.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let told = told.lock().unwrap();
    let peer = |(node, position): (&RegisterNode, u32)| {
        let id = |uuid: &Uuid| DiskId(told.disks.iter().position(|d| d == uuid).unwrap_or(0) as u32 + 1);
        let disks = node.disks.iter().map(|d| PeerDisk { disk: id(&d.uuid), shards: d.shards }).collect();
        PeerInfo { node: NodeId(position), cores: node.cores.clone(), disks }
    };
    let peers = told.nodes.iter().zip(1..).map(peer).collect();
    let attachment = |v: &OpenedVolume| AttachIntent {
        volume: v.id,
        name: v.name.clone(),
        attachment: 1,
        repair: true,
        versions: 0,
    };
    let attach = told.volume.iter().map(attachment).collect();
    let (deletes, evacuate) = (vec![], vec![]);
    Json(Intent {
        revision: 1,
        attach,
        peers,
        deletes,
        evacuate,
        background_rate: None,
        moves: Vec::new(),
        eras: Vec::new(),
        state: StateMark::default(),
    })
}

async fn open(State(told): State<Shared>) -> Answer<OpenedVolume> {
    let told = &mut *told.lock().unwrap();
    told.opens += 1;
    let no_volume = || (axum::http::StatusCode::NOT_FOUND, Json(Problem::new(ProblemKind::NotFound, "no volume")));
    told.volume.clone().map(Json).ok_or_else(no_volume)
}

fn info(told: &Told, id: DiskId) -> Option<DiskInfo> {
    let uuid = *told.disks.get(id.0 as usize - 1)?;
    let json = serde_json::json!({
        "id": id, "uuid": uuid, "node": 1, "path": "/somewhere", "capacity": 1 << 28, "used": null, "shards": 1,
        "replicas": told.replicas.get(&id).copied().unwrap_or(0),
        "state": told.states.get(&id).copied().unwrap_or_default(),
    });
    Some(serde_json::from_value(json).unwrap())
}

async fn disks(
    State(told): State<Shared>,
    axum::extract::Query(query): axum::extract::Query<BTreeMap<String, u32>>,
) -> Json<Page<DiskInfo>> {
    let told = told.lock().unwrap();
    Json(Page { items: info(&told, DiskId(query["after"] + 1)).into_iter().collect(), next: None })
}

async fn set_state(State(told): State<Shared>, Path(id): Path<u32>, Json(set): Json<SetDiskState>) -> Json<DiskInfo> {
    let told = &mut *told.lock().unwrap();
    told.states.insert(DiskId(id), set.state);
    Json(info(told, DiskId(id)).unwrap())
}
