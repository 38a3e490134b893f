//! Every rule of NAT networks with its message: a base that is valid, and the one change that breaks it.

use super::super::problem::Problem;
use super::super::testing::{CAPTURES, name};
use super::super::typed::{Dhcp6, Mode6, NatEgress, OutsideAddress, OutsideMac};
use super::*;
use switchd_api::model::{NetworkSpec, PortSpec};
use switchd_api::reply::ErrorCode;
use switchd_nat::{Filtering, Prefix4, Proto};

const BASE: &str = r#"
[network.lab]
kind = "nat"
subnet = "10.7.0.0/24"
subnet6 = "fd00:7::/64"
[network.lab.forward]
"tcp/8080" = "10.7.0.20:80"
[network.shop]
kind = "nat"
subnet = "10.8.0.0/24"
egress = "eth0"
vlan = 30
address = "192.0.2.9/24"
gateway = "192.0.2.1"
pool = "192.0.2.20-192.0.2.29"
[network.shop.floating]
"192.0.2.50" = "web"
[network.office]
kind = "bridged"
uplink = "eth0"
[port.vm1]
network = "lab"
tap = "vm1"
reserve = "10.7.0.20"
[port.vm2]
network = "lab"
tap = "vm2"
[port.web]
network = "shop"
tap = "web"
reserve = "10.8.0.2"
[port.bare]
network = "shop"
tap = "bare"
[port.pc]
network = "office"
tap = "pc"
"#;

pub(super) fn base() -> Desired {
    toml::from_str(BASE).unwrap()
}

pub(super) fn check(change: impl FnOnce(&mut Desired)) -> Result<Validated, Vec<Problem>> {
    let mut desired = base();
    change(&mut desired);
    validate(&desired, Path::new(CAPTURES))
}

pub(super) fn problems(change: impl FnOnce(&mut Desired)) -> Vec<Problem> {
    check(change).expect_err("it is refused")
}

pub(super) fn refused(change: impl FnOnce(&mut Desired)) -> Vec<String> {
    problems(change).iter().map(Problem::to_string).collect()
}

/// With egress host.
pub(super) fn lab(change: impl FnOnce(&mut NetworkSpec)) -> Vec<String> {
    refused(|desired| change(desired.network.get_mut("lab").unwrap()))
}

/// With egress through an interface.
pub(super) fn shop(change: impl FnOnce(&mut NetworkSpec)) -> Vec<String> {
    refused(|desired| change(desired.network.get_mut("shop").unwrap()))
}

pub(super) fn port(name: &str, change: impl FnOnce(&mut PortSpec)) -> Vec<String> {
    refused(|desired| change(desired.port.get_mut(name).unwrap()))
}

pub(super) fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

pub(super) fn entry(key: &str, value: &str) -> BTreeMap<String, String> {
    [(key.to_owned(), value.to_owned())].into()
}

#[test]
fn values_get_their_types_and_defaults() {
    let plan = check(|_| {}).unwrap();
    let nat = plan.networks["lab"].nat.as_deref().unwrap();
    assert_eq!(nat.inside, Prefix4 { address: [10, 7, 0, 1].into(), len: 24 });
    assert_eq!(nat.subnet(), Ipv4Addr::new(10, 7, 0, 0));
    assert_eq!(nat.inside6.unwrap().address, "fd00:7::1".parse::<std::net::Ipv6Addr>().unwrap());
    assert_eq!((&nat.egress, nat.mode6, nat.dhcp6), (&NatEgress::Host, Mode6::Nat, Dhcp6::Slaac));
    let dhcp = nat.dhcp.as_ref().unwrap();
    assert_eq!((dhcp.range, dhcp.lease_time), (([10, 7, 0, 1].into(), [10, 7, 0, 254].into()), 3600));
    assert_eq!((nat.domain.as_str(), nat.resolvers.len()), ("lab", 0));
    assert_eq!((nat.flow_limit, nat.flow_quota), (1 << 20, 65_536));
    assert_eq!((nat.filtering, nat.timeouts), (Filtering::AddressAndPortDependent, Default::default()));
    assert_eq!((nat.forwards[0].forward.proto, &nat.forwards[0].forward.ports), (Proto::Tcp, &(8080..=8080)));
    assert_eq!(nat.reserved, [(name("vm1"), Ipv4Addr::new(10, 7, 0, 20))]);
    assert_eq!(plan.ports["vm1"].reserve, Some([10, 7, 0, 20].into()));

    let nat = plan.networks["shop"].nat.as_deref().unwrap();
    let outside = nat.outside().unwrap();
    assert_eq!((outside.uplink.as_str(), outside.vlan), ("eth0", Some(30)));
    assert_eq!(outside.address, OutsideAddress::Static(Prefix4 { address: [192, 0, 2, 9].into(), len: 24 }));
    assert_eq!((outside.pool.len(), outside.gateway), (10, Some([192, 0, 2, 1].into())));
    assert_eq!((outside.mac, nat.mode6), (OutsideMac::Own, Mode6::Routed));
    assert_eq!((nat.floating[0].port.as_str(), nat.floating[0].inside), ("web", [10, 8, 0, 2].into()));
    assert!(plan.networks["office"].nat.is_none());
}

