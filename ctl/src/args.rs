//! The command line. Names, flags and exit codes are a promise to outside scripts.
//!
//! Values are checked here as far as no daemon is needed to name the mistake (exit status 2); all other rules
//! are the daemon's. The same definition makes the help, the manual pages and the completion.

mod bond;
mod mirror;
mod nat;
mod network;
mod port;
mod value;

pub use bond::{Bond, Create as BondCreate};
pub use mirror::{Capture, Mirror};
pub use nat::{Floating, Flow, Forward, Lease};
pub use network::{Create as NetworkCreate, Fdb, FdbCommand, Nat, Network};
pub use port::{Attach, Port};

use crate::complete;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::engine::ArgValueCandidates;
use std::path::PathBuf;
use std::time::Duration;
use value::{name_of, parse_time};

/// Controls switchd, the software switch
///
/// Asks the daemon over its unix socket, prints the answer as a table or as JSON or YAML, and says with its
/// exit status how it went. In tables a frame is an Ethernet frame, or a superframe of up to 64 KiB that
/// crosses the switch whole (counted once). Sizes are bytes and times are seconds unless a unit stands beside
/// them.
#[derive(Parser, Debug)]
#[command(name = "switchctl", version, arg_required_else_help = true, after_help = EXIT_STATUS)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_STATUS: &str = "Exit status: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict, 5 daemon unreachable, \
                           6 timeout, 7 diff found changes, 8 permission denied.";

