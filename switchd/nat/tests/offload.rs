//! Offloaded frames, IPv6, and the checksums of protocols that are not TCP or UDP.

mod support;

use support::*;
use switchd_nat::{NatDrop, Verdict};
use switchd_wire::{Gso, NoTails, Scratch, VnetHeader, finish_checksum, segment};

/// A TCP superframe that is unfinished, as a guest's kernel makes it.
fn superframe(payload: usize) -> (Vec<u8>, VnetHeader) {
    let mut l4 = Vec::new();
    l4.extend(5000u16.to_be_bytes());
    l4.extend(80u16.to_be_bytes());
    l4.extend([0, 0, 0, 9, 0, 0, 0, 7, 0x50, ACK, 0x10, 0, 0, 0, 0, 0]);
    l4.extend((0..payload).map(|at| at as u8));
    let mut bytes = ether(&packet(ip(A), ip(R), 6, l4.clone()));
    // Instead of the checksum, the pseudo-header's sum.
    let mut pseudo = bytes[14 + 12..14 + 20].to_vec();
    pseudo.extend((l4.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, 6]);
    bytes[50..52].copy_from_slice(&sum(&[&pseudo]).to_be_bytes());
    let vnet = VnetHeader {
        needs_csum: true,
        gso: Gso::TcpV4,
        gso_size: 1448,
        hdr_len: 54,
        csum_start: 34,
        csum_offset: 16,
        ..VnetHeader::default()
    };
    (bytes, vnet)
}

#[test]
fn a_superframe_is_translated_whole_and_every_segment_is_right() {
    let mut world = World::plain();
    let x = world.connect(at(A, 5000), at(R, 80));
    let (bytes, vnet) = superframe(60_000);
    let (verdict, sent) = world.out_offloaded(&bytes, vnet);
    assert_eq!(verdict, Verdict::Forward { to: ip(R) });
    assert_eq!(sent[54..], bytes[54..]);
    let (frame, tails) = frame_of(&sent, vnet);
    let mut segments = 0;
    segment(&frame, &tails, &mut Scratch::new(), |packet| {
        assert_intact(packet);
        assert_eq!(ends(packet), (x, at(R, 80)));
        segments += 1;
    })
    .unwrap();
    assert_eq!(segments, 42);
}

#[test]
fn an_unfinished_checksum_is_adjusted_for_addresses_only() {
    for v6 in [false, true] {
        let mut world = World::plain();
        let (a, r) = if v6 { (at(A6, 5000), at(R6, 53)) } else { (at(A, 5000), at(R, 53)) };
        let mut bytes = udp(a, r);
        let (l4, pseudo) = if v6 { (54, 14 + 8..14 + 40) } else { (34, 14 + 12..14 + 20) };
        let mut header = bytes[pseudo].to_vec();
        header.extend([0, 0, 0, 13, 0, 0, 0, 17]);
        bytes[l4 + 6..l4 + 8].copy_from_slice(&sum(&[&header]).to_be_bytes());
        let vnet =
            VnetHeader { needs_csum: true, csum_start: l4 as u16, csum_offset: 6, ..VnetHeader::default() };
        let (_, sent) = world.out_offloaded(&bytes, vnet);
        let (mut frame, _) = frame_of(&sent, vnet);
        finish_checksum(&mut frame, &NoTails).unwrap();
        assert_intact(frame.head());
        assert_ne!(ends(frame.head()).0.ip(), a.ip());
    }
}

