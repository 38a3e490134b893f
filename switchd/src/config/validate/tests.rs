//! Every rule with its message. A base that is valid, and the one change that breaks the rule.

use super::super::testing::{CAPTURES, name};
use super::*;
use std::path::Path;
use switchd_api::model::{Admin, MirrorSpec, NetworkSpec, PortSpec};
use switchd_api::reply::ErrorCode;

const BASE: &str = r#"
[network.lab]
kind = "isolated"
[network.office]
kind = "bridged"
uplink = "eth0"
vlan = 20
[network.plain]
kind = "bridged"
uplink = "eth0"
[port.vm1]
network = "lab"
tap = "vm1"
netns = "g1"
mac = "02:00:00:00:00:01"
[port.vm2]
network = "lab"
tap = "vm1"
netns = "g2"
[port.pc]
network = "office"
netdev = "eth1"
vlan = "access=10"
[mirror.m]
source = ["port:vm1"]
to = "pcap:m.pcapng"
"#;

fn base() -> Desired {
    toml::from_str(BASE).unwrap()
}

fn check(change: impl FnOnce(&mut Desired)) -> Result<Validated, Vec<Problem>> {
    let mut desired = base();
    change(&mut desired);
    validate(&desired, Path::new(CAPTURES))
}

fn refused(change: impl FnOnce(&mut Desired)) -> Vec<String> {
    check(change).expect_err("it is refused").iter().map(Problem::to_string).collect()
}

fn network(change: impl FnOnce(&mut NetworkSpec)) -> Vec<String> {
    refused(|desired| change(desired.network.get_mut("office").unwrap()))
}

fn isolated(change: impl FnOnce(&mut NetworkSpec)) -> Vec<String> {
    refused(|desired| change(desired.network.get_mut("lab").unwrap()))
}

fn port(name: &str, change: impl FnOnce(&mut PortSpec)) -> Vec<String> {
    refused(|desired| change(desired.port.get_mut(name).unwrap()))
}

fn mirror(change: impl FnOnce(&mut MirrorSpec)) -> Vec<String> {
    refused(|desired| change(desired.mirror.get_mut("m").unwrap()))
}

fn mirror_to(to: &str, source: &[&str]) -> MirrorSpec {
    MirrorSpec {
        source: source.iter().map(|&text| text.to_owned()).collect(),
        direction: None,
        to: to.to_owned(),
        filter: None,
        snaplen: None,
        segment: false,
        rotate_size: None,
        rotate_time: None,
        rotate_count: None,
    }
}

#[test]
fn values_get_their_types_and_defaults() {
    let plan = check(|desired| {
        desired.network.get_mut("lab").unwrap().fdb =
            [("02:00:00:00:00:09@7".to_owned(), "vm2".to_owned())].into();
        desired.network.get_mut("plain").unwrap().fdb =
            [("02-00-00-00-00-0A".to_owned(), "uplink:eth0".to_owned())].into();
        let spec = desired.mirror.get_mut("m").unwrap();
        spec.source.push("network:lab".into());
        spec.source.push("port:uplink:eth0".into());
        spec.rotate_size = Some("1M".into());
        spec.rotate_count = Some(2);
        desired.port.get_mut("pc").unwrap().admin = Admin::Down;
    })
    .unwrap();
    let lab = &plan.networks["lab"];
    assert_eq!((lab.mtu, lab.ageing, lab.mac_limit, lab.uplink.as_deref()), (1500, 300, 16384, None));
    let entry = StaticEntry { mac: MacAddr([2, 0, 0, 0, 0, 9]), vid: Some(7), port: "vm2".into() };
    assert_eq!(lab.fdb, [entry]);
    assert_eq!(plan.networks["plain"].fdb[0].mac, MacAddr([2, 0, 0, 0, 0, 10]));
    let vm1 = &plan.ports["vm1"];
    assert_eq!(vm1.backend, Backend::Tap { ifname: "vm1".into(), netns: Some("g1".into()) });
    assert_eq!(
        (vm1.mac, vm1.admin_up, &vm1.vlan),
        (Some(MacAddr([2, 0, 0, 0, 0, 1])), true, &VlanMode::Transparent)
    );
    let pc = &plan.ports["pc"];
    assert_eq!((&pc.backend, &pc.vlan), (&Backend::Netdev { ifname: "eth1".into() }, &VlanMode::Access(10)));
    assert!(!pc.admin_up);
    let m = &plan.mirrors["m"];
    assert_eq!(m.to, Target::Capture("m.pcapng".into()));
    assert_eq!(
        (m.snaplen, m.rotation),
        (262_144, Rotation { size: Some(1 << 20), time: None, count: Some(2) })
    );
    let wants: Vec<_> = m.sources.iter().map(|source| (source.to_string(), m.wants(source))).collect();
    assert_eq!(
        wants,
        [
            ("port:vm1".to_owned(), (true, true)),
            ("network:lab".to_owned(), (true, false)),
            ("port:uplink:eth0".to_owned(), (true, true))
        ]
    );
}

