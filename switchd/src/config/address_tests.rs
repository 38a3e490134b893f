//! The grammars of NAT networks, by example.

use super::*;

#[test]
fn a_subnet_has_its_gateway_as_first_host() {
    let prefix = |a: [u8; 4], len| Prefix4 { address: Ipv4Addr::from(a), len };
    assert_eq!(subnet4("10.7.0.0/24"), Ok(prefix([10, 7, 0, 1], 24)));
    assert_eq!(subnet4("10.0.0.0/8"), Ok(prefix([10, 0, 0, 1], 8)));
    assert_eq!(subnet4("192.168.1.4/30"), Ok(prefix([192, 168, 1, 5], 30)));
    for (text, rule) in [
        ("10.7.0.0", "expected a subnet like 10.7.0.0/24"),
        ("10.7.0.0/", "expected a subnet like 10.7.0.0/24"),
        ("10.7.0/24", "expected a subnet like 10.7.0.0/24"),
        ("10.7.0.0/024", "expected a subnet like 10.7.0.0/24"),
        ("10.7.0.0/+24", "expected a subnet like 10.7.0.0/24"),
        ("fd00::/64", "expected a subnet like 10.7.0.0/24"),
        ("10.7.0.0/33", "expected a subnet like 10.7.0.0/24"),
        ("10.0.0.0/7", "the length of a subnet is /8 to /30"),
        ("10.7.0.0/31", "the length of a subnet is /8 to /30"),
        ("10.7.0.5/24", "bits beyond /24 are set"),
        ("224.0.0.0/24", "these addresses are no hosts'"),
        ("127.0.0.0/8", "these addresses are no hosts'"),
        ("169.254.0.0/16", "these addresses are no hosts'"),
        ("0.0.0.0/8", "these addresses are no hosts'"),
    ] {
        assert_eq!(subnet4(text).unwrap_err().0, rule, "{text}");
    }
    let (_, help) = subnet4("10.7.0.5/24").unwrap_err();
    assert_eq!(help.as_deref(), Some("write 10.7.0.0/24; the gateway is its first host address"));
}

#[test]
fn rfc_4862_5_5_3_a_slaac_prefix_is_a_64() {
    let gateway = Prefix6 { address: "fd00:7::1".parse().unwrap(), len: 64 };
    assert_eq!(subnet6("fd00:7::/64", 64..=64), Ok(gateway));
    assert!(subnet6("fd00:7::/80", 64..=64).unwrap_err().1.unwrap().contains("stateful"));
    assert_eq!(subnet6("fd00:7::/80", 64..=120).unwrap().len, 80);
    assert!(subnet6("fd00:7::1/64", 64..=64).unwrap_err().1.unwrap().contains("write fd00:7::/64"));
    for text in ["fe80::/64", "ff02::/64", "fd00:7::", "10.0.0.0/24", "fd00:7::/129"] {
        assert!(subnet6(text, 64..=64).is_err(), "{text}");
    }
}

#[test]
fn hosts_of_a_prefix() {
    let prefix = prefix4("10.7.0.1/24").unwrap();
    assert!(is_host4(prefix, Ipv4Addr::new(10, 7, 0, 254)));
    for no in [[10, 7, 0, 0], [10, 7, 0, 255], [10, 7, 1, 1]] {
        assert!(!is_host4(prefix, no.into()), "{no:?}");
    }
    let one = prefix4("192.0.2.9/32").unwrap();
    assert!(is_host4(one, Ipv4Addr::new(192, 0, 2, 9)) && !is_host4(one, Ipv4Addr::new(192, 0, 2, 8)));
    assert!(overlap4(prefix4("10.0.0.0/8").unwrap(), prefix));
    assert!(overlap4(prefix, prefix4("10.0.0.0/8").unwrap()));
    assert!(!overlap4(prefix, prefix4("10.7.1.0/24").unwrap()));
    assert!(overlap6(prefix6("fd00::/8").unwrap(), prefix6("fd00:7::1/64").unwrap()));
    assert!(!overlap6(prefix6("fd00:8::/64").unwrap(), prefix6("fd00:7::/64").unwrap()));
    assert!(prefix4("0.0.0.0/0").unwrap().contains(Ipv4Addr::new(1, 2, 3, 4)));
}

#[test]
fn ranges_go_forwards() {
    let [a, b] = [20, 29].map(|last| Ipv4Addr::new(192, 0, 2, last));
    assert_eq!(range4("192.0.2.20-192.0.2.29"), Ok((a, b)));
    assert_eq!(range4("192.0.2.20"), Ok((a, a)));
    assert_eq!(
        range4("192.0.2.29-192.0.2.20").unwrap_err(),
        "the range 192.0.2.29-192.0.2.20 goes backwards"
    );
    for bad in ["", "-", "192.0.2.20-", "192.0.2.20-29", "192.0.2.20 - 192.0.2.29", "224.0.0.1"] {
        assert!(range4(bad).unwrap_err().starts_with("expected a range"), "{bad:?}");
    }
}

