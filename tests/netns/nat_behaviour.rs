//! How the translation behaves, as other people's classifiers, traceroute, ping and scapy see it.
//!
//! Not here: what needs hours (times of mappings); `switchd/nat/tests` holds those, clause by clause.

use std::time::Duration;
use switchd_tests::internet::{HOSTED, LAB, OTHER_SERVER, PORT, SERVER};
use switchd_tests::{Background, Internet, Lab, Sniffer, Space, eventually};

/// Waits until something listens on a UDP port.
fn listening(space: &Space, port: u16) {
    eventually(Duration::from_secs(10), || {
        match space.run(&["ss", "-Hlnu", &format!("sport = :{port}")]).text().is_empty() {
            true => Err(format!("nobody listens on {port}")),
            false => Ok(()),
        }
    });
}

#[test]
fn the_stun_classifier_agrees_ten_times_in_ten() {
    let Some(lab) = Lab::open(&["stun", "stund", "ss"]) else { return };
    let internet = lab.internet();
    let (_switch, a) = internet.nat(&lab, LAB);
    let _server = internet.net.background(&["stund", "-h", SERVER, "-a", OTHER_SERVER]);
    listening(&internet.net, 3478);
    for round in 0..10 {
        let text = a.attempt(&["stun", SERVER]).text();
        let verdict = text.lines().find(|line| line.starts_with("Primary:")).unwrap_or_default().trim();
        let right = "Primary: Independent Mapping, Port Dependent Filter, random port, will hairpin";
        assert_eq!(verdict, right, "round {round}: {text}");
    }
}

fn turnserver(internet: &Internet, lab: &Lab) -> Background {
    let base = lab.folder().join("turn.db");
    let base = base.to_str().expect("a plain path");
    #[rustfmt::skip]
    let server = internet.net.background(&[
        "turnserver", "-c", "/dev/null", "-L", SERVER, "-L", OTHER_SERVER, "--listening-port", "3478",
        "--alt-listening-port", "3479", "-a", "--no-tls", "--no-dtls", "--no-cli", "-b", base, "-l", "stdout",
        "--pidfile", "/dev/null",
    ]);
    listening(&internet.net, 3479);
    server
}

/// Several at once: each waits for answers that filtering keeps away.
fn discoveries(a: &Space, count: usize, words: &[&str]) -> Vec<String> {
    let mut all = vec!["turnutils_natdiscovery"];
    all.extend(words);
    all.push(SERVER);
    let running: Vec<Background> = (0..count).map(|_| a.background(&all)).collect();
    running.into_iter().map(|process| process.finish(Duration::from_secs(30)).ok().text()).collect()
}

#[test]
fn coturns_classifier_agrees_ten_times_in_ten() {
    let Some(lab) = Lab::open(&["turnserver", "turnutils_natdiscovery", "ss"]) else { return };
    let internet = lab.internet();
    let (switch, a) = internet.nat(&lab, LAB);
    let _server = turnserver(&internet, &lab);
    for (round, text) in discoveries(&a, 10, &["-m", "-f", "-H"]).iter().enumerate() {
        for verdict in [
            "NAT with Endpoint Independent Mapping!",
            "NAT with Address and Port Dependent Filtering!",
            "Received a request (maybe a successful hairpinning)",
            "No ALG",
        ] {
            assert!(text.contains(verdict), "round {round}: not {verdict:?} in {text}");
        }
    }
    // With padding, so that the messages come in fragments.
    let text = discoveries(&a, 1, &["-m", "-f", "-P"]).concat();
    assert!(text.contains("Endpoint Independent Mapping!"), "{text}");
    assert!(text.contains("Address and Port Dependent Filtering!"), "{text}");
    switch.do_("network set lab filtering=endpoint-independent");
    for text in discoveries(&a, 3, &["-m", "-f", "-H"]) {
        assert!(text.contains("NAT with Endpoint Independent Mapping!"), "{text}");
        assert!(text.contains("NAT with Endpoint Independent Filtering!"), "{text}");
        assert!(text.contains("successful hairpinning"), "{text}");
    }
}

