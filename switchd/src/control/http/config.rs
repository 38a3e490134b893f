//! `/v1/config`: the whole desired state, as TOML or JSON.

use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use switchd_api::Desired;
use switchd_api::reply::ApplyReply;

use super::body::{Configuration, Query, flag};
use super::error::{Failure, Reply};
use super::router::App;

const TOML: &str = "application/toml";
/// Longest time to confirm in: a day.
const CONFIRM_MAX: u64 = 86_400;

/// The running configuration; `PUT` takes it back unchanged.
#[utoipa::path(get, path = "/v1/config", tag = "config",
    params(("Accept" = Option<String>, Header, description = "`application/json` (default) or `application/toml`")),
    responses((status = 200, description = "The desired state",
        content((Desired = "application/json"), (String = "application/toml")))))]
pub async fn export(State(app): State<App>, headers: HeaderMap) -> Reply<Response> {
    let engine = app.engine.lock().await;
    if prefers_toml(&headers) {
        return Ok(([(header::CONTENT_TYPE, TOML)], engine.export_toml()?).into_response());
    }
    Ok(Answer(engine.export()?).into_response())
}

/// The first of the two types that the client lists wins; quality values are not weighed.
fn prefers_toml(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT);
    let mut types = accepted
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .map(|kind| kind.split(';').next().unwrap_or_default().trim());
    types.find(|kind| [TOML, "application/json"].contains(kind)) == Some(TOML)
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ApplyQuery {
    /// Plan only: say what would change.
    #[serde(default, deserialize_with = "flag")]
    #[param(value_type = Option<bool>)]
    dry_run: bool,
    /// Seconds (1–86400) within which `POST /v1/config/confirm` must come, or all is rolled back. A crash or a
    /// restart rolls back too.
    confirm: Option<u64>,
    /// Name of the file, to be shown in error reports.
    #[serde(default, rename = "file")]
    _file: Option<String>,
}

/// Makes the configuration so, as a whole or not at all. Objects that the body does not have are deleted;
/// those that do not change lose no frame.
#[utoipa::path(put, path = "/v1/config", tag = "config", params(ApplyQuery),
    request_body(description = "The whole desired state",
        content((Desired = "application/json"), (String = "application/toml"))),
    responses((status = 200, description = "What was changed, or would be", body = ApplyReply)))]
pub async fn apply(
    State(app): State<App>,
    Query(query): Query<ApplyQuery>,
    Configuration(source): Configuration,
) -> Reply<Answer<ApplyReply>> {
    let confirm = match query.confirm {
        Some(seconds @ 1..=CONFIRM_MAX) => Some(Duration::from_secs(seconds)),
        Some(other) => {
            let message = format!("confirm={other}: the time to confirm is 1 to {CONFIRM_MAX} seconds");
            return Err(Failure::invalid(message).hint("for example confirm=60"));
        }
        None => None,
    };
    Ok(Answer(app.engine.lock().await.apply(source, query.dry_run, confirm)?))
}

/// Keeps what an `apply` with `confirm` has made. Where it changed nothing, nothing waits, and a confirmation within
/// its time succeeds with `applied` false.
#[utoipa::path(post, path = "/v1/config/confirm", tag = "config",
    responses((status = 200, description = "It stays", body = ApplyReply)))]
pub async fn confirm(State(app): State<App>) -> Reply<Answer<ApplyReply>> {
    Ok(Answer(app.engine.lock().await.confirm()?))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DiffQuery {
    /// Name of the file, to be shown in error reports.
    #[serde(default, rename = "file")]
    _file: Option<String>,
}

/// What an `apply` of this body would change.
#[utoipa::path(post, path = "/v1/config/diff", tag = "config", params(DiffQuery),
    request_body(description = "The whole desired state",
        content((Desired = "application/json"), (String = "application/toml"))),
    responses((status = 200, description = "The changes; `applied` is false", body = ApplyReply)))]
pub async fn diff(
    State(app): State<App>,
    Query(_): Query<DiffQuery>,
    Configuration(source): Configuration,
) -> Reply<Answer<ApplyReply>> {
    Ok(Answer(app.engine.lock().await.diff(source)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn toml_for(accept: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        prefers_toml(&headers)
    }

    #[test]
    fn toml_is_given_to_those_that_ask_for_it_first() {
        assert!(toml_for("application/toml"));
        assert!(toml_for("text/html, application/toml;q=0.9, application/json;q=0.1"));
        assert!(!toml_for("application/json, application/toml"));
        assert!(!toml_for("*/*"));
        assert!(!prefers_toml(&HeaderMap::new()));
    }
}
