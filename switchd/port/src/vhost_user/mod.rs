//! vhost-user ports: a virtual machine's queues in shared memory, read and written without a system call a
//! frame.
//!
//! ```text
//!  monitor (QEMU, …) ── unix socket ──► session thread ── lock ──► device: memory, rings
//!        │                               (handshake)                  ▲ tried, never waited for
//!        └── kick eventfds ──► epoll ──► worker: port.receive/flush ──┘──► call eventfds
//! ```
//! - `session` connects (or accepts) for ever, on a thread of its own, and answers the protocol's messages
//!   (`handshake`) with the `vhost` crate, and by itself those that the crate does not know (`control`).
//! - `device` is what was agreed; `ring` reads and writes rings, `split` or
//!   `packed` (with `place` and `resume`), and `runs` takes their usual chains in a row, with `notices` for who
//!   wakes whom; `memory` turns guest addresses into mappings; `log` notes what was written while a guest
//!   migrates, and `inflight` is the file of chains under way; `port` is what a worker holds, with `take` and
//!   `deliver` for the two directions.
//!
//! **What a guest may do wrong** (see [`fault::Fault`]) costs its own connection: the reason is shown, and the
//! next one is tried after a second. A monitor holds the kick and call descriptors too. The kick is only
//! watched, edge-triggered, never read, so no descriptor can make us wait; the call is written with
//! O_NONBLOCK. That flag is shared with the monitor: one that takes it away again, and fills its own
//! eventfd, stops the worker. Against a broken-into monitor (not a guest) this is the limit of this form.
//!
//! **Reconnects.** Chains are handled in order and completely within a burst, so the used index of a split
//! ring, or the record that `packed` keeps, tells where to go on: nothing is in flight between two bursts.
//!
//! Left out: postcopy, an IOMMU, requests of ours to the monitor (there is nothing to ask).

mod control;
mod deliver;
pub(crate) mod device;
mod fault;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod inflight;
mod log;
pub(crate) mod memory;
mod notices;
mod packed;
#[cfg(test)]
mod packed_tests;
pub(crate) mod pieces;
mod place;
mod port;
mod resume;
mod ring;
mod runs;
mod sending;
mod session;
mod split;
mod take;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_bursts;
#[cfg(test)]
mod tests_lines;
#[cfg(test)]
mod tests_models;
#[cfg(test)]
mod tests_oracle;
#[cfg(test)]
mod tests_runs;
#[cfg(test)]
mod tests_wakeups;

pub use port::VhostUserPort;
pub use session::Peer;

/// Queue pairs of a port at most.
pub const PAIRS_MAX: usize = 8;