/// A network behind the router, `far` at 203.0.113.2, over a link of this MTU.
fn beyond(lab: &Lab, internet: &Internet, mtu: &str) -> Space {
    let far = lab.space("far");
    lab.wire((&internet.net, "r0"), (&far, "eth0"));
    internet.net.run(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
    for (space, name, address) in [(&internet.net, "r0", "203.0.113.1/24"), (&far, "eth0", "203.0.113.2/24")]
    {
        space.ip(&["link", "set", name, "mtu", mtu]);
        space.address(name, address);
    }
    far.ip(&["route", "add", "default", "via", "203.0.113.1"]);
    far
}

#[test]
fn traceroute_shows_the_gateway_and_what_is_beyond() {
    let Some(lab) = Lab::open(&["traceroute", "tracepath"]) else { return };
    let internet = lab.internet();
    let (_switch, a) = internet.nat(&lab, LAB);
    let _far = beyond(&lab, &internet, "1400");
    for kind in [&[][..], &["-I"], &["-T", "-p", "80"]] {
        let mut words = vec!["traceroute", "-n", "-q", "1", "-w", "3", "-m", "6"];
        words.extend(kind);
        words.push("203.0.113.2");
        let text = a.run(&words).text();
        let hops: Vec<_> = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!(hops, ["10.7.0.1", "192.0.2.1", "203.0.113.2"], "{kind:?}: {text}");
    }
    let text = a.run(&["tracepath", "-n", "-m", "6", "203.0.113.2"]).text();
    assert!(text.contains("pmtu 1400") && text.contains("203.0.113.2"), "{text}");
    assert!(text.contains(" 10.7.0.1 "), "{text}");
}

#[test]
fn rfc4787_req13_a_narrow_link_beyond_is_told_to_the_guest() {
    let Some(lab) = Lab::open(&["iperf3"]) else { return };
    let internet = lab.internet();
    let (_switch, a) = internet.nat(&lab, LAB);
    let far = beyond(&lab, &internet, "1400");
    let ping =
        |size: &str| a.attempt(&["ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", size, "203.0.113.2"]);
    a.reaches("203.0.113.2");
    let text = ping("1472").text();
    assert!(text.contains("From 192.0.2.1") && text.contains("mtu = 1400"), "{text}");
    ping("1372").ok();
    assert!(a.tcp(&far, "203.0.113.2", 1, &[]) > 20e6, "TCP follows the path's MTU");
    assert!(a.tcp(&far, "203.0.113.2", 1, &["-R"]) > 20e6);
}

#[test]
fn rfc4787_req13_a_narrow_uplink_is_told_to_the_guest_by_the_gateway() {
    let Some(lab) = Lab::open(&["iperf3"]) else { return };
    let internet = lab.internet();
    for (space, name) in [(&internet.host, "up0"), (&internet.net, "in0")] {
        space.ip(&["link", "set", name, "mtu", "1400"]);
    }
    let (_switch, a) = internet.nat(&lab, LAB);
    assert_eq!(a.link("eth0")["mtu"], 1500);
    let ping = |size: &str| a.attempt(&["ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", size, SERVER]);
    let text = ping("1472").text();
    assert!(text.contains("From 10.7.0.1") && text.contains("mtu = 1400"), "{text}");
    ping("1372").ok();
    for more in [&[][..], &["-R"]] {
        assert!(a.tcp(&internet.net, "192.0.2.1", 1, more) > 20e6, "TCP follows the uplink's MTU: {more:?}");
    }
    // Without DF, the gateway cuts.
    a.run(&["ping", "-n", "-q", "-c", "3", "-i", "0.1", "-M", "dont", "-s", "1472", "192.0.2.1"]);
}

#[test]
fn rfc4787_req14_fragments_pass_both_ways_and_in_any_order() {
    let Some(lab) = Lab::open(&["scapy"]) else { return };
    let mut internet = lab.internet();
    internet.serve(SERVER, PORT);
    let (switch, a) = internet.nat(&lab, LAB);
    assert_eq!(a.pings(SERVER, 10, "0.05").lost(), 0);
    a.run(&["ping", "-n", "-q", "-c", "5", "-i", "0.05", "-s", "4000", SERVER]);
    a.run(&["ping", "-n", "-q", "-c", "2", "-i", "0.1", "-s", "20000", SERVER]);
    // From the guest: the last piece first. The answer is put together by the guest's own stack.
    let script = r#"
import socket, sys
gateway, order = sys.argv[1], sys.argv[2]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 5555)); s.settimeout(2)
whole = IP(src="10.7.0.20", dst="198.51.100.1", id=random.randrange(65536)) / UDP(sport=5555, dport=7000) / (b"x" * 3000)
pieces = fragment(whole, 1400)
assert len(pieces) == 3
if order == "overlap":
    second = pieces[1].copy(); second.frag -= 1; second.len = None; second.chksum = None
    pieces.insert(1, second)
else:
    pieces = [pieces[int(c)] for c in order]
for piece in pieces:
    sendp(Ether(dst=gateway) / IP(bytes(piece)), iface="eth0")
try:
    print(len(s.recv(65535)))
except socket.timeout:
    print("silence")
