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
    /// an uplink that several networks may share. An isolated one has its ports and nothing else. A NAT network
    /// has a subnet of its own, a gateway (the first host address) that serves DHCP and DNS, and a way out:
    /// --egress host uses the host's own sockets and addresses; an interface or bond needs an address there.
    Create(Box<Create>),
    /// List the networks
    ///
    /// ADDRESSES counts those that are known now. Wide adds the MTU in bytes, frames forwarded and flooded,
    /// addresses that moved between ports, and the worker that serves the network.
    List,
    /// Show one network with its counters
    ///
    /// `nat.` is of a NAT network: its gateway, the way out that is in force, live flows and leases, and what
    /// translation, DHCP and DNS have counted (those that are 0 are shown with `-o wide`).
    Show {
        #[arg(value_parser = name_of("network"), add = ArgValueCandidates::new(complete::networks))]
        name: String,
    },
    /// Change settings of a network; an empty value is the default
    Set {
        #[arg(value_parser = name_of("network"), add = ArgValueCandidates::new(complete::networks))]
        name: String,
        /// mtu (bytes), ageing (seconds), mac-limit (addresses), uplink, vlan, rstp=on, and of a NAT network
        /// subnet, egress, address, dhcp-range, dhcp-option.ntp, udp-timeout, …: switchctl-network-create(1)
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
pub struct Create {
    /// 1 to 32 characters of a-z 0-9 . _ -
    #[arg(value_parser = new_name())]
    pub name: String,
    /// What stands behind the network
    #[arg(long, value_name = "KIND", value_parser = ["bridged", "isolated", "nat"])]
    pub kind: String,
    /// Interface or bond to the outside (bridged only)
    #[arg(long, value_name = "IF|BOND", add = ArgValueCandidates::new(complete::uplinks))]
    pub uplink: Option<String>,
    /// VLAN on the uplink or egress, 1 to 4094; without it, untagged
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u16).range(1..=4094))]
    pub vlan: Option<u16>,
    /// Largest IP packet in bytes, 68 to 9216 [default: 1500]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u16>,
    /// Seconds after which a silent address is forgotten, 10 to 1000000 [default: 300]
    #[arg(long, value_name = "SECONDS")]
    pub ageing: Option<u32>,
    /// Most learned addresses, 1 to 1048576; when it is reached, new ones are not learned
    /// [default: 16384]
    #[arg(long, value_name = "N")]
    pub mac_limit: Option<u32>,
    #[command(flatten)]
    pub nat: Nat,
    /// A further setting, as `network set` takes it; may be repeated. rstp=on, and of a NAT network
    /// dhcp=off, dhcp-range=A-B, dhcp-option.ntp=IP (tftp, bootfile, search, routes), lease-time,
    /// dhcp-port-limit, filtering=endpoint-independent, flow-limit, flow-quota, udp-timeout, tcp-timeout,
    /// tcp-transitory-timeout, icmp-timeout, mode6=routed, dhcp6=stateful
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_setting,
          add = ArgValueCompleter::new(complete::network_settings))]
    pub settings: Vec<(String, String)>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Of a NAT network")]
pub struct Nat {
    /// The guests' addresses, as in 10.7.0.0/24
    #[arg(long, value_name = "CIDR")]
    pub subnet: Option<String>,
    /// Their IPv6 prefix, as in fd00:7::/64
    #[arg(long, value_name = "CIDR")]
    pub subnet6: Option<String>,
    /// The way out: the host's sockets, an interface or a bond [default: host]
    #[arg(long, value_name = "host|IF|BOND", add = ArgValueCandidates::new(complete::egresses))]
    pub egress: Option<String>,
    /// Address outside, on an interface or bond: leased, or given with its prefix
    #[arg(long, value_name = "dhcp|A/LEN")]
    pub address: Option<String>,
    /// IPv6 address outside; without it, IPv6 is routed
    #[arg(long, value_name = "A/LEN")]
    pub address6: Option<String>,
    /// Further addresses outside, as in 192.0.2.20-192.0.2.29
    #[arg(long, value_name = "A-B")]
    pub pool: Option<String>,
    /// Next hop outside
    #[arg(long, value_name = "IP")]
    pub gateway: Option<String>,
    /// Next hop outside, of IPv6
    #[arg(long, value_name = "IP")]
    pub gateway6: Option<String>,
    /// MAC address outside; host: the interface's own [default: chosen once, and kept]
    #[arg(long, value_name = "MAC|host")]
    pub mac: Option<String>,
    /// Domain of the network's own names [default: the network's name]
    #[arg(long, value_name = "DOMAIN")]
    pub dns: Option<String>,
    /// Name servers to ask, with commas between them [default: the host's]
    #[arg(long, value_name = "IP,IP")]
    pub resolver: Option<String>,
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
