//! Captures: from a frame on the road to a pcapng file or a live stream.
//!
//! ```text
//! worker: filter::Program ─► ring::Producer ══ chunks of finished packet blocks ══► writer thread ─► file
//!                                           ◄══ empty chunks ══════════════════════                └► live
//! ```
//! A frame is copied once, by the worker, into a chunk that already has the form of the file
//! ([`pcapng`]). Chunks change hands whole ([`ring`]), so no byte is touched again before it is written. A
//! full ring loses copies and counts them; it never delays a frame. One thread ([`writer`]) serves all
//! captures.

pub mod filter;
pub mod packet;
pub mod pcapng;
pub mod ring;
pub mod writer;

pub use filter::Program;
pub use ring::{Consumer, Meta, Producer};
pub use writer::{Writer, WriterHandle};
