//! The parser against etherparse, and the refusals of the offload check: a base frame plus one change.

mod packet;

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use packet::{Packet, frame};
use switchd_wire::offload::packet_len;
use switchd_wire::parse::EXTENSIONS_MAX;
use switchd_wire::{BadOffload, Fragment, Gso, Ip, VnetHeader, admit_offload, parse, validate_offload};

#[test]
fn offsets_agree_with_etherparse() {
    for tags in [vec![], vec![(0x8100, 0x6014)], vec![(0x88a8, 7)], vec![(0x8100, 20), (0x8100, 30)]] {
        for (v6, tcp) in [(false, false), (false, true), (true, false), (true, true)] {
            for ip_options in [0, 1, 5] {
                let spec = Packet { tags: tags.clone(), v6, tcp, ip_options, ..Packet::default() };
                let bytes = spec.bytes();
                let layers = parse(&bytes[..256]);
                let sliced = SlicedPacket::from_ethernet(&bytes).unwrap();
                let (ports, rest) = match sliced.transport.unwrap() {
                    TransportSlice::Tcp(tcp) => ((tcp.source_port(), tcp.destination_port()), tcp.payload()),
                    TransportSlice::Udp(udp) => ((udp.source_port(), udp.destination_port()), udp.payload()),
                    other => panic!("{other:?}"),
                };
                assert_eq!(layers.ports, Some(ports));
                assert_eq!(layers.payload.map(usize::from), Some(bytes.len() - rest.len()));
                assert_eq!(usize::from(layers.l3), spec.l3());
                assert_eq!(layers.l4.map(usize::from), Some(spec.l4()));
                assert_eq!(layers.ip, if v6 { Ip::V6 } else { Ip::V4 });
                assert_eq!(layers.protocol, spec.protocol());
                let outer = tags.first().filter(|(tpid, _)| *tpid == 0x8100).map(|(_, tci)| *tci);
                assert_eq!(layers.tci, outer);
            }
        }
    }
}

#[test]
fn icmp_has_a_layer_4_and_no_ports() {
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([1; 4], [2; 4], 3).icmpv4_echo_request(1, 2);
    builder.write(&mut bytes, &[0; 8]).unwrap();
    let layers = parse(&bytes);
    assert_eq!((layers.protocol, layers.l4, layers.payload, layers.ports), (1, Some(34), None, None));
}

#[test]
fn fragments_are_told_apart() {
    let bytes = Packet { tcp: false, ..Packet::default() }.bytes();
    let with = |high: u8, low: u8| {
        let mut bytes = bytes[..100].to_vec();
        bytes[20..22].copy_from_slice(&[high, low]);
        parse(&bytes)
    };
    assert_eq!((with(0x20, 0).fragment, with(0x20, 0).l4), (Fragment::First, Some(34)));
    assert_eq!((with(0x20, 9).fragment, with(0x20, 9).l4), (Fragment::Later, None));
    assert_eq!((with(0, 9).fragment, with(0, 9).ports), (Fragment::Later, None));
    assert_eq!((with(0x40, 0).fragment, with(0x40, 0).l4), (Fragment::Whole, Some(34)));
}

/// IPv6 with the given extension headers `(type, bytes)`, the last followed by TCP.
fn chain(headers: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let base = Packet { v6: true, payload: vec![], ..Packet::default() };
    let mut bytes = base.bytes();
    let tcp = bytes.split_off(54);
    let mut previous = 20;
    for (number, header) in headers {
        bytes[previous] = *number;
        previous = bytes.len();
        bytes.extend(header);
    }
    bytes[previous] = 6;
    bytes.extend(tcp);
    bytes
}