#[test]
fn a_nat_network_needs_a_subnet_of_hosts() {
    assert_eq!(
        lab(|spec| spec.subnet = None),
        ["network lab: subnet: a NAT network needs a subnet for its guests"]
    );
    assert_eq!(
        lab(|spec| spec.subnet = some("10.7.0.5/24")),
        ["network lab: subnet \"10.7.0.5/24\": bits beyond /24 are set"]
    );
    assert_eq!(
        lab(|spec| spec.subnet = some("10.7.0.0/31")),
        ["network lab: subnet \"10.7.0.0/31\": the length of a subnet is /8 to /30"]
    );
    assert_eq!(
        lab(|spec| spec.subnet6 = some("fd00:7::/60")),
        ["network lab: subnet6 \"fd00:7::/60\": the length of a prefix is /64 (RFC 4862 5.5.3)"]
    );
    let stateful = check(|desired| {
        let lab = desired.network.get_mut("lab").unwrap();
        (lab.subnet6, lab.dhcp6) = (some("fd00:7::/96"), some("stateful"));
    });
    assert_eq!(stateful.unwrap().networks["lab"].nat.as_ref().unwrap().dhcp6, Dhcp6::Stateful);
    assert_eq!(
        lab(|spec| spec.mtu = Some(1279)),
        ["network lab: mtu 1279: IPv6 needs an MTU of at least 1280 (RFC 8200 5)"]
    );
}

#[test]
fn subnets_do_not_overlap_with_each_other_or_with_the_outside() {
    let found = problems(|desired| desired.network.get_mut("shop").unwrap().subnet = some("10.0.0.0/8"));
    let shop_first = "network shop: subnet \"10.0.0.0/8\": network lab has 10.7.0.0/24, and they overlap";
    assert!(found.iter().any(|problem| problem.to_string() == shop_first), "{found:?}");
    assert!(found.iter().all(|problem| problem.code == ErrorCode::Conflict || problem.path[0] == "port"));
    assert_eq!(
        lab(|spec| {
            spec.subnet = some("10.8.0.128/25");
            spec.forward.clear();
        })[1],
        "network shop: subnet \"10.8.0.0/24\": network lab has 10.8.0.128/25, and they overlap"
    );
    assert_eq!(
        shop(|spec| spec.subnet6 = some("fd00:7::/64")),
        ["network shop: subnet6 \"fd00:7::/64\": network lab has fd00:7::/64, and they overlap"]
    );
    let found = shop(|spec| spec.subnet = some("192.0.2.0/24"));
    let rule = "network shop: address \"192.0.2.9/24\": 192.0.2.0/24 outside overlaps with the guests' subnet \
                192.0.2.0/24";
    assert!(found.contains(&rule.to_owned()), "{found:?}");
}

