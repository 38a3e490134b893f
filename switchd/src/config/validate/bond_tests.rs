//! Every rule of bonds with its message.

use super::super::problem::Problem;
use super::super::testing::{CAPTURES, name};
use super::*;
use switchd_api::model::{BondMode, BondSpec, NetworkSpec, PortSpec};
use switchd_api::reply::ErrorCode;
use switchd_dataplane::Hash;

const BASE: &str = r#"
[network.office]
kind = "bridged"
uplink = "bond0"
vlan = 20
[network.lab]
kind = "nat"
subnet = "10.7.0.0/24"
egress = "bond0"
address = "dhcp"
[network.plain]
kind = "bridged"
uplink = "eth9"
[bond.bond0]
members = ["eth0", "eth1"]
mode = "lacp"
[bond.spare]
members = ["eth2", "eth3"]
mode = "active-backup"
prefer = "eth3"
[port.pc]
network = "office"
netdev = "eth5"
[mirror.m]
source = ["bond:bond0", "port:uplink:bond0"]
to = "pcap:bond.pcapng"
"#;

fn check(change: impl FnOnce(&mut Desired)) -> Result<Validated, Vec<Problem>> {
    let mut desired: Desired = toml::from_str(BASE).unwrap();
    change(&mut desired);
    validate(&desired, Path::new(CAPTURES))
}

fn refused(change: impl FnOnce(&mut Desired)) -> Vec<String> {
    check(change).expect_err("it is refused").iter().map(Problem::to_string).collect()
}

fn bond(name: &str, change: impl FnOnce(&mut BondSpec)) -> Vec<String> {
    refused(|desired| change(desired.bond.get_mut(name).unwrap()))
}

fn list(members: &[&str]) -> Vec<String> {
    members.iter().map(|&member| member.to_owned()).collect()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn values_get_their_types_and_defaults() {
    let plan = check(|_| {}).unwrap();
    let lacp = &plan.bonds["bond0"];
    assert_eq!((lacp.active, lacp.fast, lacp.hash, lacp.min_links), (true, true, Hash::Layer34, 1));
    assert_eq!((lacp.system_priority, lacp.system_id, lacp.key, lacp.fallback), (32768, None, None, false));
    assert_eq!((lacp.mode, &lacp.peer), (switchd_dataplane::BondMode::Lacp, &None));
    let spare = &plan.bonds["spare"];
    assert_eq!(
        (spare.mode, spare.prefer.as_deref()),
        (switchd_dataplane::BondMode::ActiveBackup, Some("eth3"))
    );
    assert_eq!(plan.mirrors["m"].sources, [Source::Bond(name("bond0")), Source::Uplink("bond0".into())]);
    let plan = check(|desired| {
        let spec = desired.bond.get_mut("bond0").unwrap();
        (spec.lacp, spec.rate, spec.hash) = (some("passive"), some("slow"), some("layer2"));
        (spec.system_id, spec.peer, spec.peer_id) = (some("02:00:00:00:00:01"), some("eth7"), Some(2));
        spec.fallback = some("active-backup");
    })
    .unwrap();
    let lacp = &plan.bonds["bond0"];
    assert_eq!((lacp.active, lacp.fast, lacp.hash, lacp.fallback), (false, false, Hash::Layer2, true));
    assert_eq!(lacp.peer, Some(("eth7".to_owned(), 2)));
}

#[test]
fn a_bond_has_members_none_twice() {
    assert_eq!(
        bond("bond0", |spec| spec.members.clear()),
        ["bond bond0: members 0: a bond has 1 to 16 members"]
    );
    let many: Vec<String> = (0..17).map(|number| format!("m{number}")).collect();
    assert_eq!(
        bond("bond0", |spec| spec.members = many),
        ["bond bond0: members 17: a bond has 1 to 16 members"]
    );
    assert_eq!(
        bond("bond0", |spec| spec.members = list(&["eth0", "eth0"])),
        ["bond bond0: members.1 \"eth0\": this member is named twice"]
    );
    assert_eq!(
        bond("bond0", |spec| spec.members = list(&["eth/0"])),
        ["bond bond0: members.0 \"eth/0\": an interface name has no slash, colon or white space"]
    );
    assert!(check(|d| d.bond.get_mut("bond0").unwrap().members = list(&["eth0"])).is_ok());
}

#[test]
fn a_member_has_no_other_use() {
    let other = |members: &[&str]| bond("spare", |spec| (spec.members, spec.prefer) = (list(members), None));
    assert_eq!(
        other(&["eth0"]),
        ["bond spare: members.0 \"eth0\": this interface is a member of bond bond0 already"]
    );
    assert_eq!(
        other(&["eth9"]),
        ["bond spare: members.0 \"eth9\": this interface is the uplink of network plain already"]
    );
    assert_eq!(
        other(&["eth5"]),
        ["bond spare: members.0 \"eth5\": this interface is the netdev of port pc already"]
    );
    assert_eq!(
        other(&["eth4", "bond0"]),
        ["bond spare: members.1 \"bond0\": this is a bond: there are no bonds of bonds"]
    );
    let problems = check(|desired| {
        let pc = desired.port.get_mut("pc").unwrap();
        pc.netdev = some("bond0");
    })
    .unwrap_err();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].code, ErrorCode::Conflict);
}

