//! `network` and `fdb`.

use super::value::{name_of, new_name, parse_setting};
use crate::complete;
use clap::{Args, Subcommand};
use clap_complete::engine::{ArgValueCandidates, ArgValueCompleter};

#[derive(Subcommand, Debug)]
pub enum Network {
    /// Make a network
    ///
    /// A bridged network has an uplink, on which the guests stand beside the host: untagged, or on one VLAN of
    /// an uplink that several networks may share. An isolated one has its ports and nothing else.
    Create {
        /// 1 to 32 characters of a-z 0-9 . _ -
        #[arg(value_parser = new_name())]
        name: String,
        /// What stands behind the network
        #[arg(long, value_name = "KIND", value_parser = ["bridged", "isolated"])]
        kind: String,
        /// Interface to the outside (bridged only)
        #[arg(long, value_name = "IF", add = ArgValueCandidates::new(complete::interfaces))]
        uplink: Option<String>,
        /// VLAN on the uplink, 1 to 4094; without it, untagged
        #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(1..=4094))]
        vlan: Option<u16>,
        /// Largest IP packet in bytes, 68 to 9216 [default: 1500]
        #[arg(long, value_name = "BYTES")]
        mtu: Option<u16>,
        /// Seconds after which a silent address is forgotten, 10 to 1000000 [default: 300]
        #[arg(long, value_name = "SECONDS")]
        ageing: Option<u32>,
        /// Most learned addresses, 1 to 1048576; when it is reached, new ones are not learned
        /// [default: 16384]
        #[arg(long, value_name = "N")]
        mac_limit: Option<u32>,
    },
    /// List the networks
    ///
    /// ADDRESSES counts those that are known now. Wide adds the MTU in bytes, frames forwarded and flooded,
    /// addresses that moved between ports, and the worker that serves the network.
    List,
    /// Show one network with its counters
    Show {
        #[arg(value_parser = name_of("network"), add = ArgValueCandidates::new(complete::networks))]
        name: String,
    },
    /// Change settings of a network; an empty value is the default
    Set {
        #[arg(value_parser = name_of("network"), add = ArgValueCandidates::new(complete::networks))]
        name: String,
        /// mtu (bytes), ageing (seconds), mac-limit (addresses), uplink, vlan, kind: as in `network create`
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = parse_setting,
              add = ArgValueCompleter::new(complete::network_settings))]
        settings: Vec<(String, String)>,
    },
    /// Delete a network that has no ports
    Delete {
        #[arg(value_parser = name_of("network"), add = ArgValueCandidates::new(complete::networks))]
        name: String,
    },
}

#[derive(Args, Debug)]
pub struct Fdb {
    /// Network whose addresses are listed
    #[arg(required = true, value_parser = name_of("network"), add = ArgValueCandidates::new(complete::networks))]
    pub network: Option<String>,
    #[command(subcommand)]
    pub command: Option<FdbCommand>,
}

#[derive(Subcommand, Debug)]
pub enum FdbCommand {
    /// Add a static entry: it does not age, does not move, and is never evicted
    Add {
        #[arg(value_parser = name_of("network"), add = ArgValueCandidates::new(complete::networks))]
        network: String,
        /// MAC address, or MAC@VID for a VLAN of its own
        mac: String,
        /// Port of the network, or uplink:IF
        #[arg(value_parser = name_of("port"), add = ArgValueCandidates::new(complete::ports))]
        port: String,
    },
    /// Delete an entry, static or learned
    Delete {
        #[arg(value_parser = name_of("network"), add = ArgValueCandidates::new(complete::networks))]
        network: String,
        /// MAC address, or MAC@VID
        #[arg(value_parser = name_of("MAC"), add = ArgValueCandidates::new(complete::addresses))]
        mac: String,
    },
}
