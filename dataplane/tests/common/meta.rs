//! A meta server that takes any node and remembers what it is told.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use levee_proto::api::{Heartbeat, HeartbeatAck, Intent, RegisterNode, Registered};
use levee_proto::{DiskId, NodeId};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use uuid::Uuid;

/// What it was told last.
#[derive(Default)]
pub struct Told {
    pub registered: Option<RegisterNode>,
    pub heartbeat: Option<Heartbeat>,
    /// Disks by uuid: the position is the id, less one.
    disks: Vec<Uuid>,
}

type Shared = Arc<Mutex<Told>>;

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
            .route("/v1/nodes", post(register))
            .route("/v1/nodes/{id}/heartbeat", post(heartbeat))
            .route("/v1/nodes/{id}/intent", get(intent))
            .with_state(told.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, router).await });
        FakeMeta { url, told, _runtime: runtime }
    }

    /// Looks at what it was told.
    pub fn told<T>(&self, look: impl FnOnce(&Told) -> T) -> T {
        look(&self.told.lock().unwrap())
    }

    /// Forgets it, so that what is seen next is new.
    pub fn forget(&self) {
        let told = &mut *self.told.lock().unwrap();
        (told.registered, told.heartbeat) = (None, None);
    }

    /// Why a disk cannot be used, by position, as the last heartbeat says; `None` before there was one.
    pub fn failures(&self) -> Option<Vec<Option<String>>> {
        self.told(|t| Some(t.heartbeat.as_ref()?.disks.iter().map(|d| d.failed.clone()).collect()))
    }
}

async fn register(State(told): State<Shared>, Json(node): Json<RegisterNode>) -> Json<Registered> {
    let told = &mut *told.lock().unwrap();
    let mut id = |uuid: Uuid| {
        let known = told.disks.iter().position(|d| *d == uuid);
        let position = known.unwrap_or_else(|| {
            told.disks.push(uuid);
            told.disks.len() - 1
        });
        DiskId(position as u32 + 1)
    };
    let disks = node.disks.iter().map(|d| id(d.uuid)).collect();
    told.registered = Some(node);
    Json(Registered { cluster: Uuid::from_u128(1), node: NodeId(1), disks })
}

async fn heartbeat(State(told): State<Shared>, Json(beat): Json<Heartbeat>) -> Json<HeartbeatAck> {
    told.lock().unwrap().heartbeat = Some(beat);
    Json(HeartbeatAck { revision: 1 })
}

async fn intent() -> Json<Intent> {
    // Nothing ever changes: a long poll.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (attach, peers, deletes, evacuate) = (vec![], vec![], vec![], vec![]);
    Json(Intent { revision: 1, attach, peers, deletes, evacuate, background_rate: None, moves: Vec::new() })
}