#[test]
fn forwards_name_protocol_and_ports() {
    let key = |text: &str| forward_key(text).unwrap();
    assert_eq!(key("tcp/8080"), ForwardKey { outside: None, proto: Proto::Tcp, first: 8080, last: 8080 });
    assert_eq!((key("udp/1000-2000").first, key("udp/1000-2000").last), (1000, 2000));
    assert_eq!(key("192.0.2.9:tcp/80").outside, Some("192.0.2.9".parse().unwrap()));
    assert_eq!(key("[2001:db8::1]:tcp/80").outside, Some("2001:db8::1".parse().unwrap()));
    for bad in ["", "tcp", "8080", "sctp/80", "TCP/80", "eth0:tcp/80", "2001:db8::1:tcp/80", "tcp:80"] {
        assert_eq!(forward_key(bad).unwrap_err(), KEY_FORM, "{bad:?}");
    }
    for bad in ["tcp/0", "tcp/65536", "tcp/", "tcp/80-", "tcp/-80", "tcp/080", "tcp/80-90-100"] {
        assert_eq!(forward_key(bad).unwrap_err(), "a port is 1 to 65535", "{bad:?}");
    }
    assert_eq!(forward_key("tcp/90-80").unwrap_err(), "the range 90-80 goes backwards");
}

#[test]
fn the_target_of_a_forward_is_a_guest_with_room_for_all_ports() {
    let to = |from: &str, to: &str| forward_to(&forward_key(from).unwrap(), to);
    let forward = to("tcp/8000-8009", "10.7.0.20:80").unwrap();
    assert_eq!((forward.ports, forward.to), (8000..=8009, "10.7.0.20:80".parse().unwrap()));
    assert!(to("tcp/8000", "[fd00:7::20]:80").is_ok());
    assert!(to("tcp/8000", "10.7.0.20").unwrap_err().starts_with("expected IP:PORT"));
    assert_eq!(to("tcp/8000", "10.7.0.20:0").unwrap_err(), "a port is 1 to 65535");
    assert_eq!(
        to("tcp/1-10", "10.7.0.20:65527").unwrap_err(),
        "10 ports from here go beyond 65535: begin at 65526 or below"
    );
    assert!(to("tcp/1-10", "10.7.0.20:65526").is_ok());
    assert!(to("192.0.2.9:tcp/80", "[fd00:7::20]:80").unwrap_err().contains("both of IPv6"));
}

#[test]
fn forwards_overlap_where_a_packet_would_match_both() {
    let overlap = |a: &str, b: &str| forward_key(a).unwrap().overlaps(&forward_key(b).unwrap());
    assert!(overlap("tcp/80-90", "tcp/90-100"));
    assert!(overlap("tcp/80", "192.0.2.9:tcp/80"));
    assert!(overlap("0.0.0.0:tcp/80", "192.0.2.9:tcp/80"));
    assert!(!overlap("tcp/80", "udp/80"));
    assert!(!overlap("tcp/80-90", "tcp/91"));
    assert!(!overlap("192.0.2.8:tcp/80", "192.0.2.9:tcp/80"));
}

#[test]
fn name_servers_and_domains() {
    assert_eq!(server("192.0.2.53"), Ok("192.0.2.53:53".parse().unwrap()));
    assert_eq!(server("192.0.2.53:5353"), Ok("192.0.2.53:5353".parse().unwrap()));
    assert_eq!(server("2001:db8::53"), Ok("[2001:db8::53]:53".parse().unwrap()));
    assert_eq!(server("[2001:db8::53]:5353"), Ok("[2001:db8::53]:5353".parse().unwrap()));
    assert_eq!(server("127.0.0.53"), Ok("127.0.0.53:53".parse().unwrap()));
    for bad in ["", "dns.example", "192.0.2.53:", "192.0.2.53:0", "0.0.0.0", "224.0.0.1", " 192.0.2.53"] {
        assert!(server(bad).is_err(), "{bad:?}");
    }
    assert_eq!(domain("Lab.Example."), Ok("lab.example".to_owned()));
    let long = "a".repeat(64);
    for bad in ["", ".", "a..b", "-a", "a-", "a b", "lab.exämple", long.as_str()] {
        assert!(domain(bad).is_err(), "{bad:?}");
    }
}
