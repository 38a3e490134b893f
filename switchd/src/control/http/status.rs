//! What is: the daemon, its workers, its drops, its shape.

use axum::Json as Answer;
use axum::extract::State;
use serde::Deserialize;
use switchd_api::reply::{DropRow, Status, Topology, WorkerStatus};

use super::body::Query;
use super::error::Reply;
use super::router::App;

/// The daemon, and the objects that could not be brought up.
#[utoipa::path(get, path = "/v1/status", tag = "daemon",
    responses((status = 200, description = "Answers once the saved configuration was attempted", body = Status)))]
pub async fn status(State(app): State<App>) -> Reply<Answer<Status>> {
    Ok(Answer(app.engine.lock().await.status()?))
}

/// Workers, and the networks each owns.
#[utoipa::path(get, path = "/v1/workers", tag = "daemon",
    responses((status = 200, description = "By index", body = Vec<WorkerStatus>)))]
pub async fn workers(State(app): State<App>) -> Reply<Answer<Vec<WorkerStatus>>> {
    Ok(Answer(app.engine.lock().await.workers()?))
}

/// Networks, ports, uplinks, bonds with their members, mirrors and what joins them.
#[utoipa::path(get, path = "/v1/topology", tag = "daemon",
    responses((status = 200, description = "Nodes and links", body = Topology)))]
pub async fn topology(State(app): State<App>) -> Reply<Answer<Topology>> {
    Ok(Answer(app.engine.lock().await.topology()?))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DropsQuery {
    /// Only this port or network.
    of: Option<String>,
}

/// Dropped frames by port, direction and reason.
#[utoipa::path(get, path = "/v1/drops", tag = "daemon", params(DropsQuery),
    responses((status = 200, description = "Reasons that were met", body = Vec<DropRow>)))]
pub async fn drops(State(app): State<App>, Query(query): Query<DropsQuery>) -> Reply<Answer<Vec<DropRow>>> {
    Ok(Answer(app.engine.lock().await.drops(query.of.as_deref())?))
}
