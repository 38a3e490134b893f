//! Guests that get their addresses from a NAT network, with other people's clients.

use serde_json::Value;
use std::time::Duration;
use switchd_tests::internet::{HOSTED, LAB, SERVER};
use switchd_tests::{Daemon, Lab, Space, eventually, run};

/// Sets what it is told, and keeps all of it in a file.
const SCRIPT: &str = r#"#!/bin/sh
case "$1" in deconfig) ip address flush dev "$interface" ;; bound|renew) env >"$LEASE"; ip address replace "$ip/$mask" dev "$interface"
 ip route replace default via "$router" dev "$interface" ;; esac
"#;

/// A tap in the guest's namespace, up, without an address.
fn plug(switch: &Daemon, network: &str, port: &str, space: &Space, more: &str) {
    switch.do_(&format!("port attach {network} {port} --tap eth0 --netns {} {more}", space.name()));
    space.ip(&["link", "set", "eth0", "up"]);
}

fn leases(switch: &Daemon) -> Vec<Value> {
    switch.json(&["lease", "list", "lab"]).as_array().expect("a list").clone()
}

fn lease_of(switch: &Daemon, port: &str) -> String {
    let found =
        leases(switch).into_iter().find(|lease| lease["port"] == port && lease["state"] != "reserved");
    found.unwrap_or_else(|| panic!("no lease of {port}: {:?}", leases(switch)))["address"]
        .as_str()
        .expect("an address")
        .to_owned()
}

/// BusyBox's client; the address it got is set, with its route.
fn udhcpc(lab: &Lab, space: &Space, more: &[&str]) -> String {
    use std::os::unix::fs::PermissionsExt;
    let script = lab.folder().join("udhcpc");
    std::fs::write(&script, SCRIPT).expect("our folder");
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("our file");
    let lease = lab.folder().join(format!("lease-{}", space.name()));
    let _ = std::fs::remove_file(&lease);
    let script = script.to_str().expect("a plain path");
    let mut words = vec!["udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "5", "-T", "2", "-s", script];
    words.extend(more);
    let mut command = space.command(&words);
    run(command.env("LEASE", &lease), Duration::from_secs(20)).ok();
    std::fs::read_to_string(lease).expect("a lease")
}

fn told<'a>(lease: &'a str, key: &str) -> &'a str {
    let value = lease.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {key} in {lease}"))
}

#[test]
fn udhcpc_gets_an_address_and_the_way_out_by_both_kinds_of_egress() {
    let Some(lab) = Lab::open(&["udhcpc"]) else { return };
    let internet = lab.internet();
    for (name, line) in [("outside", LAB), ("hosted", HOSTED)] {
        let mut switch = switchd_tests::Setup::new(&lab, &internet.host, name).start();
        switch.do_(&format!("{line} --dns lab.example"));
        let guest = lab.space(name);
        plug(&switch, "lab", "a", &guest, "");
        #[rustfmt::skip]
        let lease = udhcpc(&lab, &guest, &["-O", "search", "-O", "mtu", "-x", "hostname:box"]);
        assert_eq!(told(&lease, "router"), "10.7.0.1");
        assert_eq!(told(&lease, "dns"), "10.7.0.1");
        assert_eq!(told(&lease, "domain"), "lab.example");
        assert_eq!(told(&lease, "subnet"), "255.255.255.0");
        assert_eq!(told(&lease, "mtu"), "1500");
        assert_eq!(told(&lease, "serverid"), "10.7.0.1");
        guest.reaches(SERVER);
        let shown = leases(&switch);
        assert_eq!(shown.len(), 1, "{shown:?}");
        assert_eq!(shown[0]["address"], told(&lease, "ip"));
        assert_eq!(shown[0]["port"], "a", "{shown:?}");
        switch.assert_accounting();
        switch.stop().ok();
    }
}

