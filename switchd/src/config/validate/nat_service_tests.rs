//! Rules of what a NAT network serves and limits: DHCP, names, timeouts, quotas, guards.

use super::super::problem::Problem;
use super::super::testing::name;
use super::nat_tests::{check, entry, lab, port, some};
use super::*;
use switchd_api::model::NetworkSpec;
use switchd_nat::Prefix4;

#[test]
fn dhcp_serves_what_its_options_can_hold() {
    let dhcp = |change: fn(&mut NetworkSpec)| {
        check(|desired| change(desired.network.get_mut("lab").unwrap()))
            .map(|plan| plan.networks["lab"].nat.as_ref().unwrap().dhcp.clone())
    };
    let plan = dhcp(|spec| {
        spec.dhcp_range = some("10.7.0.100-10.7.0.199");
        spec.lease_time = Some(7200);
        spec.dhcp_port_limit = Some(4);
        for (option, text) in [
            ("ntp", "10.7.0.5, 10.7.0.6"),
            ("tftp", "boot.example"),
            ("bootfile", "pxelinux.0"),
            ("search", "Lab.example,example"),
            ("routes", "10.9.0.0/16 via 10.7.0.5, 0.0.0.0/0 via 10.7.0.1"),
        ] {
            spec.dhcp_option.insert(option.into(), text.into());
        }
    });
    let plan = plan.unwrap().unwrap();
    assert_eq!((plan.range.1, plan.lease_time, plan.ntp.len()), ([10, 7, 0, 199].into(), 7200, 2));
    assert_eq!((plan.search, plan.port_limit), (vec!["lab.example".into(), "example".into()], Some(4)));
    assert_eq!(plan.routes[0], (Prefix4 { address: [10, 9, 0, 0].into(), len: 16 }, [10, 7, 0, 5].into()));
    assert_eq!(dhcp(|spec| spec.dhcp = some("off")).unwrap(), None);
    let said = |plan: Result<Option<_>, Vec<Problem>>| {
        plan.map(|_: Option<super::super::typed::DhcpPlan>| ()).unwrap_err()[0].to_string()
    };
    assert_eq!(
        said(dhcp(|spec| (spec.dhcp, spec.lease_time) = (some("off"), Some(600)))),
        "network lab: lease-time: DHCP is off in this network"
    );
    assert_eq!(
        said(dhcp(|spec| spec.dhcp_range = some("10.7.0.100-10.7.1.10"))),
        "network lab: dhcp-range \"10.7.0.100-10.7.1.10\": the range is not within the hosts of the subnet"
    );
    assert_eq!(
        said(dhcp(|spec| spec.dhcp_range = some("10.7.0.1"))),
        "network lab: dhcp-range \"10.7.0.1\": the gateway's own address is not for lease"
    );
    assert_eq!(
        said(dhcp(|spec| spec.lease_time = Some(119))),
        "network lab: lease-time 119: the lease time in seconds is 120 to 31536000"
    );
    assert_eq!(
        said(dhcp(|spec| spec.dhcp_port_limit = Some(0))),
        "network lab: dhcp-port-limit 0: the number of addresses that one port may lease is 1 to 65536"
    );
    assert_eq!(
        said(dhcp(|spec| (spec.dhcp, spec.dhcp_port_limit) = (some("off"), Some(1)))),
        "network lab: dhcp-port-limit: DHCP is off in this network"
    );
    for (option, text, rule) in [
        ("npt", "10.7.0.5", "there is no such option"),
        ("ntp", "time.example", "expected an IPv4 address, as in 192.0.2.9"),
        ("tftp", "ü", "the name of a server (option 66) is 1 to 255 printable characters of ASCII"),
        ("routes", "10.9.0.0/16", "expected routes like 10.9.0.0/16 via 10.7.0.5, with commas between them"),
        ("routes", "10.9.0.1/16 via 10.7.0.5", "bits beyond /16 are set: the network is 10.9.0.0"),
        (
            "search",
            "a..b",
            "expected a domain: labels of a-z 0-9 - with dots between them, as in lab.example",
        ),
    ] {
        let found = lab(|spec| spec.dhcp_option = entry(option, text));
        assert_eq!(found, [format!("network lab: dhcp-option.{option} {text:?}: {rule}")]);
    }
    let many = ["10.7.0.5"; 64].join(",");
    assert!(
        lab(|spec| spec.dhcp_option = entry("ntp", &many))[0]
            .ends_with("at most 255 bytes, and this would be 256")
    );
}

