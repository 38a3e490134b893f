//! vhost-user from the other side: messages as bytes, and a virtio driver of our own behind them.
//!
//! `message` makes messages, sound and unsound ones; [`Driver`] is a guest's network card: it shares memory,
//! sets up split rings, sends frames with any header and collects what arrives. [`Nic`] puts a kernel behind it.

pub mod driver;
pub mod message;
pub mod nic;

pub use driver::{Driver, Shape};
pub use message::{Message, put};
pub use nic::Nic;
