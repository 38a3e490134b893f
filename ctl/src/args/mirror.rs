//! `mirror` and `capture`.

use super::value::{name_of, new_name};
use crate::complete;
use clap::{Args, Subcommand};
use clap_complete::engine::{ArgValueCandidates, ArgValueCompleter};
use std::path::PathBuf;

const DIRECTIONS: [&str; 3] = ["rx", "tx", "both"];

#[derive(Subcommand, Debug)]
pub enum Mirror {
    /// Make a mirror
    ///
    /// It copies what passes its sources into a pcapng file or to a port, until it is deleted; it is saved
    /// with the configuration. A file that exists is appended to. Copies are lost, and counted, rather than
    /// traffic delayed.
    Create {
        /// 1 to 32 characters of a-z 0-9 . _ -
        #[arg(value_parser = new_name())]
        name: String,
        /// port:PORT, network:NETWORK or bond:BOND; may be repeated
        #[arg(long, required = true, value_delimiter = ',', add = ArgValueCandidates::new(complete::sources))]
        source: Vec<String>,
        /// rx (into the switch), tx (out of it) or both [default: both; of a network: rx, which is every frame
        /// once]
        #[arg(long, value_name = "DIRECTION", value_parser = DIRECTIONS)]
        direction: Option<String>,
        /// pcap:FILE beneath the capture directory, or port:PORT
        #[arg(long, add = ArgValueCandidates::new(complete::targets))]
        to: String,
        /// Only frames that match, in tcpdump's syntax (pcap-filter(7))
        #[arg(long, value_name = "EXPR")]
        filter: Option<String>,
        /// Bytes kept of a frame, 14 to 262144 [default: 262144]
        #[arg(long, value_name = "BYTES")]
        snaplen: Option<u32>,
        /// Cut superframes into the segments that would be on a wire
        #[arg(long)]
        segment: bool,
        /// Begin a new file at this size: bytes, or with K, M, G (1024), as in 100M
        #[arg(long, value_name = "SIZE")]
        rotate_size: Option<String>,
        /// Begin a new file after this time: seconds, or with s, m, h, d, as in 1h
        #[arg(long, value_name = "TIME")]
        rotate_time: Option<String>,
        /// Keep this many files, and remove the oldest
        #[arg(long, value_name = "N")]
        rotate_count: Option<u32>,
    },
    /// List the mirrors
    ///
    /// COPIED and LOST are frames; LOST could not be written (a full disk, a slow one). Wide adds bytes and
    /// the file that is written now.
    List,
    /// Show one mirror with its state, last error and counters
    Show {
        #[arg(value_parser = name_of("mirror"), add = ArgValueCandidates::new(complete::mirrors))]
        name: String,
    },
    /// Delete a mirror; its file is complete afterwards
    Delete {
        #[arg(value_parser = name_of("mirror"), add = ArgValueCandidates::new(complete::mirrors))]
        name: String,
    },
}

#[derive(Args, Debug)]
pub struct Capture {
    /// port:PORT, network:NETWORK, bond:BOND, or a name that only one of them bears
    #[arg(value_parser = name_of("source"), add = ArgValueCandidates::new(complete::sources))]
    pub source: String,
    /// Only frames that match, in tcpdump's syntax (pcap-filter(7))
    #[arg(add = ArgValueCompleter::new(complete::nothing))]
    pub filter: Vec<String>,
    /// File to write, `-` for standard output; a pcapng file that exists is appended to
    #[arg(short = 'w', value_name = "FILE", default_value = "-", value_hint = clap::ValueHint::FilePath)]
    pub write: PathBuf,
    /// End after this many frames
    #[arg(short = 'c', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Bytes kept of a frame, 14 to 262144 [default: 262144]
    #[arg(long, value_name = "BYTES")]
    pub snaplen: Option<u32>,
    /// rx (into the switch), tx (out of it) or both [default: both; of a network: rx]
    #[arg(long, value_name = "DIRECTION", value_parser = DIRECTIONS)]
    pub direction: Option<String>,
    /// Cut superframes into the segments that would be on a wire
    #[arg(long)]
    pub segment: bool,
}
