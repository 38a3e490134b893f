//! Bonds: what comes by a member is the bond's, what leaves by the bond leaves by one member, and a change of
//! members moves only what must move (802.1AX-2020 6.2.3, 6.2.4).

mod common;

use common::{World, frame, mac, tagged};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use switchd_dataplane::{
    BondConfig, BondMode, DropReason, Hash, MirrorConfig, NetworkConfig, NetworkId, Origin, PortId, Transmit,
    TrapKind, VlanMode,
};
use switchd_wire::{Frame, MacAddr, NoTails};

const MILLISECOND: u64 = 1_000_000;

/// A bridged network on a bond with `members`, and a guest on it.
fn setup(hash: Hash, members: u16, vid: Option<u16>) -> (World, NetworkId, PortId, PortId, Vec<PortId>) {
    let mut world = World::new();
    let network = world.network(NetworkConfig::default());
    let guest = world.port(network, VlanMode::Transparent);
    let (bond, members) = world.bond(BondConfig { mode: BondMode::Lacp, hash }, members);
    world.dataplane.join_uplink(network, bond, vid).expect("free");
    (world, network, guest, bond, members)
}

/// Ends of a conversation.
#[derive(Clone, Copy, Debug)]
struct End {
    mac: MacAddr,
    ip: u32,
    port: u16,
}

fn end(number: u16) -> End {
    let [a, b] = number.to_be_bytes();
    End {
        mac: MacAddr([2, 9, 0, 0, a, b]),
        ip: 0x0a00_0000 | u32::from(number),
        port: number.wrapping_mul(7919),
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Tcp4,
    Udp6,
    Icmp4,
    FirstFragment,
    LaterFragment,
    Hop6,
    Arp,
}

const KINDS: [Kind; 7] =
    [Kind::Tcp4, Kind::Udp6, Kind::Icmp4, Kind::FirstFragment, Kind::LaterFragment, Kind::Hop6, Kind::Arp];

fn packet(kind: Kind, from: End, to: End) -> Vec<u8> {
    let mut bytes = [to.mac.0, from.mac.0].concat();
    let ports = [from.port.to_be_bytes(), to.port.to_be_bytes()].concat();
    let six = |ip: u32| [&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..], &ip.to_be_bytes()].concat();
    match kind {
        Kind::Arp => {
            bytes.extend([0x08, 0x06]);
            bytes.extend([0; 46]);
        }
        Kind::Udp6 | Kind::Hop6 => {
            let next = if kind == Kind::Udp6 { 17 } else { 0 };
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 16, next, 64]);
            bytes.extend(six(from.ip));
            bytes.extend(six(to.ip));
            bytes.extend(ports);
            bytes.extend([0; 12]);
        }
        _ => {
            let (flags, protocol) = match kind {
                Kind::Icmp4 => (0x4000, 1),
                Kind::FirstFragment => (0x2000, 17),
                Kind::LaterFragment => (0x00b9, 17),
                _ => (0x4000u16, 6),
            };
            bytes.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 1]);
            bytes.extend(flags.to_be_bytes());
            bytes.extend([64, protocol, 0, 0]);
            bytes.extend(from.ip.to_be_bytes());
            bytes.extend(to.ip.to_be_bytes());
            bytes.extend(ports);
            bytes.extend([0; 16]);
        }
    }
    bytes
}

/// The member that a guest's frame leaves by.
#[track_caller]
fn member_of(world: &mut World, guest: PortId, bytes: &[u8], members: &[PortId]) -> PortId {
    let sent = world.inject(guest, bytes);
    let by: Vec<PortId> = sent.iter().map(|(port, _)| *port).filter(|port| members.contains(port)).collect();
    assert_eq!(by.len(), 1, "a frame leaves by one member");
    by[0]
}