#[test]
fn what_was_just_added_is_named_in_a_conflict() {
    let before = base();
    let mut after = base();
    let spec = NetworkSpec { subnet: some("10.8.0.0/25"), ..Default::default() };
    after.network.insert(name("a"), NetworkSpec { kind: Kind::Nat, ..spec });
    let problems = validate_change(&before, &after, Path::new(CAPTURES)).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "network a: subnet \"10.8.0.0/25\": network shop has 10.8.0.0/24, and they overlap"
    );
    // The uplink of `office` is old; the netdev of `a` is new, and so is the uplink of `z` beside an old port.
    let mut after = base();
    let pc = PortSpec { netdev: some("eth0"), ..PortSpec::on(name("office")) };
    after.port.insert(name("a"), pc);
    let problems = validate_change(&before, &after, Path::new(CAPTURES)).unwrap_err();
    assert!(problems[0].to_string().starts_with("port a: netdev \"eth0\""), "{problems:?}");
    let mut before = base();
    before.port.insert(name("z"), PortSpec { netdev: some("eth7"), ..PortSpec::on(name("office")) });
    let mut after = before.clone();
    after.network.insert(name("b"), NetworkSpec { uplink: some("eth7"), ..NetworkSpec::default() });
    let problems = validate_change(&before, &after, Path::new(CAPTURES)).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "network b: uplink \"eth7\": this interface is the netdev of port z already"
    );
    // An address that a new port takes from an old one, whatever their names.
    let mut after = base();
    after.port.insert(
        name("a"),
        PortSpec { tap: some("a"), reserve: some("10.7.0.20"), ..PortSpec::on(name("lab")) },
    );
    let problems = validate_change(&base(), &after, Path::new(CAPTURES)).unwrap_err();
    assert_eq!(problems[0].to_string(), "port a: reserve \"10.7.0.20\": port vm1 has this address already");
}

#[test]
fn other_kinds_have_no_nat_keys_and_a_nat_network_no_uplink() {
    let office = |change: fn(&mut NetworkSpec)| refused(|d| change(d.network.get_mut("office").unwrap()));
    assert_eq!(
        office(|spec| spec.subnet = some("10.9.0.0/24")),
        ["network office: subnet: only a NAT network has this key"]
    );
    assert_eq!(
        office(|spec| spec.forward = entry("tcp/80", "10.9.0.2:80")),
        ["network office: forward: only a NAT network has this key"]
    );
    assert_eq!(
        lab(|spec| spec.uplink = some("eth1")),
        ["network lab: uplink \"eth1\": a NAT network has no uplink"]
    );
    assert_eq!(
        lab(|spec| spec.rstp = some("on")),
        ["network lab: rstp \"on\": a NAT network takes no part in spanning trees"]
    );
    assert_eq!(office(|spec| spec.rstp = some("yes")), ["network office: rstp \"yes\": expected on or off"]);
    let on = check(|desired| desired.network.get_mut("office").unwrap().rstp = some("on")).unwrap();
    assert!(on.networks["office"].rstp && !on.networks["lab"].rstp);
}

#[test]
fn a_spanning_tree_hears_its_ports_unless_they_are_guarded() {
    let guards = |tree: Option<&str>, guard: Option<&str>| {
        let plan = check(|desired| {
            let vm1 = desired.port.get_mut("vm1").unwrap();
            vm1.bpdu_guard = guard.map(str::to_owned);
            vm1.reserve = None;
            vm1.network = "office".parse().unwrap();
            desired.network.get_mut("office").unwrap().rstp = tree.map(str::to_owned);
        });
        plan.unwrap().ports["vm1"].bpdu_guard
    };
    assert!(guards(None, None) && guards(Some("off"), None) && guards(Some("on"), Some("on")));
    assert!(!guards(Some("on"), None) && !guards(None, Some("off")));
}

#[test]
fn egress_host_has_no_address_of_its_own() {
    let rule = "only egress through an interface has this key: here the host's own addresses are used";
    let said = |key: &str| vec![format!("network lab: {key}: {rule}")];
    assert_eq!(lab(|spec| spec.address = some("192.0.2.9/24")), said("address"));
    assert_eq!(lab(|spec| spec.pool = some("192.0.2.9")), said("pool"));
    assert_eq!(lab(|spec| spec.gateway = some("192.0.2.1")), said("gateway"));
    assert_eq!(lab(|spec| spec.mac = some("host")), said("mac"));
    assert_eq!(lab(|spec| spec.vlan = Some(7)), said("vlan"));
    assert_eq!(lab(|spec| spec.floating = entry("192.0.2.51", "vm1")), said("floating"));
    assert_eq!(
        lab(|spec| spec.mode6 = some("routed")),
        ["network lab: mode6 \"routed\": the host's own sockets cannot route: egress host translates"]
    );
}