"#;
    let neighbours = a.ip(&["neigh", "show", "10.7.0.1"]).text();
    let gateway = neighbours.split_whitespace().nth(4).expect("a MAC address").to_owned();
    for order in ["012", "210", "120", "201"] {
        let count: usize = a.scapy(script, &[&gateway, order]).parse().unwrap_or(0);
        assert!(count > 3000, "order {order}: {count} bytes came back");
    }
    let before = switch.count("gateway:lab", "out nat-fragment");
    assert_eq!(a.scapy(script, &[&gateway, "overlap"]), "silence", "overlapping pieces are dropped");
    assert!(switch.count("gateway:lab", "out nat-fragment") > before, "{}", switch.port("gateway:lab"));
    // From outside, through a forward.
    switch.do_("forward add lab udp/7001:10.7.0.20:7001");
    let server = a.serve("10.7.0.20", 7001);
    let script = script
        .replace("10.7.0.20", "192.0.2.1")
        .replace("198.51.100.1", "192.0.2.50")
        .replace("7000", "7001")
        .replace("eth0", "in0");
    let neighbours = internet.net.ip(&["neigh", "show", "192.0.2.50"]).text();
    let outside = neighbours.split_whitespace().nth(4).expect("a MAC address").to_owned();
    for order in ["012", "210", "102"] {
        let count: usize = internet.net.scapy(&script, &[&outside, order]).parse().unwrap_or(0);
        assert!(count > 3000, "from outside, order {order}: {count} bytes came back");
    }
    assert_eq!(internet.net.scapy(&script, &[&outside, "overlap"]), "silence");
    drop(server);
}

#[test]
fn rfc5508_req4_icmp_errors_reach_the_socket_and_end_nothing() {
    let Some(lab) = Lab::open(&["scapy"]) else { return };
    let mut internet = lab.internet();
    internet.serve(SERVER, PORT);
    let (switch, a) = internet.nat(&lab, LAB);
    // A closed port of UDP and of TCP outside, told by the server's own kernel.
    assert_eq!(a.talk("refused", SERVER, 9, &[]), "ECONNREFUSED");
    assert!(a.talk("connect", SERVER, 9, &[]).starts_with("ECONNREFUSED"));
    // An error about a mapping, made by a router that is no party of it, with what the outside saw quoted.
    let seen = a.talk("udp", SERVER, PORT, &["1", "6000"]);
    let port = seen.split_whitespace().nth(1).expect("a port").to_owned();
    let at_guest = Sniffer::start(&a, "eth0");
    let script = r#"
port = int(sys.argv[1])
for code in (1, 13):
    quoted = IP(src="192.0.2.50", dst="198.51.100.1", ttl=60) / UDP(sport=port, dport=7000) / b"quoted"
    send(IP(src="192.0.2.77", dst="192.0.2.50") / ICMP(type=3, code=code) / quoted)
# About a flow that is not there, and with a wrong checksum.
quoted = IP(src="192.0.2.50", dst="198.51.100.1") / UDP(sport=port ^ 1, dport=7000) / b"quoted"
send(IP(src="192.0.2.77", dst="192.0.2.50") / ICMP(type=3, code=1) / quoted)
quoted = IP(src="192.0.2.50", dst="198.51.100.1") / UDP(sport=port, dport=7000) / b"quoted"
send(IP(src="192.0.2.77", dst="192.0.2.50") / ICMP(type=3, code=2, chksum=1) / quoted)
# Not for guests.
send(IP(src="192.0.2.1", dst="192.0.2.50") / ICMP(type=5, code=1, gw="192.0.2.99") / quoted)
"#;
    internet.net.scapy(script, &[&port]);
    let errors = eventually(Duration::from_secs(5), || {
        let errors: Vec<_> = at_guest.frames().into_iter().filter(|frame| frame[23] == 1).collect();
        if errors.len() >= 2 { Ok(errors) } else { Err(format!("{} errors", errors.len())) }
    });
    assert_eq!(errors.len(), 2, "only what belongs to a flow comes in");
    for (frame, code) in errors.iter().zip([1, 13]) {
        assert_eq!((frame[34], frame[35]), (3, code));
        assert_eq!(frame[26..34], [192, 0, 2, 77, 10, 7, 0, 20], "who tells whom");
        let quoted = &frame[42..];
        assert_eq!(quoted[12..20], [10, 7, 0, 20, 198, 51, 100, 1], "what is quoted is the guest's own");
        assert_eq!(quoted[20..24], [(6000u16 >> 8) as u8, 6000u16 as u8, (PORT >> 8) as u8, PORT as u8]);
        assert_eq!(checksum(quoted[..20].iter()), 0, "the quoted header's checksum");
        let length = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        assert_eq!(checksum(frame[34..14 + length].iter()), 0, "the checksum of the message");
    }
    assert!(switch.count("egress:lab", "out nat-icmp-unmatched") >= 2, "{}", switch.port("egress:lab"));
    // The mapping stands.
    assert_eq!(a.talk("udp", SERVER, PORT, &["1", "6000"]).split_whitespace().nth(1), Some(&port[..]));
}

