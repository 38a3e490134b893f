//! The host's stack is kept off a guarded interface, and comes back.

mod common;

use common::*;
use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;
use switchd_port::host_guard::{self, HostGuard};
use switchd_port::netdev::{self, Options};
use switchd_port::netlink::Netlink;
use switchd_port::{NetdevPort, Port};

/// A namespace that plays the host, with an address on its end of a veth, and a guest at the other end.
struct Stage {
    host: Netns,
    guest: Netns,
    host_socket: UdpSocket,
    guest_socket: UdpSocket,
}

impl Stage {
    fn new() -> Stage {
        let (host, guest) = (Netns::new(), Netns::new());
        veth(&host, "v0", &guest, "v1");
        host.link("v0", |netlink, index| netlink.set_mac(index, mac(9)));
        host.address("v0", "10.8.0.1", None);
        guest.address("v1", "10.8.0.2", None);
        let host_socket = host.run(|| UdpSocket::bind("10.8.0.1:700").unwrap());
        host_socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let guest_socket = guest.run(|| UdpSocket::bind("10.8.0.2:0").unwrap());
        Stage { host, guest, host_socket, guest_socket }
    }

    /// Whether the host's stack gets what the guest sends; asks for the address anew (ARP).
    fn host_hears(&self) -> bool {
        ip(&["-n", &self.guest.name, "neigh", "flush", "dev", "v1"]);
        self.guest_socket.send_to(b"hello", "10.8.0.1:700").unwrap();
        self.host_socket.recv(&mut [0; 16]).is_ok()
    }

    fn install(&self) -> HostGuard {
        Netlink::in_netns(self.host.fd(), |netlink| host_guard::install(netlink, "v0")).unwrap()
    }

    fn release(&self) -> bool {
        Netlink::in_netns(self.host.fd(), |netlink| host_guard::release(netlink, "v0")).unwrap()
    }

    fn guarded(&self) -> Vec<HostGuard> {
        Netlink::in_netns(self.host.fd(), host_guard::guarded).unwrap()
    }

    fn ipv6_is_off(&self) -> String {
        let path = "/proc/sys/net/ipv6/conf/v0/disable_ipv6";
        self.host.run(|| std::fs::read_to_string(path)).unwrap().trim().to_owned()
    }

    fn set_ipv6_off(&self, off: &str) {
        self.host.run(|| std::fs::write("/proc/sys/net/ipv6/conf/v0/disable_ipv6", off)).unwrap();
    }

    /// What `tc` shows of the interface.
    fn tc(&self, arguments: &[&str]) -> String {
        let output = Command::new("tc").args(["-n", &self.host.name]).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn the_host_hears_nothing_while_the_port_sees_every_frame() {
    if !root() {
        return;
    }
    let stage = Stage::new();
    assert!(stage.host_hears());
    let index = stage.host.index("v0");
    let mut port =
        NetdevPort::from_fd(stage.host.run(|| netdev::open(index, &Options::default())).unwrap()).unwrap();
    assert_eq!(stage.install(), HostGuard { index, name: "v0".into() });
    assert!(!stage.host_hears());
    let (mut frames, mut arena) = burst();
    let received = receive(&mut port, &mut frames, &mut arena);
    assert_eq!(received.frames, 1);
    assert_eq!(bytes(&frames[0], &arena)[12..14], [0x08, 0x06], "an ARP request that nobody answers");
    // With a fixed neighbour the datagram itself gets to the port, and not to the host.
    let host_mac = mac(9).to_string();
    ip(&["-n", &stage.guest.name, "neigh", "replace", "10.8.0.1", "lladdr", &host_mac, "dev", "v1"]);
    stage.guest_socket.send_to(b"hello", "10.8.0.1:700").unwrap();
    assert!(stage.host_socket.recv(&mut [0; 16]).is_err());
    let mut seen = false;
    while !seen {
        let received = receive(&mut port, &mut frames, &mut arena);
        seen = frames[..received.frames].iter().any(|frame| bytes(frame, &arena).ends_with(b"hello"));
    }
    assert!(port.receive(&mut frames, &mut arena).dead.is_none());
    assert!(stage.release());
    assert!(stage.host_hears());
}

#[test]
fn ipv6_is_off_under_the_guard_and_as_before_after_it() {
    if !root() {
        return;
    }
    let stage = Stage::new();
    for before in ["0", "1"] {
        stage.set_ipv6_off(before);
        let _guard = stage.install();
        assert_eq!(stage.ipv6_is_off(), "1");
        assert!(stage.release());
        assert_eq!(stage.ipv6_is_off(), before);
    }
}

#[test]
fn a_guard_survives_its_maker_and_is_found_again() {
    if !root() {
        return;
    }
    let stage = Stage::new();
    stage.set_ipv6_off("0");
    drop(stage.install());
    let index = stage.host.index("v0");
    assert_eq!(stage.guarded(), [HostGuard { index, name: "v0".into() }]);
    // A second start: the guard is replaced, and what was before the first one is restored at last.
    drop(stage.install());
    assert_eq!(stage.guarded().len(), 1);
    assert_eq!(stage.tc(&["filter", "show", "dev", "v0", "ingress"]).matches("bytecode").count(), 1);
    assert!(stage.release());
    assert_eq!(stage.ipv6_is_off(), "0");
    assert_eq!(stage.guarded(), []);
    assert!(!stage.release());
    assert!(!stage.tc(&["qdisc", "show", "dev", "v0"]).contains("clsact"), "nothing is left");
}

#[test]
fn the_filters_of_others_are_left_alone() {
    if !root() {
        return;
    }
    let stage = Stage::new();
    stage.tc(&["qdisc", "add", "dev", "v0", "clsact"]);
    let other = [
        "filter", "add", "dev", "v0", "egress", "protocol", "ip", "prio", "7", "u32", "match", "u32", "0",
        "0",
    ];
    stage.tc(&other);
    drop(stage.install());
    assert!(!stage.host_hears());
    assert!(stage.release());
    assert!(stage.tc(&["filter", "show", "dev", "v0", "egress"]).contains("pref 7"));
    assert!(stage.host_hears());
}

#[test]
fn a_missing_interface_is_an_error_to_guard_and_none_to_release() {
    if !root() {
        return;
    }
    let host = Netns::new();
    let error = Netlink::in_netns(host.fd(), |netlink| host_guard::install(netlink, "none")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    assert!(!Netlink::in_netns(host.fd(), |netlink| host_guard::release(netlink, "none")).unwrap());
}
