//! The daemon's admin endpoint: status, verification, scrubbing, differences between snapshots, space used, disks, metrics.

mod disks;
mod log;

use super::Control;
use crate::core::Command;
use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use levee_proto::api::{
    AddDisk, AddedDisk, DaemonStatus, DiffEvent, DiffVolume, Page, Problem, ProblemKind, RemovedDisk, ReplicaSize,
    ScrubEvent, UsageEvent, VerifyEvent,
};
use levee_proto::{ChunkId, DiskId, VolumeId};
use serde::Serialize;
use std::future::Future;
use std::rc::Rc;
use tokio::sync::{mpsc, oneshot};

/// Questions that may wait for the control thread.
const QUEUE: usize = 32;
/// Events that a slow reader may leave unread.
const EVENTS: usize = 64;

/// A question to the control thread: handlers run on threads of their own, its state does not.
enum Ask {
    Status(oneshot::Sender<DaemonStatus>),
    Metrics(oneshot::Sender<String>),
    Verify { volume: String, answer: oneshot::Sender<Started<VerifyEvent>> },
    Scrub { volume: String, answer: oneshot::Sender<Started<ScrubEvent>> },
    Diff { volume: String, what: DiffVolume, answer: oneshot::Sender<Started<DiffEvent>> },
    Usage { volume: String, answer: oneshot::Sender<Started<UsageEvent>> },
    AddDisk { disk: AddDisk, answer: oneshot::Sender<Result<AddedDisk, Problem>> },
    RemoveDisk { disk: DiskId, answer: oneshot::Sender<Result<RemovedDisk, Problem>> },
    Replicas { from: (DiskId, ChunkId), answer: oneshot::Sender<Page<ReplicaSize>> },
}

/// What a core tells while it works; `None`: the volume is not served here.
type Started<E> = Option<async_channel::Receiver<E>>;

type Asks = mpsc::Sender<Ask>;

/// Binds the endpoint; the future serves it.
pub async fn listen(control: Rc<Control>) -> Result<impl Future<Output = Result<()>>> {
    let address = control.args.admin;
    let listener = tokio::net::TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
    let (asks, questions) = mpsc::channel(QUEUE);
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/volumes/{name}/verify", post(verify))
        .route("/v1/volumes/{name}/scrub", post(scrub))
        .route("/v1/volumes/{name}/diff", post(diff))
        .route("/v1/volumes/{name}/usage", post(usage))
        .route("/v1/disks", post(disks::add))
        .route("/v1/disks/{id}/remove", post(disks::remove))
        .route("/v1/replicas", get(disks::replicas))
        .route("/metrics", get(metrics))
        .fallback(async || problem(ProblemKind::NotFound, "no such page: see /v1/status and /metrics"))
        .layer(axum::middleware::from_fn(log::log))
        .with_state(asks);
    Ok(async move {
        let serve = async move { axum::serve(listener, router).await.context("the admin endpoint failed") };
        let local = tokio::task::LocalSet::new();
        tokio::select! {
            done = serve => done,
            () = local.run_until(answer(control, questions)) => Ok(()),
        }
    })
}

/// Runs in a [`tokio::task::LocalSet`]: what takes long does not hold up other questions.
async fn answer(control: Rc<Control>, mut questions: mpsc::Receiver<Ask>) {
    while let Some(ask) = questions.recv().await {
        match ask {
            Ask::Status(answer) => {
                let _ = answer.send(control.status().await);
            }
            Ask::Metrics(answer) => {
                let _ = answer.send(super::metrics::render(&control).await);
            }
            Ask::Verify { volume, answer } => {
                let begin = |volume, events| Command::Verify { volume, events };
                let _ = answer.send(start(&control, &volume, begin).await);
            }
            Ask::Scrub { volume, answer } => {
                let begin = |volume, events| Command::Scrub { volume, events };
                let _ = answer.send(start(&control, &volume, begin).await);
            }
            Ask::Diff { volume, what, answer } => {
                let begin = |volume, events| Command::Diff { volume, what, events };
                let _ = answer.send(start(&control, &volume, begin).await);
            }
            Ask::Usage { volume, answer } => {
                let begin = |volume, events| Command::Usage { volume, events };
                let _ = answer.send(start(&control, &volume, begin).await);
            }
            Ask::AddDisk { disk, answer } => {
                let control = control.clone();
                tokio::task::spawn_local(async move { answer.send(control.add_disk(disk).await) });
            }
            Ask::RemoveDisk { disk, answer } => {
                let control = control.clone();
                tokio::task::spawn_local(async move { answer.send(control.remove_disk(disk).await) });
            }
            Ask::Replicas { from, answer } => {
                let _ = answer.send(disks::page(control.cores.replicas(from, disks::PAGE + 1).await));
            }
        }
    }
}