#[test]
fn extension_headers_are_followed_and_the_walk_is_bounded() {
    let options = |kind| (kind, vec![0, 0, 1, 4, 0, 0, 0, 0]);
    let all = [
        options(0),
        (43, vec![0; 8]),
        (44, vec![0; 8]),
        (51, vec![0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        options(60),
        options(135),
    ];
    let layers = parse(&chain(&all));
    assert_eq!((layers.protocol, layers.l4, layers.ports), (6, Some(54 + 52), Some((40_000, 5201))));
    let longest = vec![options(60); EXTENSIONS_MAX];
    assert_eq!(parse(&chain(&longest)).l4, Some((54 + 8 * EXTENSIONS_MAX) as u16));
    let too_long = vec![options(60); EXTENSIONS_MAX + 1];
    assert_eq!((parse(&chain(&too_long)).l4, parse(&chain(&too_long)).ip), (None, Ip::V6));
    let first = parse(&chain(&[(44, vec![0, 0, 0, 1, 0, 0, 0, 0])]));
    assert_eq!((first.fragment, first.l4), (Fragment::First, Some(62)));
    let later = parse(&chain(&[(44, vec![0, 0, 0, 8, 0, 0, 0, 0])]));
    assert_eq!((later.fragment, later.l4, later.protocol), (Fragment::Later, None, 6));
}

#[test]
fn a_cut_at_any_byte_never_shows_what_is_not_there() {
    for spec in [
        Packet { tags: vec![(0x8100, 1)], ip_options: 2, tcp_options: 3, ..Packet::default() },
        Packet { v6: true, ip_options: 3, tcp: false, ..Packet::default() },
    ] {
        let bytes = spec.bytes();
        for len in 0..200 {
            let layers = parse(&bytes[..len]);
            assert!(layers.l4.is_none_or(|l4| usize::from(l4) <= len), "{len}");
            assert_eq!(layers.ports.is_some(), len >= spec.l4() + 4, "{len}");
            assert_eq!(layers.payload.is_some(), len >= spec.header(), "{len}");
        }
    }
}

type Change = fn(&mut VnetHeader, &mut Vec<u8>);

#[test]
fn a_false_offload_header_is_refused() {
    // The base: TCP over IPv4, layer 4 at 34, payload at 54, 3054 bytes.
    let cases: &[(Change, BadOffload)] = &[
        (|v, _| v.gso_size = 0, BadOffload::SegmentSize(0)),
        (|v, _| v.gso_size = 0xffff, BadOffload::SegmentSize(0xffff)),
        (|v, _| v.gso_size = 1, BadOffload::TooManySegments(3000)),
        (|v, _| v.gso = Gso::TcpV6, BadOffload::NotOfType(Gso::TcpV6)),
        (|v, _| v.gso = Gso::UdpL4, BadOffload::NotOfType(Gso::UdpL4)),
        (|_, b| b[23] = 17, BadOffload::ChecksumMisplaced { start: 34, offset: 16 }),
        (|_, b| b[14] = 0x44, BadOffload::NotOfType(Gso::TcpV4)),
        (|_, b| b[46] = 0x40, BadOffload::NotOfType(Gso::TcpV4)),
        (|_, b| b[12] = 0x99, BadOffload::NotOfType(Gso::TcpV4)),
        (|_, b| b[20] = 0x20, BadOffload::Fragment),
        (|_, b| b[21] = 1, BadOffload::Fragment),
        (|v, _| v.csum_start = 3000, BadOffload::ChecksumBeyondHead { at: 3016, head: 256 }),
        (|v, _| v.csum_start = 3036, BadOffload::ChecksumBeyondHead { at: 3052, head: 256 }),
        (|v, _| v.csum_start = 3037, BadOffload::ChecksumBeyondFrame { at: 3053, len: 3054 }),
        (
            |v, _| (v.csum_start, v.csum_offset) = (0xffff, 0xffff),
            BadOffload::ChecksumBeyondFrame { at: 131_070, len: 3054 },
        ),
        (|v, _| v.csum_start = 0, BadOffload::ChecksumMisplaced { start: 0, offset: 16 }),
        (|v, _| v.csum_start = 33, BadOffload::ChecksumMisplaced { start: 33, offset: 16 }),
        (|v, _| v.csum_offset = 0, BadOffload::ChecksumMisplaced { start: 34, offset: 0 }),
        (|v, _| v.csum_start = 100, BadOffload::ChecksumMisplaced { start: 100, offset: 16 }),
        (|_, b| b.truncate(50), BadOffload::ChecksumBeyondFrame { at: 50, len: 50 }),
        (|_, b| b.truncate(53), BadOffload::NotOfType(Gso::TcpV4)),
    ];
    let spec = Packet::default();
    assert_eq!(admit_offload(&mut spec.frame(1000).0), Ok(()));
    for (index, (change, expected)) in cases.iter().enumerate() {
        let (mut vnet, mut bytes) = (spec.vnet(1000), spec.bytes());
        change(&mut vnet, &mut bytes);
        let (mut frame, _) = frame(&bytes, vnet);
        assert_eq!(validate_offload(&frame, &parse(frame.head())), Err(*expected), "case {index}");
        assert_eq!(admit_offload(&mut frame), Err(*expected), "case {index}");
        assert!(!expected.to_string().is_empty());
    }
}

#[test]
fn a_checksum_alone_may_lie_in_an_inner_packet_but_not_over_outer_headers() {
    let spec = Packet { tcp: false, ..Packet::default() };
    let verdict = |start, offset| {
        let mut vnet = spec.vnet(0);
        (vnet.csum_start, vnet.csum_offset) = (start, offset);
        admit_offload(&mut frame(&spec.bytes(), vnet).0)
    };
    assert_eq!(verdict(34, 6), Ok(()));
    assert_eq!(verdict(92, 16), Ok(()));
    assert_eq!(verdict(42, 0), Ok(()));
    for (start, offset) in [(34, 0), (34, 16), (41, 1), (14, 10), (6, 0)] {
        assert_eq!(verdict(start, offset), Err(BadOffload::ChecksumMisplaced { start, offset }));
    }
}

#[test]
fn a_segment_longer_than_an_ip_length_is_refused() {
    let mut spec = Packet { tags: vec![(0x8100, 1)], ..Packet::default() };
    spec.payload = vec![0; 65_499];
    let (frame, _) = spec.frame(65_500);
    assert_eq!(frame.len() - spec.l3(), 65_539);
    assert_eq!(validate_offload(&frame, &parse(frame.head())), Err(BadOffload::SegmentTooLong(65_539)));
}

#[test]
fn a_false_header_length_is_put_right() {
    let spec = Packet { tags: vec![(0x8100, 1)], ip_options: 1, tcp_options: 2, ..Packet::default() };
    let (mut superframe, _) = spec.frame(1000);
    superframe.vnet.hdr_len = 0xffff;
    admit_offload(&mut superframe).unwrap();
    assert_eq!(usize::from(superframe.vnet.hdr_len), spec.header());
    let (mut plain, _) = spec.frame(0);
    plain.vnet.hdr_len = 0xffff;
    admit_offload(&mut plain).unwrap();
    assert_eq!(plain.vnet.hdr_len, 0);
}

#[test]
fn the_length_that_an_mtu_bounds() {
    let spec = Packet { tags: vec![(0x8100, 1)], tcp_options: 3, ..Packet::default() };
    let len = |gso_size| {
        let (frame, _) = spec.frame(gso_size);
        packet_len(&frame, &parse(frame.head()))
    };
    assert_eq!(len(0), 3000 + 52);
    assert_eq!(len(1448), 1500);
    assert_eq!(len(4000), 3000 + 52);
}