#[test]
fn uplink_and_vlan_are_of_bridged_networks_only() {
    assert_eq!(
        isolated(|spec| spec.uplink = Some("eth5".into())),
        ["network lab: uplink \"eth5\": an isolated network has no uplink"]
    );
    assert_eq!(
        isolated(|spec| spec.vlan = Some(5)),
        ["network lab: vlan 5: an isolated network has no VLAN on an uplink"]
    );
    assert_eq!(
        network(|spec| spec.uplink = None),
        ["network office: vlan 20: the VLAN is the network's tag on its uplink, and there is no uplink"]
    );
}

#[test]
fn numbers_have_ranges() {
    for vlan in [0, 4095, 65535] {
        assert_eq!(
            network(|spec| spec.vlan = Some(vlan)),
            [format!("network office: vlan {vlan}: a VLAN ID is 1 to 4094")]
        );
    }
    for mtu in [0, 67, 9217] {
        assert_eq!(
            network(|spec| spec.mtu = Some(mtu)),
            [format!("network office: mtu {mtu}: the MTU is 68 to 9216")]
        );
    }
    for mtu in [68, 9216] {
        assert!(check(|desired| desired.network.get_mut("lab").unwrap().mtu = Some(mtu)).is_ok());
    }
    assert_eq!(
        network(|spec| spec.ageing = Some(9)),
        ["network office: ageing 9: the ageing time in seconds is 10 to 1000000"]
    );
    assert_eq!(
        network(|spec| spec.mac_limit = Some(0)),
        ["network office: mac-limit 0: the number of learned addresses is 1 to 1048576"]
    );
    assert_eq!(
        port("vm1", |spec| spec.mac_limit = Some(0)),
        ["port vm1: mac-limit 0: the number of learned addresses is 1 to 1048576"]
    );
    assert_eq!(
        mirror(|spec| spec.snaplen = Some(13)),
        ["mirror m: snaplen 13: the bytes kept of a frame are 14 to 262144"]
    );
}

#[test]
fn networks_of_one_uplink_do_not_overlap_and_both_are_named() {
    assert_eq!(
        network(|spec| spec.vlan = None),
        ["network plain: uplink \"eth0\": network office has the untagged frames of this uplink already"]
    );
    let problems = check(|desired| desired.network.get_mut("plain").unwrap().vlan = Some(20)).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "network plain: vlan 20: network office has VLAN 20 of uplink eth0 already"
    );
    assert_eq!(problems[0].code, ErrorCode::Conflict);
    assert!(check(|desired| desired.network.get_mut("plain").unwrap().vlan = Some(21)).is_ok());
}

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

