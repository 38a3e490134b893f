//! IPv6 on NAT networks: router advertisements, DHCPv6, translated and routed.

use std::time::Duration;
use switchd_tests::internet::{LAB, PORT, SERVER6};
use switchd_tests::{Daemon, Internet, Lab, Sniffer, Space, eventually, run};

const V6: &str = "--subnet6 fd00:7::/64";
const OUTSIDE6: &str = "--address6 2001:db8:1::50/64 --gateway6 2001:db8:1::1";

fn begin(lab: &Lab, more: &str) -> (Internet, Daemon) {
    let mut internet = lab.internet();
    internet.start();
    let switch = Daemon::start(lab, &internet.host);
    switch.do_(&format!("{LAB} {V6} {more}"));
    (internet, switch)
}

/// A tap in the guest's namespace whose kernel listens to router advertisements.
fn plug(switch: &Daemon, port: &str, space: &Space) {
    switch.do_(&format!("port attach lab {port} --tap eth0 --netns {}", space.name()));
    for setting in
        ["accept_ra=1", "autoconf=1", "router_solicitations=3", "addr_gen_mode=0", "disable_ipv6=0"]
    {
        space.run(&["sysctl", "-qw", &format!("net.ipv6.conf.eth0.{setting}")]);
    }
    space.ip(&["link", "set", "eth0", "down"]);
    space.ip(&["link", "set", "eth0", "up"]);
}

/// The address that a guest has made or got in the prefix.
fn own(space: &Space) -> String {
    eventually(Duration::from_secs(10), || {
        let text = space.ip(&["-6", "-o", "address", "show", "dev", "eth0", "scope", "global"]).text();
        let word = text.split_whitespace().find(|word| word.starts_with("fd00:7:"));
        word.and_then(|word| word.split('/').next()).map(str::to_owned).ok_or(text)
    })
}

#[test]
fn advertisements_give_guests_an_address_and_a_way_out() {
    let Some(lab) = Lab::open(&["traceroute"]) else { return };
    let (internet, switch) = begin(&lab, OUTSIDE6);
    let (a, b) = (lab.space("a"), lab.space("b"));
    plug(&switch, "a", &a);
    plug(&switch, "b", &b);
    let (first, second) = (own(&a), own(&b));
    assert_ne!(first, second);
    let route = a.ip(&["-6", "route", "show", "default"]).text();
    assert!(route.contains("proto ra") && route.contains("via fe80::"), "{route}");
    assert_eq!(a.run(&["sysctl", "-n", "net.ipv6.conf.eth0.mtu"]).text().trim(), "1500");
    a.reaches("fd00:7::1");
    a.reaches(&second);
    a.reaches(SERVER6);
    // NAT66.
    assert!(a.talk("who", SERVER6, PORT, &[]).starts_with("2001:db8:1::50 "));
    assert!(b.talk("udp", SERVER6, PORT, &["2"]).lines().all(|line| line.starts_with("2001:db8:1::50 ")));
    let words = a.talk("put", SERVER6, PORT, &["2000000"]);
    let (theirs, ours) = words.split_once(' ').expect("two digests");
    assert_eq!(theirs, ours);
    a.run(&["ping", "-n", "-q", "-c", "3", "-i", "0.1", "-s", "4000", SERVER6]);
    let text = a.run(&["traceroute", "-6", "-n", "-q", "1", "-w", "2", "-m", "4", SERVER6]).text();
    let hops: Vec<_> = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(hops.last(), Some(&SERVER6), "{text}");
    assert_eq!(hops.len(), 2, "{text}");
    assert!(a.talk("connect", SERVER6, 9, &[]).starts_with("ECONNREFUSED"));
    // Forwards.
    switch.do_(&format!("forward add lab tcp/8080:[{first}]:80"));
    let _web = a.serve(&first, 80);
    let said = internet.net.talk("who", "2001:db8:1::50", 8080, &[]);
    assert!(said.starts_with("2001:db8:1::1 "), "{said}");
    assert_eq!(internet.net.talk("connect", "2001:db8:1::50", 81, &[]), "silence");
}

#[test]
fn rfc4861_6_2_5_an_orderly_stop_tells_the_guests_that_their_router_goes() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (_internet, mut switch) = begin(&lab, OUTSIDE6);
    let a = lab.space("a");
    plug(&switch, "a", &a);
    own(&a);
    let sniffer = Sniffer::start(&a, "eth0");
    switch.stop();
    // Ethernet 14, IPv6 40 (next header at 6), type 134, lifetime at 6.
    let farewell = |frame: &Vec<u8>| {
        frame.len() > 62 && frame[12..14] == [0x86, 0xdd] && frame[54] == 134 && frame[60..62] == [0, 0]
    };
    eventually(Duration::from_secs(5), || match sniffer.frames().iter().any(farewell) {
        true => Ok(()),
        false => Err("no advertisement with a lifetime of 0".into()),
    });
    let route = || a.ip(&["-6", "route", "show", "default"]).text();
    eventually(Duration::from_secs(5), || if route().is_empty() { Ok(()) } else { Err(route()) });
}

