//! What may not enter, and why: one test a reason.

mod common;

use common::{World, frame, mac, tagged};
use switchd_dataplane::{DropReason, NetworkConfig, PortConfig, PortId, VlanMode};
use switchd_wire::{Frame, Gso, MacAddr, NoTails, Tail, VnetHeader};

#[test]
fn a_frame_shorter_than_its_header_is_a_runt() {
    let (mut world, network, [a, _]) = World::with_ports();
    let whole = frame(mac(1), mac(2));
    for len in 0..14 {
        world.drops(a, &whole[..len], DropReason::Runt);
    }
    // Within its tag, or without a type behind it.
    for len in 14..18 {
        world.drops(a, &tagged(&whole, 5)[..len], DropReason::Runt);
    }
    assert_eq!(world.rows(network), [], "a dropped frame teaches nothing");
}

#[test]
fn a_bare_header_is_a_frame() {
    let (mut world, _, [a, b]) = World::with_ports();
    let bare = frame(mac(1), mac(2))[..14].to_vec();
    assert_eq!(world.inject(a, &bare), [(b, bare.clone())]);
    let bare = tagged(&bare, 5);
    assert_eq!(world.inject(a, &bare), [(b, bare.clone())]);
}

#[test]
fn a_group_or_zero_source_is_dropped() {
    let (mut world, network, [a, _]) = World::with_ports();
    for source in
        [MacAddr::ZERO, MacAddr::BROADCAST, MacAddr([1, 0, 0x5e, 0, 0, 1]), MacAddr([3, 0, 0, 0, 0, 1])]
    {
        world.drops(a, &frame(source, mac(2)), DropReason::BadSource);
        world.drops(a, &frame(source, MacAddr::BROADCAST), DropReason::BadSource);
    }
    assert_eq!(world.rows(network), []);
}

#[test]
fn reserved_group_addresses_are_never_forwarded() {
    let (mut world, network, [a, _]) = World::with_ports();
    for last in 0..=15 {
        let reserved = MacAddr([1, 0x80, 0xc2, 0, 0, last]);
        world.drops(a, &frame(mac(1), reserved), DropReason::ReservedGroup);
        world.drops(a, &tagged(&frame(mac(1), reserved), 7), DropReason::ReservedGroup);
    }
    assert_eq!(world.rows(network), []);
}

#[test]
fn a_frame_for_its_own_port_is_dropped_and_teaches() {
    let (mut world, network, [a, b]) = World::with_ports();
    world.inject(a, &frame(mac(1), mac(9)));
    world.drops(a, &frame(mac(2), mac(1)), DropReason::SamePort);
    assert_eq!(world.reaches(b, &frame(mac(3), mac(2))), [a]);
    assert_eq!(world.dataplane.network_counters(network).learned, 3);
}

#[test]
fn a_flood_to_nobody_is_dropped() {
    let (mut world, network, [a]) = World::with_ports();
    world.drops(a, &frame(mac(1), MacAddr::BROADCAST), DropReason::NoReceiver);
    let down = world.port_with(network, PortConfig { admin_up: false, ..PortConfig::default() });
    world.drops(a, &frame(mac(1), MacAddr::BROADCAST), DropReason::NoReceiver);
    let elsewhere = world.port(network, VlanMode::Access(10));
    world.drops(a, &frame(mac(1), MacAddr::BROADCAST), DropReason::NoReceiver);
    assert_eq!(world.dataplane.port_counters(down).offered, 0);
    assert_eq!(world.dataplane.port_counters(elsewhere).offered, 0);
}

