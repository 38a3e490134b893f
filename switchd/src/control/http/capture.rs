//! `POST /v1/capture`: frames as they pass, as one pcapng stream. `DELETE /v1/capture/N` ends it in order.
//!
//! A capture is a mirror that lives as long as its reader. Between the mirror and the socket stand bounded
//! queues; a reader that is too slow loses copies, which the statistics blocks of the stream count, and never
//! delays a frame.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use switchd_api::CaptureRequest;

use super::body::{Json, Path};
use super::error::Reply;
use super::router::{App, Streaming};

/// Captures until `count` packets were written or the reader goes. Errors (an unknown source, a bad filter)
/// come before the stream begins.
#[utoipa::path(post, path = "/v1/capture", tag = "mirrors", request_body = CaptureRequest,
    responses((status = 200, description = "A pcapng stream", content_type = "application/x-pcapng",
        body = inline(super::openapi::Binary),
        headers(("Content-Location" = String, description = "What to DELETE to end it in order")))))]
pub async fn capture(State(app): State<App>, Json(request): Json<CaptureRequest>) -> Reply<Response> {
    let place = app.stream()?;
    let capture = app.engine.lock().await.start_capture(&request)?;
    let location = format!("/v1/capture/{}", capture.number);
    let pieces = stream::unfold((capture, place), |(mut capture, place)| async move {
        let piece = capture.bytes.recv().await?;
        Some((Ok::<_, Infallible>(Bytes::from(piece)), (capture, place)))
    });
    let head = [
        (header::CONTENT_TYPE, "application/x-pcapng".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::CONTENT_LOCATION, location),
    ];
    let mut response = (head, Body::from_stream(pieces)).into_response();
    response.extensions_mut().insert(Streaming);
    Ok(response)
}

/// Ends a capture: its stream brings what was copied so far, then the last statistics, then its end.
#[utoipa::path(delete, path = "/v1/capture/{capture}", tag = "mirrors",
    params(("capture" = u64, Path, description = "Its number, from Content-Location")),
    responses((status = 204, description = "It takes no more frames")))]
pub async fn stop(State(app): State<App>, Path(number): Path<u64>) -> Reply<StatusCode> {
    app.engine.lock().await.stop_capture(number)?;
    Ok(StatusCode::NO_CONTENT)
}
