//! The HTTP API on the daemon's unix socket.
//!
//! A handler does four things: it reads a bounded body, takes the engine's lock, calls one method, and answers.
//! Nothing is decided here but who may ask ([`access`]) and how much of anything one client may hold:
//!
//! | What | Bound | Beyond it |
//! |---|---|---|
//! | body | 1 MiB, 10 s | 413 before a byte of it is read, 408 |
//! | head of a request | 64 KiB, 100 fields, 5 s | 431, connection closed |
//! | connections | 256 | the one idle for longest is closed; when all are at work, 503 |
//! | idle connection | 30 s | closed |
//! | event and capture streams | 64 of the 256 | 503 |
//! | a reply nobody reads | 10 s without progress | closed; a stream may stall, and loses its oldest content |
//!
//! Everything runs on the control thread. Errors are [`switchd_api::reply::ErrorBody`] always, for unknown
//! routes and wrong methods too. The OpenAPI document at `/v1/openapi.json` is made from the handlers.
//! Left out: TLS and TCP (a unix socket forwards well through ssh), HTTP/2, compression.

mod access;
mod body;
mod bonds;
mod capture;
mod config;
mod connection;
mod error;
mod events;
mod metrics;
mod mirrors;
mod nat;
mod networks;
mod openapi;
mod ports;
mod router;
mod server;
mod status;
#[cfg(test)]
mod tests;

pub use access::{Peer, Policy};
pub use openapi::document;
pub use router::{App, router};
pub use server::{Limits, serve};
