//! switchd, the daemon: `broker` keeps the privileges, `dataplane_process` is the unprivileged rest, made
//! of `worker` (the road's threads), `control` (the socket and the engine) and `config` (text → validated).

pub mod args;
pub mod broker;
pub mod config;
pub mod control;
pub mod dataplane_process;
pub mod demo;
pub mod manual;
pub mod sandbox;
pub mod services;
pub mod worker;
