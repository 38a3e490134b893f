//! `/v1/bonds`.

use std::collections::BTreeMap;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use switchd_api::reply::BondStatus;
use switchd_api::{BondSpec, Named};

use super::body::{Json, Path};
use super::error::Reply;
use super::router::App;

/// All bonds.
#[utoipa::path(get, path = "/v1/bonds", tag = "bonds",
    responses((status = 200, description = "By name", body = Vec<BondStatus>)))]
pub async fn list(State(app): State<App>) -> Reply<Answer<Vec<BondStatus>>> {
    Ok(Answer(app.engine.lock().await.bonds()?))
}

/// Makes a bond.
#[utoipa::path(post, path = "/v1/bonds", tag = "bonds", request_body = Named<BondSpec>,
    responses((status = 201, description = "The bond stands; its members may not be in yet", body = BondStatus)))]
pub async fn create(
    State(app): State<App>,
    Json(Named { name, spec }): Json<Named<BondSpec>>,
) -> Reply<(StatusCode, Answer<BondStatus>)> {
    let made = app.engine.lock().await.create_bond(name, spec)?;
    Ok((StatusCode::CREATED, Answer(made)))
}

/// One bond.
#[utoipa::path(get, path = "/v1/bonds/{bond}", tag = "bonds",
    params(("bond" = String, Path, description = "Name of the bond")),
    responses((status = 200, description = "Its settings, state, partner and members", body = BondStatus)))]
pub async fn show(State(app): State<App>, Path(name): Path<String>) -> Reply<Answer<BondStatus>> {
    Ok(Answer(app.engine.lock().await.bond(&name)?))
}

/// Changes settings of a bond, all or none: `{"members": "eth0,eth2", "rate": "slow"}`. Values are text, as
/// typed by a user; an empty one goes back to the default.
#[utoipa::path(patch, path = "/v1/bonds/{bond}", tag = "bonds",
    params(("bond" = String, Path, description = "Name of the bond")),
    request_body(content = BTreeMap<String, String>, description = "Keys of BondSpec; values as text"),
    responses((status = 200, description = "The bond as it is now", body = BondStatus)))]
pub async fn set(
    State(app): State<App>,
    Path(name): Path<String>,
    Json(keys): Json<BTreeMap<String, String>>,
) -> Reply<Answer<BondStatus>> {
    Ok(Answer(app.engine.lock().await.set_bond(&name, &keys)?))
}

/// Removes a bond that no network uses; its members are given back to the host.
#[utoipa::path(delete, path = "/v1/bonds/{bond}", tag = "bonds",
    params(("bond" = String, Path, description = "Name of the bond")),
    responses((status = 204, description = "It is gone")))]
pub async fn remove(State(app): State<App>, Path(name): Path<String>) -> Reply<StatusCode> {
    app.engine.lock().await.delete_bond(&name)?;
    Ok(StatusCode::NO_CONTENT)
}