#[test]
fn a_bond_has_no_interfaces_name() {
    let named = |text: &str| {
        refused(|desired| {
            let spec = desired.bond["spare"].clone();
            desired.bond.remove("spare");
            desired.bond.insert(name(text), spec);
        })
    };
    assert_eq!(
        named("eth5"),
        ["bond eth5: a bond may not have an interface's name, and this one is the netdev of port pc"]
    );
    assert_eq!(
        named("eth0"),
        ["bond eth0: a bond may not have an interface's name, and this one is a member of bond bond0"]
    );
    let before: Desired = toml::from_str(BASE).unwrap();
    let mut after = before.clone();
    let spec = BondSpec { members: list(&["eth7"]), ..before.bond["bond0"].clone() };
    after.bond.insert(name("eth9"), spec);
    let problems = validate_change(&before, &after, Path::new(CAPTURES)).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "bond eth9: a bond may not have an interface's name, and this one is the uplink of network plain"
    );
    assert_eq!(named("host"), ["bond host: egress = \"host\" means the host itself"]);
    // A bond may have a longer name than interfaces.
    let long = check(|desired| {
        let spec = desired.bond["spare"].clone();
        desired.bond.remove("spare");
        desired.bond.insert(name("a-name-beyond-15-bytes"), spec);
        let office = NetworkSpec { uplink: some("a-name-beyond-15-bytes"), ..Default::default() };
        desired.network.insert(name("z"), office);
    });
    assert!(long.is_ok(), "{long:?}");
}

#[test]
fn what_was_just_added_is_named_in_a_conflict() {
    let before: Desired = toml::from_str(BASE).unwrap();
    let mut after = before.clone();
    let spec = PortSpec { netdev: some("eth0"), ..PortSpec::on(name("office")) };
    after.port.insert(name("a"), spec);
    let problems = validate_change(&before, &after, Path::new(CAPTURES)).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "port a: netdev \"eth0\": this interface is a member of bond bond0 already"
    );
    let mut after = before.clone();
    after.bond.insert(name("b"), BondSpec { members: list(&["eth5"]), ..before.bond["bond0"].clone() });
    let problems = validate_change(&before, &after, Path::new(CAPTURES)).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "bond b: members.0 \"eth5\": this interface is the netdev of port pc already"
    );
}

