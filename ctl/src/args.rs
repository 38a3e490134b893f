//! The command line. Names, flags and exit codes are a promise to outside scripts.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Controls switchd, the virtual switch
#[derive(Parser, Debug)]
#[command(
    name = "switchctl",
    version,
    propagate_version = true,
    after_help = "Exit status: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict, 5 daemon unreachable, \
                  6 timeout, 7 diff found changes, 8 permission denied."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Args, Debug, Clone)]
pub struct Global {
    /// Socket of the daemon
    #[arg(long, global = true, env = "SWITCHD_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Form of the output
    #[arg(short = 'o', long = "output", global = true, value_name = "FORM", value_enum, default_value_t)]
    pub output: Output,
    /// Longest time to wait for the answer, and for the daemon where it is not there yet
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_time)]
    pub wait: Option<Duration>,
    /// Print nothing but errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Table,
    /// For people with room
    Wide,
    Json,
    Yaml,
    /// Of `topology`: Graphviz
    Dot,
    /// Of `topology`: a picture
    Svg,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Networks: bridged to the outside, or isolated
    #[command(subcommand)]
    Network(Network),
    /// Ports: the interfaces of guests
    #[command(subcommand)]
    Port(Port),
    /// Addresses of a network: list, add or delete entries of the forwarding database
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Fdb(Fdb),
    /// Dropped frames by port, direction and reason
    Drops {
        /// Only this port or network
        name: Option<String>,
        /// Show what is added, every second
        #[arg(long)]
        watch: bool,
    },
    /// Mirrors: copies of traffic to a file or a port
    #[command(subcommand)]
    Mirror(Mirror),
    /// Capture live, as pcapng: `switchctl capture network:lab -w - | wireshark -k -i -`
    Capture(Capture),
    /// Take a file as the whole desired state; what it does not name is deleted
    Apply {
        /// TOML file, `-` for standard input
        file: PathBuf,
        /// Only show the changes
        #[arg(long)]
        dry_run: bool,
        /// Roll back unless `switchctl confirm` follows within this time
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        confirm: Option<Duration>,
    },
    /// Keep what `apply --confirm` has applied
    Confirm,
    /// Compare a file with the desired state; exit status 7 when they differ
    Diff { file: PathBuf },
    /// Print the desired state as `apply` takes it
    Export,
    /// State of the daemon, and whatever could not be brought up
    Status,
    /// What has happened
    Events {
        /// Go on with what happens from now on
        #[arg(long)]
        watch: bool,
    },
    /// Load of workers and ports, as it changes
    Top {
        /// Print this many samples as plain tables and end
        #[arg(long, value_name = "N")]
        count: Option<u32>,
    },
    /// Networks, ports and mirrors as a graph
    Topology,
    /// Print the completion script of a shell
    Completion { shell: Shell },
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Man { directory: PathBuf },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

#[derive(Subcommand, Debug)]
pub enum Network {
    /// Make a network
    Create {
        name: String,
        #[arg(long, value_name = "KIND")]
        kind: String,
        /// Interface to the outside (bridged)
        #[arg(long, value_name = "IF")]
        uplink: Option<String>,
        /// VLAN of the uplink (bridged); without it, untagged
        #[arg(long, value_name = "ID")]
        vlan: Option<u16>,
        /// Largest IP packet in bytes [default: 1500]
        #[arg(long, value_name = "BYTES")]
        mtu: Option<u16>,
        /// Seconds after which a silent address is forgotten [default: 300]
        #[arg(long, value_name = "SECONDS")]
        ageing: Option<u32>,
        /// Most learned addresses [default: 16384]
        #[arg(long, value_name = "N")]
        mac_limit: Option<u32>,
    },
    List,
    Show {
        name: String,
    },
    /// Change settings: mtu, ageing, mac-limit, uplink, vlan; an empty value is the default
    Set {
        name: String,
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = parse_setting)]
        settings: Vec<(String, String)>,
    },
    /// Delete a network that has no ports
    Delete {
        name: String,
    },
}

#[derive(Subcommand, Debug)]
pub enum Port {
    /// Attach an interface to a network
    Attach(Attach),
    List,
    Show {
        name: String,
    },
    /// Change settings: admin=up|down, vlan, mac-limit; an empty value is the default
    Set {
        name: String,
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = parse_setting)]
        settings: Vec<(String, String)>,
    },
    /// Detach a port; a tap is deleted
    Detach {
        name: String,
    },
}

