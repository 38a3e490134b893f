//! `POST /v1/capture`: frames as they pass, as one pcapng stream.
//!
//! A capture is a mirror that lives as long as its reader. Between the mirror and the socket stand bounded
//! queues; a reader that is too slow loses copies, which the statistics blocks of the stream count, and never
//! delays a frame.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use switchd_api::CaptureRequest;

use super::body::Json;
use super::error::Reply;
use super::router::{App, Streaming};

/// Captures until `count` packets were written or the reader goes. Errors (an unknown source, a bad filter)
/// come before the stream begins.
#[utoipa::path(post, path = "/v1/capture", tag = "mirrors", request_body = CaptureRequest,
    responses((status = 200, description = "A pcapng stream", content_type = "application/x-pcapng",
        body = inline(super::openapi::Binary))))]
pub async fn capture(State(app): State<App>, Json(request): Json<CaptureRequest>) -> Reply<Response> {
    let place = app.stream()?;
    let capture = app.engine.lock().await.start_capture(&request)?;
    let pieces = stream::unfold((capture, place), |(mut capture, place)| async move {
        let piece = capture.bytes.recv().await?;
        Some((Ok::<_, Infallible>(Bytes::from(piece)), (capture, place)))
    });
    let head = [(header::CONTENT_TYPE, "application/x-pcapng"), (header::CACHE_CONTROL, "no-store")];
    let mut response = (head, Body::from_stream(pieces)).into_response();
    response.extensions_mut().insert(Streaming);
    Ok(response)
}
