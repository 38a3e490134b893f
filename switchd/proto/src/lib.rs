//! Protocol machines without input or output of their own: frames and the clock are arguments, what is to
//! be sent, told and waited for is asked of them. They run in the worker that owns the port, or beside it.

pub mod dhcp;
pub mod lacp;
pub mod lldp;
pub mod neighbor;
pub mod router_advertisement;
pub mod rstp;