#[test]
fn what_leaves_by_the_bond_leaves_by_one_member_and_counts_at_both() {
    let (mut world, _, guest, bond, members) = setup(Hash::Layer34, 3, Some(20));
    world.inject(members[0], &tagged(&frame(end(1000).mac, mac(1)), 20));
    for flow in 0..200 {
        let bytes = packet(Kind::Tcp4, end(flow), end(1000));
        let sent = world.inject(guest, &bytes);
        assert_eq!(sent.len(), 1);
        assert!(members.contains(&sent[0].0));
        assert_eq!(sent[0].1, tagged(&bytes, 20), "with the network's tag");
    }
    let counters = |port: PortId| world.dataplane.port_counters(port).clone();
    let each: Vec<u64> = members.iter().map(|&member| counters(member).tx_frames).collect();
    assert_eq!(counters(bond).tx_frames, 200);
    assert_eq!(each.iter().sum::<u64>(), 200);
    assert!(each.iter().all(|&frames| frames > 30), "{each:?}");
    let bytes: u64 = members.iter().map(|&member| counters(member).tx_bytes).sum();
    assert_eq!(bytes, counters(bond).tx_bytes);
}

#[test]
fn what_comes_by_any_collecting_member_is_the_bonds() {
    let (mut world, network, guest, bond, members) = setup(Hash::Layer34, 2, None);
    for &member in &members {
        assert_eq!(world.reaches(member, &frame(mac(9), mac(1))), [guest]);
    }
    assert_eq!(world.rows(network), [(mac(9), None, bond, false)], "tables know the bond only");
    assert_eq!(world.dataplane.port_counters(bond).rx_frames, 2);
    for &member in &members {
        let counters = world.dataplane.port_counters(member);
        assert_eq!((counters.rx_frames, counters.forwarded), (1, 1));
    }
}

#[test]
fn a_member_that_does_not_collect_drops_what_comes() {
    let (mut world, _, guest, bond, members) = setup(Hash::Layer34, 2, None);
    world.takes_part(members[0], false);
    world.drops(members[0], &frame(mac(9), mac(1)), DropReason::NotCollecting);
    assert_eq!(world.dataplane.port_counters(bond).rx_frames, 0);
    assert_eq!(world.reaches(members[1], &frame(mac(9), mac(1))), [guest]);
}

/// 802.1AX-2020 6.2.7: the frames of the link's own protocols are never the bond's.
#[test]
fn frames_of_the_links_own_protocols_are_kept_from_the_bond() {
    let (mut world, _, _, bond, members) = setup(Hash::Layer34, 2, None);
    let uplink = world.uplink(&[]);
    world.takes_part(members[0], false);
    let special = |last: u8, kind: [u8; 2]| {
        let mut bytes = frame(mac(9), MacAddr([1, 0x80, 0xc2, 0, 0, last]));
        bytes[12..14].copy_from_slice(&kind);
        bytes
    };
    let mut trapped = |port: PortId, bytes: &[u8]| {
        assert_eq!(world.inject(port, bytes), []);
        let kinds: Vec<(TrapKind, PortId)> =
            world.dataplane.take_trapped().iter().map(|trapped| (trapped.kind, trapped.port)).collect();
        kinds
    };
    for &member in &members {
        assert_eq!(trapped(member, &special(2, [0x88, 0x09])), [(TrapKind::Slow, member)]);
        for last in [0, 3, 14] {
            assert_eq!(trapped(member, &special(last, [0x88, 0xcc])), [(TrapKind::Lldp, member)]);
        }
    }
    // No network stands on this uplink at all.
    assert_eq!(trapped(uplink, &special(14, [0x88, 0xcc])), [(TrapKind::Lldp, uplink)]);
    assert_eq!(trapped(uplink, &special(2, [0x88, 0x09])), []);
    assert_eq!(trapped(members[1], &special(5, [0x12, 0x34])), []);
    assert_eq!(world.dataplane.port_counters(bond).dropped_in.get(DropReason::ReservedGroup), 1);
    assert_eq!(world.dataplane.port_counters(members[1]).trapped, 4);
}

