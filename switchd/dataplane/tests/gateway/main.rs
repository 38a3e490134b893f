//! Gateways of NAT networks, packets in and packets out.

mod fair;
mod host;
mod local;
mod neighbors;
mod packets;
mod random;
mod routing;
mod segment;
mod world;
