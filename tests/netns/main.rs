//! End to end: the daemon, `switchctl`, real namespaces and other people's programs.
//!
//! A module is a room: `traffic` what passes and what does not, `tags` VLANs, `life` devices and processes
//! that come and go, `tables` addresses, `captures` mirrors, `control` configuration and bad input,
//! `timing` whatever is measured, `vm` a guest with a kernel of its own, `vhost` guests
//! in shared memory, `rootless` without privileges, `nat_*` address translation and the services of gateways, `bond_*`, `links_*`, `loops` and `mlag` what is at the far end
//! of cables.
//! Every test that ends well also has the daemon's counters add up (`Daemon`'s drop).

mod bond_backup;
mod bond_failures;
mod bond_forged;
mod bond_lacp;
mod bond_words;
mod captures;
mod control;
mod demo;
mod life;
mod links_lldp;
mod loops;
mod mlag;
mod nat_behaviour;
mod nat_dhcp;
mod nat_dns;
mod nat_egress;
mod nat_host;
mod nat_hostile;
mod nat_outside;
mod nat_v6;
mod rootless;
mod tables;
mod tags;
mod timing;
mod traffic;
mod vhost;
mod vhost_guests;
mod vhost_hostile;
mod vhost_moves;
mod vhost_pairs;
mod vhost_pressure;
mod vm;