#[test]
fn a_trapped_frame_in_a_burst_leaves_the_order_of_the_others() {
    let (mut world, _, guest, _, members) = setup(Hash::Layer34, 1, None);
    let mut burst: Vec<Vec<u8>> = (1..40).map(|number| frame(mac(number), mac(200))).collect();
    for at in [0, 7, 8, 30] {
        let mut slow = frame(mac(99), MacAddr([1, 0x80, 0xc2, 0, 0, 2]));
        slow[12..14].copy_from_slice(&[0x88, 0x09]);
        burst.insert(at, slow);
    }
    let sent = world.burst(members[0], &burst);
    let sources: Vec<u8> = sent.iter().map(|(_, bytes)| bytes[11]).collect();
    assert_eq!(sources, (1..40).collect::<Vec<u8>>());
    assert!(sent.iter().all(|(port, _)| *port == guest));
    assert_eq!(world.dataplane.take_trapped().len(), 4);
}

#[test]
fn each_policy_looks_at_its_layers_and_no_further() {
    for (hash, by_ip, by_port) in
        [(Hash::Layer2, false, false), (Hash::Layer23, true, false), (Hash::Layer34, true, true)]
    {
        let (mut world, _, guest, _, members) = setup(hash, 4, None);
        let mut spread = |ends: &mut dyn FnMut(u16) -> (End, End), kind: Kind| -> usize {
            let by: BTreeSet<PortId> = (0..64)
                .map(|flow| {
                    let (from, to) = ends(flow);
                    member_of(&mut world, guest, &packet(kind, from, to), &members)
                })
                .collect();
            by.len()
        };
        let (a, b) = (end(1), end(2));
        let mut ports = |flow| (End { port: 1000 + flow, ..a }, b);
        assert_eq!(spread(&mut ports, Kind::Tcp4) > 1, by_port, "{hash:?}");
        assert_eq!(spread(&mut ports, Kind::Udp6) > 1, by_port, "{hash:?}");
        assert_eq!(spread(&mut ports, Kind::FirstFragment), 1, "fragments fall back");
        assert_eq!(spread(&mut ports, Kind::LaterFragment), 1, "fragments fall back");
        assert_eq!(spread(&mut ports, Kind::Icmp4), 1, "so do other protocols");
        assert_eq!(spread(&mut ports, Kind::Hop6), 1, "and extension headers");
        let mut hosts = |flow| (End { ip: 0x0b00_0000 | u32::from(flow), ..a }, b);
        assert_eq!(spread(&mut hosts, Kind::Icmp4) > 1, by_ip, "{hash:?}");
        assert_eq!(spread(&mut hosts, Kind::Hop6) > 1, by_ip, "{hash:?}");
        assert_eq!(spread(&mut hosts, Kind::Arp), 1, "what is not IP goes by its MAC addresses");
        let mut macs = |flow| (End { mac: end(100 + flow).mac, ..a }, b);
        assert_eq!(spread(&mut macs, Kind::Arp), 4);
        assert_eq!(spread(&mut macs, Kind::Icmp4) > 1, hash != Hash::Layer34);
    }
}

#[test]
fn fragments_of_a_datagram_leave_by_one_member() {
    let (mut world, _, guest, _, members) = setup(Hash::Layer34, 4, None);
    for flow in 0..100 {
        let by =
            |world: &mut World, kind| member_of(world, guest, &packet(kind, end(flow), end(9000)), &members);
        assert_eq!(by(&mut world, Kind::FirstFragment), by(&mut world, Kind::LaterFragment));
    }
}

