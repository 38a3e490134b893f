//! Gateways of NAT networks.

mod originate;

pub use originate::Born;
