//! An outside address that is leased, from other people's servers and from another switchd.

use std::time::Duration;
use switchd_tests::internet::{PORT, SERVER};
use switchd_tests::{Background, Daemon, Internet, Lab, Setup, Sniffer, Space, eventually};

const LEASED: &str = "network create lab --kind nat --subnet 10.7.0.0/24 --egress up0 --address dhcp";
/// Seconds of a lease of the server outside; less is not granted by BusyBox's.
const LEASE: u32 = 12;

/// BusyBox's server outside.
fn udhcpd(lab: &Lab, internet: &Internet) -> Background {
    let file = lab.folder().join("udhcpd.conf");
    let leases = lab.folder().join("udhcpd.leases");
    let text = format!(
        "start 192.0.2.200\nend 192.0.2.210\ninterface in0\nmin_lease 5\nlease_file {}\npidfile {}\n\
         option subnet 255.255.255.0\noption router 192.0.2.1\noption lease {LEASE}\n",
        leases.display(),
        lab.folder().join("udhcpd.pid").display()
    );
    std::fs::write(&file, text).and_then(|()| std::fs::write(&leases, "")).expect("our folder");
    internet.net.background(&["busybox", "udhcpd", "-f", file.to_str().expect("a plain path")])
}

/// DHCP messages of the client that passed: type, whether to everybody, and the address that it has.
fn messages(wire: &Sniffer) -> Vec<(u8, bool, [u8; 4])> {
    let dhcp = |frame: Vec<u8>| {
        let server =
            frame.get(12..14)? == [8, 0] && frame.get(23) == Some(&17) && frame.get(36..38)? == [0, 67];
        let at = 282 + frame.get(282..)?.windows(2).position(|pair| pair == [53, 1])?;
        let own = frame.get(54..58)?.try_into().ok()?;
        server.then_some((frame[at + 2], frame[..6] == [0xff; 6], own))
    };
    wire.frames().into_iter().filter_map(dhcp).collect()
}

const REQUEST: u8 = 3;
const RELEASE: u8 = 7;

fn outside(switch: &Daemon) -> String {
    let shown = switch.json(&["network", "show", "lab"]);
    shown["nat"]["outside"]["address"].as_str().unwrap_or_default().to_owned()
}

fn leased(switch: &Daemon, limit: u64) -> String {
    eventually(Duration::from_secs(limit), || match outside(switch) {
        address if address.starts_with("192.0.2.2") => Ok(address),
        address => Err(format!("the outside address is {address:?}")),
    })
}

/// With a server, or without one at first.
fn begin(lab: &Lab, serve: bool) -> (Internet, Daemon, Space, Option<Background>) {
    let mut internet = lab.internet();
    internet.start();
    let server = serve.then(|| udhcpd(lab, &internet));
    let switch = Daemon::start(lab, &internet.host);
    switch.do_(LEASED);
    let a = lab.space("a");
    switch.nat_guest("lab", "a", &a, "10.7.0.20/24", "10.7.0.1");
    (internet, switch, a, server)
}

#[test]
fn an_address_is_leased_renewed_and_given_back() {
    let Some(lab) = Lab::open(&["busybox"]) else { return };
    let (internet, switch, a, _) = begin(&lab, false);
    let wire = Sniffer::start(&internet.net, "in0");
    a.does_not_reach(SERVER);
    let _server = udhcpd(&lab, &internet);
    let address = leased(&switch, 15);
    let own = address.split('/').next().expect("an address").to_owned();
    a.reaches(SERVER);
    assert!(a.talk("who", SERVER, PORT, &[]).starts_with(&format!("{own} ")));
    let octets: [u8; 4] = own.parse::<std::net::Ipv4Addr>().expect("an address").octets();
    // At half of its time it asks the server alone.
    eventually(Duration::from_secs(10), || {
        let renewing = |message: &(u8, bool, [u8; 4])| *message == (REQUEST, false, octets);
        if messages(&wire).iter().any(renewing) { Ok(()) } else { Err(format!("{:?}", messages(&wire))) }
    });
    assert_eq!(a.pings(SERVER, 20, "0.05").lost(), 0, "nothing is lost over it");
    switch.do_("port detach a");
    switch.do_("network delete lab");
    eventually(Duration::from_secs(5), || {
        let released = messages(&wire).iter().any(|message| message.0 == RELEASE && message.2 == octets);
        if released { Ok(()) } else { Err(format!("{:?}", messages(&wire))) }
    });
}

