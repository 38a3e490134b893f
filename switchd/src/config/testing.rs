//! Valid configurations at random, for property tests.

use super::validate;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use switchd_api::model::{
    Admin, BondMode, BondSpec, Desired, Kind, MirrorDirection, MirrorSpec, NetworkSpec, PortSpec,
};
use switchd_api::name::Name;

pub const CAPTURES: &str = "/var/lib/switchd/captures";

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn check(desired: &Desired) -> bool {
    validate(desired, Path::new(CAPTURES)).is_ok()
}

/// Few names and values, so that two of them have much in common and much to quarrel about.
pub fn desired() -> impl Strategy<Value = Desired> {
    let parts = (
        prop::collection::vec(bond(), 0..4),
        prop::collection::vec(prop_oneof![network(), nat()], 0..9),
        prop::collection::vec(port(), 0..18),
        prop::collection::vec((0..4u8, 0..3u8, 0..3u16, 0..7u8), 0..16),
        prop::collection::vec(mirror(), 0..12),
    );
    parts.prop_map(|(bonds, networks, ports, statics, mirrors)| {
        let mut desired = Desired::default();
        for (name, spec) in bonds {
            add(&mut desired, |desired| drop(desired.bond.insert(name, spec)));
        }
        for (name, spec) in networks {
            add(&mut desired, |desired| {
                desired.network.insert(name, spec);
            });
        }
        for (name, spec) in ports {
            add(&mut desired, |desired| {
                desired.port.insert(name, spec);
            });
        }
        // A floating address for whoever has a reserved one.
        for name in desired.port.keys().cloned().collect::<Vec<_>>() {
            add(&mut desired, |desired| {
                let spec = &desired.port[&name];
                if let (Some(reserve), Some(network)) =
                    (&spec.reserve, desired.network.get_mut(&spec.network))
                {
                    let last = reserve.rsplit('.').next().unwrap_or_default();
                    let key = format!("198.51.{}.{last}", &reserve[3..4]);
                    network.floating.insert(key, name.to_string());
                }
            });
        }
        for (network, mac, vid, port) in statics {
            add(&mut desired, |desired| {
                let port = if port == 6 { "uplink:u0".to_owned() } else { format!("p{port}") };
                let key = match vid {
                    0 => format!("02:00:00:00:00:0{mac}"),
                    vid => format!("02:00:00:00:00:0{mac}@{vid}"),
                };
                if let Some(spec) = desired.network.get_mut(format!("n{network}").as_str()) {
                    spec.fdb.insert(key, port);
                }
            });
        }
        for (name, spec) in mirrors {
            add(&mut desired, |desired| {
                desired.mirror.insert(name, spec);
            });
        }
        desired
    })
}

/// Two that differ in some objects: the second is the first with some of a third's objects, and some less.
pub fn pair() -> impl Strategy<Value = (Desired, Desired)> {
    (desired(), desired(), prop::collection::vec(0..5u8, 40)).prop_map(|(old, other, coins)| {
        let mut new = old.clone();
        let mut coins = coins.into_iter().cycle();
        let mut coin = |face| coins.next() == Some(face);
        for name in old.mirror.keys().filter(|_| coin(0)) {
            add(&mut new, |new| drop(new.mirror.remove(name)));
        }
        for name in old.port.keys().filter(|_| coin(1)) {
            add(&mut new, |new| drop(new.port.remove(name)));
        }
        for (name, spec) in other.network.iter().filter(|_| coin(2)) {
            add(&mut new, |new| {
                let fdb = new.network.get(name).map(|old| old.fdb.clone()).unwrap_or_default();
                new.network.insert(name.clone(), NetworkSpec { fdb, ..spec.clone() });
            });
        }
        for (name, spec) in other.bond.iter().filter(|_| coin(2)) {
            add(&mut new, |new| drop(new.bond.insert(name.clone(), spec.clone())));
        }
        for name in old.bond.keys().filter(|_| coin(4)) {
            add(&mut new, |new| drop(new.bond.remove(name)));
        }
        for (name, spec) in other.port.iter().filter(|_| coin(3)) {
            add(&mut new, |new| drop(new.port.insert(name.clone(), spec.clone())));
        }
        for (name, spec) in other.mirror.iter().filter(|_| coin(4)) {
            add(&mut new, |new| drop(new.mirror.insert(name.clone(), spec.clone())));
        }
        (old, new)
    })
}

/// Takes the change if the result is valid.
fn add(desired: &mut Desired, change: impl FnOnce(&mut Desired)) {
    let mut changed = desired.clone();
    change(&mut changed);
    if check(&changed) {
        *desired = changed;
    }
}

fn network() -> impl Strategy<Value = (Name, NetworkSpec)> {
    let uplink = prop::option::of(0..3u8);
    let numbers = (prop::option::of(1..4u16), prop::option::of(68..72u16), prop::option::of(10..12u32));
    (0..4u8, uplink, numbers, prop::option::of(1..3u32)).prop_map(|(number, uplink, numbers, mac_limit)| {
        let (vlan, mtu, ageing) = numbers;
        let spec = NetworkSpec {
            kind: if uplink.is_some() || number == 3 { Kind::Bridged } else { Kind::Isolated },
            vlan: vlan.filter(|_| uplink.is_some()),
            uplink: uplink.map(|number| if number == 2 { "b0".to_owned() } else { format!("u{number}") }),
            mtu,
            ageing,
            mac_limit,
            fdb: BTreeMap::new(),
            ..NetworkSpec::default()
        };
        (name(&format!("n{number}")), spec)
    })
}