#[test]
fn conversations_in_regular_patterns_spread_over_all_members() {
    type Pattern = fn(u16) -> (End, End);
    let patterns: [(&str, Pattern); 6] = [
        ("clients of one server", |n| (End { ip: 0x0a00_0100 + u32::from(n), ..end(1) }, end(9000))),
        ("ports of one pair", |n| (End { port: 32_768 + n, ..end(1) }, end(9000))),
        ("every other port", |n| (End { port: 32_768 + 2 * n, ..end(1) }, end(9000))),
        ("pairs that differ alike", |n| {
            let far = End { ip: 0x0a00_0200 + u32::from(n), ..end(9000) };
            (End { ip: 0x0a00_0100 + u32::from(n), ..end(1) }, far)
        }),
        ("subnets", |n| (End { ip: 0x0a00_0001 + (u32::from(n) << 8), ..end(1) }, end(9000))),
        ("hosts of a vendor", |n| {
            (End { mac: end(n).mac, ip: 0x0a01_0000 + 7 * u32::from(n), port: 5000 }, end(9000))
        }),
    ];
    for (name, pattern) in patterns {
        for count in [2, 3, 5] {
            for (hash, kinds) in
                [(Hash::Layer34, &[Kind::Tcp4, Kind::Udp6][..]), (Hash::Layer23, &[Kind::Icmp4][..])]
            {
                for &kind in kinds {
                    if hash == Hash::Layer23 && name.contains("port") {
                        continue;
                    }
                    let (mut world, _, guest, _, members) = setup(hash, count, None);
                    let mut share = vec![0; members.len()];
                    for number in 0..1000 {
                        let (from, to) = pattern(number);
                        let by = member_of(&mut world, guest, &packet(kind, from, to), &members);
                        share[members.iter().position(|&member| member == by).unwrap()] += 1;
                    }
                    let fair = 1000 / u32::from(count);
                    let even = share.iter().all(|&flows| flows > fair / 2 && flows < fair * 2);
                    assert!(even, "{name}, {kind:?}, {hash:?}: {share:?}");
                }
            }
        }
    }
}

fn any_end() -> impl Strategy<Value = End> {
    (any::<[u8; 4]>(), any::<u32>(), any::<u16>()).prop_map(|([a, b, c, d], ip, port)| End {
        mac: MacAddr([2, a, b, c, d, 1]),
        ip,
        port,
    })
}

proptest! {
    #[test]
    fn both_directions_of_a_conversation_get_the_same_number(
        (a, b) in (any_end(), any_end()),
        kind in prop::sample::select(&KINDS[..]),
        hash in prop::sample::select(&[Hash::Layer2, Hash::Layer23, Hash::Layer34][..]),
    ) {
        prop_assume!(a.mac != b.mac);
        let (mut world, _, guest, _, members) = setup(hash, 16, None);
        let there = member_of(&mut world, guest, &packet(kind, a, b), &members);
        let (mut other, _, guest, _, members) = setup(hash, 16, None);
        let back = member_of(&mut other, guest, &packet(kind, b, a), &members);
        prop_assert_eq!(there, back);
    }

    #[test]
    fn tags_take_no_part_in_the_choice(
        (a, b) in (any_end(), any_end()),
        kind in prop::sample::select(&KINDS[..]),
        tags in prop::collection::vec(1..4095u16, 0..3),
    ) {
        prop_assume!(a.mac != b.mac);
        let (mut world, _, guest, _, members) = setup(Hash::Layer34, 16, None);
        let plain = member_of(&mut world, guest, &packet(kind, a, b), &members);
        let (mut other, _, guest, _, members) = setup(Hash::Layer34, 16, Some(7));
        let bytes = tags.iter().fold(packet(kind, a, b), |bytes, tag| tagged(&bytes, *tag));
        prop_assert_eq!(plain, member_of(&mut other, guest, &bytes, &members));
    }
}

/// The member of each of many flows.
fn map(world: &mut World, guest: PortId, members: &[PortId]) -> Vec<PortId> {
    (0..512).map(|flow| member_of(world, guest, &packet(Kind::Tcp4, end(flow), end(9000)), members)).collect()
}

#[test]
fn a_member_that_goes_moves_its_own_flows_and_no_others() {
    let (mut world, network, guest, bond, members) = setup(Hash::Layer34, 4, None);
    assert_eq!(world.inject(members[0], &frame(mac(9), mac(1))).len(), 1);
    let before = map(&mut world, guest, &members);
    world.dataplane.set_link(members[2], false);
    let after = map(&mut world, guest, &members);
    for (was, is) in before.iter().zip(&after) {
        assert!(*is != members[2] && (was == is || *was == members[2]));
    }
    let mut share: BTreeMap<PortId, usize> = BTreeMap::new();
    after.iter().for_each(|port| *share.entry(*port).or_default() += 1);
    assert!(share.values().all(|&flows| flows > 100), "{share:?}");
    let rows = world.rows(network);
    assert!(rows.contains(&(mac(9), None, bond, false)), "what was learned stays");
    assert_eq!(world.dataplane.network_counters(network).moves, 0);

    // It comes back, and gets its own flows back: those that pause at once, the others not before they do.
    world.dataplane.set_link(members[2], true);
    world.takes_part(members[2], true);
    assert_eq!(map(&mut world, guest, &members), after, "nothing has paused yet");
    world.now += 40 * MILLISECOND;
    assert_eq!(map(&mut world, guest, &members), after);
    world.now += 60 * MILLISECOND;
    assert_eq!(map(&mut world, guest, &members), before);
}

