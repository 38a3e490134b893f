//! The table of routes, and what stands before every handler: the caller's rights and the announced size.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, post};
use switchd_api::reply::ErrorCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access::{Peer, Policy};
use super::body;
use super::error::{Failure, unknown_route, wrong_method};
use super::{
    Limits, bonds, capture, config, events, metrics, mirrors, nat, networks, openapi, ports, status,
};
use crate::control::engine::Shared;

/// What handlers share.
#[derive(Clone)]
pub struct App {
    pub engine: Shared,
    pub policy: Policy,
    pub limits: Limits,
    streams: Arc<Semaphore>,
}

impl App {
    pub fn new(engine: Shared, policy: Policy, limits: Limits) -> App {
        App { engine, policy, limits, streams: Arc::new(Semaphore::new(limits.streams)) }
    }

    /// One of the places for long replies (events, captures), held until the reply ends.
    pub(super) fn stream(&self) -> Result<OwnedSemaphorePermit, Failure> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            let message =
                format!("all {} places for event and capture streams are taken", self.limits.streams);
            Failure::new(ErrorCode::Unavailable, message)
                .hint("end another `events --watch` or `capture` first")
        })
    }
}

/// Marks a reply that lasts: its connection is not timed, and may stall.
#[derive(Clone, Copy)]
pub(super) struct Streaming;

pub(super) fn routes() -> Vec<(&'static str, MethodRouter<App>)> {
    vec![
        ("/v1/status", get(status::status)),
        ("/v1/workers", get(status::workers)),
        ("/v1/topology", get(status::topology)),
        ("/v1/drops", get(status::drops)),
        ("/v1/networks", get(networks::list).post(networks::create)),
        ("/v1/networks/{network}", get(networks::show).patch(networks::set).delete(networks::remove)),
        ("/v1/networks/{network}/fdb", get(networks::fdb_list).post(networks::fdb_add)),
        ("/v1/networks/{network}/fdb/{mac}", delete(networks::fdb_delete)),
        ("/v1/networks/{network}/forwards", get(nat::forwards_of).post(nat::forward_add)),
        ("/v1/networks/{network}/forwards/{forward}", delete(nat::forward_delete)),
        ("/v1/networks/{network}/floating", get(nat::floating_of).post(nat::floating_add)),
        ("/v1/networks/{network}/floating/{outside}", delete(nat::floating_delete_of)),
        ("/v1/forwards", get(nat::forwards)),
        ("/v1/floating", get(nat::floating)),
        ("/v1/floating/{outside}", delete(nat::floating_delete)),
        ("/v1/leases", get(nat::leases)),
        ("/v1/flows", get(nat::flows)),
        ("/v1/bonds", get(bonds::list).post(bonds::create)),
        ("/v1/bonds/{bond}", get(bonds::show).patch(bonds::set).delete(bonds::remove)),
        ("/v1/ports", get(ports::list).post(ports::attach)),
        ("/v1/ports/{port}", get(ports::show).patch(ports::set).delete(ports::detach)),
        ("/v1/mirrors", get(mirrors::list).post(mirrors::create)),
        ("/v1/mirrors/{mirror}", get(mirrors::show).delete(mirrors::remove)),
        ("/v1/config", get(config::export).put(config::apply)),
        ("/v1/config/confirm", post(config::confirm)),
        ("/v1/config/diff", post(config::diff)),
        ("/v1/events", get(events::events)),
        ("/v1/capture", post(capture::capture)),
        ("/v1/capture/{capture}", delete(capture::stop)),
        ("/v1/openapi.json", get(openapi::openapi)),
        ("/metrics", get(metrics::metrics)),
    ]
}

/// Every request needs a [`Peer`] among its extensions; without one it is refused.
pub fn router(app: App) -> Router {
    let mut router = Router::new();
    for (path, methods) in routes() {
        router = router.route(path, methods.route_layer(middleware::from_fn_with_state(app.clone(), admit)));
    }
    router
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), measure))
        .with_state(app)
}

/// Refuses by rights.
async fn admit(State(app): State<App>, request: Request, next: Next) -> Result<Response, Failure> {
    match request.extensions().get::<Peer>() {
        Some(peer) => app.policy.check(peer, request.method(), request.uri().path())?,
        None => return Err(Failure::new(ErrorCode::Denied, "it is not known who is asking").close()),
    }
    Ok(next.run(request).await)
}

/// Refuses by the announced size, before anything of the body is read.
async fn measure(State(app): State<App>, request: Request, next: Next) -> Result<Response, Failure> {
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let bytes = announced.and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
    if bytes.is_some_and(|bytes| bytes > app.limits.body_bytes as u64) {
        return Err(body::too_large(app.limits.body_bytes));
    }
    Ok(next.run(request).await)
}