#[test]
fn without_its_server_the_lease_is_rebound_by_anybody_and_ends() {
    let Some(lab) = Lab::open(&["busybox"]) else { return };
    let (internet, switch, a, server) = begin(&lab, true);
    leased(&switch, 15);
    a.reaches(SERVER);
    drop(server);
    let wire = Sniffer::start(&internet.net, "in0");
    eventually(Duration::from_secs(u64::from(LEASE) + 4), || match outside(&switch) {
        address if address.starts_with("192.0.2.2") => Err(format!("{address} is still used")),
        _ => Ok(()),
    });
    // Rebinding: to everybody, from the address that it has.
    let rebinding = |message: &(u8, bool, [u8; 4])| message.0 == REQUEST && message.1 && message.2 != [0; 4];
    assert!(messages(&wire).iter().any(rebinding), "{:?}", messages(&wire));
    assert!(!switch.events("outside.lost").is_empty(), "{}", switch.json(&["events"]));
    a.does_not_reach(SERVER);
    let _server = udhcpd(&lab, &internet);
    leased(&switch, 20);
    a.reaches(SERVER);
}

#[test]
fn a_link_that_was_lost_has_its_lease_verified() {
    let Some(lab) = Lab::open(&["busybox"]) else { return };
    let (internet, switch, a, _server) = begin(&lab, true);
    let before = leased(&switch, 15);
    a.reaches(SERVER);
    let wire = Sniffer::start(&internet.net, "in0");
    internet.net.ip(&["link", "set", "in0", "down"]);
    switch.wait_port("uplink:up0", "down");
    internet.net.ip(&["link", "set", "in0", "up"]);
    // INIT-REBOOT: to everybody, without an address of its own.
    eventually(Duration::from_secs(8), || {
        let verifying = |message: &(u8, bool, [u8; 4])| *message == (REQUEST, true, [0; 4]);
        if messages(&wire).iter().any(verifying) { Ok(()) } else { Err(format!("{:?}", messages(&wire))) }
    });
    a.reaches(SERVER);
    assert_eq!(outside(&switch), before);
}

#[test]
fn the_server_outside_may_be_another_switchd_and_the_lease_outlives_a_crash() {
    let Some(lab) = Lab::open(&[]) else { return };
    let mut internet = lab.internet();
    internet.start();
    // The provider's own NAT network is the wire; it goes out by the sockets of `net`.
    internet.net.ip(&["address", "flush", "dev", "in0"]);
    let provider = Setup::new(&lab, &internet.net, "provider").start();
    provider.do_("network create isp --kind nat --subnet 192.0.2.0/24 --egress host --set dhcp-range=192.0.2.200-192.0.2.210");
    provider.do_("port attach isp customer --netdev in0");
    let mut switch = Daemon::start(&lab, &internet.host);
    switch.do_(LEASED);
    let a = lab.space("a");
    switch.nat_guest("lab", "a", &a, "10.7.0.20/24", "10.7.0.1");
    let address = leased(&switch, 15);
    a.reaches(SERVER);
    assert!(!a.talk("who", SERVER, PORT, &[]).is_empty(), "through two translations");
    let leases = provider.json(&["lease", "list", "isp"]);
    assert_eq!(leases[0]["port"], "customer", "{leases}");
    assert!(address.starts_with(leases[0]["address"].as_str().expect("an address")), "{leases}");
    switch.crash();
    switch.restart();
    switch.wait_port("a", "up");
    assert_eq!(leased(&switch, 5), address, "the same address, at once");
    a.reaches(SERVER);
}