#[test]
fn a_static_entry_leads_to_a_port_of_its_network() {
    let entry =
        |key: &str, port: &str| isolated(|spec| spec.fdb = [(key.to_owned(), port.to_owned())].into());
    let mac = "02:00:00:00:00:09";
    assert_eq!(
        entry(mac, "pc"),
        [format!("network lab: fdb.{mac} \"pc\": the port belongs to network office")]
    );
    assert_eq!(entry(mac, "vm9"), [format!("network lab: fdb.{mac} \"vm9\": there is no such port")]);
    assert_eq!(
        entry(mac, "uplink:eth0"),
        [format!("network lab: fdb.{mac} \"uplink:eth0\": this is not the network's uplink")]
    );
    assert_eq!(entry("02:00@1", "vm1").len(), 1);
    assert_eq!(
        entry(&format!("{mac}@0"), "vm1"),
        [format!("network lab: fdb.{mac}@0: a VLAN ID is 1 to 4094")]
    );
    assert_eq!(
        isolated(|spec| {
            for key in ["02:00:00:00:00:0a", "02:00:00:00:00:0A"] {
                spec.fdb.insert(key.into(), "vm1".into());
            }
        }),
        ["network lab: fdb.02:00:00:00:00:0a: this address is written twice, in two spellings"]
    );
}

#[test]
fn a_static_entry_is_on_a_vlan_of_its_port() {
    let entry = |key: &str, mode: &str| {
        refused(|desired| {
            desired.port.get_mut("pc").unwrap().vlan = Some(mode.to_owned());
            desired.network.get_mut("office").unwrap().fdb = [(key.to_owned(), "pc".to_owned())].into();
        })
    };
    let mac = "02:00:00:00:00:09";
    for (vid, mode) in [("@20", "access=10"), ("@30", "trunk=10,20,native=1")] {
        let vlan = &vid[1..];
        assert_eq!(
            entry(&format!("{mac}{vid}"), mode),
            [format!("network office: fdb.{mac}{vid} \"pc\": the port is not a member of VLAN {vlan}")]
        );
    }
    assert_eq!(entry(mac, "trunk=10").len(), 1);
    for (vid, mode) in
        [("", "access=10"), ("@10", "access=10"), ("@1", "trunk=10,native=1"), ("", "trunk=10,native=1")]
    {
        let plan = check(|desired| {
            desired.port.get_mut("pc").unwrap().vlan = Some(mode.to_owned());
            desired.network.get_mut("office").unwrap().fdb =
                [(format!("{mac}{vid}"), "pc".to_owned())].into();
        });
        assert!(plan.is_ok(), "{vid} {mode}");
    }
}

#[test]
fn a_mirror_has_sources_that_exist() {
    let source =
        |list: &[&str]| mirror(|spec| spec.source = list.iter().map(|&text| text.to_owned()).collect());
    assert_eq!(source(&[]), ["mirror m: source 0: a mirror has 1 to 64 sources"]);
    assert_eq!(
        source(&["port:vm1", "port:vm1"]),
        ["mirror m: source.1 \"port:vm1\": this source is named twice"]
    );
    assert_eq!(source(&["port:vm9"]), ["mirror m: source.0 \"port:vm9\": there is no such port"]);
    assert_eq!(source(&["network:x"]), ["mirror m: source.0 \"network:x\": there is no such network"]);
    assert_eq!(
        source(&["port:uplink:eth7"]),
        ["mirror m: source.0 \"port:uplink:eth7\": no network has this uplink"]
    );
    assert_eq!(
        source(&["port:gateway:lab"]),
        ["mirror m: source.0 \"port:gateway:lab\": a gateway is no port that can be watched"]
    );
    assert_eq!(
        source(&["port:member:eth1"]),
        ["mirror m: source.0 \"port:member:eth1\": a member is watched with its bond"]
    );
    assert_eq!(source(&["bond:b"]), ["mirror m: source.0 \"bond:b\": there is no such bond"]);
    for odd in ["vm1", "uplink:eth0", "", "port"] {
        assert_eq!(
            source(&[odd]),
            [format!("mirror m: source.0 {odd:?}: expected port:NAME, network:NAME or bond:NAME")]
        );
    }
}

