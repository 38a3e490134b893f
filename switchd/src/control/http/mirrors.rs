//! `/v1/mirrors`.

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use switchd_api::reply::MirrorStatus;
use switchd_api::{MirrorSpec, Named};

use super::body::{Json, Path};
use super::error::Reply;
use super::router::App;

/// All mirrors.
#[utoipa::path(get, path = "/v1/mirrors", tag = "mirrors",
    responses((status = 200, description = "By name", body = Vec<MirrorStatus>)))]
pub async fn list(State(app): State<App>) -> Reply<Answer<Vec<MirrorStatus>>> {
    Ok(Answer(app.engine.lock().await.mirrors()?))
}

/// Makes a mirror.
#[utoipa::path(post, path = "/v1/mirrors", tag = "mirrors", request_body = Named<MirrorSpec>,
    responses((status = 201, description = "The mirror runs", body = MirrorStatus)))]
pub async fn create(
    State(app): State<App>,
    Json(Named { name, spec }): Json<Named<MirrorSpec>>,
) -> Reply<(StatusCode, Answer<MirrorStatus>)> {
    let made = app.engine.lock().await.create_mirror(name, spec)?;
    Ok((StatusCode::CREATED, Answer(made)))
}

/// One mirror.
#[utoipa::path(get, path = "/v1/mirrors/{mirror}", tag = "mirrors",
    params(("mirror" = String, Path, description = "Name of the mirror")),
    responses((status = 200, description = "Its settings, state, last error and counters", body = MirrorStatus)))]
pub async fn show(State(app): State<App>, Path(name): Path<String>) -> Reply<Answer<MirrorStatus>> {
    Ok(Answer(app.engine.lock().await.mirror(&name)?))
}

/// Removes a mirror; answers once its file is closed.
#[utoipa::path(delete, path = "/v1/mirrors/{mirror}", tag = "mirrors",
    params(("mirror" = String, Path, description = "Name of the mirror")),
    responses((status = 204, description = "It is gone and its file is complete")))]
pub async fn remove(State(app): State<App>, Path(name): Path<String>) -> Reply<StatusCode> {
    app.engine.lock().await.delete_mirror(&name)?;
    Ok(StatusCode::NO_CONTENT)
}
