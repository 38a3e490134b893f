//! A NAT network with a guest that means harm: what it sends is refused with a reason, and its neighbour
//! notices nothing.

use std::time::Duration;
use switchd_tests::internet::{HOSTED, LAB, PORT, SERVER};
use switchd_tests::{Background, Daemon, Internet, Lab, Space, eventually, run};

const NAMES: &str = include_str!("names.py");

/// Sends what it is told, as fast as it can, until it is ended: `flood.py KIND`.
const FLOOD: &str = include_str!("flood.py");

/// A network with servers and names outside, a hostile guest `a` and its neighbour `b`.
fn begin(lab: &Lab, line: &str) -> (Internet, Daemon, Space, Space, Background) {
    let mut internet = lab.internet();
    internet.host.etc("resolv.conf", &format!("nameserver {SERVER}\n"));
    internet.start();
    let names = internet.net.background(&["python3", "-c", NAMES, SERVER]);
    eventually(Duration::from_secs(10), || match names.stdout().starts_with("ready") {
        true => Ok(()),
        false => Err(names.stderr()),
    });
    let (switch, a) = internet.nat(lab, line);
    let b = lab.space("b");
    switch.nat_guest("lab", "b", &b, "10.7.0.21/24", "10.7.0.1");
    b.reaches(SERVER);
    (internet, switch, a, b, names)
}

fn flood(space: &Space, kind: &str) -> Background {
    let flood = space.background(&["python3", "-c", FLOOD, kind]);
    eventually(Duration::from_secs(10), || match flood.stdout().starts_with("ready") {
        true => Ok(()),
        false => Err(flood.stderr()),
    });
    flood
}

fn dig(space: &Space, name: &str) -> String {
    let output = space.attempt(&["dig", "+short", "+tries=3", "+time=3", "@10.7.0.1", name]);
    output.text().trim().to_owned() + &output.stderr
}

#[test]
fn what_the_hosts_sockets_do_not_take_is_dropped_with_its_reason() {
    let Some(lab) = Lab::open(&["scapy"]) else { return };
    let (_internet, switch, a, b, _names) = begin(&lab, HOSTED);
    let script = r#"
to, own = sys.argv[1], "10.7.0.20"
mac = getmacbyip("10.7.0.1")
def send(*packets):
    for packet in packets:
        sendp(Ether(dst=mac) / packet, iface="eth0")
ip = IP(src=own, dst=to)
delivered = IP(src=to, dst=own) / UDP(sport=7000, dport=4000) / b"delivered"
send(ip / ICMP(type=3, code=3) / delivered, ip / ICMP(type=3, code=4) / delivered, ip / ICMP(type=13), ip / ICMP(type=0))
send(IP(src=own, dst="10.7.0.1") / ICMP(type=3, code=3) / delivered)
send(ip / SCTP(dport=80), IP(src=own, dst=to, proto=47) / b"GRE there")
send(ip / UDP(sport=1, dport=7000, chksum=1) / b"x", ip / TCP(sport=1, dport=7000, chksum=1))
send(ip / UDP(sport=1, dport=7000, len=300) / b"x", IP(src=own, dst=to, proto=17) / b"cut")
send(ip / TCP(sport=1, dport=7000, flags="A"), IP(src=own, dst=to, flags="MF") / TCP(sport=1, dport=7000))
send(IP(src=own, dst=to, ttl=1) / UDP(sport=1, dport=7000) / b"x")
"#;
    a.scapy(script, &[SERVER]);
    let wanted = [
        ("nat-icmp-kind", 5),
        ("nat-protocol", 2),
        ("nat-checksum", 2),
        ("nat-malformed", 2),
        ("nat-no-flow", 1),
        ("nat-fragment", 1),
        ("ttl-exceeded", 1),
    ];
    for (reason, count) in wanted {
        eventually(Duration::from_secs(5), || {
            let counted = switch.count("gateway:lab", &format!("out {reason}"));
            if counted == count { Ok(()) } else { Err(format!("{reason}: {counted} instead of {count}")) }
        });
    }
    assert_eq!(switch.count("gateway:lab", "out transmit-error"), 0);
    let told = switch.ctl(&["drops"]).ok().text();
    assert!(told.contains("nat-icmp-kind") && told.contains("A kind of ICMP message"), "{told}");
    assert!(b.talk("who", SERVER, PORT, &[]).starts_with("192.0.2.100 "));
}

#[test]
fn a_guest_that_asks_a_silent_server_without_end_leaves_its_neighbour_its_names() {
    let Some(lab) = Lab::open(&["dig"]) else { return };
    let (_internet, switch, a, b, _names) = begin(&lab, LAB);
    let _flood = flood(&a, "dns");
    eventually(Duration::from_secs(20), || {
        let shown = switch.json(&["network", "show", "lab"]);
        if shown["nat"]["dns"]["busy"].as_u64() > Some(100) { Ok(()) } else { Err(shown.to_string()) }
    });
    for number in 0..5 {
        assert_eq!(dig(&b, &format!("www.n{number}.example")), "203.0.113.7");
    }
    assert_eq!(dig(&b, "gateway.lab"), "10.7.0.1");
}