#[test]
fn nothing_enters_or_leaves_by_a_port_that_is_down() {
    let (mut world, network, [a, b, c]) = World::with_ports();
    world.dataplane.fdb_add(network, mac(2), None, b).unwrap();
    world.dataplane.set_port(b, PortConfig { admin_up: false, ..PortConfig::default() });
    world.drops(b, &frame(mac(2), mac(1)), DropReason::AdminDown);
    world.drops_out(a, &frame(mac(1), mac(2)), b, DropReason::AdminDown);
    assert_eq!(world.reaches(a, &frame(mac(1), MacAddr::BROADCAST)), [c]);
    world.dataplane.set_port(b, PortConfig::default());
    world.dataplane.set_link(b, false);
    world.drops(b, &frame(mac(2), mac(1)), DropReason::LinkDown);
    world.drops_out(a, &frame(mac(1), mac(2)), b, DropReason::LinkDown);
    world.dataplane.set_link(b, true);
    assert_eq!(world.reaches(a, &frame(mac(1), mac(2))), [b]);
    assert_eq!(world.dataplane.port_counters(b).rx_frames, 2, "what came in is counted");
}

/// A frame of `len` bytes whose tail lies elsewhere.
fn long(bytes: &[u8], len: usize, vnet: VnetHeader) -> Frame {
    let mut frame = Frame::from_bytes(bytes).unwrap();
    let tail = Tail { len: (len - bytes.len()) as u32, ..Tail::default() };
    frame.arrived(bytes.len(), tail, vnet);
    frame
}

#[track_caller]
fn outcome(world: &mut World, port: PortId, frame: Frame) -> Option<DropReason> {
    let before = world.dataplane.port_counters(port).dropped_in;
    world.frames(port, &mut [frame]);
    let after = world.dataplane.port_counters(port).dropped_in;
    DropReason::ALL.iter().copied().find(|&reason| after.get(reason) > before.get(reason))
}

#[test]
fn the_mtu_bounds_the_packet_and_two_tags_are_free() {
    let (mut world, _, [a, _]) = World::with_ports();
    let plain = frame(mac(1), mac(2));
    let once = tagged(&plain, 5);
    let twice = tagged(&once, 6);
    let thrice = tagged(&twice, 7);
    let mut outer = twice.clone();
    outer[12..14].copy_from_slice(&[0x88, 0xa8]);
    let none = VnetHeader::default();
    for (bytes, limit) in [(plain, 1514), (once, 1518), (twice, 1522), (outer, 1522), (thrice, 1522)] {
        assert_eq!(outcome(&mut world, a, long(&bytes, limit, none)), None);
        assert_eq!(outcome(&mut world, a, long(&bytes, limit + 1, none)), Some(DropReason::TooLong));
    }
}

#[test]
fn a_changed_mtu_holds_for_the_next_frame() {
    let (mut world, network, [a, _]) = World::with_ports();
    let plain = frame(mac(1), mac(2));
    world.dataplane.set_network(network, NetworkConfig { mtu: 9000, ..NetworkConfig::default() });
    assert_eq!(outcome(&mut world, a, long(&plain, 9014, VnetHeader::default())), None);
    assert_eq!(outcome(&mut world, a, long(&plain, 9015, VnetHeader::default())), Some(DropReason::TooLong));
}

