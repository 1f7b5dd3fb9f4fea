//! The HTTP API: routes, their OpenAPI document, and answers to what fits no route.

mod batches;
mod caller;
mod capacity;
mod cluster;
mod dashboard;
mod document;
mod events;
mod extract;
mod families;
mod forward;
mod health;
mod jobs;
mod limit;
mod load;
mod maintenance;
mod members;
mod metrics;
mod nodes;
mod operate;
mod placement;
mod problem;
mod rebalance;
mod recovery;
mod repair;
mod snapshots;
mod trace;
mod versions;
mod volumes;
mod watch;

pub use problem::Failure;

use crate::app::App;
use crate::meters;
use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use axum::{Json, Router};
use levee_proto::api::ProblemKind;
use std::sync::Arc;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

#[derive(OpenApi)]
#[openapi(info(
    title = "Levee meta server",
    description = "Errors are RFC 9457 problem details. Any member of the group answers; sizes are in bytes."
))]
struct Document;

/// The whole server; `raft` has the routes for the other members.
pub fn router(app: Arc<App>, raft: Router) -> Router {
    let (by_leader, documented) = documented_routes().split_for_parts();
    let (local, mut document) = local_routes().split_for_parts();
    let (by_any, read) = read_routes().split_for_parts();
    document.merge(documented);
    document.merge(read);
    let document = document::complete(&document);
    let by_leader = by_leader.route_layer(from_fn_with_state(app.clone(), forward::to_leader));
    by_leader
        .merge(by_any)
        .merge(local)
        .route("/v1/openapi.json", get(move || std::future::ready(Json(document.clone()))))
        .route("/", get(dashboard::page))
        .route("/style.css", get(dashboard::style))
        .route("/script.js", get(dashboard::script))
        .route("/icon.svg", get(dashboard::icon))
        .route("/metrics", get(metrics::metrics))
        .route("/healthz", get(cluster::ready))
        .route("/readyz", get(cluster::ready))
        .route("/livez", get(cluster::live))
        .with_state(app.clone())
        .merge(raft)
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(app.clone(), limit::by_client))
        .layer(from_fn_with_state(app, meters::count))
        .layer(from_fn(trace::name_and_log))
}

/// Answered by the leader, whichever member is asked.
fn documented_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(nodes::register, nodes::list_nodes))
        .routes(routes!(nodes::list_disks))
        .routes(routes!(nodes::heartbeat))
        .routes(routes!(recovery::inventory))
        .routes(routes!(recovery::show))
        .routes(routes!(recovery::accept_loss))
        .routes(routes!(volumes::create, volumes::list))
        .routes(routes!(volumes::show, volumes::delete))
        .routes(routes!(batches::create_volumes))
        .routes(routes!(volumes::attach))
        .routes(routes!(volumes::detach))
        .routes(routes!(volumes::open))
        .routes(routes!(volumes::allocate))
        .routes(routes!(volumes::change_replicas))
        .routes(routes!(families::create_clones))
        .routes(routes!(families::delete))
        .routes(routes!(snapshots::create))
        .routes(routes!(snapshots::delete))
        .routes(routes!(snapshots::rollback))
        .routes(routes!(versions::resize))
        .routes(routes!(versions::flatten))
        .routes(routes!(versions::recover_epochs))
        .routes(routes!(versions::moved))
        .routes(routes!(versions::sealed))
        .routes(routes!(versions::pruned))
        .routes(routes!(versions::flattened))
        .routes(routes!(capacity::show))
        .routes(routes!(capacity::set_limits))
        .routes(routes!(repair::set_disk_state))
        .routes(routes!(repair::show))
        .routes(routes!(operate::set_node_state))
        .routes(routes!(operate::remove_node))
        .routes(routes!(operate::remove_disk))
        .routes(routes!(operate::set_disk_weight))
        .routes(routes!(placement::show, placement::change))
        .routes(routes!(placement::what_if))
        .routes(routes!(rebalance::plan))
        .routes(routes!(rebalance::run, rebalance::status, rebalance::cancel))
        .routes(routes!(maintenance::show, maintenance::start, maintenance::end))
        .routes(routes!(events::events))
        .routes(routes!(load::show))
        .routes(routes!(load::history))
        .routes(routes!(watch::watch))
        .routes(routes!(members::list, members::add))
        .routes(routes!(members::remove))
        .routes(routes!(members::replace))
        .routes(routes!(members::lead))
        .routes(routes!(health::show))
        .routes(routes!(jobs::begin, jobs::end))
}

/// Answered by any member: the barrier sees to it that it knows all that the leader does.
fn read_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(nodes::intent))
        .routes(routes!(snapshots::list))
        .routes(routes!(snapshots::show))
        .routes(routes!(versions::show))
        .routes(routes!(versions::parent))
        .routes(routes!(versions::map))
}

/// Answered by the member that is asked, as far as it knows.
fn local_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Document::openapi()).routes(routes!(cluster::cluster))
}

async fn no_route(request: Request) -> Failure {
    let path: String = request.uri().path().chars().take(200).collect();
    Failure::new(ProblemKind::NotFound, format!("there is nothing at {path}: see /v1/openapi.json"))
}

async fn no_method(request: Request) -> Failure {
    let path: String = request.uri().path().chars().take(200).collect();
    let detail = format!("{path} does not take {}: see /v1/openapi.json", request.method());
    Failure::new(ProblemKind::Invalid, detail).with_status(405)
}
