//! Software segmentation and checksums against two independent parsers: etherparse reads every packet
//! strictly (all lengths must agree), pnet computes every checksum anew.

mod packet;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use packet::{Packet, V4, V6, bytes_of, frame};
use pnet_packet::ipv4::Ipv4Packet;
use pnet_packet::tcp::TcpPacket;
use pnet_packet::udp::UdpPacket;
use proptest::prelude::*;
use switchd_wire::{BadOffload, Scratch, VnetHeader, admit_offload, finish_checksum, segment};

/// What the oracles say about one finished packet.
struct Seen {
    id: Option<u16>,
    /// TCP: sequence number and flags.
    tcp: Option<(u32, u8)>,
    payload: Vec<u8>,
}

fn verify(bytes: &[u8], spec: &Packet) -> Seen {
    let sliced = SlicedPacket::from_ethernet(bytes).expect("a packet that etherparse reads");
    assert_eq!(bytes[..spec.l3()], spec.bytes()[..spec.l3()], "addresses, tags and type stay");
    let id = match sliced.net.expect("an IP header") {
        NetSlice::Ipv4(v4) => {
            let header = Ipv4Packet::new(&bytes[spec.l3()..]).unwrap();
            assert_eq!(header.get_checksum(), pnet_packet::ipv4::checksum(&header));
            assert_eq!(usize::from(v4.header().total_len()), bytes.len() - spec.l3());
            Some(v4.header().identification())
        }
        NetSlice::Ipv6(v6) => {
            assert_eq!(usize::from(v6.header().payload_length()), bytes.len() - spec.l3() - 40);
            None
        }
        NetSlice::Arp(_) => panic!("not ARP"),
    };
    let l4 = &bytes[spec.l4()..];
    let (v4, v6) = ((V4.0.into(), V4.1.into()), (V6.0.into(), V6.1.into()));
    match sliced.transport.expect("a transport header") {
        TransportSlice::Tcp(tcp) => {
            let packet = TcpPacket::new(l4).unwrap();
            let expected = match spec.v6 {
                false => pnet_packet::tcp::ipv4_checksum(&packet, &v4.0, &v4.1),
                true => pnet_packet::tcp::ipv6_checksum(&packet, &v6.0, &v6.1),
            };
            assert_eq!(tcp.checksum(), expected);
            let payload = bytes[spec.header()..].to_vec();
            assert_eq!(tcp.options(), vec![1; 4 * spec.tcp_options]);
            Seen { id, tcp: Some((tcp.sequence_number(), l4[13])), payload }
        }
        TransportSlice::Udp(udp) => {
            let packet = UdpPacket::new(l4).unwrap();
            let expected = match spec.v6 {
                false => pnet_packet::udp::ipv4_checksum(&packet, &v4.0, &v4.1),
                true => pnet_packet::udp::ipv6_checksum(&packet, &v6.0, &v6.1),
            };
            // RFC 768: a computed 0 is sent as all ones.
            assert_eq!(udp.checksum(), if expected == 0 { 0xffff } else { expected });
            assert_eq!(usize::from(udp.length()), l4.len());
            Seen { id, tcp: None, payload: udp.payload().to_vec() }
        }
        other => panic!("not TCP or UDP: {other:?}"),
    }
}

fn cut(spec: &Packet, vnet: VnetHeader) -> Vec<Vec<u8>> {
    let (frame, tails) = frame(&spec.bytes(), vnet);
    let mut out = Vec::new();
    let count = segment(&frame, &tails, &mut Scratch::new(), |bytes| out.push(bytes.to_vec())).unwrap();
    assert_eq!(count as usize, out.len());
    out
}

/// Everything that must hold for the segments of `spec`.
fn check_segments(spec: &Packet, vnet: VnetHeader) {
    let segments = cut(spec, vnet);
    let size = usize::from(vnet.gso_size);
    assert_eq!(segments.len(), spec.payload.len().div_ceil(size).max(1));
    let mut payload = Vec::new();
    for (index, bytes) in segments.iter().enumerate() {
        let seen = verify(bytes, spec);
        let last = index + 1 == segments.len();
        if !last {
            assert_eq!(seen.payload.len(), size);
        }
        if let Some(id) = seen.id {
            assert_eq!(id, spec.id.wrapping_add(index as u16));
        }
        if let Some((sequence, flags)) = seen.tcp {
            assert_eq!(sequence, spec.sequence.wrapping_add(payload.len() as u32));
            let mut expected = spec.flags;
            if !last {
                expected &= !0x09;
            }
            if vnet.ecn && index > 0 {
                expected &= !0x80;
            }
            assert_eq!(flags, expected, "segment {index}");
        }
        payload.extend(seen.payload);
    }
    assert_eq!(payload, spec.payload);
}

