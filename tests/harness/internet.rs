//! An "internet" for NAT networks: a host with an uplink, and a router outside that is also the servers.
//!
//! ```text
//! guest ── switchd in `host` ── up0 ═══ in0 ── `net`: 192.0.2.1, and 198.51.100.1, .2 behind it
//! ```
//! The router has no route to the guests' subnets, so whatever reaches it untranslated is not answered.

use crate::command::{Background, run};
use crate::daemon::Daemon;
use crate::lab::{Lab, Space};
use crate::wait::eventually;
use std::time::Duration;

pub const TALK: &str = include_str!("talk.py");
/// Where the servers listen that [`Internet::start`] starts.
pub const PORT: u16 = 7000;
/// Servers behind the router.
pub const SERVER: &str = "198.51.100.1";
pub const OTHER_SERVER: &str = "198.51.100.2";
pub const SERVER6: &str = "2001:db8:99::1";

/// A NAT network with an outside address on the host's uplink.
pub const LAB: &str = "network create lab --kind nat --subnet 10.7.0.0/24 --egress up0 --address 192.0.2.50/24 --gateway 192.0.2.1";
/// One that uses the host's sockets.
pub const HOSTED: &str = "network create lab --kind nat --subnet 10.7.0.0/24 --egress host";

pub struct Internet {
    pub host: Space,
    pub net: Space,
    servers: Vec<Background>,
}

impl Lab {
    /// The host's address is 192.0.2.100; its default route leads to the router.
    #[track_caller]
    pub fn internet(&self) -> Internet {
        let (host, net) = (self.space("host"), self.space("net"));
        self.wire((&host, "up0"), (&net, "in0"));
        for interface in ["lo", "in0"] {
            net.ip6(interface);
        }
        host.ip6("lo");
        host.ip6("up0");
        net.address("in0", "192.0.2.1/24");
        net.ip(&["-6", "address", "add", "2001:db8:1::1/64", "dev", "in0", "nodad"]);
        for address in [SERVER, OTHER_SERVER] {
            net.ip(&["address", "add", &format!("{address}/32"), "dev", "lo"]);
        }
        net.ip(&["-6", "address", "add", &format!("{SERVER6}/128"), "dev", "lo", "nodad"]);
        host.address("up0", "192.0.2.100/24");
        host.ip(&["-6", "address", "add", "2001:db8:1::100/64", "dev", "up0", "nodad"]);
        host.ip(&["route", "add", "default", "via", "192.0.2.1"]);
        host.ip(&["-6", "route", "add", "default", "via", "2001:db8:1::1"]);
        Internet { host, net, servers: Vec::new() }
    }
}

impl Internet {
    /// The daemon with a NAT network (a line of `switchctl`) and a guest on it that reaches the outside.
    #[track_caller]
    pub fn nat(&self, lab: &Lab, line: &str) -> (Daemon, Space) {
        let switch = Daemon::start(lab, &self.host);
        switch.do_(line);
        let guest = lab.space("a");
        switch.nat_guest("lab", "a", &guest, "10.7.0.20/24", "10.7.0.1");
        guest.reaches(SERVER);
        (switch, guest)
    }

    /// Starts a server of TCP and UDP at an address of the router.
    #[track_caller]
    pub fn serve(&mut self, address: &str, port: u16) {
        let server = self.net.serve(address, port);
        self.servers.push(server);
    }

    /// With servers at [`SERVER`] and [`SERVER6`].
    #[track_caller]
    pub fn start(&mut self) {
        self.serve(SERVER, PORT);
        self.serve(SERVER6, PORT);
    }
}

impl Space {
    /// Allows IPv6 on an interface.
    #[track_caller]
    pub fn ip6(&self, interface: &str) {
        self.run(&["sysctl", "-qw", &format!("net.ipv6.conf.{interface}.disable_ipv6=0")]);
    }

    /// `talk.py serve` here, listening.
    #[track_caller]
    pub fn serve(&self, address: &str, port: u16) -> Background {
        let server = self.background(&["python3", "-c", TALK, "serve", address, &port.to_string()]);
        eventually(Duration::from_secs(10), || match server.stdout().starts_with("ready") {
            true => Ok(()),
            false => Err(format!("the server is not ready: {}", server.stderr())),
        });
        server
    }

    /// What `talk.py MODE …` prints, run here.
    #[track_caller]
    pub fn talk(&self, mode: &str, address: &str, port: u16, more: &[&str]) -> String {
        run(&mut self.talk_command(mode, address, port, more), Duration::from_secs(40))
            .ok()
            .text()
            .trim()
            .to_owned()
    }

    pub fn talk_command(&self, mode: &str, address: &str, port: u16, more: &[&str]) -> std::process::Command {
        let port = port.to_string();
        let mut words = vec!["python3", "-c", TALK, mode, address, &port];
        words.extend(more);
        self.command(&words)
    }
}

impl Space {
    /// What a script with scapy prints, run here.
    #[track_caller]
    pub fn scapy(&self, script: &str, arguments: &[&str]) -> String {
        run(&mut self.scapy_command(script, arguments), Duration::from_secs(40)).ok().text().trim().to_owned()
    }

    pub fn scapy_command(&self, script: &str, arguments: &[&str]) -> std::process::Command {
        let script = format!("from scapy.all import *\nconf.verb = 0\n{script}");
        // Where Debian's package is.
        let mut words = vec!["/usr/bin/python3", "-c", &script];
        words.extend(arguments);
        self.command(&words)
    }
}

impl Daemon {
    /// Attaches a tap as `eth0` with a static address (A/LEN) and a default route.
    #[track_caller]
    pub fn nat_guest(&self, network: &str, port: &str, space: &Space, address: &str, gateway: &str) {
        self.guest(network, port, space, address);
        space.ip(&["route", "add", "default", "via", gateway]);
    }

    /// Events of a kind, as one text.
    #[track_caller]
    pub fn events(&self, kind: &str) -> Vec<String> {
        let events = self.json(&["events"]);
        let rows = events.as_array().expect("a list").iter();
        let wanted = rows.filter(|row| row["kind"].as_str().is_some_and(|text| text.starts_with(kind)));
        wanted.map(|row| format!("{} {}", row["object"], row["message"])).collect()
    }
}