#[test]
fn a_mirror_has_a_target_that_exists() {
    let to = |to: &str| mirror(|spec| spec.to = to.to_owned());
    assert_eq!(to("port:vm9"), ["mirror m: to \"port:vm9\": there is no such port"]);
    assert_eq!(to("network:lab"), ["mirror m: to \"network:lab\": expected pcap:FILE or port:NAME"]);
    assert_eq!(to(""), ["mirror m: to \"\": expected pcap:FILE or port:NAME"]);
}

#[test]
fn capture_files_stay_beneath_the_capture_directory() {
    let path = |text: &str| {
        let checked = check(|desired| desired.mirror.get_mut("m").unwrap().to = format!("pcap:{text}"));
        checked.map(|plan| plan.mirrors["m"].to.clone()).map_err(|problems| problems[0].message.clone())
    };
    for (text, file) in [
        ("a.pcapng", "a.pcapng"),
        ("deep/./b//c.pcapng", "deep/b/c.pcapng"),
        ("/var/lib/switchd/captures/x/y", "x/y"),
        ("...", "..."),
        ("ü :.pcapng", "ü :.pcapng"),
    ] {
        assert_eq!(path(text), Ok(Target::Capture(file.into())), "{text:?}");
    }
    let long = "x".repeat(256);
    for (text, rule) in [
        ("", "a capture file's path has 1 to 1024 bytes"),
        ("../x", "a path has no .. in it"),
        ("a/../../x", "a path has no .. in it"),
        ("/var/lib/switchd/captures/../x", "a path has no .. in it"),
        ("/etc/passwd", "an absolute path must lie beneath the capture directory"),
        ("/var/lib/switchd/captures2/x", "an absolute path must lie beneath the capture directory"),
        ("/var/lib/switchd/captures", "this is a folder, not a file"),
        ("a/", "this is a folder, not a file"),
        (".", "this is a folder, not a file"),
        ("a\nb", "a path has no control characters"),
        ("a\0b", "a path has no control characters"),
        (&long, "a file or folder name has at most 255 bytes"),
    ] {
        assert_eq!(path(text), Err(rule.to_owned()), "{text:?}");
    }
}

#[test]
fn two_mirrors_do_not_write_one_file() {
    let problems = check(|desired| {
        desired.mirror.insert(name("n"), mirror_to("pcap:./m.pcapng", &["port:vm2"]));
    })
    .unwrap_err();
    assert_eq!(problems[0].to_string(), "mirror n: to \"pcap:./m.pcapng\": mirror m writes m.pcapng already");
    assert_eq!(problems[0].code, ErrorCode::Conflict);
}

#[test]
fn mirrors_do_not_feed_themselves() {
    assert_eq!(
        mirror(|spec| spec.to = "port:vm1".into()),
        ["mirror m: to \"port:vm1\": the target is among the mirror's own sources"]
    );
    let two = refused(|desired| {
        desired.mirror.insert(name("a"), mirror_to("port:vm2", &["port:vm1"]));
        desired.mirror.insert(name("b"), mirror_to("port:vm1", &["port:vm2"]));
    });
    assert_eq!(
        two,
        [
            "mirror a: to \"port:vm2\": copies would come round again by mirror b",
            "mirror b: to \"port:vm1\": copies would come round again by mirror a"
        ]
    );
    let three = refused(|desired| {
        desired.mirror.insert(name("a"), mirror_to("port:vm2", &["port:vm1"]));
        desired.mirror.insert(name("b"), mirror_to("port:pc", &["port:vm2"]));
        desired.mirror.insert(name("c"), mirror_to("port:vm1", &["port:pc"]));
    });
    assert_eq!(three.len(), 3, "{three:?}");
    assert!(three[0].ends_with("copies would come round again by mirror b or c"), "{three:?}");
    // A chain without an end that closes it, and a network that the target stands in: fine.
    let fine = check(|desired| {
        desired.mirror.insert(name("a"), mirror_to("port:vm2", &["port:vm1", "network:lab"]));
        desired.mirror.insert(name("b"), mirror_to("port:pc", &["port:vm2"]));
    });
    assert!(fine.is_ok(), "{fine:?}");
}

