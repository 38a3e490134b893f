//! Every rule with its message. A base that is valid, and the one change that breaks the rule.

mod mirrors;
mod ports;

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
