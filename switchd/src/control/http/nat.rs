//! What NAT networks have beyond others: forwards, floating addresses, leases, flows.
//!
//! Lists are of all networks, or of one with `?network=`; the same lists stand beneath their network.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use switchd_api::reply::{FloatingRow, FlowRow, ForwardRow, LeaseRow};
use switchd_api::{FloatingAdd, ForwardAdd};

use super::body::{Json, Path, Query};
use super::error::Reply;
use super::router::App;

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Of {
    /// Only of this network.
    network: Option<String>,
}

/// Rows of one answer, unless `limit` says otherwise.
const FLOWS: u32 = 1000;
/// Rows of one answer at most: some 30 MB.
const MAX_FLOWS: u32 = 100_000;

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FlowsOf {
    /// Only of this network.
    network: Option<String>,
    /// Most rows, 1–100000; default 1000.
    limit: Option<u32>,
}

/// Forwards of all networks.
#[utoipa::path(get, path = "/v1/forwards", tag = "nat", params(Of),
    responses((status = 200, description = "By network and key", body = Vec<ForwardRow>)))]
pub async fn forwards(State(app): State<App>, Query(of): Query<Of>) -> Reply<Answer<Vec<ForwardRow>>> {
    Ok(Answer(app.engine.lock().await.forwards(of.network.as_deref())?))
}

/// Forwards of a network.
#[utoipa::path(get, path = "/v1/networks/{network}/forwards", tag = "nat",
    params(("network" = String, Path, description = "Name of the network")),
    responses((status = 200, description = "By key", body = Vec<ForwardRow>)))]
pub async fn forwards_of(
    State(app): State<App>,
    Path(network): Path<String>,
) -> Reply<Answer<Vec<ForwardRow>>> {
    Ok(Answer(app.engine.lock().await.forwards(Some(&network))?))
}

/// Leads ports of the outside to a guest.
#[utoipa::path(post, path = "/v1/networks/{network}/forwards", tag = "nat", request_body = ForwardAdd,
    params(("network" = String, Path, description = "Name of the network")),
    responses((status = 201, description = "The forward", body = ForwardRow)))]
pub async fn forward_add(
    State(app): State<App>,
    Path(network): Path<String>,
    Json(forward): Json<ForwardAdd>,
) -> Reply<(StatusCode, Answer<ForwardRow>)> {
    let made = app.engine.lock().await.add_forward(&network, &forward)?;
    Ok((StatusCode::CREATED, Answer(made)))
}

/// Removes a forward; connections through it end.
#[utoipa::path(delete, path = "/v1/networks/{network}/forwards/{forward}", tag = "nat",
    params(("network" = String, Path, description = "Name of the network"),
        ("forward" = String, Path, description = "`[HOSTIP:]PROTO/PORT[-PORT]`, percent-encoded: `tcp%2F8080`")),
    responses((status = 204, description = "It is gone")))]
pub async fn forward_delete(
    State(app): State<App>,
    Path((network, forward)): Path<(String, String)>,
) -> Reply<StatusCode> {
    app.engine.lock().await.delete_forward(&network, &forward)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Floating addresses of all networks.
#[utoipa::path(get, path = "/v1/floating", tag = "nat", params(Of),
    responses((status = 200, description = "By network and address", body = Vec<FloatingRow>)))]
pub async fn floating(State(app): State<App>, Query(of): Query<Of>) -> Reply<Answer<Vec<FloatingRow>>> {
    Ok(Answer(app.engine.lock().await.floating(of.network.as_deref())?))
}

/// Floating addresses of a network.
#[utoipa::path(get, path = "/v1/networks/{network}/floating", tag = "nat",
    params(("network" = String, Path, description = "Name of the network")),
    responses((status = 200, description = "By address", body = Vec<FloatingRow>)))]
pub async fn floating_of(
    State(app): State<App>,
    Path(network): Path<String>,
) -> Reply<Answer<Vec<FloatingRow>>> {
    Ok(Answer(app.engine.lock().await.floating(Some(&network))?))
}

/// Gives a guest an outside address of its own, both ways.
#[utoipa::path(post, path = "/v1/networks/{network}/floating", tag = "nat", request_body = FloatingAdd,
    params(("network" = String, Path, description = "Name of the network")),
    responses((status = 201, description = "The address", body = FloatingRow)))]
pub async fn floating_add(
    State(app): State<App>,
    Path(network): Path<String>,
    Json(floating): Json<FloatingAdd>,
) -> Reply<(StatusCode, Answer<FloatingRow>)> {
    let made = app.engine.lock().await.add_floating(&network, &floating)?;
    Ok((StatusCode::CREATED, Answer(made)))
}

/// Takes a floating address of a network away; connections through it end.
#[utoipa::path(delete, path = "/v1/networks/{network}/floating/{outside}", tag = "nat",
    params(("network" = String, Path, description = "Name of the network"),
        ("outside" = String, Path, description = "The address")),
    responses((status = 204, description = "It is gone")))]
pub async fn floating_delete_of(
    State(app): State<App>,
    Path((network, outside)): Path<(String, String)>,
) -> Reply<StatusCode> {
    app.engine.lock().await.delete_floating(Some(&network), &outside)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The same, whatever network has it; refused when several have it, on different interfaces.
#[utoipa::path(delete, path = "/v1/floating/{outside}", tag = "nat",
    params(("outside" = String, Path, description = "The address")),
    responses((status = 204, description = "It is gone")))]
pub async fn floating_delete(State(app): State<App>, Path(outside): Path<String>) -> Reply<StatusCode> {
    app.engine.lock().await.delete_floating(None, &outside)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Addresses that guests have by DHCP, and those reserved.
#[utoipa::path(get, path = "/v1/leases", tag = "nat", params(Of),
    responses((status = 200, description = "By network and address", body = Vec<LeaseRow>)))]
pub async fn leases(State(app): State<App>, Query(of): Query<Of>) -> Reply<Answer<Vec<LeaseRow>>> {
    Ok(Answer(app.engine.lock().await.leases(of.network.as_deref())?))
}

/// Live flows.
#[utoipa::path(get, path = "/v1/flows", tag = "nat", params(FlowsOf),
    responses((status = 200, description = "In no order", body = Vec<FlowRow>)))]
pub async fn flows(State(app): State<App>, Query(of): Query<FlowsOf>) -> Reply<Answer<Vec<FlowRow>>> {
    let limit = of.limit.unwrap_or(FLOWS);
    if !(1..=MAX_FLOWS).contains(&limit) {
        let message = format!("query of /v1/flows: limit {limit}: the number of rows is 1 to {MAX_FLOWS}");
        return Err(super::error::Failure::invalid(message));
    }
    Ok(Answer(app.engine.lock().await.flows(of.network.as_deref(), limit as usize)?))
}