/// Has the core that serves a volume begin something that takes a while.
async fn start<E>(
    control: &Control,
    name: &str,
    command: impl FnOnce(VolumeId, async_channel::Sender<E>) -> Command,
) -> Started<E> {
    let reports = control.cores.report().await;
    let mut volumes = reports.iter().flat_map(|c| &c.volumes);
    let volume: VolumeId = volumes.find(|v| v.name == name)?.report.volume;
    let (events, receiver) = async_channel::bounded(EVENTS);
    control.cores.send(control.cores.of_volume(volume), command(volume, events)).await;
    Some(receiver)
}

async fn ask<T>(asks: &Asks, question: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, Response> {
    let stopping = || problem(ProblemKind::Unavailable, "the daemon is stopping");
    let (answer, answered) = oneshot::channel();
    asks.send(question(answer)).await.map_err(|_| stopping())?;
    answered.await.map_err(|_| stopping())
}

async fn status(State(asks): State<Asks>) -> Result<axum::Json<DaemonStatus>, Response> {
    ask(&asks, Ask::Status).await.map(axum::Json)
}

async fn metrics(State(asks): State<Asks>) -> Result<Response, Response> {
    let text = ask(&asks, Ask::Metrics).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

async fn verify(State(asks): State<Asks>, Path(volume): Path<String>) -> Result<Response, Response> {
    let name = volume.clone();
    let events = ask(&asks, |answer| Ask::Verify { volume, answer }).await?;
    stream(&name, events)
}

async fn scrub(State(asks): State<Asks>, Path(volume): Path<String>) -> Result<Response, Response> {
    let name = volume.clone();
    let events = ask(&asks, |answer| Ask::Scrub { volume, answer }).await?;
    stream(&name, events)
}

async fn usage(State(asks): State<Asks>, Path(volume): Path<String>) -> Result<Response, Response> {
    let name = volume.clone();
    let events = ask(&asks, |answer| Ask::Usage { volume, answer }).await?;
    stream(&name, events)
}

async fn diff(
    State(asks): State<Asks>,
    Path(volume): Path<String>,
    body: Result<axum::Json<DiffVolume>, JsonRejection>,
) -> Result<Response, Response> {
    let axum::Json(what) = body.map_err(|e| problem(ProblemKind::Invalid, &e.body_text()))?;
    let name = volume.clone();
    let events = ask(&asks, |answer| Ask::Diff { volume, what, answer }).await?;
    stream(&name, events)
}

/// Events as they come, one JSON document a line.
#[expect(clippy::result_large_err, reason = "as with axum's handlers, the error is the response itself")]
fn stream<E: Serialize + Send + 'static>(volume: &str, events: Started<E>) -> Result<Response, Response> {
    let detail = format!("volume '{volume}' is not served by this daemon: ask the node that it is attached to");
    let events = events.ok_or_else(|| problem(ProblemKind::NotFound, &detail))?;
    let lines = futures_lite::stream::unfold(events, async |events: async_channel::Receiver<E>| {
        let event = events.recv().await.ok()?;
        let mut line = serde_json::to_vec(&event).ok()?;
        line.push(b'\n');
        Some((Ok::<_, std::convert::Infallible>(line), events))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

fn problem(kind: ProblemKind, detail: &str) -> Response {
    let status = StatusCode::from_u16(kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = axum::Json(Problem::new(kind, detail));
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
}
