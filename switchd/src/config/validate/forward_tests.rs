//! Forwards, floating and reserved addresses: every rule with its message. The base is that of the NAT networks.

use super::super::testing::{CAPTURES, name};
use super::nat_tests::{base, check, entry, lab, port, problems, shop, some};
use super::*;
use switchd_api::model::NetworkSpec;
use switchd_api::reply::ErrorCode;

#[test]
fn forwards_lead_to_guests_and_do_not_overlap() {
    let forward = |key: &str, to: &str| lab(|spec| drop(spec.forward.insert(key.to_owned(), to.to_owned())));
    let said = |key: &str, rule: &str| [format!("network lab: forward.{key}{rule}")];
    assert_eq!(
        forward("tcp/81", "10.9.0.2:80")[0],
        "network lab: forward.\"tcp/81\" \"10.9.0.2:80\": a forward leads to an address of the guests' subnet"
    );
    assert_eq!(
        forward("tcp/81", "10.7.0.1:80")[0],
        "network lab: forward.\"tcp/81\" \"10.7.0.1:80\": this is the gateway's own address"
    );
    for bad in ["10.7.0.0:80", "10.7.0.255:80"] {
        assert_eq!(forward("tcp/81", bad).len(), 1, "{bad}");
    }
    assert_eq!(
        forward("tcp/8000-8100", "10.7.0.20:80"),
        said("\"tcp/8080\"", ": forward tcp/8000-8100 has a port of this one already")
    );
    assert_eq!(
        forward("tcp/8081-8070", "10.7.0.20:80"),
        said("\"tcp/8081-8070\"", ": the range 8081-8070 goes backwards")
    );
    for fine in
        [("udp/8080", "10.7.0.20:80"), ("[::1]:tcp/8080", "[fd00:7::2]:80"), ("tcp/8081", "10.7.0.20:80")]
    {
        let plan = check(|desired| {
            let lab = desired.network.get_mut("lab").unwrap();
            lab.forward.insert(fine.0.to_owned(), fine.1.to_owned());
        });
        assert!(plan.is_ok(), "{fine:?}: {plan:?}");
    }
    // Both families without an address: one each.
    let six = check(|desired| {
        let lab = desired.network.get_mut("lab").unwrap();
        lab.forward = [("tcp/1", "10.7.0.2:1"), ("tcp/2", "[fd00:7::2]:1")]
            .map(|(key, to)| (key.to_owned(), to.to_owned()))
            .into();
    });
    assert!(six.is_ok(), "{six:?}");
    assert_eq!(
        shop(|spec| spec.forward = entry("tcp/80", "[fd00:8::2]:80"))[0],
        "network shop: forward.\"tcp/80\" \"[fd00:8::2]:80\": the guests have no IPv6"
    );
    let routed = shop(|spec| {
        (spec.subnet6, spec.forward) = (some("fd00:8::/64"), entry("tcp/80", "[fd00:8::2]:80"));
    });
    assert_eq!(
        routed[0],
        "network shop: forward.\"tcp/80\" \"[fd00:8::2]:80\": the network has no IPv6 address outside"
    );
}

#[test]
fn the_forward_that_was_just_added_is_named() {
    let mut after = base();
    after.network.get_mut("lab").unwrap().forward.insert("tcp/8000-9000".into(), "10.7.0.20:80".into());
    let problems = validate_change(&base(), &after, Path::new(CAPTURES)).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "network lab: forward.\"tcp/8000-9000\": forward tcp/8080 has a port of this one already"
    );
    let help = "choose other ports, or `switchctl forward delete lab tcp/8080`";
    assert_eq!(problems[0].help.as_deref(), Some(help));
}

#[test]
fn a_port_of_the_host_has_one_forward_in_all_networks() {
    let found = problems(|desired| {
        let spec = NetworkSpec {
            kind: Kind::Nat,
            subnet: some("10.9.0.0/24"),
            forward: entry("192.0.2.1:tcp/8000-9000", "10.9.0.2:80"),
            ..NetworkSpec::default()
        };
        desired.network.insert(name("other"), spec);
    });
    assert_eq!(
        found[0].to_string(),
        "network other: forward.\"192.0.2.1:tcp/8000-9000\": network lab has this port of the host already"
    );
    assert_eq!(found[0].code, ErrorCode::Conflict);
    // An address of its own is nobody else's.
    assert!(check(|d| d.network.get_mut("shop").unwrap().forward = entry("tcp/8080", "10.8.0.2:80")).is_ok());
}

