//! Host egress against the kernel's own sockets: in a network namespace of the test's thread, which ends
//! with it. The guest is smoltcp (a TCP that is not ours), or segments made by hand.

mod echo;
mod forwards;
mod limits;
mod refusals;
mod segments;
mod streams;
mod udp;
mod world;
