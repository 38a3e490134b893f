//! `/v1/networks`: networks and their address tables.

use std::collections::BTreeMap;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use switchd_api::reply::{FdbAdd, FdbEntry, NetworkStatus};
use switchd_api::{Named, NetworkSpec};

use super::body::{Json, Path};
use super::error::Reply;
use super::router::App;

/// All networks.
#[utoipa::path(get, path = "/v1/networks", tag = "networks",
    responses((status = 200, description = "By name", body = Vec<NetworkStatus>)))]
pub async fn list(State(app): State<App>) -> Reply<Answer<Vec<NetworkStatus>>> {
    Ok(Answer(app.engine.lock().await.networks()?))
}

/// Makes a network.
#[utoipa::path(post, path = "/v1/networks", tag = "networks", request_body = Named<NetworkSpec>,
    responses((status = 201, description = "The network is up", body = NetworkStatus)))]
pub async fn create(
    State(app): State<App>,
    Json(Named { name, spec }): Json<Named<NetworkSpec>>,
) -> Reply<(StatusCode, Answer<NetworkStatus>)> {
    let made = app.engine.lock().await.create_network(name, spec)?;
    Ok((StatusCode::CREATED, Answer(made)))
}

/// One network.
#[utoipa::path(get, path = "/v1/networks/{network}", tag = "networks",
    params(("network" = String, Path, description = "Name of the network")),
    responses((status = 200, description = "Its settings, state and counters", body = NetworkStatus)))]
pub async fn show(State(app): State<App>, Path(name): Path<String>) -> Reply<Answer<NetworkStatus>> {
    Ok(Answer(app.engine.lock().await.network(&name)?))
}

/// Changes settings of a network, all or none: `{"mtu": "9000", "ageing": ""}`. Values are text, as typed
/// by a user; an empty one goes back to the default.
#[utoipa::path(patch, path = "/v1/networks/{network}", tag = "networks",
    params(("network" = String, Path, description = "Name of the network")),
    request_body(content = BTreeMap<String, String>, description = "Keys of NetworkSpec; values as text"),
    responses((status = 200, description = "The network as it is now", body = NetworkStatus)))]
pub async fn set(
    State(app): State<App>,
    Path(name): Path<String>,
    Json(keys): Json<BTreeMap<String, String>>,
) -> Reply<Answer<NetworkStatus>> {
    Ok(Answer(app.engine.lock().await.set_network(&name, &keys)?))
}

/// Removes a network that has no ports.
#[utoipa::path(delete, path = "/v1/networks/{network}", tag = "networks",
    params(("network" = String, Path, description = "Name of the network")),
    responses((status = 204, description = "It is gone")))]
pub async fn remove(State(app): State<App>, Path(name): Path<String>) -> Reply<StatusCode> {
    app.engine.lock().await.delete_network(&name)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Addresses that a network knows.
#[utoipa::path(get, path = "/v1/networks/{network}/fdb", tag = "fdb",
    params(("network" = String, Path, description = "Name of the network")),
    responses((status = 200, description = "Static and learned entries", body = Vec<FdbEntry>)))]
pub async fn fdb_list(State(app): State<App>, Path(name): Path<String>) -> Reply<Answer<Vec<FdbEntry>>> {
    Ok(Answer(app.engine.lock().await.fdb(&name)?))
}

/// Adds a static entry.
#[utoipa::path(post, path = "/v1/networks/{network}/fdb", tag = "fdb", request_body = FdbAdd,
    params(("network" = String, Path, description = "Name of the network")),
    responses((status = 201, description = "The entry", body = FdbEntry)))]
pub async fn fdb_add(
    State(app): State<App>,
    Path(name): Path<String>,
    Json(entry): Json<FdbAdd>,
) -> Reply<(StatusCode, Answer<FdbEntry>)> {
    let made = app.engine.lock().await.fdb_add(&name, &entry)?;
    Ok((StatusCode::CREATED, Answer(made)))
}

/// Removes an entry, static or learned.
#[utoipa::path(delete, path = "/v1/networks/{network}/fdb/{mac}", tag = "fdb",
    params(("network" = String, Path, description = "Name of the network"),
        ("mac" = String, Path, description = "`MAC` or `MAC@VID`")),
    responses((status = 204, description = "It is gone")))]
pub async fn fdb_delete(
    State(app): State<App>,
    Path((name, mac)): Path<(String, String)>,
) -> Reply<StatusCode> {
    app.engine.lock().await.fdb_delete(&name, &mac)?;
    Ok(StatusCode::NO_CONTENT)
}