#[test]
fn egress_through_an_interface_has_an_address_there() {
    assert_eq!(
        shop(|spec| spec.address = None),
        ["network shop: address: egress through an interface needs an address of its own there"]
    );
    for bad in ["192.0.2.9", "dhcp4", ""] {
        let rule = "expected dhcp, or an address with the length of its prefix";
        assert_eq!(shop(|spec| spec.address = some(bad)), [format!("network shop: address {bad:?}: {rule}")]);
    }
    for bad in ["192.0.2.0/24", "192.0.2.255/24", "127.0.0.1/8", "224.0.0.5/24", "1.2.3.4/0"] {
        let found = shop(|spec| spec.address = some(bad));
        assert!(found[0].contains("this is no host's address within a /"), "{bad}: {found:?}");
    }
    assert_eq!(
        shop(|spec| spec.egress = some("eth/0"))[0],
        "network shop: egress \"eth/0\": an interface name has no slash, colon or white space"
    );
    assert_eq!(
        shop(|spec| spec.gateway = some("198.51.100.1")),
        ["network shop: gateway \"198.51.100.1\": the next hop is not within the outside's prefix"]
    );
    let help = |gateway: &str| {
        let told = problems(|desired| desired.network.get_mut("shop").unwrap().gateway = some(gateway));
        told[0].help.clone().unwrap()
    };
    assert_eq!(
        help("198.51.100.1"),
        "address is 192.0.2.9/24: name a router in 192.0.2.0/24, or correct the length of the prefix in address"
    );
    assert!(
        help("10.8.0.1").starts_with("address is 192.0.2.9/24: name a router in 192.0.2.0/24; the guests'")
    );
    assert_eq!(
        shop(|spec| spec.gateway = some("192.0.2.255")),
        ["network shop: gateway \"192.0.2.255\": the outside's prefix has no such host"]
    );
    assert_eq!(
        shop(|spec| spec.gateway = some("192.0.2.9")),
        ["network shop: gateway \"192.0.2.9\": this is the network's own address outside"]
    );
    let lone = check(|desired| {
        let shop = desired.network.get_mut("shop").unwrap();
        (shop.address, shop.gateway) = (some("192.0.2.9/32"), some("198.51.100.1"));
    });
    assert!(lone.is_ok(), "{lone:?}");
    let leased = check(|desired| {
        let shop = desired.network.get_mut("shop").unwrap();
        (shop.address, shop.pool, shop.mac) = (some("dhcp"), None, some("host"));
    })
    .unwrap();
    let outside = leased.networks["shop"].nat.as_ref().unwrap().outside().unwrap().clone();
    assert_eq!((outside.address, outside.mac), (OutsideAddress::Dhcp, OutsideMac::Host));
    assert_eq!(
        shop(|spec| spec.mac = some("01:00:5e:00:00:01")),
        [
            "network shop: mac \"01:00:5e:00:00:01\": a group address (odd first octet) belongs to no single host"
        ]
    );
}

#[test]
fn a_pool_holds_other_addresses_of_hosts() {
    for (pool, rule) in [
        ("192.0.2.5-192.0.2.10", "192.0.2.9 is the network's main address already"),
        ("192.0.2.1-192.0.2.3", "192.0.2.1 is the gateway outside"),
        ("192.0.2.250-192.0.2.255", "192.0.2.255 is no host's address"),
        ("10.8.0.7", "10.8.0.7 lies in the guests' subnet"),
        ("192.0.0.0-192.0.2.8", "a pool has at most 256 addresses, this one has 521"),
        ("192.0.2.29-192.0.2.20", "the range 192.0.2.29-192.0.2.20 goes backwards"),
    ] {
        let wanted = format!("network shop: pool {pool:?}: {rule}");
        assert_eq!(shop(|spec| spec.pool = some(pool)), [wanted]);
    }
    assert_eq!(
        shop(|spec| (spec.address, spec.gateway) = (some("dhcp"), None)),
        ["network shop: pool \"192.0.2.20-192.0.2.29\": a leased address comes alone"]
    );
}