#[test]
fn rotation_is_for_files_and_counts_need_a_cause() {
    assert_eq!(
        mirror(|spec| spec.rotate_count = Some(3)),
        ["mirror m: rotate-count 3: there is nothing to count without rotate-size or rotate-time"]
    );
    assert_eq!(
        mirror(|spec| (spec.rotate_count, spec.rotate_time) = (Some(0), Some("1h".into()))),
        ["mirror m: rotate-count 0: the number of files kept is 1 to 100000"]
    );
    assert_eq!(
        mirror(|spec| spec.rotate_size = Some("10X".into())),
        ["mirror m: rotate-size \"10X\": expected 1K to 1024G: bytes, or with K, M or G, as in 10M"]
    );
    assert_eq!(
        mirror(|spec| spec.rotate_time = Some("1y".into())),
        ["mirror m: rotate-time \"1y\": expected 1s to 366d: seconds, or with s, m, h or d, as in 5m"]
    );
    let to_port = mirror(|spec| {
        spec.to = "port:pc".into();
        (spec.snaplen, spec.segment, spec.rotate_size) = (Some(100), true, Some("1M".into()));
    });
    let expected = ["snaplen", "segment", "rotate-size"]
        .map(|key| format!("mirror m: {key}: this is only for a mirror to a file"));
    assert_eq!(to_port, expected);
}

#[test]
fn filters_are_bounded_text() {
    assert_eq!(
        mirror(|spec| spec.filter = Some("x".repeat(4097))),
        ["mirror m: filter of 4097 bytes: a filter has at most 4096 bytes"]
    );
    assert_eq!(
        mirror(|spec| spec.filter = Some("tcp\0".into())),
        ["mirror m: filter \"tcp\\0\": a filter has no control characters"]
    );
}

#[test]
fn there_are_limits() {
    let many = |count: usize| {
        refused(|desired| {
            for number in 0..count {
                let spec = NetworkSpec { uplink: None, vlan: None, ..desired.network["lab"].clone() };
                desired.network.insert(name(&format!("n{number}")), spec);
            }
        })
    };
    assert_eq!(many(4096), ["network: 4099: there can be at most 4096 networks"]);
    let ports = refused(|desired| {
        for number in 0..4096 {
            let spec = PortSpec { mac: None, tap: Some(format!("t{number}")), ..desired.port["vm1"].clone() };
            desired.port.insert(name(&format!("p{number}")), spec);
        }
    });
    assert_eq!(ports, ["port: 4099: there can be at most 4096 ports"]);
    let mirrors = refused(|desired| {
        for number in 0..32 {
            desired
                .mirror
                .insert(name(&format!("x{number}")), mirror_to(&format!("pcap:{number}"), &["port:vm1"]));
        }
    });
    assert_eq!(mirrors, ["mirror: 33: there can be at most 32 mirrors"]);
    let entries = isolated(|spec| {
        for number in 0..4097 {
            spec.fdb.insert(format!("02:00:00:00:{:02x}:{:02x}", number >> 8, number & 255), "vm1".into());
        }
    });
    assert_eq!(entries, ["network: 4097: there can be at most 4096 static entries in all networks together"]);
}

#[test]
fn all_problems_are_told() {
    let problems = refused(|desired| {
        desired.network.get_mut("lab").unwrap().mtu = Some(1);
        desired.port.get_mut("vm1").unwrap().vlan = Some("access=0".into());
        desired.mirror.get_mut("m").unwrap().to = "pcap:../x".into();
    });
    assert_eq!(problems.len(), 3, "{problems:?}");
}