#[test]
fn a_bond_without_members_that_distribute_has_no_link() {
    let (mut world, network, guest, bond, members) = setup(Hash::Layer34, 2, None);
    assert_eq!(world.reaches(members[0], &frame(mac(9), mac(1))), [guest]);
    world.takes_part(members[0], false);
    assert!(world.dataplane.link(bond));
    world.dataplane.set_link(members[1], false);
    assert!(!world.dataplane.link(bond));
    world.drops_out(guest, &frame(mac(1), mac(9)), bond, DropReason::LinkDown);
    assert_eq!(world.dataplane.next_bond_timer(), Some(0));
    world.dataplane.bond_timers(world.now);
    assert_eq!(world.rows(network), [(mac(1), None, guest, false)], "nobody is behind it any more");
    assert_eq!(world.dataplane.next_bond_timer(), None);
    world.drops(guest, &frame(mac(1), mac(9)), DropReason::NoReceiver);
    world.drops(members[0], &frame(mac(9), mac(1)), DropReason::NotCollecting);
    world.drops(members[1], &frame(mac(9), mac(1)), DropReason::LinkDown);
}

#[test]
fn a_fail_over_whose_new_member_is_named_later_costs_no_address() {
    let mut world = World::new();
    let network = world.network(NetworkConfig::default());
    let guest = world.port(network, VlanMode::Transparent);
    let config = BondConfig { mode: BondMode::ActiveBackup, ..BondConfig::default() };
    let (bond, members) = world.bond(config, 2);
    world.dataplane.set_bond(bond, config, 2);
    world.dataplane.join_uplink(network, bond, None).unwrap();
    world.takes_part(members[1], false);
    assert_eq!(world.reaches(members[0], &frame(mac(9), mac(1))), [guest]);
    world.dataplane.set_link(members[0], false);
    assert!(!world.dataplane.link(bond));
    world.takes_part(members[1], true);
    world.dataplane.bond_timers(world.now);
    assert_eq!(world.rows(network), [(mac(9), None, bond, false)]);
    assert_eq!(world.reaches(guest, &frame(mac(1), mac(9))), [members[1]]);
}

#[test]
fn a_bond_is_down_below_its_least_number_of_links() {
    let (mut world, _, guest, bond, members) = setup(Hash::Layer34, 3, None);
    let config = BondConfig::default();
    world.dataplane.set_bond(bond, config, 2);
    world.dataplane.set_link(members[0], false);
    assert!(world.dataplane.link(bond));
    world.dataplane.set_link(members[1], false);
    assert!(!world.dataplane.link(bond));
    world.drops(guest, &frame(mac(1), mac(9)), DropReason::NoReceiver);
    world.dataplane.set_bond(bond, config, 1);
    assert!(world.dataplane.link(bond));
    assert_eq!(world.reaches(guest, &frame(mac(1), mac(9))), [members[2]]);
}

#[test]
fn a_removed_member_leaves_no_trace_and_its_place_can_be_taken() {
    let (mut world, _, guest, bond, members) = setup(Hash::Layer34, 2, None);
    map(&mut world, guest, &members);
    world.dataplane.remove_port(members[0]);
    world.members.retain(|&member| member != members[0]);
    assert!(map(&mut world, guest, &members).iter().all(|&port| port == members[1]));
    let again = world.member(bond, 3);
    world.now += 200 * MILLISECOND;
    let both = map(&mut world, guest, &[again, members[1]]);
    assert!(both.contains(&again) && both.contains(&members[1]));
    world.dataplane.remove_port(bond);
    for port in [bond, again, members[1]] {
        assert!(!world.dataplane.link(port));
    }
}