#[test]
fn three_clients_of_other_makers_get_addresses() {
    let Some(lab) = Lab::open(&["udhcpc", "dhclient", "dhcpcd"]) else { return };
    let internet = lab.internet();
    let switch = Daemon::start(&lab, &internet.host);
    switch.do_(LAB);
    let [a, b, c] = ["a", "b", "c"].map(|name| lab.space(name));
    plug(&switch, "lab", "a", &a, "--reserve 10.7.0.20");
    plug(&switch, "lab", "b", &b, "");
    plug(&switch, "lab", "c", &c, "");
    assert_eq!(told(&udhcpc(&lab, &a, &[]), "ip"), "10.7.0.20", "the reserved address");
    let file = |name: &str| lab.folder().join(name).to_str().expect("a plain path").to_owned();
    let (leases_file, pid) = (file("dhclient.leases"), file("dhclient.pid"));
    #[rustfmt::skip]
    b.run(&["dhclient", "-1", "-v", "-sf", "/bin/true", "-lf", &leases_file, "-pf", &pid, "eth0"]);
    let text = std::fs::read_to_string(&leases_file).expect("leases");
    let address = lease_of(&switch, "b");
    assert!(text.contains(&format!("fixed-address {address};")), "{text}");
    assert!(text.contains("option routers 10.7.0.1;"), "{text}");
    let pid = std::fs::read_to_string(pid).ok().and_then(|text| text.trim().parse().ok());
    pid.inspect(|&pid: &u32| switchd_tests::command::kill(pid, nix::sys::signal::Signal::SIGKILL));
    let conf = file("dhcpcd.conf");
    std::fs::write(&conf, "script /bin/true\noption routers, domain_name_servers\n").expect("our folder");
    // Its state and sockets are its own.
    let line = "mkdir -p /run/dhcpcd /var/lib/dhcpcd && mount -t tmpfs tmpfs /run/dhcpcd && \
                mount -t tmpfs tmpfs /var/lib/dhcpcd && exec dhcpcd -f \"$0\" -4 -1 -B -A -t 8 eth0";
    let output = c.run(&["unshare", "-m", "sh", "-c", line, &conf]);
    let text = output.text() + &output.stderr;
    let address = lease_of(&switch, "c");
    assert!(text.contains(&format!("leased {address}")), "{text}");
    let mut all: Vec<_> = ["a", "b", "c"].iter().map(|port| lease_of(&switch, port)).collect();
    all.dedup();
    assert_eq!(all.len(), 3, "no two have one address: {all:?}");
}

#[test]
fn the_same_client_has_the_same_address_after_a_crash() {
    let Some(lab) = Lab::open(&["udhcpc"]) else { return };
    let internet = lab.internet();
    let mut switch = Daemon::start(&lab, &internet.host);
    switch.do_(LAB);
    let guests: Vec<Space> = (0..4).map(|number| lab.space(&format!("g{number}"))).collect();
    let mut before = Vec::new();
    for (number, guest) in guests.iter().enumerate() {
        plug(&switch, "lab", &format!("g{number}"), guest, "");
        before.push(told(&udhcpc(&lab, guest, &[]), "ip").to_owned());
    }
    // In another order, and with what is on the disk only.
    switch.crash();
    switch.restart();
    let listed = leases(&switch);
    assert_eq!(listed.len(), 4, "leases outlive both processes: {listed:?}");
    for (number, guest) in guests.iter().enumerate().rev() {
        switch.wait_port(&format!("g{number}"), "up");
        let address = told(&udhcpc(&lab, guest, &[]), "ip").to_owned();
        assert_eq!(address, before[number], "guest {number}");
        guest.reaches(SERVER);
    }
    assert_eq!(leases(&switch).len(), 4);
}