#[test]
fn each_mode_has_its_own_keys() {
    let rule = "only a bond of mode lacp has this key";
    for key in ["lacp", "rate", "hash", "fallback"] {
        let found = bond("spare", |spec| {
            let field = match key {
                "lacp" => &mut spec.lacp,
                "rate" => &mut spec.rate,
                "hash" => &mut spec.hash,
                _ => &mut spec.fallback,
            };
            *field = some(match key {
                "lacp" => "active",
                "rate" => "fast",
                "hash" => "layer2",
                _ => "none",
            });
        });
        assert_eq!(found, [format!("bond spare: {key}: {rule}")]);
    }
    assert_eq!(bond("spare", |spec| spec.key = Some(1)), [format!("bond spare: key: {rule}")]);
    assert_eq!(
        bond("bond0", |spec| spec.prefer = some("eth0")),
        ["bond bond0: prefer \"eth0\": only a bond of mode active-backup prefers a member"]
    );
    assert_eq!(
        bond("spare", |spec| spec.prefer = some("eth0")),
        ["bond spare: prefer \"eth0\": this is no member of the bond"]
    );
    assert_eq!(
        bond("spare", |spec| spec.mode = BondMode::Lacp),
        ["bond spare: prefer \"eth3\": only a bond of mode active-backup prefers a member"]
    );
}

#[test]
fn values_have_ranges() {
    for (found, rule) in [
        (bond("bond0", |spec| spec.min_links = Some(0)), "min-links 0: the bond has 2 members"),
        (bond("bond0", |spec| spec.min_links = Some(3)), "min-links 3: the bond has 2 members"),
        (bond("bond0", |spec| spec.key = Some(0)), "key 0: the key is 1 to 65535"),
        (bond("bond0", |spec| spec.lacp = some("on")), "lacp \"on\": expected active or passive"),
        (bond("bond0", |spec| spec.rate = some("1s")), "rate \"1s\": expected fast or slow"),
        (bond("bond0", |spec| spec.hash = some("l4")), "hash \"l4\": expected layer2, layer2+3 or layer3+4"),
        (
            bond("bond0", |spec| spec.system_id = some("ff:ff:ff:ff:ff:ff")),
            "system-id \"ff:ff:ff:ff:ff:ff\": a group address (odd first octet) belongs to no single host",
        ),
    ] {
        assert_eq!(found, [format!("bond bond0: {rule}")]);
    }
    assert!(check(|d| d.bond.get_mut("bond0").unwrap().min_links = Some(2)).is_ok());
}

#[test]
fn an_mlag_pair_has_a_peer_link_a_number_and_one_system() {
    let pair = |peer: Option<&str>, half: Option<u8>, system: Option<&str>| {
        bond("bond0", |spec| {
            (spec.peer, spec.peer_id, spec.system_id) = (peer.and_then(some), half, system.and_then(some));
        })
    };
    let system = Some("02:00:00:00:00:01");
    assert_eq!(
        pair(Some("eth7"), None, system),
        ["bond bond0: peer \"eth7\": each half of an MLAG pair has a number"]
    );
    assert_eq!(
        pair(None, Some(1), system),
        ["bond bond0: peer-id 1: this is no half of an MLAG pair: it has no peer link"]
    );
    assert_eq!(
        pair(Some("eth7"), Some(1), None),
        ["bond bond0: peer \"eth7\": both halves of an MLAG pair present one system"]
    );
    assert_eq!(
        pair(Some("eth7"), Some(3), system),
        ["bond bond0: peer-id 3: the half of an MLAG pair is 1 to 2"]
    );
    assert_eq!(
        pair(Some("eth1"), Some(1), system),
        ["bond bond0: peer \"eth1\": the peer link is no member of the bond"]
    );
    assert_eq!(
        pair(Some("eth9"), Some(1), system),
        ["bond bond0: peer \"eth9\": this interface is the uplink of network plain already"]
    );
}

#[test]
fn two_bonds_of_one_system_have_keys_of_their_own() {
    let twin = |key: u16| {
        check(|desired| {
            for (name, key) in [("bond0", 7), ("spare", key)] {
                let spec = desired.bond.get_mut(name).unwrap();
                (spec.mode, spec.prefer) = (BondMode::Lacp, None);
                (spec.system_id, spec.key) = (some("02:00:00:00:00:01"), Some(key));
            }
        })
    };
    assert!(twin(8).is_ok());
    assert_eq!(
        twin(7).unwrap_err()[0].to_string(),
        "bond spare: key 7: bond bond0 has this key of the same system-id already"
    );
}
