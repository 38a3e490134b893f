//! `forward`, `floating`, `lease` and `flow`: what NAT networks have beyond others.

use super::value::{name_of, parse_forward};
use crate::complete;
use clap::Subcommand;
use clap_complete::engine::ArgValueCandidates;

#[derive(Subcommand, Debug)]
pub enum Forward {
    /// Lead a port of the outside to a guest
    ///
    /// `switchctl forward add lab tcp/8080:10.7.0.20:80`. Without HOSTIP every outside address of the network
    /// (with egress host: of the host) is meant. A range of ports leads to as many, beginning at the last PORT.
    /// IPv6 addresses stand in brackets.
    Add {
        #[arg(value_parser = name_of("network"), add = ArgValueCandidates::new(complete::nat_networks))]
        network: String,
        /// Outside and guest, as in tcp/8080:10.7.0.20:80, udp/5000-5010:10.7.0.20:5000 or
        /// 192.0.2.9:tcp/80:10.7.0.20:80
        #[arg(value_name = "[HOSTIP:]PROTO/PORT[-PORT]:IP:PORT", value_parser = parse_forward)]
        forward: (String, String),
    },
    /// List the forwards
    List {
        /// Only of this network
        #[arg(value_parser = name_of("network"), add = ArgValueCandidates::new(complete::nat_networks))]
        network: Option<String>,
    },
    /// Delete a forward; connections through it end
    Delete {
        #[arg(value_parser = name_of("network"), add = ArgValueCandidates::new(complete::nat_networks))]
        network: String,
        /// As `forward list` shows it: tcp/8080
        #[arg(value_name = "[HOSTIP:]PROTO/PORT[-PORT]", value_parser = name_of("forward"),
              add = ArgValueCandidates::new(complete::forwards))]
        forward: String,
    },
}

#[derive(Subcommand, Debug)]
pub enum Floating {
    /// Give a guest an outside address of its own, both ways
    ///
    /// For networks with egress through an interface or bond. The port needs a reserved address
    /// (`switchctl port set PORT reserve=IP`), so that the guest's address is known.
    Add {
        #[arg(value_parser = name_of("network"), add = ArgValueCandidates::new(complete::nat_networks))]
        network: String,
        /// The address outside; not the network's main one
        #[arg(value_name = "OUTSIDE-IP", value_parser = name_of("address"))]
        outside: String,
        /// Port of the guest
        #[arg(value_parser = name_of("port"), add = ArgValueCandidates::new(complete::guests))]
        port: String,
    },
    /// List the floating addresses
    List {
        /// Only of this network
        #[arg(value_parser = name_of("network"), add = ArgValueCandidates::new(complete::nat_networks))]
        network: Option<String>,
    },
    /// Take a floating address away; connections through it end
    Delete {
        /// As `floating list` shows it
        #[arg(value_name = "OUTSIDE-IP", value_parser = name_of("address"),
              add = ArgValueCandidates::new(complete::floatings))]
        outside: String,
    },
}

#[derive(Subcommand, Debug)]
pub enum Lease {
    /// List the addresses that guests have by DHCP, and those reserved
    ///
    /// EXPIRES is in seconds. Wide adds the client identifier.
    List {
        /// Only of this network
        #[arg(value_parser = name_of("network"), add = ArgValueCandidates::new(complete::nat_networks))]
        network: Option<String>,
    },
}

#[derive(Subcommand, Debug)]
pub enum Flow {
    /// List live flows
    ///
    /// INSIDE is the guest's end, OUTSIDE what it looks like from outside, REMOTE the other end. IDLE and EXPIRES
    /// are in seconds. Wide adds packets and bytes.
    List {
        /// Only of this network
        #[arg(value_parser = name_of("network"), add = ArgValueCandidates::new(complete::nat_networks))]
        network: Option<String>,
        /// Most flows shown, 1 to 100000
        #[arg(long, value_name = "N", default_value_t = 1000,
              value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
}