/// IPv4 and TCP with a header of 20 bytes each.
fn tcp() -> Vec<u8> {
    let mut bytes = frame(mac(1), mac(2))[..12].to_vec();
    bytes.extend([0x08, 0x00, 0x45, 0, 0x27, 0x38, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend([0, 80, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    bytes.extend([0; 46]);
    bytes
}

fn superframe() -> VnetHeader {
    VnetHeader {
        needs_csum: true,
        gso: Gso::TcpV4,
        hdr_len: 54,
        gso_size: 1460,
        csum_start: 34,
        csum_offset: 16,
        ..VnetHeader::default()
    }
}

#[test]
fn a_superframe_is_one_frame_and_its_segments_must_fit() {
    let (mut world, _, [a, b]) = World::with_ports();
    let send = |world: &mut World, vnet| outcome(world, a, long(&tcp(), 10_014, vnet));
    assert_eq!(send(&mut world, superframe()), None);
    assert_eq!(world.dataplane.port_counters(b).tx_frames, 1);
    assert_eq!(world.dataplane.port_counters(b).tx_bytes, 10_014);
    let bigger = VnetHeader { gso_size: 1461, ..superframe() };
    assert_eq!(send(&mut world, bigger), Some(DropReason::TooLong));
    // What the guest claims about its headers does not help.
    let lying = VnetHeader { hdr_len: 14, ..bigger };
    assert_eq!(send(&mut world, lying), Some(DropReason::TooLong));
}

#[test]
fn an_offload_header_that_does_not_fit_is_dropped() {
    let (mut world, network, [a, _]) = World::with_ports();
    let good = superframe();
    for bad in [
        VnetHeader { csum_start: 60_000, ..good },
        VnetHeader { csum_offset: 60_000, ..good },
        VnetHeader { csum_start: 0, ..good },
        VnetHeader { gso_size: 0, ..good },
        VnetHeader { gso: Gso::TcpV6, ..good },
        VnetHeader { gso: Gso::UdpL4, ..good },
        VnetHeader { gso: Gso::None, csum_start: 6, csum_offset: 0, ..good },
    ] {
        assert_eq!(
            outcome(&mut world, a, long(&tcp(), 10_014, bad)),
            Some(DropReason::BadOffload),
            "{bad:?}"
        );
    }
    assert_eq!(world.rows(network), []);
    // A checksum alone does not exempt a frame from the MTU.
    let csum = VnetHeader { gso: Gso::None, gso_size: 0, hdr_len: 0, ..good };
    assert_eq!(outcome(&mut world, a, long(&tcp(), 1514, csum)), None);
    assert_eq!(outcome(&mut world, a, long(&tcp(), 1515, csum)), Some(DropReason::TooLong));
}

#[test]
fn a_dataplane_can_move_to_another_thread() {
    fn movable<T: Send>(_: &T) {}
    movable(&World::new().dataplane);
}

#[test]
fn dropped_frames_count_their_bytes() {
    let (mut world, _, [a, _]) = World::with_ports();
    world.drops(a, &[1, 2, 3], DropReason::Runt);
    world.drops(a, &frame(MacAddr::ZERO, mac(2)), DropReason::BadSource);
    assert_eq!(world.dataplane.port_counters(a).rx_bytes, 63);
}

#[test]
fn arbitrary_bytes_do_no_harm() {
    let mut world = World::new();
    let network = world.network(NetworkConfig::default());
    let ports = [
        world.port(network, VlanMode::Transparent),
        world.port(network, VlanMode::Access(10)),
        world.port(network, common::trunk(&[10, 20], Some(1))),
        world.uplink(&[]),
    ];
    world.dataplane.join_uplink(network, ports[3], Some(10)).unwrap();
    let mut state = 0x1234_5678_9abc_def1u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..200_000 {
        let len = next() as usize % 80;
        // Mostly few different bits, so that tags and headers do come up.
        let bytes: Vec<u8> = (0..len)
            .map(|at| match (next() % 4, at) {
                (0, _) => next() as u8,
                (1, 12 | 16 | 20) => 0x81,
                (2, 12) => 0x08,
                (3, 14) => 0x45,
                _ => 0,
            })
            .collect();
        let mut frame = Frame::from_bytes(&bytes).unwrap();
        let vnet = VnetHeader {
            needs_csum: next() % 4 == 0,
            gso: [Gso::None, Gso::TcpV4, Gso::TcpV6, Gso::UdpL4][next() as usize % 4],
            hdr_len: next() as u16 % 100,
            gso_size: next() as u16 % 100,
            csum_start: next() as u16 % 100,
            csum_offset: next() as u16 % 20,
            ..VnetHeader::default()
        };
        let tail = Tail { len: if len == 80 { next() as u32 % 70_000 } else { 0 }, ..Tail::default() };
        frame.arrived(len, tail, vnet);
        let port = ports[next() as usize % 4];
        world.dataplane.process(world.now, port, &mut [frame], &NoTails, &mut world.rim);
    }
    world.check();
    assert!(!world.rim.sent.is_empty());
}
