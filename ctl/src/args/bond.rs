//! `bond`.

use super::value::{name_of, new_name, parse_setting};
use crate::complete;
use clap::{Args, Subcommand};
use clap_complete::engine::{ArgValueCandidates, ArgValueCompleter};

#[derive(Subcommand, Debug)]
pub enum Bond {
    /// Make a bond: several links as one
    ///
    /// Its name can then stand wherever an uplink or egress is named. `lacp` aggregates links by IEEE 802.1AX:
    /// all members work at once, each flow on one of them. `active-backup` uses one member at a time and needs
    /// nothing of the other end.
    Create(Box<Create>),
    /// List the bonds
    ///
    /// MEMBERS are those in use, of all. Wide adds system and key of both ends.
    List,
    /// Show one bond with its members
    ///
    /// Wide says of each member in words why it is out, and shows the states of its machines and the protocol's
    /// counters.
    Show {
        #[arg(value_parser = name_of("bond"), add = ArgValueCandidates::new(complete::bonds))]
        name: String,
    },
    /// Change settings of a bond; an empty value is the default
    Set {
        #[arg(value_parser = name_of("bond"), add = ArgValueCandidates::new(complete::bonds))]
        name: String,
        /// members=IF,IF, mode, lacp, rate, hash, min-links, prefer, system-priority, …: as in `bond create`
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = parse_setting,
              add = ArgValueCompleter::new(complete::bond_settings))]
        settings: Vec<(String, String)>,
    },
    /// Delete a bond that no network uses; its members are given back to the host
    Delete {
        #[arg(value_parser = name_of("bond"), add = ArgValueCandidates::new(complete::bonds))]
        name: String,
    },
}

#[derive(Args, Debug)]
pub struct Create {
    /// 1 to 32 characters of a-z 0-9 . _ -; not the name of an interface
    #[arg(value_parser = new_name())]
    pub name: String,
    /// Interfaces, 1 to 16, with commas between them
    #[arg(long, required = true, value_name = "IF,IF", value_delimiter = ',',
          add = ArgValueCandidates::new(complete::interfaces))]
    pub members: Vec<String>,
    /// How the members are used
    #[arg(long, value_parser = ["lacp", "active-backup"])]
    pub mode: String,
    /// Speak first, or only answer [default: active]
    #[arg(long, value_parser = ["active", "passive"])]
    pub lacp: Option<String>,
    /// How often the partner is asked to speak: each second (a silent one is given up after 3 s), or each
    /// 30 s (90 s) [default: fast]
    #[arg(long, value_parser = ["fast", "slow"])]
    pub rate: Option<String>,
    /// What decides on which member a frame leaves [default: layer3+4]
    #[arg(long, value_parser = ["layer2", "layer2+3", "layer3+4"])]
    pub hash: Option<String>,
    /// Members that must work for the bond to be up [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub min_links: Option<u32>,
    /// Member that is used while it works (active-backup)
    #[arg(long, value_name = "IF", add = ArgValueCandidates::new(complete::interfaces))]
    pub prefer: Option<String>,
    /// The end with the lower one decides which links are used [default: 32768]
    #[arg(long, value_name = "N")]
    pub system_priority: Option<u16>,
    /// System identifier that the partner sees [default: chosen once, and kept]
    #[arg(long, value_name = "MAC")]
    pub system_id: Option<String>,
    /// Aggregation key, 1 to 65535 [default: from speed and duplex]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub key: Option<u16>,
    /// Without a partner: use no member, or one [default: none]
    #[arg(long, value_parser = ["none", "active-backup"])]
    pub fallback: Option<String>,
    /// Interface of the link to the other half of an MLAG pair; needs --peer-id, and the same --system-id at
    /// both halves
    #[arg(long, value_name = "IF", requires = "peer_id", add = ArgValueCandidates::new(complete::interfaces))]
    pub peer: Option<String>,
    /// Which half of the MLAG pair this one is
    #[arg(long, value_name = "1|2", requires = "peer", value_parser = clap::value_parser!(u8).range(1..=2))]
    pub peer_id: Option<u8>,
}
