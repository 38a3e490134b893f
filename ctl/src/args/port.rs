//! `port`.

use super::value::{name_of, new_name, parse_setting};
use crate::complete;
use clap::{ArgGroup, Args, Subcommand};
use clap_complete::engine::{ArgValueCandidates, ArgValueCompleter};

#[derive(Subcommand, Debug)]
pub enum Port {
    /// Attach an interface to a network
    ///
    /// --tap makes an interface, for a namespace, a container or the host itself. --netdev takes one that is
    /// there: a NIC, a veth, or the host's side of a tap that a virtual machine holds; the host's own stack is
    /// kept off it while it is a port.
    ///
    /// --vhost-user is the socket of a virtual machine (QEMU, libvirt, Cloud Hypervisor): its queues lie in shared
    /// memory. The machine listens and switchd connects, again and again; with --server it is the other way round.
    ///
    /// Without --vlan a port is transparent: tags pass unchanged.
    Attach(Box<Attach>),
    /// List the ports, uplinks and members of bonds included
    ///
    /// RX and TX are frames as seen from the switch: received from the guest, sent to it. DROPS are frames of
    /// both directions (`switchctl drops` tells why). Wide adds bytes, and
    /// the neighbour at the far end of the cable, by LLDP.
    List,
    /// Show one port with its counters
    ///
    /// rx is from the guest, tx to it; `kernel.` are the kernel's own counters of the interface, from the
    /// interface's side (those that are 0 are shown with `-o wide`). `neighbors.` is what the far end of an
    /// uplink's cable says of itself by LLDP.
    Show {
        #[arg(value_parser = name_of("port"), add = ArgValueCandidates::new(complete::ports))]
        name: String,
    },
    /// Change settings of a port; an empty value is the default
    ///
    /// admin=up also opens a port again that a guard has shut.
    Set {
        #[arg(value_parser = name_of("port"), add = ArgValueCandidates::new(complete::guests))]
        name: String,
        /// admin=up|down, vlan=access=ID or vlan=trunk=IDS,native=ID, mac-limit (addresses), reserve=IP,
        /// storm-limit (frames a second, or off), bpdu-guard=on|off, loop-guard=on|off
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = parse_setting,
              add = ArgValueCompleter::new(complete::port_settings))]
        settings: Vec<(String, String)>,
    },
    /// Detach a port; a tap that switchd made is deleted, another interface is given back to the host
    Detach {
        #[arg(value_parser = name_of("port"), add = ArgValueCandidates::new(complete::guests))]
        name: String,
    },
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("interface").required(true).args(["tap", "netdev", "vhost_user"]))]
pub struct Attach {
    /// Network that the port joins
    #[arg(value_parser = name_of("network"), add = ArgValueCandidates::new(complete::networks))]
    pub network: String,
    /// Name of the port: 1 to 32 characters of a-z 0-9 . _ -
    #[arg(value_name = "PORT", value_parser = new_name())]
    pub name: String,
    /// Make a tap of this name
    #[arg(long, value_name = "IFNAME")]
    pub tap: Option<String>,
    /// Put the tap into this network namespace (a name as in `ip netns`)
    #[arg(long, value_name = "NAME", conflicts_with_all = ["netdev", "vhost_user"], add = ArgValueCandidates::new(complete::namespaces))]
    pub netns: Option<String>,
    /// Use an existing interface: a NIC, a veth, the host side of a VM-held tap
    #[arg(long, value_name = "IFNAME", add = ArgValueCandidates::new(complete::interfaces))]
    pub netdev: Option<String>,
    /// Use the vhost-user socket of a virtual machine
    #[arg(long, value_name = "SOCKET", value_hint = clap::ValueHint::FilePath)]
    pub vhost_user: Option<String>,
    /// Make the socket; the virtual machine connects
    #[arg(long, conflicts_with_all = ["tap", "netdev"])]
    pub server: bool,
    /// Queue pairs, 1 to 8 [default: 1]
    #[arg(long, value_name = "N", conflicts_with_all = ["tap", "netdev"], value_parser = clap::value_parser!(u16).range(1..=8))]
    pub queues: Option<u16>,
    /// Access rights of the socket that is made, in octal [default: 0600]
    #[arg(long, value_name = "MODE", requires = "server")]
    pub socket_mode: Option<String>,
    /// Owner of the socket that is made
    #[arg(long, value_name = "USER[:GROUP]", requires = "server")]
    pub socket_owner: Option<String>,
    /// MAC address of the tap, or for the virtual machine [default: chosen once, and kept]
    #[arg(long, conflicts_with = "netdev")]
    pub mac: Option<String>,
    /// `access=10` (untagged member of one VLAN) or `trunk=10,20,native=1` (tagged, VLAN 1 untagged)
    #[arg(long, value_name = "SPEC", add = ArgValueCandidates::new(complete::vlan_forms))]
    pub vlan: Option<String>,
    /// Most addresses learned behind the port [default: the network's limit]
    #[arg(long, value_name = "N")]
    pub mac_limit: Option<u32>,
    /// Address that the guest gets by DHCP (on a NAT network)
    #[arg(long, value_name = "IP")]
    pub reserve: Option<String>,
    /// Frames a second that the port may flood, 100 to 10000000, or off [default: 20000]
    #[arg(long, value_name = "N|off")]
    pub storm_limit: Option<String>,
    /// Shut the port when its guest sends a BPDU [default: on]
    #[arg(long, value_parser = ["on", "off"])]
    pub bpdu_guard: Option<String>,
    /// Shut the port when there is a loop behind it [default: on]
    #[arg(long, value_parser = ["on", "off"])]
    pub loop_guard: Option<String>,
}