#[derive(Args, Debug)]
pub struct Attach {
    pub network: String,
    pub name: String,
    /// Make a tap of this name
    #[arg(long, value_name = "IFNAME", required_unless_present = "netdev", conflicts_with = "netdev")]
    pub tap: Option<String>,
    /// Put the tap into this network namespace
    #[arg(long, value_name = "NAME", requires = "tap")]
    pub netns: Option<String>,
    /// Use an existing interface: a NIC, a veth, the host side of a VM-held tap
    #[arg(long, value_name = "IFNAME")]
    pub netdev: Option<String>,
    /// MAC address of the tap
    #[arg(long, requires = "tap")]
    pub mac: Option<String>,
    /// `access=10` or `trunk=10,20,native=1`
    #[arg(long, value_name = "SPEC")]
    pub vlan: Option<String>,
    /// Most addresses learned behind the port
    #[arg(long, value_name = "N")]
    pub mac_limit: Option<u32>,
}

#[derive(Args, Debug)]
pub struct Fdb {
    #[arg(required = true)]
    pub network: Option<String>,
    #[command(subcommand)]
    pub command: Option<FdbCommand>,
}

#[derive(Subcommand, Debug)]
pub enum FdbCommand {
    /// Add a static entry
    Add {
        network: String,
        /// MAC, or MAC@VID
        mac: String,
        port: String,
    },
    /// Delete an entry, static or learned
    Delete { network: String, mac: String },
}

#[derive(Subcommand, Debug)]
pub enum Mirror {
    /// Make a mirror
    Create {
        name: String,
        /// port:P or network:N; may be repeated
        #[arg(long, required = true, value_delimiter = ',')]
        source: Vec<String>,
        /// rx (into the switch), tx or both [default: both; of a network: rx]
        #[arg(long, value_name = "DIRECTION")]
        direction: Option<String>,
        /// pcap:FILE beneath the capture directory, or port:P
        #[arg(long)]
        to: String,
        /// tcpdump syntax
        #[arg(long, value_name = "EXPR")]
        filter: Option<String>,
        /// Bytes kept of a frame
        #[arg(long, value_name = "N")]
        snaplen: Option<u32>,
        /// Cut superframes into segments
        #[arg(long)]
        segment: bool,
        /// Begin a new file at this size (100M)
        #[arg(long, value_name = "SIZE")]
        rotate_size: Option<String>,
        /// Begin a new file after this time (1h)
        #[arg(long, value_name = "T")]
        rotate_time: Option<String>,
        /// Keep this many files
        #[arg(long, value_name = "N")]
        rotate_count: Option<u32>,
    },
    List,
    Show {
        name: String,
    },
    /// Delete a mirror; its file is complete afterwards
    Delete {
        name: String,
    },
}

#[derive(Args, Debug)]
pub struct Capture {
    /// port:P or network:N
    pub source: String,
    /// tcpdump syntax
    pub filter: Vec<String>,
    /// File to write, `-` for standard output
    #[arg(short = 'w', value_name = "FILE", default_value = "-")]
    pub write: PathBuf,
    /// End after this many frames
    #[arg(short = 'c', value_name = "COUNT")]
    pub count: Option<u64>,
    /// Bytes kept of a frame
    #[arg(long, value_name = "N")]
    pub snaplen: Option<u32>,
    /// rx, tx or both
    #[arg(long)]
    pub direction: Option<String>,
    /// Cut superframes into segments
    #[arg(long)]
    pub segment: bool,
}

/// `30s`, `500ms`, `2m`, `1h`, or plain seconds.
fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("{unit:?} is not a unit of time: use ms, s, m or h")),
    };
    let number: f64 = digits.parse().map_err(|_| format!("{text:?} is not a time, as in 30s"))?;
    Duration::try_from_secs_f64(number * factor).map_err(|_| format!("{text:?} is not a usable time"))
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_and_settings() {
        assert_eq!(parse_time("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_time("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_time("2"), Ok(Duration::from_secs(2)));
        for bad in ["", "s", "-1s", "3x", "1e999"] {
            assert!(parse_time(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_setting("vlan=access=10"), Ok(("vlan".into(), "access=10".into())));
        assert!(parse_setting("=1").is_err() && parse_setting("mtu").is_err());
    }

    #[test]
    fn global_flags_stand_anywhere() {
        let cli =
            Cli::try_parse_from(["switchctl", "network", "list", "-o", "json", "--wait", "5s"]).unwrap();
        assert_eq!(cli.global.output, Output::Json);
        assert_eq!(cli.global.wait, Some(Duration::from_secs(5)));
        for line in ["fdb lab", "fdb add lab 02:00:00:00:00:01 vm1", "fdb delete lab 02:00:00:00:00:01"] {
            let words = std::iter::once("switchctl").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }
}
