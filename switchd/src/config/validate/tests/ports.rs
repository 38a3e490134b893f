//! Rules of ports and their interfaces.

use super::*;

#[test]
fn an_interface_has_one_use() {
    assert_eq!(
        port("pc", |spec| spec.netdev = Some("eth0".into())),
        ["port pc: netdev \"eth0\": this interface is the uplink of network office already"]
    );
    assert_eq!(
        port("vm2", |spec| (spec.netns, spec.tap) = (None, Some("eth1".into()))),
        ["port vm2: tap \"eth1\": this interface is the netdev of port pc already"]
    );
    assert_eq!(
        port("vm2", |spec| (spec.netns, spec.tap) = (None, Some("eth0".into()))),
        ["port vm2: tap \"eth0\": this interface is the uplink of network office already"]
    );
    assert_eq!(
        port("vm2", |spec| spec.netns = Some("g1".into())),
        ["port vm2: tap \"vm1\": this interface in namespace \"g1\" is the tap of port vm1 already"]
    );
    let problems =
        check(|desired| desired.port.get_mut("pc").unwrap().netdev = Some("eth0".into())).unwrap_err();
    assert_eq!(problems[0].code, ErrorCode::Conflict);
}

#[test]
fn a_vhost_user_port_has_a_socket_of_its_own() {
    let socket = |change: fn(&mut PortSpec)| {
        check(|desired| {
            let spec = desired.port.get_mut("pc").unwrap();
            (spec.netdev, spec.vhost_user) = (None, Some("/run/vm.sock".into()));
            change(spec);
        })
        .map(|validated| validated.ports["pc"].backend.clone())
        .map_err(|problems| problems.iter().map(Problem::to_string).collect::<Vec<_>>())
    };
    let plain =
        VhostUser { socket: "/run/vm.sock".into(), server: false, queues: 1, mode: 0o600, owner: None };
    assert_eq!(socket(|_| ()), Ok(Backend::VhostUser(plain.clone())));
    let made = socket(|spec| {
        (spec.server, spec.queues, spec.mac) = (true, Some(8), Some("02:00:00:00:00:05".into()));
        (spec.socket_mode, spec.socket_owner) = (Some("0660".into()), Some(":kvm".into()));
    });
    let owner = Some(":kvm".into());
    assert_eq!(
        made,
        Ok(Backend::VhostUser(VhostUser { server: true, queues: 8, mode: 0o660, owner, ..plain }))
    );
    type Case = (fn(&mut PortSpec), &'static str);
    let cases: [Case; 9] = [
        (|spec| spec.vhost_user = Some("vm.sock".into()), "absolute"),
        (|spec| spec.vhost_user = Some(format!("/{}", "a".repeat(107))), "at most 107 bytes"),
        (|spec| spec.vhost_user = Some("/run/../vm".into()), "no .."),
        (|spec| spec.tap = Some("t".into()), "either tap or vhost-user, not both"),
        (|spec| spec.netns = Some("g1".into()), "only a tap"),
        (|spec| spec.queues = Some(9), "queue pairs"),
        (|spec| spec.socket_mode = Some("0660".into()), "only a socket that switchd makes"),
        (|spec| (spec.server, spec.socket_mode) = (true, Some("1777".into())), "three octal digits"),
        (|spec| (spec.server, spec.socket_owner) = (true, Some("a:b:c".into())), "USER:GROUP"),
    ];
    for (number, (change, expected)) in cases.into_iter().enumerate() {
        let problems = socket(change).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{number}: {problems:?}");
    }
    assert_eq!(
        port("pc", |spec| spec.server = true),
        ["port pc: server \"true\": only a vhost-user port has this key"]
    );
}

#[test]
fn a_port_has_exactly_one_thing_behind_it() {
    assert_eq!(
        port("pc", |spec| spec.tap = Some("t".into())),
        ["port pc: netdev \"eth1\": a port has either tap or netdev, not both"]
    );
    assert_eq!(
        port("pc", |spec| spec.netdev = None),
        ["port pc: a port needs tap, netdev or vhost-user: what is behind it"]
    );
    assert_eq!(
        port("pc", |spec| (spec.netns, spec.mac) = (Some("g".into()), Some("02:00:00:00:00:05".into()))),
        [
            "port pc: netns \"g\": only a tap has this key",
            "port pc: mac \"02:00:00:00:00:05\": only a tap or a vhost-user port has this key"
        ]
    );
}

#[test]
fn names_of_interfaces_and_namespaces_are_checked_where_they_stand() {
    assert_eq!(
        network(|spec| spec.uplink = Some("../eth0".into())),
        ["network office: uplink \"../eth0\": an interface name has no slash, colon or white space"]
    );
    assert_eq!(
        port("vm1", |spec| spec.tap = Some("a\nb".into())),
        ["port vm1: tap \"a\\nb\": an interface name has no slash, colon or white space"]
    );
    assert_eq!(
        port("pc", |spec| spec.netdev = Some("sixteen-bytes-xx".into())),
        ["port pc: netdev \"sixteen-bytes-xx\": an interface name has 1 to 15 bytes"]
    );
    assert_eq!(
        port("vm1", |spec| spec.netns = Some("../g".into())),
        ["port vm1: netns \"../g\": a namespace is one name beneath /run/netns, not a path"]
    );
}

#[test]
fn addresses_are_of_hosts_and_no_two_ports_have_the_same() {
    assert_eq!(
        port("vm2", |spec| spec.mac = Some("02-00-00-00-00-01".into())),
        ["port vm2: mac \"02-00-00-00-00-01\": port vm1 has this address already"]
    );
    for (mac, rule) in [
        ("01:00:5e:00:00:01", "a group address (odd first octet) belongs to no single host"),
        ("ff:ff:ff:ff:ff:ff", "a group address (odd first octet) belongs to no single host"),
        ("00:00:00:00:00:00", "the all-zero address belongs to nobody"),
        ("02:00", "not a MAC address: write six pairs of hex digits, as in 02:00:00:00:00:01"),
    ] {
        let expected = [format!("port vm2: mac \"{mac}\": {rule}")];
        assert_eq!(port("vm2", |spec| spec.mac = Some(mac.into())), expected);
    }
}

#[test]
fn a_vlan_spec_is_refused_with_its_rule() {
    assert_eq!(
        port("pc", |spec| spec.vlan = Some("access=4095".into())),
        ["port pc: vlan \"access=4095\": a VLAN ID is 1 to 4094"]
    );
    assert_eq!(
        port("pc", |spec| spec.vlan = Some("trunk=10,10".into())),
        ["port pc: vlan \"trunk=10,10\": VLAN 10 is named twice"]
    );
}

#[test]
fn a_port_needs_its_network() {
    let problems = check(|desired| desired.port.get_mut("pc").unwrap().network = name("ofice")).unwrap_err();
    assert_eq!(problems[0].to_string(), "port pc: network \"ofice\": there is no such network");
    assert_eq!(problems[0].help.as_deref(), Some("did you mean \"office\"?"));
    assert_eq!(problems[0].code, ErrorCode::NotFound);
    assert_eq!(
        refused(|desired| {
            desired.network.remove("lab");
        })
        .len(),
        2
    );
}