fn any_packet(max: usize) -> impl Strategy<Value = Packet> {
    let tags = prop_oneof![
        Just(vec![]),
        any::<u16>().prop_map(|tci| vec![(0x8100, tci)]),
        any::<u16>().prop_map(|tci| vec![(0x88a8, tci)]),
        any::<(u16, u16)>().prop_map(|(a, b)| vec![(0x8100, a), (0x8100, b)]),
    ];
    let numbers = (any::<u16>(), any::<u32>(), any::<u8>());
    let payload = prop::collection::vec(any::<u8>(), 0..max);
    (tags, any::<(bool, bool)>(), 0usize..=6, 0usize..=10, numbers, payload).prop_map(
        |(tags, (v6, tcp), ip_options, tcp_options, (id, sequence, flags), payload)| Packet {
            tags,
            v6,
            tcp,
            ip_options,
            tcp_options: if tcp { tcp_options } else { 0 },
            id,
            sequence,
            flags,
            payload,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn segments_reassemble_and_every_checksum_is_right(
        spec in any_packet(9000),
        size in 8u16..3000,
        ecn in any::<bool>(),
        needs_csum in any::<bool>(),
    ) {
        check_segments(&spec, VnetHeader { ecn, needs_csum, ..spec.vnet(size) });
    }

    #[test]
    fn a_completed_checksum_is_right_and_nothing_else_moves(spec in any_packet(4000)) {
        let (mut frame, tails) = spec.frame(0);
        let before = bytes_of(&frame, &tails);
        let mut copied = Vec::new();
        segment(&frame, &tails, &mut Scratch::new(), |bytes| copied = bytes.to_vec()).unwrap();
        finish_checksum(&mut frame, &tails).unwrap();
        prop_assert!(!frame.vnet.needs_csum);
        let mut after = bytes_of(&frame, &tails);
        prop_assert_eq!(&after, &copied);
        verify(&after, &spec);
        let at = spec.l4() + if spec.tcp { 16 } else { 6 };
        after[at..at + 2].copy_from_slice(&before[at..at + 2]);
        prop_assert_eq!(after, before);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        raw in any::<[u8; 10]>(),
    ) {
        exercise(&bytes, raw);
    }

    #[test]
    fn a_damaged_superframe_never_panics(
        spec in any_packet(2000),
        size in any::<u16>(),
        damage in prop::collection::vec((0usize..100, any::<u8>()), 0..4),
        raw_damage in prop::collection::vec((0usize..10, any::<u8>()), 0..2),
        keep in 0usize..2200,
    ) {
        let mut bytes = spec.bytes();
        for (at, value) in damage {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(keep.max(20));
        let mut raw = spec.vnet(size).emit();
        for (at, value) in raw_damage {
            raw[at] = value;
        }
        exercise(&bytes, raw);
    }
}

/// Whatever comes in: an admitted frame can be cut and completed, and a refused one is refused by all.
fn exercise(bytes: &[u8], raw: [u8; 10]) {
    let Some(vnet) = VnetHeader::parse(&raw) else { return };
    let (mut admitted, tails) = frame(bytes, vnet);
    let verdict = admit_offload(&mut admitted);
    let mut total = 0;
    let cut = segment(&frame(bytes, vnet).0, &tails, &mut Scratch::new(), |packet| total += packet.len());
    assert_eq!(verdict.err(), cut.err());
    if verdict.is_ok() {
        assert!(usize::from(admitted.vnet.hdr_len) <= bytes.len());
        assert!(total >= bytes.len());
        assert_eq!(finish_checksum(&mut admitted, &tails), Ok(()));
        assert_eq!(admitted.destination(), frame(bytes, vnet).0.destination());
        assert_eq!(admitted.source(), frame(bytes, vnet).0.source());
    }
}

#[test]
fn the_largest_superframe_is_cut() {
    for v6 in [false, true] {
        let mut spec = Packet { v6, tags: vec![(0x8100, 10)], tcp_options: 3, ..Packet::default() };
        spec.payload = (0..65_535 - (spec.header() - spec.l3())).map(|i| (i % 251) as u8).collect();
        check_segments(&spec, spec.vnet(1448));
    }
}

#[test]
fn push_and_fin_stay_last_and_cwr_first() {
    let spec = Packet { flags: 0xff, ..Packet::default() };
    let flags = |ecn| -> Vec<u8> {
        let vnet = VnetHeader { ecn, ..spec.vnet(1000) };
        cut(&spec, vnet).iter().map(|bytes| bytes[spec.l4() + 13]).collect()
    };
    assert_eq!(flags(true), [0xf6, 0x76, 0x7f]);
    assert_eq!(flags(false), [0xf6, 0xf6, 0xff]);
}

#[test]
fn a_superframe_of_one_segment_or_none_is_one_packet() {
    for len in [0, 1, 1000] {
        let spec = Packet { payload: vec![9; len], ..Packet::default() };
        check_segments(&spec, spec.vnet(1000));
    }
}

#[test]
fn a_udp_sum_of_zero_goes_out_as_all_ones() {
    let mut spec = Packet { tcp: false, payload: vec![0, 0], ..Packet::default() };
    // Choose the payload so that the checksum comes out as 0.
    let (mut trial, tails) = spec.frame(0);
    finish_checksum(&mut trial, &tails).unwrap();
    let at = spec.l4() + 6;
    spec.payload = trial.head()[at..at + 2].to_vec();
    let (mut frame, tails) = spec.frame(0);
    finish_checksum(&mut frame, &tails).unwrap();
    assert_eq!(frame.head()[at..at + 2], [0xff, 0xff]);
    verify(frame.head(), &spec);
}

#[test]
fn a_udp_superframe_without_a_checksum_stays_without() {
    let spec = Packet { tcp: false, ..Packet::default() };
    let mut bytes = spec.bytes();
    bytes[spec.l4() + 6..spec.l4() + 8].fill(0);
    let (frame, tails) = frame(&bytes, VnetHeader { needs_csum: false, ..spec.vnet(1000) });
    let mut count = 0;
    segment(&frame, &tails, &mut Scratch::new(), |bytes| {
        assert_eq!(bytes[spec.l4() + 6..spec.l4() + 8], [0, 0]);
        count += 1;
    })
    .unwrap();
    assert_eq!(count, 3);
}

#[test]
fn a_wrong_pseudo_header_sum_is_not_repaired() {
    let spec = Packet::default();
    let mut bytes = spec.bytes();
    bytes[spec.l4() + 17] ^= 1;
    let (frame, tails) = frame(&bytes, spec.vnet(1000));
    let v4 = (V4.0.into(), V4.1.into());
    segment(&frame, &tails, &mut Scratch::new(), |bytes| {
        let packet = TcpPacket::new(&bytes[spec.l4()..]).unwrap();
        assert_ne!(packet.get_checksum(), pnet_packet::tcp::ipv4_checksum(&packet, &v4.0, &v4.1));
    })
    .unwrap();
}

#[test]
fn a_stale_tail_is_an_error() {
    let spec = Packet::default();
    for size in [0, 1000] {
        let (mut frame, tails) = spec.frame(size);
        frame.tail.generation = 2;
        let cut = segment(&frame, &tails, &mut Scratch::new(), |_| panic!("nothing to emit"));
        assert_eq!(cut, Err(BadOffload::Stale));
        let finished = finish_checksum(&mut frame, &tails);
        assert_eq!(finished, if size == 0 { Err(BadOffload::Stale) } else { Ok(()) });
    }
}

#[test]
fn a_tag_pushed_after_the_check_goes_into_every_segment() {
    let spec = Packet::default();
    let (mut frame, tails) = spec.frame(1000);
    admit_offload(&mut frame).unwrap();
    assert_eq!(usize::from(frame.vnet.hdr_len), spec.header());
    assert!(frame.push_tag(20));
    let tagged = Packet { tags: vec![(0x8100, 20)], ..spec };
    let mut out = Vec::new();
    segment(&frame, &tails, &mut Scratch::new(), |bytes| out.push(bytes.to_vec())).unwrap();
    assert_eq!(out, cut(&tagged, tagged.vnet(1000)));
    assert_eq!(usize::from(frame.vnet.hdr_len), tagged.header());
}

#[test]
fn two_tags_of_a_guest_leave_room_for_ours_and_a_fourth_is_refused() {
    let mut tags = vec![(0x88a8, 1), (0x8100, 2)];
    let spec = Packet { tags: tags.clone(), ..Packet::default() };
    let (mut frame, tails) = spec.frame(1000);
    admit_offload(&mut frame).unwrap();
    frame.push_tag(20);
    tags.insert(0, (0x8100, 20));
    let tagged = Packet { tags, ..spec };
    let mut out = Vec::new();
    segment(&frame, &tails, &mut Scratch::new(), |bytes| out.push(bytes.to_vec())).unwrap();
    assert_eq!(out, cut(&tagged, tagged.vnet(1000)));
    assert_eq!(out.len(), 3);
    let with =
        |count: u16| Packet { tags: (0..count).map(|tag| (0x8100, tag + 1)).collect(), ..Packet::default() };
    assert_eq!(admit_offload(&mut with(3).frame(1000).0), Ok(()));
    let refused = admit_offload(&mut with(4).frame(1000).0);
    assert_eq!(refused, Err(BadOffload::NotOfType(tagged.gso())));
}