#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Of every command")]
pub struct Global {
    /// Socket of the daemon [default: $SWITCHD_SOCKET, /run/switchd/switchd.sock, or
    /// $XDG_RUNTIME_DIR/switchd.sock]
    #[arg(long, global = true, value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
    pub socket: Option<PathBuf>,
    /// Form of the output
    #[arg(short = 'o', long = "output", global = true, value_name = "FORM", value_enum, default_value_t)]
    pub output: Output,
    /// Longest time to wait for the answer (30 s unless given), and for a daemon that is not there yet (not at
    /// all unless given). A number of seconds, or with ms, s, m, h
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_time)]
    pub wait: Option<Duration>,
    /// Do not say what was done; what was asked for and errors are printed still
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
    /// One object or one array, keys as in the API, raw numbers
    Json,
    /// The same as YAML
    Yaml,
    /// Of `topology`: Graphviz
    Dot,
    /// Of `topology`: a picture
    Svg,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Networks: bridged to the outside, isolated, or behind address translation
    #[command(subcommand, arg_required_else_help = true)]
    Network(Network),
    /// Ports: the interfaces of guests
    #[command(subcommand, arg_required_else_help = true)]
    Port(Port),
    /// Bonds: several links as one
    #[command(subcommand, arg_required_else_help = true)]
    Bond(Bond),
    /// Forwards: ports of the outside that lead to guests of NAT networks
    #[command(subcommand, arg_required_else_help = true)]
    Forward(Forward),
    /// Floating addresses: outside addresses that are one guest's, both ways
    #[command(subcommand, arg_required_else_help = true)]
    Floating(Floating),
    /// Leases: addresses that guests of NAT networks have
    #[command(subcommand, arg_required_else_help = true)]
    Lease(Lease),
    /// Flows: translated connections of NAT networks
    #[command(subcommand, arg_required_else_help = true)]
    Flow(Flow),
    /// Addresses of a network: list, add or delete entries of the forwarding database
    ///
    /// `switchctl fdb NETWORK` lists the addresses, learned and static, with the port behind which each one
    /// stands. VLAN is the VLAN whose addresses are learned on their own (one that a port of the network
    /// names); `-` is the network's common table. AGE is in seconds since the address was last seen.
    #[command(
        args_conflicts_with_subcommands = true,
        subcommand_negates_reqs = true,
        arg_required_else_help = true
    )]
    Fdb(Fdb),
    /// Dropped frames by port, direction and reason
    ///
    /// `in` is what came from the port's guest or wire and went no further, `out` what was offered to the port
    /// and could not leave. Every frame that is not delivered is counted here, with its reason.
    Drops {
        /// Only this port or network
        #[arg(value_name = "PORT|NETWORK", value_parser = name_of("port or network"),
              add = ArgValueCandidates::new(complete::ports_and_networks))]
        name: Option<String>,
        /// Go on, and show what was added in each second
        #[arg(long)]
        watch: bool,
    },
    /// Mirrors: copies of traffic to a file or a port
    #[command(subcommand, arg_required_else_help = true)]
    Mirror(Mirror),
    /// Capture live, as pcapng: `switchctl capture network:lab -w - | wireshark -k -i -`
    ///
    /// One interface block for each switch port, nanoseconds, the direction as seen from the switch, and
    /// statistics with the number of frames that the capture lost. It goes on until COUNT is reached, the
    /// reader goes, or Ctrl-C. Traffic is never delayed by a slow reader: copies are lost, and counted.
    #[command(arg_required_else_help = true)]
    Capture(Capture),
    /// Take a file as the whole desired state; what it does not name is deleted
    ///
    /// The file is TOML, as `switchctl export` prints it. Everything is checked first; what cannot be brought
    /// up undoes the whole. Ports that do not change lose no frame.
    Apply {
        /// TOML file, `-` for standard input
        #[arg(value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
        /// Only show the changes
        #[arg(long)]
        dry_run: bool,
        /// Roll back unless `switchctl confirm` follows within this time (whole seconds, or with s, m, h);
        /// also after a crash
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        confirm: Option<Duration>,
    },
    /// Keep what `apply --confirm` has applied
    Confirm,
    /// Compare a file with the desired state; exit status 7 when they differ
    ///
    /// Shows what `switchctl apply FILE` would do: + create, ~ change, - delete.
    Diff {
        /// TOML file, `-` for standard input
        #[arg(value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Print the desired state as `apply` takes it
    ///
    /// As TOML; with `-o json` or `-o yaml` the same model in that form.
    Export,
    /// State of the daemon, and whatever could not be brought up
    ///
    /// Succeeds once the saved configuration was loaded and every object was tried. Times are in seconds.
    Status,
    /// What has happened
    ///
    /// The latest events that the daemon remembers, the oldest first. Times are UTC.
    Events {
        /// Go on with what happens from now on (with `-o json`: one object a line)
        #[arg(long)]
        watch: bool,
    },
    /// Load of workers and ports, as it changes
    ///
    /// On a terminal a screen that is renewed every second (q leaves it); elsewhere, and with `-o json` or
    /// `-o yaml`, one sample of one second. LOAD is the share of the last second that a worker was busy;
    /// CYCLES/FRAME are those of the processor's time-stamp counter.
    Top {
        /// Print this many samples, each of one second, as plain tables, and end
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        count: Option<u32>,
    },
    /// Networks, ports, bonds and mirrors as a graph
    ///
    /// As text, or with `-o dot`, `-o svg` or `-o json`: `switchctl topology -o svg > net.svg`.
    Topology,
    /// Print the completion script of a shell
    ///
    /// bash: `source <(switchctl completion bash)`; zsh the same; fish: `switchctl completion fish | source`.
    /// Names of networks, ports, bonds and mirrors are asked from the daemon.
    Completion {
        /// Shell that the script is for
        shell: Shell,
    },
    /// Write the manual pages into a folder
    #[command(hide = true)]
    Man {
        #[arg(value_hint = clap::ValueHint::DirPath)]
        directory: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("switchctl").chain(line.split(' ')))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_anywhere() {
        for line in ["-o json --wait 5s network list", "network -o json list --wait 5s"] {
            let cli = parse(line).unwrap();
            assert_eq!(cli.global.output, Output::Json);
            assert_eq!(cli.global.wait, Some(Duration::from_secs(5)));
        }
    }

    #[test]
    fn every_promised_command_is_taken() {
        for line in [
            "network create office --kind bridged --uplink eth0 --vlan 20 --mtu 9000 --ageing 60 --mac-limit 9",
            "network create lab --kind isolated",
            "network set lab mtu=9000 ageing=",
            "network create lab --kind nat --subnet 10.7.0.0/24",
            "network create lab --kind nat --subnet 10.7.0.0/24 --subnet6 fd00:7::/64 --egress host --dns lab.example",
            "network create lab --kind nat --subnet 10.7.0.0/24 --egress bond0 --vlan 20 --address 192.0.2.9/24 \
             --pool 192.0.2.20-192.0.2.29 --gateway 192.0.2.1 --mac host --set lease-time=1h \
             --set dhcp-option.ntp=10.7.0.5 --address6 2001:db8::9/64 --gateway6 fe80::1 --resolver 192.0.2.53",
            "network create lab --kind nat --subnet 10.7.0.0/24 --egress eth0 --address dhcp",
            "port attach lab vm1 --tap eth0 --reserve 10.7.0.20 --storm-limit off --bpdu-guard off --loop-guard on",
            "port set vm1 storm-limit=5000 bpdu-guard=off reserve=",
            "bond create bond0 --members eth0,eth1 --mode lacp --lacp passive --rate slow --hash layer2+3 \
             --min-links 2 --system-priority 1 --system-id 02:00:00:00:00:01 --key 7 --fallback active-backup \
             --peer eth2 --peer-id 1",
            "bond create bond0 --members eth0 --members eth1 --mode active-backup --prefer eth1",
            "bond list -o wide",
            "bond show bond0",
            "bond set bond0 members=eth0,eth2 rate=slow",
            "bond delete bond0",
            "forward add lab tcp/8080:10.7.0.20:80",
            "forward add lab 192.0.2.9:udp/5000-5010:10.7.0.20:5000",
            "forward list",
            "forward list lab",
            "forward delete lab tcp/8080",
            "floating add lab 192.0.2.50 vm1",
            "floating list",
            "floating delete 192.0.2.50",
            "lease list",
            "lease list lab",
            "flow list lab --limit 5",
            "port attach lab vm1 --tap eth0 --netns g1 --mac 02:00:00:00:00:01 --vlan trunk=10,20,native=1",
            "port attach lab vm1 --netdev vnet0 --mac-limit 3",
            "port attach lab vm1 --vhost-user /run/vm1.sock --mac 02:00:00:00:00:01",
            "port attach lab vm1 --vhost-user s --server --queues 8 --socket-mode 0660 --socket-owner a:b",
            "port set vm1 admin=down",
            "port detach vm1",
            "fdb lab",
            "fdb add lab 02:00:00:00:00:01 vm1",
            "fdb delete lab 02:00:00:00:00:01@10",
            "drops lab --watch",
            "mirror create m --source port:a --source network:b,port:c --direction rx --to pcap:a/b.pcapng \
             --filter arp --snaplen 64 --segment --rotate-size 1M --rotate-time 1h --rotate-count 3",
            "capture network:lab tcp port 80 -w - -c 3",
            "capture lab -w file",
            "apply - --dry-run",
            "apply f --confirm 60s",
            "topology -o svg",
            "events --watch",
            "completion zsh",
        ] {
            let words = std::iter::once("switchctl").chain(line.split_whitespace());
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        for line in [
            "network create ../x --kind isolated",
            "network create x --kind routed",
            "bond create bond0 --mode lacp",
            "bond create bond0 --members eth0 --mode 802.3ad",
            "bond create bond0 --members eth0 --mode lacp --peer eth1",
            "bond create bond0 --members eth0 --mode lacp --min-links 0",
            "forward add lab tcp/8080",
            "forward add lab 10.7.0.20:80",
            "floating add lab 192.0.2.50",
            "flow list --limit 0",
            "network create x --kind bridged --uplink e --vlan 4095",
            "port attach lab vm1",
            "port attach lab vm1 --tap a --netdev b",
            "port attach lab Vm1 --tap a",
            "port attach lab vm1 --netdev a --netns b",
            "port attach lab vm1 --vhost-user s --netdev b",
            "port attach lab vm1 --vhost-user s --queues 9",
            "port attach lab vm1 --vhost-user s --socket-mode 0660",
            "port attach lab vm1 --tap a --server",
            "mirror create m --source port:a",
            "mirror create m --source port:a --to pcap:f --direction up",
            "capture lab -c 0",
            "network set lab mtu",
            "status --wait soon",
            "top --count 0",
            "bond",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(Cli::try_parse_from(["switchctl", "network", "show", ""]).is_err());
    }
}