#[test]
fn a_guest_that_floods_the_gateway_leaves_its_neighbour_its_lease_and_its_names() {
    let Some(lab) = Lab::open(&["udhcpc", "dig"]) else { return };
    let (_internet, switch, a, b, _names) = begin(&lab, LAB);
    let c = lab.space("c");
    switch.do_(&format!("port attach lab c --tap eth0 --netns {}", c.name()));
    c.ip(&["link", "set", "eth0", "up"]);
    for kind in ["discover", "rubbish"] {
        let flood = flood(&a, kind);
        #[rustfmt::skip]
        let mut udhcpc = c.command(&[
            "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "8", "-T", "2", "-s", "/bin/true",
        ]);
        run(&mut udhcpc, Duration::from_secs(30)).ok();
        assert_eq!(dig(&b, &format!("www.{kind}.example")), "203.0.113.7", "{kind}");
        assert!(b.talk("who", SERVER, PORT, &[]).starts_with("192.0.2.50 "), "{kind}");
        flood.signal(nix::sys::signal::Signal::SIGKILL);
        flood.finish(Duration::from_secs(5));
    }
    let taken = switch.json(&["lease", "list", "lab"]);
    let of_a = taken.as_array().expect("a list").iter().filter(|lease| lease["port"] == "a").count();
    assert!(of_a < 240, "{of_a} leases of one port");
    let shown = switch.json(&["network", "show", "lab"]);
    assert!(shown["nat"]["dhcp"]["port-full"].as_u64() > Some(0), "{shown}");
    assert!(shown["nat"]["dhcp"]["too-many"].as_u64() > Some(0), "{shown}");
}

#[test]
fn many_flows_under_many_macs_with_the_hosts_sockets_are_one_guests() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (_internet, switch, a, b, _names) = begin(&lab, HOSTED);
    switch.do_("network set lab flow-limit=400 flow-quota=300");
    let _flood = flood(&a, "flows");
    eventually(Duration::from_secs(20), || match switch.count("gateway:lab", "out nat-quota") {
        count if count > 1000 => Ok(()),
        count => Err(format!("{count} refused")),
    });
    assert!(b.pings(SERVER, 20, "0.05").lost() <= 2);
    assert!(b.talk("who", SERVER, PORT, &[]).starts_with("192.0.2.100 "), "and new ones");
    let flows = switch.json(&["flow", "list", "lab"]).as_array().map_or(0, Vec::len);
    assert!(flows < 350, "{flows} flows");
    assert_eq!(switch.count("gateway:lab", "out transmit-error"), 0);
}

#[test]
fn a_guest_that_floods_with_echo_requests_leaves_its_neighbour_its_pings() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (_internet, switch, a, b, _names) = begin(&lab, HOSTED);
    let _flood = flood(&a, "ping");
    eventually(Duration::from_secs(20), || match switch.count("gateway:lab", "out nat-echo-rate") {
        count if count > 1000 => Ok(()),
        count => Err(format!("{count} refused")),
    });
    // Few are lost, if any: the machine may be slow.
    let pings = b.pings(SERVER, 40, "0.05");
    assert!(pings.lost() <= 8, "{} lost", pings.lost());
}

#[test]
fn a_guest_that_scans_the_uplinks_subnet_leaves_its_neighbour_the_servers_there() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (internet, _switch, a, b, _names) = begin(&lab, LAB);
    let _flood = flood(&a, "scan");
    std::thread::sleep(Duration::from_secs(1));
    for last in 220..224 {
        let server = format!("192.0.2.{last}");
        internet.net.ip(&["address", "add", &format!("{server}/24"), "dev", "in0"]);
        assert!(b.pings(&server, 5, "0.2").received > 0, "{server}");
    }
}

#[test]
fn an_egress_interface_that_is_deleted_and_comes_back_is_used_again() {
    comes_back(LAB);
}

#[test]
fn the_hosts_way_out_that_goes_and_comes_back_is_used_again() {
    comes_back(HOSTED);
}

/// The interface is deleted; another one of its name is there later, with another router behind it.
fn comes_back(line: &str) {
    let Some(lab) = Lab::open(&[]) else { return };
    let (internet, switch, a, _b, _names) = begin(&lab, line);
    internet.host.ip(&["link", "delete", "up0"]);
    if line == LAB {
        eventually(Duration::from_secs(10), || {
            let shown = switch.json(&["network", "show", "lab"]);
            let said = shown["reason"].as_str().unwrap_or_default().to_owned();
            if said.contains("up0") { Ok(()) } else { Err(shown.to_string()) }
        });
    }
    a.does_not_reach(SERVER);
    lab.wire((&internet.host, "up0"), (&internet.net, "in0"));
    internet.net.address("in0", "192.0.2.1/24");
    internet.host.address("up0", "192.0.2.100/24");
    internet.host.ip(&["route", "add", "default", "via", "192.0.2.1"]);
    eventually(Duration::from_secs(20), || {
        if a.pings(SERVER, 1, "1").received > 0 { Ok(()) } else { Err(switch.json(&["status"]).to_string()) }
    });
    assert!(!a.talk("who", SERVER, PORT, &[]).is_empty());
}