#[test]
fn a_narrow_link_beyond_is_told_by_packet_too_big() {
    let Some(lab) = Lab::open(&["iperf3"]) else { return };
    let (internet, switch) = begin(&lab, OUTSIDE6);
    // Beyond the router.
    let far = lab.space("far");
    lab.wire((&internet.net, "r0"), (&far, "eth0"));
    internet.net.run(&["sysctl", "-qw", "net.ipv6.conf.all.forwarding=1"]);
    for (space, name, address) in
        [(&internet.net, "r0", "2001:db8:2::1/64"), (&far, "eth0", "2001:db8:2::2/64")]
    {
        space.ip6(name);
        space.ip(&["link", "set", name, "mtu", "1400"]);
        space.ip(&["-6", "address", "add", address, "dev", name, "nodad"]);
    }
    far.ip(&["-6", "route", "add", "default", "via", "2001:db8:2::1"]);
    let a = lab.space("a");
    plug(&switch, "a", &a);
    own(&a);
    a.reaches("2001:db8:2::2");
    let text =
        a.attempt(&["ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", "1452", "2001:db8:2::2"]).text();
    assert!(text.contains("Packet too big") && text.contains("1400"), "{text}");
    assert!(a.tcp(&far, "2001:db8:2::2", 1, &["-6"]) > 20e6);
}

#[test]
fn dhcpv6_gives_addresses_that_last() {
    let Some(lab) = Lab::open(&["dhclient"]) else { return };
    let (_internet, mut switch) = begin(&lab, &format!("{OUTSIDE6} --set dhcp6=stateful"));
    let a = lab.space("a");
    plug(&switch, "a", &a);
    let file = |name: &str| lab.folder().join(name).to_str().expect("a plain path").to_owned();
    let mut before = None;
    for round in 0..2 {
        let (leases, pid) = (file(&format!("leases{round}")), file(&format!("pid{round}")));
        // The identifier is the interface's address, so both rounds are one client.
        #[rustfmt::skip]
        let mut client = a.command(&[
            "dhclient", "-6", "-1", "-v", "-D", "LL", "-sf", "/bin/true", "-lf", &leases, "-pf", &pid, "eth0",
        ]);
        run(&mut client, Duration::from_secs(20)).ok();
        let text = std::fs::read_to_string(&leases).expect("leases");
        let address =
            text.split("iaaddr ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        assert!(address.starts_with("fd00:7:"), "{text}");
        assert!(text.contains("dhcp6.name-servers fd00:7::1"), "{text}");
        let listed = switch.json(&["lease", "list", "lab"]);
        assert!(listed.to_string().contains(address), "{address} in {listed}");
        assert_eq!(*before.get_or_insert(address.to_owned()), address, "the same after a crash");
        let process = std::fs::read_to_string(pid).ok().and_then(|text| text.trim().parse().ok());
        process.inspect(|&pid: &u32| switchd_tests::command::kill(pid, nix::sys::signal::Signal::SIGKILL));
        if round == 0 {
            switch.crash();
            switch.restart();
            switch.wait_port("a", "up");
        }
    }
    let own = before.expect("an address");
    a.ip(&["-6", "address", "add", &format!("{own}/128"), "dev", "eth0", "nodad"]);
    a.reaches("fd00:7::1");
    a.reaches(SERVER6);
}

#[test]
fn without_an_outside_address_ipv6_is_routed() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (internet, switch) = begin(&lab, "--gateway6 2001:db8:1::1 --set mode6=routed");
    let a = lab.space("a");
    plug(&switch, "a", &a);
    let own = own(&a);
    // The router leads the prefix to the outside end.
    let shown = switch.json(&["network", "show", "lab"]);
    let mac = shown["nat"]["outside"]["mac"].as_str().expect("a MAC address").to_owned();
    let octets: Vec<u16> = mac.split(':').map(|byte| u16::from_str_radix(byte, 16).expect("hex")).collect();
    let link_local = format!(
        "fe80::{:x}:{:x}:{:x}:{:x}",
        (octets[0] ^ 2) << 8 | octets[1],
        octets[2] << 8 | 0xff,
        0xfe00 | octets[3],
        octets[4] << 8 | octets[5]
    );
    internet.net.ip(&["-6", "route", "add", "fd00:7::/64", "via", &link_local, "dev", "in0"]);
    a.reaches(SERVER6);
    assert!(a.talk("who", SERVER6, PORT, &[]).starts_with(&format!("{own} ")));
}