#[test]
fn queued_frames_count_at_the_bond_and_at_the_member_but_our_own_only_at_the_member() {
    let (mut world, _, guest, bond, members) = setup(Hash::Layer34, 1, None);
    let member = members[0];
    world.rim.outcome.insert(member, Transmit::Queued);
    let mut slow = Frame::from_bytes(&frame(mac(99), MacAddr([1, 0x80, 0xc2, 0, 0, 2]))).unwrap();
    let now = world.now;
    world.dataplane.originate(now, Origin::Port(member), &mut slow, &NoTails, &mut world.rim);
    let mut frames: Vec<Frame> =
        (0..5).map(|_| Frame::from_bytes(&frame(mac(1), mac(9))).expect("fits")).collect();
    world.dataplane.process(now, guest, &mut frames, &NoTails, &mut world.rim);
    // Six waited: three left, one found no room, one was refused, one was too long.
    world.dataplane.settle(member, 3, 180, 1, 1, 1);
    world.check();
    let (b, m) = (world.dataplane.port_counters(bond), world.dataplane.port_counters(member));
    assert_eq!((m.offered, m.originated, m.tx_frames, m.tx_bytes), (6, 1, 3, 180));
    assert_eq!((b.offered, b.tx_frames, b.tx_bytes), (5, 2, 120));
    for reason in [DropReason::QueueFull, DropReason::TransmitError, DropReason::TooLong] {
        assert_eq!((b.dropped_out.get(reason), m.dropped_out.get(reason)), (1, 1), "{reason:?}");
    }
}

#[test]
fn mirrors_see_the_bond_and_each_member() {
    let (mut world, _, guest, bond, members) = setup(Hash::Layer34, 1, None);
    let config =
        MirrorConfig { ports: vec![(members[0], true, true), (bond, true, true)], ..Default::default() };
    let mirror = world.dataplane.add_mirror(config).unwrap();
    world.inject(guest, &frame(mac(1), mac(9)));
    world.inject(members[0], &frame(mac(9), mac(1)));
    let seen: Vec<PortId> = world.rim.mirrored.iter().map(|(_, port, ..)| *port).collect();
    assert_eq!(seen, [bond, members[0], members[0], bond]);
    assert!(world.rim.mirrored.iter().all(|(by, ..)| *by == mirror));
}

#[test]
fn after_a_fail_over_every_address_is_announced_tagged_as_its_network_and_three_times_more() {
    let mut world = World::new();
    let plain = world.network(NetworkConfig::default());
    let vlan = world.network(NetworkConfig::default());
    let guest = world.port(plain, VlanMode::Transparent);
    let access = world.port(vlan, VlanMode::Access(5));
    let config = BondConfig { mode: BondMode::ActiveBackup, ..BondConfig::default() };
    let (bond, members) = world.bond(config, 1);
    world.dataplane.join_uplink(plain, bond, None).unwrap();
    world.dataplane.join_uplink(vlan, bond, Some(20)).unwrap();
    world.inject(members[0], &frame(mac(209), mac(200)));
    for number in 1..=100 {
        world.inject(guest, &frame(mac(number), mac(200)));
    }
    world.inject(access, &frame(mac(1), mac(200)));
    world.dataplane.announce(world.now, bond);
    let begun = world.now;
    let mut said: BTreeMap<(Vec<u8>, Vec<u8>), usize> = BTreeMap::new();
    let mut steps = 0;
    while let Some(at) = world.dataplane.next_bond_timer() {
        world.now = world.now.max(at);
        world.dataplane.bond_timers(world.now);
        let born = world.dataplane.take_born();
        assert!(born.len() <= 64, "bounded");
        for born in born {
            assert_eq!(born.origin, Origin::Port(bond));
            let mut frame = Frame::from_bytes(&born.bytes).unwrap();
            world.dataplane.originate(world.now, born.origin, &mut frame, &NoTails, &mut world.rim);
        }
        steps += 1;
    }
    world.check();
    assert_eq!(steps, 4 * 2);
    assert_eq!((world.now - begun) / (1000 * MILLISECOND), 2, "within two seconds");
    for (port, bytes) in std::mem::take(&mut world.rim.sent) {
        if port == members[0] && bytes[..6] == [0xff; 6] {
            let tags = bytes[12..].chunks(4).take_while(|tag| tag[..2] == [0x81, 0]).count() * 4;
            assert_eq!(bytes[12 + tags..14 + tags], [0x80, 0x35], "a RARP frame (RFC 903)");
            *said.entry((bytes[6..12].to_vec(), bytes[12..12 + tags].to_vec())).or_default() += 1;
        }
    }
    assert_eq!(said.len(), 101);
    assert!(said.values().all(|&times| times == 4));
    assert!(said.contains_key(&(mac(1).0.to_vec(), vec![0x81, 0, 0, 20, 0x81, 0, 0, 5])));
    assert!(!said.keys().any(|(source, _)| source[..] == mac(209).0), "not what is behind the bond");
}