#[test]
fn ipv6_outside_needs_ipv6_inside() {
    assert_eq!(
        shop(|spec| spec.address6 = some("2001:db8::9/64")),
        ["network shop: address6 \"2001:db8::9/64\": the guests have no IPv6"]
    );
    assert_eq!(
        shop(|spec| spec.mode6 = some("routed")),
        ["network shop: mode6 \"routed\": this network has no IPv6"]
    );
    let six = |change: fn(&mut NetworkSpec)| {
        check(|desired| {
            let shop = desired.network.get_mut("shop").unwrap();
            shop.subnet6 = some("fd00:8::/64");
            change(shop);
        })
    };
    let mode = |plan: Result<Validated, _>| plan.unwrap().networks["shop"].nat.as_ref().unwrap().mode6;
    assert_eq!(mode(six(|_| {})), Mode6::Routed);
    assert_eq!(mode(six(|spec| spec.address6 = some("2001:db8::9/64"))), Mode6::Nat);
    assert_eq!(
        mode(six(|spec| (spec.address6, spec.mode6) = (some("2001:db8::9/64"), some("routed")))),
        Mode6::Routed
    );
    let said = |plan: Result<Validated, Vec<Problem>>| plan.unwrap_err()[0].to_string();
    assert_eq!(
        said(six(|spec| spec.mode6 = some("nat"))),
        "network shop: mode6 \"nat\": translation needs an IPv6 address outside"
    );
    assert_eq!(
        said(six(|spec| spec.address6 = some("dhcp"))),
        "network shop: address6 \"dhcp\": an IPv6 address outside is not learned, neither by DHCPv6 nor from router advertisements"
    );
    assert_eq!(
        said(six(|spec| spec.address6 = some("fe80::9/64"))),
        "network shop: address6 \"fe80::9/64\": this is no address that others can answer to"
    );
    assert_eq!(
        said(six(|spec| spec.address6 = some("fd00:8::9/64"))),
        "network shop: address6 \"fd00:8::9/64\": the prefix outside overlaps with the guests' subnet6"
    );
    assert!(six(|spec| spec.gateway6 = some("fe80::1")).is_ok());
    assert_eq!(
        said(six(|spec| (spec.address6, spec.gateway6) = (some("2001:db8::9/64"), some("2001:db9::1")))),
        "network shop: gateway6 \"2001:db9::1\": the next hop is not another address within the outside's prefix"
    );
}

#[test]
fn an_outside_address_belongs_to_one_network() {
    let twin = |change: fn(&mut NetworkSpec)| {
        refused(|desired| {
            let mut spec = NetworkSpec {
                subnet: some("10.9.0.0/24"),
                pool: None,
                floating: BTreeMap::new(),
                ..desired.network["shop"].clone()
            };
            change(&mut spec);
            desired.network.insert(name("twin"), spec);
        })
    };
    let taken = |key: &str, ip: &str| {
        vec![format!("network twin: {key} \"{ip}\": network shop has this address on eth0 already")]
    };
    assert_eq!(twin(|_| {}), taken("address", "192.0.2.9"));
    assert_eq!(twin(|spec| spec.address = some("192.0.2.20/24")), taken("address", "192.0.2.20"));
    assert_eq!(
        twin(|spec| (spec.address, spec.pool) = (some("192.0.2.10/24"), some("192.0.2.50"))),
        taken("pool", "192.0.2.50")
    );
    let elsewhere = check(|desired| {
        let spec = NetworkSpec {
            subnet: some("10.9.0.0/24"),
            vlan: Some(31),
            floating: BTreeMap::new(),
            ..desired.network["shop"].clone()
        };
        desired.network.insert(name("twin"), spec);
    });
    assert!(elsewhere.is_ok(), "{elsewhere:?}");
    // The interface's own MAC address has one taker on a VLAN.
    let found = refused(|desired| {
        desired.network.get_mut("shop").unwrap().mac = some("host");
        let spec = NetworkSpec {
            subnet: some("10.9.0.0/24"),
            address: some("192.0.2.10/24"),
            pool: None,
            floating: BTreeMap::new(),
            ..desired.network["shop"].clone()
        };
        desired.network.insert(name("twin"), spec);
    });
    assert_eq!(found, ["network twin: mac: network shop has this address already"]);
}

#[test]
fn an_egress_shares_its_interface_with_uplinks_only() {
    assert_eq!(
        port("pc", |spec| (spec.tap, spec.netdev) = (None, some("eth0"))),
        ["port pc: netdev \"eth0\": this interface is the uplink of network office already"]
    );
    let found = refused(|desired| {
        desired.network.get_mut("shop").unwrap().egress = some("eth3");
        let pc = desired.port.get_mut("pc").unwrap();
        (pc.tap, pc.netdev) = (None, some("eth3"));
    });
    assert_eq!(found, ["port pc: netdev \"eth3\": this interface is the egress of network shop already"]);
}
