//! All that `switchctl` and outside programs share with the daemon: the desired state, requests, replies,
//! events. JSON and TOML are the same model; unknown keys are errors; numbers are raw.

pub mod model;
pub mod name;
pub mod reply;
pub mod request;

pub use model::{BondSpec, CaptureRequest, Desired, Kind, MirrorSpec, NetworkSpec, PortSpec};
pub use name::Name;
pub use request::{FloatingAdd, ForwardAdd, Named};

/// Version of the JSON on the socket: the first part of every path.
pub const API: &str = "v1";