/// What a link does: frames take their time, in order, and those on it when it fails are lost.
#[derive(Default)]
struct Link {
    delay: u64,
    on_it: Vec<(u64, u16, u32)>,
}

#[derive(Clone, Debug)]
enum Step {
    /// Frames of this flow, so many of them.
    Send(u16, u8),
    Wait(u64),
    Fail(usize),
    Return(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..12u16, 1..6u8).prop_map(|(flow, frames)| Step::Send(flow, frames)),
        4 => (0..3u64).prop_map(Step::Wait),
        2 => (0..120u64).prop_map(Step::Wait),
        1 => (0..3usize).prop_map(Step::Fail),
        2 => (0..3usize).prop_map(Step::Return),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    /// Members fail and return at any time; links delay frames by up to 50 ms, each by another time. At the
    /// far end no flow is overtaken and no frame comes twice.
    #[test]
    fn no_flow_is_reordered_or_doubled_across_changes_of_members(
        steps in steps(),
        delays in prop::array::uniform3(0..=50u64),
    ) {
        let (mut world, _, guest, _, members) = setup(Hash::Layer34, 3, None);
        let mut links: HashMap<PortId, Link> = HashMap::new();
        for (&member, delay) in members.iter().zip(delays) {
            links.insert(member, Link { delay: delay * MILLISECOND, on_it: Vec::new() });
        }
        let mut next: HashMap<u16, u32> = HashMap::new();
        let mut arrived: Vec<(u64, u16, u32)> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(time) => world.now += time * MILLISECOND,
                Step::Fail(member) => {
                    world.dataplane.set_link(members[member], false);
                    let now = world.now;
                    let link = links.get_mut(&members[member]).unwrap();
                    arrived.extend(link.on_it.drain(..).filter(|(at, ..)| *at <= now));
                }
                Step::Return(member) => {
                    world.dataplane.set_link(members[member], true);
                    world.takes_part(members[member], true);
                }
                Step::Send(flow, frames) => {
                    for _ in 0..frames {
                        let number = next.entry(flow).or_default();
                        *number += 1;
                        let mut bytes = packet(Kind::Tcp4, end(flow), end(9000));
                        let last = bytes.len() - 4;
                        bytes[last..].copy_from_slice(&number.to_be_bytes());
                        for (by, _) in world.inject(guest, &bytes) {
                            // The guest's port itself gets a loop probe now and then.
                            let Some(link) = links.get_mut(&by) else { continue };
                            link.on_it.push((world.now + link.delay, flow, *number));
                        }
                    }
                }
            }
        }
        arrived.extend(links.values_mut().flat_map(|link| link.on_it.drain(..)));
        // Those of one instant came in the order of their numbers or on one link: a stable sort by time.
        arrived.sort_by_key(|(at, _, number)| (*at, *number));
        let mut last: HashMap<u16, u32> = HashMap::new();
        for (_, flow, number) in arrived {
            let before = last.insert(flow, number).unwrap_or(0);
            prop_assert!(number > before, "flow {flow}: {number} after {before}");
        }
    }
}