/// Subnets, ports of the host and addresses outside follow from the number: networks quarrel about the way
/// out only.
fn nat() -> impl Strategy<Value = (Name, NetworkSpec)> {
    let egress = prop::sample::select(vec![None, Some("host"), Some("u1"), Some("b0"), Some("b1")]);
    (0..4u8, egress, prop::option::of(1..3u16), any::<[bool; 4]>()).prop_map(
        |(number, egress, vlan, [wide, leased, six, forward])| {
            let outside = egress.is_some_and(|egress| egress != "host");
            let spec = NetworkSpec {
                kind: Kind::Nat,
                subnet: Some(format!("10.{number}.0.0/{}", if wide { 16 } else { 24 })),
                subnet6: six.then(|| format!("fd00:{number}::/64")),
                egress: egress.map(str::to_owned),
                vlan: vlan.filter(|_| outside),
                address: outside
                    .then(|| if leased { "dhcp".to_owned() } else { format!("192.0.2.{}/24", 10 + number) }),
                lease_time: wide.then_some(7200),
                dhcp_option: wide
                    .then(|| ("search".to_owned(), "a.example,\u{62}.example".to_owned()))
                    .into_iter()
                    .collect(),
                forward: forward
                    .then(|| (format!("tcp/80{number}0-80{number}9"), format!("10.{number}.0.20:80")))
                    .into_iter()
                    .collect(),
                ..NetworkSpec::default()
            };
            (name(&format!("n{number}")), spec)
        },
    )
}

/// No interface is ever in two of them.
fn bond() -> impl Strategy<Value = (Name, BondSpec)> {
    (0..2u8, 1..3u8, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(number, members, lacp, slow, pair)| {
            let pair = pair && lacp;
            let spec = BondSpec {
                members: (0..members).map(|member| format!("m{number}.{member}")).collect(),
                mode: if lacp { BondMode::Lacp } else { BondMode::ActiveBackup },
                lacp: None,
                rate: (slow && lacp).then(|| "slow".to_owned()),
                hash: None,
                min_links: slow.then_some(1),
                prefer: (slow && !lacp).then(|| format!("m{number}.0")),
                system_priority: None,
                system_id: pair.then(|| "02:00:00:00:02:00".to_owned()),
                key: None,
                fallback: None,
                peer: pair.then(|| format!("peer{number}")),
                peer_id: pair.then_some(2),
            };
            (name(&format!("b{number}")), spec)
        },
    )
}

fn port() -> impl Strategy<Value = (Name, PortSpec)> {
    let device = (0..3u8, 0..4u8, prop::sample::select(vec!["", "\"'\\#", "é"]));
    let vlan = prop::option::of(prop::sample::select(vec!["access=1", "trunk=1-3,native=2"]));
    (0..6u8, 0..4u8, device, vlan, any::<bool>(), prop::option::of(0..3u8)).prop_map(
        |(number, network, (kind, device, odd), vlan, down, small)| {
            let spec = PortSpec {
                network: name(&format!("n{network}")),
                tap: (kind < 2).then(|| format!("t{device}{odd}")),
                netns: (kind == 1).then(|| format!("ns{odd}")),
                netdev: (kind == 2).then(|| format!("u{device}")),
                mac: small.filter(|_| kind < 2).map(|octet| format!("02:00:00:00:01:0{octet}")),
                vlan: vlan.map(str::to_owned),
                admin: if down { Admin::Down } else { Admin::Up },
                mac_limit: small.map(|small| u32::from(small) + 1),
                reserve: (network < 3 && down).then(|| format!("10.{network}.0.{}", 20 + number)),
                storm_limit: down.then(|| "off".to_owned()),
                bpdu_guard: small.map(|_| "off".to_owned()),
                ..PortSpec::on(name("x"))
            };
            (name(&format!("p{number}")), spec)
        },
    )
}

fn mirror() -> impl Strategy<Value = (Name, MirrorSpec)> {
    let ends = vec!["port:p0", "port:p1", "port:p2", "network:n0", "network:n1", "port:uplink:u0", "bond:b0"];
    let source = prop::sample::subsequence(ends, 1..3);
    let to = prop::sample::select(vec!["pcap:a.pcapng", "pcap:b/ü \"c\".pcapng", "port:p3", "port:p4"]);
    let direction = prop::sample::select(vec![None, Some(MirrorDirection::Tx), Some(MirrorDirection::Both)]);
    (0..3u8, source, to, direction, any::<bool>()).prop_map(|(number, source, to, direction, file)| {
        let file = file && to.starts_with("pcap:");
        let spec = MirrorSpec {
            source: source.into_iter().map(str::to_owned).collect(),
            direction,
            to: to.to_owned(),
            filter: file.then(|| "tcp port 80 and not host \"x\"".to_owned()),
            snaplen: file.then_some(128),
            segment: file,
            rotate_size: file.then(|| "10M".to_owned()),
            rotate_time: None,
            rotate_count: file.then_some(3),
        };
        (name(&format!("m{number}")), spec)
    })
}
