//! Taps: made by the privileged side ([`TapFactory`]), used by the dataplane ([`TapPort`]).

mod factory;
mod port;

pub use factory::{Tap, TapError, TapFactory, TapSpec};
pub use port::TapPort;
