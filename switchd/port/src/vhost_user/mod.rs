//! vhost-user ports: a virtual machine's queues in shared memory, read and written without a system call a
//! frame.
//!
//! ```text
//!  monitor (QEMU, …) ── unix socket ──► session thread ── lock ──► device: memory, rings
//!        │                               (handshake)                  ▲ tried, never waited for
//!        └── kick eventfds ──► epoll ──► worker: port.receive/flush ──┘──► call eventfds
//! ```
//! - `session` connects (or accepts) for ever, on a thread of its own, and answers the protocol's messages
//!   (`handshake`) with the `vhost` crate.
//! - `device` is what was agreed; `split` reads and writes rings; `memory` turns guest addresses into
//!   mappings; `port` is what a worker holds.
//!
//! **What a guest may do wrong** (see [`split::Fault`]) costs its own connection: the reason is shown, and the
//! next one is tried after a second. A monitor holds the kick and call descriptors too. The kick is only
//! watched, edge-triggered, never read, so no descriptor can make us wait; the call is written with
//! O_NONBLOCK. That flag is shared with the monitor: one that takes it away again, and fills its own
//! eventfd, stops the worker. Against a broken-into monitor (not a guest) this is the limit of this form.
//!
//! **Reconnects.** Chains are handled in order and completely within a burst, so the used index tells where
//! to go on: nothing is in flight between two bursts, and no inflight file is needed.
//!
//! Left out: packed rings, dirty logging for live migration, postcopy. Frames are copied twice between two
//! guests, through the worker's arena.

mod control;
mod deliver;
pub(crate) mod device;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod inflight;
mod log;
pub(crate) mod memory;
mod packed;
#[cfg(test)]
mod packed_tests;
mod port;
mod ring;
mod session;
mod split;
mod take;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_oracle;

pub use port::VhostUserPort;
pub use session::Peer;

/// Queue pairs of a port at most.
pub const PAIRS_MAX: usize = 8;