#[test]
fn nat66_has_mappings_filtering_queries_and_errors_like_ipv4() {
    let mut world = World::plain();
    let (a, r) = (at(A6, 5000), at(R6, 53));
    let x = world.leaves(&udp(a, r));
    assert_eq!(x.ip(), ip(X6));
    assert_eq!(world.arrives(&udp(r, x)), a);
    assert_eq!(world.leaves(&udp(a, at(R6, 54))), x);
    assert_eq!(world.refused(&udp(at("2001:db8:1::8", 53), x)), NatDrop::Unsolicited);
    let t = world.connect(at(A6, 6000), at(R6, 80));
    assert_eq!(world.arrives(&tcp(at(R6, 80), t, ACK)), at(A6, 6000));
    let q = world.leaves(&ping(A6, R6, 4));
    assert_eq!(world.arrives(&pong(R6, X6, q.port())), at(A6, 4));
    for kind in [[1, 4], [2, 0], [3, 0], [4, 1]] {
        for (about, sent) in [(udp(x, r), udp(a, r)), (ping(X6, R6, q.port()), ping(A6, R6, 4))] {
            let got = world.arrives_error(&error(R6, X6, kind, [0, 0, 5, 0], &about));
            let quote = quoted(&got);
            assert_eq!(quote, &sent[14..14 + quote.len()]);
        }
    }
    // IPv4 and IPv6 do not meet.
    let four = world.leaves(&udp(at(A, 5000), at(R, 53)));
    assert_eq!(four.ip(), ip(X));
    assert_eq!(world.back(&ping(R6, X6, 9)).0, Verdict::Local);
}

#[test]
fn nat66_turns_round() {
    let mut world = World::plain();
    let b = world.leaves(&udp(at(B6, 6000), at(R6, 53)));
    let (verdict, got) = world.out(&udp(at(A6, 5000), b));
    assert_eq!(verdict, Verdict::Hairpin { to: ip(B6), mac: Some(mac_of(ip(B6))) });
    assert_intact(&got);
    let a = ends(&got).0;
    assert_eq!(a.ip(), ip(X6));
    let (_, back) = world.out(&error(B6, X6, [1, 4], [0; 4], &got));
    assert_intact(&back);
    assert_eq!(ends_of(quoted(&back)), (at(A6, 5000), b));
}

#[test]
fn udp_lite_keeps_a_right_checksum() {
    let mut world = World::plain();
    let lite = ether(&packet(ip(A), ip(R), 136, vec![1, 2, 3, 4, 0, 0, 0, 0, 9, 9, 9]));
    let (verdict, sent) = world.out(&lite);
    assert_eq!(verdict, Verdict::Forward { to: ip(R) });
    assert_intact(&sent);
}

#[test]
fn frames_that_are_no_packets_are_malformed() {
    let mut world = World::plain();
    let sent = udp(at(A, 5000), at(R, 53));
    for length in 14..42 {
        let cut = &sent[..length];
        let (mut frame, tails) = frame_of(cut, VnetHeader::default());
        let seen = world.nat.classify(&frame, switchd_nat::Side::Inside);
        let verdict = world.nat.outbound(world.now, 1, mac_of(ip(A)), &seen, &mut frame, &tails);
        assert_eq!(verdict, Verdict::Drop(NatDrop::Malformed), "{length}");
    }
    let foreign = ether(&packet(ip(A), ip(R), 58, vec![128, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(world.kept(&foreign), NatDrop::Malformed);
}

#[test]
fn tags_and_options_do_not_hide_the_ports() {
    let mut world = World::plain();
    let plain = udp(at(A, 5000), at(R, 53));
    let mut tagged = plain.clone();
    tagged.splice(12..12, [0x81, 0, 0, 7]);
    let x = world.leaves(&plain);
    let (mut frame, tails) = frame_of(&tagged, VnetHeader::default());
    let seen = world.nat.classify(&frame, switchd_nat::Side::Inside);
    let verdict = world.nat.outbound(world.now, 1, mac_of(ip(A)), &seen, &mut frame, &tails);
    assert_eq!(verdict, Verdict::Forward { to: ip(R) });
    let mut sent = bytes_of(&frame, &tails);
    assert_eq!(&sent[12..16], &[0x81, 0, 0, 7]);
    sent.drain(12..16);
    assert_intact(&sent);
    assert_eq!(ends(&sent), (x, at(R, 53)));
}
