//! `/v1/ports`: guests' ports, and the uplinks (`uplink:IF`) and members of bonds (`member:IF`) to read.

use std::collections::BTreeMap;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use switchd_api::reply::PortStatus;
use switchd_api::{Named, PortSpec};

use super::body::{Json, Path};
use super::error::Reply;
use super::router::App;

/// All ports and uplinks.
#[utoipa::path(get, path = "/v1/ports", tag = "ports",
    responses((status = 200, description = "By name; without the kernel's own counters", body = Vec<PortStatus>)))]
pub async fn list(State(app): State<App>) -> Reply<Answer<Vec<PortStatus>>> {
    Ok(Answer(app.engine.lock().await.ports()?))
}

/// Attaches a port to a network.
#[utoipa::path(post, path = "/v1/ports", tag = "ports", request_body = Named<PortSpec>,
    responses((status = 201, description = "The port is attached", body = PortStatus)))]
pub async fn attach(
    State(app): State<App>,
    Json(Named { name, spec }): Json<Named<PortSpec>>,
) -> Reply<(StatusCode, Answer<PortStatus>)> {
    let made = app.engine.lock().await.attach_port(name, spec)?;
    Ok((StatusCode::CREATED, Answer(made)))
}

/// One port or uplink.
#[utoipa::path(get, path = "/v1/ports/{port}", tag = "ports",
    params(("port" = String, Path, description = "Name of the port, or `uplink:IF`")),
    responses((status = 200, description = "Its settings, state and counters", body = PortStatus)))]
pub async fn show(State(app): State<App>, Path(name): Path<String>) -> Reply<Answer<PortStatus>> {
    Ok(Answer(app.engine.lock().await.port(&name)?))
}

/// Changes settings of a port, all or none: `{"admin": "down", "vlan": "access=10"}`. Values are text, as
/// typed by a user; an empty one goes back to the default.
#[utoipa::path(patch, path = "/v1/ports/{port}", tag = "ports",
    params(("port" = String, Path, description = "Name of the port")),
    request_body(content = BTreeMap<String, String>, description = "Keys of PortSpec; values as text"),
    responses((status = 200, description = "The port as it is now", body = PortStatus)))]
pub async fn set(
    State(app): State<App>,
    Path(name): Path<String>,
    Json(keys): Json<BTreeMap<String, String>>,
) -> Reply<Answer<PortStatus>> {
    Ok(Answer(app.engine.lock().await.set_port(&name, &keys)?))
}

/// Detaches a port; a tap of ours is deleted.
#[utoipa::path(delete, path = "/v1/ports/{port}", tag = "ports",
    params(("port" = String, Path, description = "Name of the port")),
    responses((status = 204, description = "It is gone")))]
pub async fn detach(State(app): State<App>, Path(name): Path<String>) -> Reply<StatusCode> {
    app.engine.lock().await.detach_port(&name)?;
    Ok(StatusCode::NO_CONTENT)
}