#[test]
fn names_are_domains_and_name_servers_addresses() {
    assert_eq!(
        lab(|spec| spec.dns = some("lab..example")),
        [
            "network lab: dns \"lab..example\": expected a domain: labels of a-z 0-9 - with dots between them, as in \
             lab.example"
        ]
    );
    let plan = check(|desired| {
        let lab = desired.network.get_mut("lab").unwrap();
        (lab.dns, lab.resolver) = (some("Lab.Example."), some("192.0.2.53,[2001:db8::53]:5353"));
        let odd = NetworkSpec { subnet: some("10.9.0.0/24"), ..desired.network["lab"].clone() };
        desired
            .network
            .insert(name("a..b-"), NetworkSpec { dns: None, subnet6: None, forward: BTreeMap::new(), ..odd });
    })
    .unwrap();
    let nat = plan.networks["lab"].nat.as_ref().unwrap();
    assert_eq!((nat.domain.as_str(), nat.resolvers.len()), ("lab.example", 2));
    assert_eq!(plan.networks["a..b-"].nat.as_ref().unwrap().domain, "a.b");
    assert!(
        lab(|spec| spec.resolver = some("dns.example"))[0].contains("expected addresses separated by commas")
    );
    for own in ["10.7.0.1", "192.0.2.53,10.7.0.1:5353", "[::ffff:10.7.0.1]:53", "fd00:7::1"] {
        let told = lab(|spec| (spec.subnet6, spec.resolver) = (some("fd00:7::/64"), some(own)));
        assert!(
            told[0].contains("is the gateway of this network: its forwarder would ask itself"),
            "{told:?}"
        );
    }
    let nine = ["192.0.2.53"; 9].join(",");
    assert!(lab(|spec| spec.resolver = some(&nine))[0].contains("at most 8 name servers, these are 9"));
}

#[test]
fn limits_and_timeouts_have_ranges_of_the_standards() {
    for (found, rule) in [
        (
            lab(|spec| spec.udp_timeout = Some(119)),
            "udp-timeout 119: the UDP timeout in seconds is 120 to 86400",
        ),
        (
            lab(|spec| spec.tcp_timeout = Some(7439)),
            "tcp-timeout 7439: the TCP timeout in seconds is 7440 to 1000000",
        ),
        (
            lab(|spec| spec.tcp_transitory_timeout = Some(239)),
            "tcp-transitory-timeout 239: the TCP transitory timeout in seconds is 240 to 86400",
        ),
        (
            lab(|spec| spec.icmp_timeout = Some(59)),
            "icmp-timeout 59: the ICMP timeout in seconds is 60 to 86400",
        ),
        (lab(|spec| spec.flow_limit = Some(0)), "flow-limit 0: the number of flows is 1 to 4194304"),
        (
            lab(|spec| (spec.flow_limit, spec.flow_quota) = (Some(10), Some(11))),
            "flow-quota 11: one guest cannot have more flows than the network",
        ),
        (
            lab(|spec| spec.filtering = some("none")),
            "filtering \"none\": expected address-and-port or endpoint-independent",
        ),
    ] {
        assert_eq!(found[0], format!("network lab: {rule}"));
    }
    let plan = check(|d| d.network.get_mut("lab").unwrap().flow_limit = Some(10)).unwrap();
    assert_eq!(plan.networks["lab"].nat.as_ref().unwrap().flow_quota, 10);
}

#[test]
fn guards_and_the_storm_limit_have_their_values() {
    let plan = check(|desired| {
        let vm1 = desired.port.get_mut("vm1").unwrap();
        (vm1.storm_limit, vm1.bpdu_guard, vm1.loop_guard) = (some("off"), some("off"), some("on"));
        desired.port.get_mut("vm2").unwrap().storm_limit = some("500");
    })
    .unwrap();
    let vm1 = &plan.ports["vm1"];
    assert_eq!((vm1.storm_limit, vm1.bpdu_guard, vm1.loop_guard), (None, false, true));
    assert_eq!(plan.ports["vm2"].storm_limit, Some(500));
    assert_eq!(plan.ports["pc"].storm_limit, switchd_dataplane::PortConfig::default().storm_limit);
    for bad in ["99", "10000001", "on", "1k"] {
        assert_eq!(
            port("vm1", |spec| spec.storm_limit = some(bad)),
            [format!(
                "port vm1: storm-limit {bad:?}: the storm limit is 100 to 10000000 frames a second, or off"
            )]
        );
    }
    assert_eq!(
        port("vm1", |spec| spec.bpdu_guard = some("no")),
        ["port vm1: bpdu-guard \"no\": expected on or off"]
    );
    assert_eq!(
        port("pc", |spec| (spec.tap, spec.netdev) = (None, some("lo")))[0].split(':').nth(2).unwrap(),
        " the loopback is no Ethernet interface"
    );
}