#[test]
fn a_forward_names_an_address_that_the_network_has() {
    let forward = |key: &str| shop(|spec| spec.forward = entry(key, "10.8.0.2:80"));
    assert_eq!(
        forward("192.0.2.10:tcp/80"),
        ["network shop: forward.\"192.0.2.10:tcp/80\": the network has no address 192.0.2.10 outside"]
    );
    assert_eq!(
        forward("192.0.2.50:tcp/80"),
        [
            "network shop: forward.\"192.0.2.50:tcp/80\": 192.0.2.50 is the floating address of port web, with all \
             its ports"
        ]
    );
    for fine in ["192.0.2.9:tcp/80", "192.0.2.25:tcp/80", "tcp/80"] {
        let plan = check(|d| d.network.get_mut("shop").unwrap().forward = entry(fine, "10.8.0.2:80"));
        assert!(plan.is_ok(), "{fine}: {plan:?}");
    }
}

#[test]
fn a_floating_address_is_one_guests_whose_address_is_known() {
    let floating = |ip: &str, port: &str| shop(|spec| spec.floating = entry(ip, port));
    let said = |ip: &str, rule: &str| [format!("network shop: floating.{ip}{rule}")];
    assert_eq!(
        floating("192.0.2.51", "bare"),
        said(
            "192.0.2.51",
            " \"bare\": the port has no reserved address, so its guest's address is not known"
        )
    );
    let found = problems(|d| d.network.get_mut("shop").unwrap().floating = entry("192.0.2.51", "bare"));
    assert_eq!(found[0].help.as_deref(), Some("switchctl port set bare reserve=IP"));
    assert_eq!(
        floating("192.0.2.51", "vm1"),
        said("192.0.2.51", " \"vm1\": the port belongs to network lab")
    );
    assert_eq!(floating("192.0.2.51", "wep"), said("192.0.2.51", " \"wep\": there is no such port"));
    assert_eq!(
        floating("192.0.2.9", "web"),
        said("192.0.2.9", ": this is the network's main address outside: use forwards for it")
    );
    assert_eq!(
        floating("192.0.2.21", "web"),
        said("192.0.2.21", ": this address is in the network's pool: take it out there first")
    );
    assert_eq!(floating("192.0.2.1", "web"), said("192.0.2.1", ": this is the next hop outside"));
    assert_eq!(floating("192.0.2.255", "web").len(), 1);
    assert_eq!(
        floating("10.8.0.9", "web"),
        said("10.8.0.9", ": this address is inside, in the guests' subnet: a floating address is outside")
    );
    assert_eq!(floating("web", "192.0.2.51").len(), 1);
    let two = shop(|spec| drop(spec.floating.insert("192.0.2.51".into(), "web".into())));
    assert_eq!(
        two,
        said("192.0.2.51", " \"web\": the port has 192.0.2.50 already, and a guest has one floating address")
    );
    // Routed to us, beyond the prefix.
    assert!(check(|d| d.network.get_mut("shop").unwrap().floating = entry("198.51.100.7", "web")).is_ok());
}

#[test]
fn a_reserved_address_is_a_hosts_of_the_ports_nat_network() {
    assert_eq!(
        port("vm2", |spec| spec.reserve = some("10.7.0.20")),
        ["port vm2: reserve \"10.7.0.20\": port vm1 has this address already"]
    );
    assert_eq!(
        port("vm2", |spec| spec.reserve = some("10.7.0.1")),
        ["port vm2: reserve \"10.7.0.1\": this is the gateway's own address in network lab"]
    );
    for bad in ["10.8.0.2", "10.7.0.0", "10.7.0.255"] {
        assert_eq!(
            port("vm2", |spec| spec.reserve = some(bad)),
            [format!("port vm2: reserve \"{bad}\": this is no host's address in 10.7.0.0/24 of network lab")]
        );
    }
    assert_eq!(
        port("vm2", |spec| spec.reserve = some("10.7.0")),
        ["port vm2: reserve \"10.7.0\": expected an IPv4 address, as in 192.0.2.9"]
    );
    assert_eq!(
        port("pc", |spec| spec.reserve = some("10.7.0.9")),
        ["port pc: reserve \"10.7.0.9\": network office has no DHCP server that could give it out"]
    );
}