#[test]
fn a_released_address_is_free_and_is_given_back_to_its_client() {
    let Some(lab) = Lab::open(&["udhcpc"]) else { return };
    let internet = lab.internet();
    let switch = Daemon::start(&lab, &internet.host);
    switch.do_(&format!("{LAB} --set dhcp-range=10.7.0.100-10.7.0.101"));
    let [a, b, c] = ["a", "b", "c"].map(|name| lab.space(name));
    for (port, space) in [("a", &a), ("b", &b), ("c", &c)] {
        plug(&switch, "lab", port, space, "");
    }
    let first = told(&udhcpc(&lab, &a, &[]), "ip").to_owned();
    udhcpc(&lab, &b, &[]);
    // The pool is full: a clear word, and nobody loses anything.
    let refused =
        c.attempt(&["udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "2", "-T", "1", "-s", "/bin/true"]);
    assert_eq!(refused.code, Some(1), "{}{}", refused.text(), refused.stderr);
    let full = switch.events("lease.pool-full").join("\n");
    assert!(full.contains("port c"), "{full}");
    // Released by its client, and so free for another.
    let script = lab.folder().join("udhcpc");
    #[rustfmt::skip]
    let holder = a.background(&[
        "udhcpc", "-i", "eth0", "-n", "-R", "-f", "-t", "5", "-T", "1", "-s", script.to_str().expect("a plain path"),
        "-r", &first,
    ]);
    eventually(Duration::from_secs(10), || {
        let said = holder.stdout() + &holder.stderr();
        if said.contains("obtained") { Ok(()) } else { Err(said) }
    });
    holder.signal(nix::sys::signal::Signal::SIGTERM);
    holder.finish(Duration::from_secs(5));
    assert_eq!(told(&udhcpc(&lab, &c, &[]), "ip"), first);
}

#[test]
fn a_hundred_clients_a_second_are_served() {
    let Some(lab) = Lab::open(&["perfdhcp"]) else { return };
    let internet = lab.internet();
    let switch = Daemon::start(&lab, &internet.host);
    switch.do_("network create lab --kind nat --subnet 10.7.0.0/16 --egress up0 --address 192.0.2.50/24");
    let a = lab.space("a");
    plug(&switch, "lab", "a", &a, "");
    a.address("eth0", "10.7.0.20/16");
    a.reaches("10.7.0.1");
    let output = run(
        &mut a.command(&["perfdhcp", "-4", "-l", "eth0", "-r", "100", "-R", "200", "-p", "5", "-W", "1"]),
        Duration::from_secs(30),
    );
    let text = output.text();
    let number = |section: &str, key: &str| -> u64 {
        let part = text.split(section).nth(1).unwrap_or_else(|| panic!("no {section} in {text}"));
        let line = part.lines().find(|line| line.trim_start().starts_with(key));
        let value = line.and_then(|line| line.split(':').nth(1)).unwrap_or_default();
        value.trim().parse().unwrap_or_else(|_| panic!("no {key} in {text}"))
    };
    assert!(number("DISCOVER-OFFER", "sent packets") > 300, "{text}");
    assert!(number("DISCOVER-OFFER", "drops") <= 5, "{text}");
    assert!(number("REQUEST-ACK", "drops") <= 5, "{text}");
    assert!(number("REQUEST-ACK", "received packets") > 300, "{text}");
}

#[test]
fn one_port_cannot_take_all_addresses() {
    let Some(lab) = Lab::open(&["udhcpc", "scapy"]) else { return };
    let internet = lab.internet();
    let switch = Daemon::start(&lab, &internet.host);
    switch.do_("network create lab --kind nat --subnet 10.7.0.0/26 --egress up0 --address 192.0.2.50/24");
    let (a, b) = (lab.space("a"), lab.space("b"));
    plug(&switch, "lab", "a", &a, "");
    plug(&switch, "lab", "b", &b, "");
    let script = r#"
from threading import Thread
s = conf.L2socket(iface="eth0")
def message(mac, kind, *more):
    return (Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=68, dport=67)
        / BOOTP(chaddr=mac2str(mac), xid=int(mac.replace(":", "")[4:], 16)) / DHCP(options=[("message-type", kind), *more, "end"]))
macs = [f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}" for n in range(120)]
sniffer = AsyncSniffer(iface="eth0", filter="udp and src port 67")
sniffer.start(); time.sleep(0.5)
for mac in macs:
    s.send(message(mac, "discover")); time.sleep(0.004)
time.sleep(1.5)
offers = {p[BOOTP].xid: p[BOOTP].yiaddr for p in sniffer.stop() if p.haslayer(BOOTP)}
for mac in macs:
    address = offers.get(int(mac.replace(":", "")[4:], 16))
    if address:
        s.send(message(mac, "request", ("requested_addr", address), ("server_id", "10.7.0.1"))); time.sleep(0.004)
time.sleep(1)
print(len(offers))
"#;
    let offers: usize = a.scapy(script, &[]).parse().expect("a number");
    assert!((1..61).contains(&offers), "{offers} offers");
    let taken = leases(&switch).len();
    assert!((1..=53).contains(&taken), "{taken} of 61 addresses");
    // The neighbour is served all the same.
    assert!(told(&udhcpc(&lab, &b, &[]), "ip").starts_with("10.7.0."));
    let network = switch.json(&["network", "show", "lab"]);
    assert!(network["nat"]["dhcp"]["port-full"].as_u64() >= Some(50), "{network}");
    assert_eq!(switch.events("lease.port-full").len(), 1, "told once");
}

#[test]
fn an_address_that_a_station_has_by_hand_is_not_given_out() {
    let Some(lab) = Lab::open(&["udhcpc"]) else { return };
    let internet = lab.internet();
    let switch = Daemon::start(&lab, &internet.host);
    switch.do_(&format!("{LAB} --set dhcp-range=10.7.0.100-10.7.0.101"));
    let (a, b) = (lab.space("a"), lab.space("b"));
    plug(&switch, "lab", "a", &a, "");
    plug(&switch, "lab", "b", &b, "");
    a.address("eth0", "10.7.0.100/24");
    for _ in 0..2 {
        assert_eq!(told(&udhcpc(&lab, &b, &[]), "ip"), "10.7.0.101");
    }
    b.reaches("10.7.0.100");
}