fn checksum<'a>(bytes: impl Iterator<Item = &'a u8>) -> u16 {
    let bytes: Vec<u8> = bytes.copied().collect();
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low)));
    let sum: u32 = words.sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    !(((sum >> 16) + sum) as u16)
}

#[test]
fn rfc5382_req4_an_unsolicited_syn_is_met_with_silence() {
    let Some(lab) = Lab::open(&[]) else { return };
    let internet = lab.internet();
    let (switch, _a) = internet.nat(&lab, LAB);
    // The client gives up after six seconds.
    assert_eq!(internet.net.talk("connect", "192.0.2.50", 4444, &[]), "silence");
    assert!(switch.count("egress:lab", "out nat-unsolicited") >= 2, "{}", switch.port("egress:lab"));
}

#[test]
fn rfc4787_req8_strangers_do_not_come_in_by_a_mapping() {
    let Some(lab) = Lab::open(&[]) else { return };
    let mut internet = lab.internet();
    internet.serve(SERVER, PORT);
    let (switch, a) = internet.nat(&lab, LAB);
    let seen = a.talk("udp", SERVER, PORT, &["1", "6000"]);
    let port: u16 = seen.split_whitespace().nth(1).and_then(|port| port.parse().ok()).expect("a port");
    let server = a.serve("10.7.0.20", 6000);
    // From another address, and from another port of the same.
    assert_eq!(internet.net.talk("udp", "192.0.2.50", port, &["1"]), "silence");
    assert!(switch.count("egress:lab", "out nat-unsolicited") >= 1);
    switch.do_("network set lab filtering=endpoint-independent");
    assert!(internet.net.talk("udp", "192.0.2.50", port, &["1"]).starts_with("192.0.2.1 "));
    drop(server);
}

#[test]
fn rfc4787_req9_guests_reach_each_other_by_forwards_and_floating_addresses() {
    let Some(lab) = Lab::open(&[]) else { return };
    let internet = lab.internet();
    let (switch, a) = internet.nat(&lab, LAB);
    let b = lab.space("b");
    switch.nat_guest("lab", "b", &b, "10.7.0.21/24", "10.7.0.1");
    switch.do_("forward add lab tcp/8080:10.7.0.21:80");
    switch.do_("forward add lab udp/8080:10.7.0.21:80");
    switch.do_("port set b reserve=10.7.0.21");
    switch.do_("floating add lab 192.0.2.60 b");
    let _server = b.serve("10.7.0.21", 80);
    a.reaches("10.7.0.21");
    for address in ["192.0.2.50", "192.0.2.60"] {
        let port = if address == "192.0.2.50" { 8080 } else { 80 };
        let seen = a.talk("who", address, port, &[]);
        assert!(seen.starts_with("192.0.2.50 "), "TCP hairpins with the outside source: {seen}");
        let seen = a.talk("udp", address, port, &["2"]);
        assert!(seen.lines().all(|line| line.starts_with("192.0.2.50 ")), "UDP to {address}: {seen}");
        // To oneself by the outside.
        assert!(b.talk("who", address, port, &[]).starts_with("192.0.2."), "{address}");
    }
    assert_eq!(a.pings("192.0.2.60", 5, "0.05").lost(), 0, "ICMP hairpins");
    assert_eq!(a.pings("192.0.2.50", 5, "0.05").lost(), 0, "the outside address answers inside");
}

#[test]
fn with_the_hosts_sockets_the_way_outside_shows_in_traceroute() {
    let Some(lab) = Lab::open(&["traceroute"]) else { return };
    let internet = lab.internet();
    let (_switch, a) = internet.nat(&lab, HOSTED);
    let text = a.run(&["traceroute", "-n", "-q", "1", "-w", "2", "-m", "4", "-I", SERVER]).text();
    let hops: Vec<_> = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(hops.first(), Some(&"10.7.0.1"), "{text}");
    assert_eq!(hops.last(), Some(&SERVER), "{text}");
}

#[test]
fn coturns_classifier_agrees_with_the_hosts_sockets_too() {
    let Some(lab) = Lab::open(&["turnserver", "turnutils_natdiscovery", "ss"]) else { return };
    let internet = lab.internet();
    let (_switch, a) = internet.nat(&lab, HOSTED);
    let _server = turnserver(&internet, &lab);
    for (round, text) in discoveries(&a, 10, &["-m", "-f", "-H"]).iter().enumerate() {
        for verdict in [
            "NAT with Endpoint Independent Mapping!",
            "NAT with Address and Port Dependent Filtering!",
            "Received a request (maybe a successful hairpinning)",
        ] {
            assert!(text.contains(verdict), "round {round}: not {verdict:?} in {text}");
        }
    }
}
