//! What the engine does not take: each has its reason, and none of it is called the kernel's refusal.

use super::segments::{ipv4, segment};
use super::udp::datagram;
use super::world::*;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;
use switchd_port::host_egress::tcp::{ACK, Segment};
use switchd_port::host_egress::{HostEgressConfig, Limits};
use switchd_port::{Decline, Declined, Flushed};
use switchd_wire::VnetHeader;
use switchd_wire::checksum::{Sum, pseudo_v4};

const TO: &str = "192.0.2.1:99";

fn remote() -> SocketAddr {
    TO.parse().unwrap()
}

/// An ICMP message with its checksum.
fn icmp(kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0][..], rest].concat();
    let sum = Sum::new().over(&message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv4(HOST_V4, 1, &message)
}

/// The packet with other bytes in its IPv4 header, whose checksum is made right again.
fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame[24..26].fill(0);
    let sum = Sum::new().over(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn declined(why: Decline) -> Flushed {
    let mut declined = Declined::default();
    declined.count(why);
    Flushed { declined, ..Flushed::default() }
}

#[test]
fn each_refusal_has_a_reason_of_its_own() {
    let Some(mut world) = World::new(config()) else { return };
    let plain = datagram(4000, remote(), b"payload");
    let quoted = &datagram(99, remote(), b"what was delivered")[14..];
    let broken = {
        let mut bytes = plain.clone();
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    };
    let ack = Segment { seq: 1, ack: 7, flags: ACK, window: 100, ..Segment::default() };
    let cases = [
        ("an error about something", icmp(3, 3, &[&[0; 4], quoted].concat()), Decline::IcmpKind),
        ("a timestamp request", icmp(13, 0, &[0; 16]), Decline::IcmpKind),
        ("an echo reply", icmp(0, 0, &[0; 4]), Decline::IcmpKind),
        ("an echo request cut short", ipv4(HOST_V4, 1, &[8, 0, 0xf7, 0xff]), Decline::Malformed),
        ("SCTP", ipv4(HOST_V4, 132, &[1; 20]), Decline::Protocol),
        ("a wrong UDP checksum", broken, Decline::Checksum),
        ("a UDP length beyond the packet", udp_length(16), Decline::Malformed),
        ("a UDP length below its header", udp_length(7), Decline::Malformed),
        ("a stranger's source", with(udp_length(15), 26, &[192, 0, 2, 7]), Decline::Source),
        ("the subnet's broadcast", with(udp_length(15), 26, &[10, 7, 0, 255]), Decline::Source),
        ("no time to live", with(plain.clone(), 22, &[1]), Decline::TtlExceeded),
        ("TCP in fragments", with(segment(remote(), 1, ack, &[]), 20, &[0x20, 0]), Decline::Fragment),
        ("a fragment with a ragged end", with(plain.clone(), 20, &[0x20, 0]), Decline::Fragment),
        ("a segment of nothing", segment(remote(), 1, ack, &[]), Decline::NoFlow),
        ("the loopback", datagram(4000, "127.0.0.1:53".parse().unwrap(), b"x"), Decline::Destination),
        ("a group", datagram(4000, "239.1.1.1:53".parse().unwrap(), b"x"), Decline::Group),
        ("an echo request without a socket for it", icmp(8, 0, &[0; 4]), Decline::Socket),
    ];
    for (what, frame, why) in cases {
        assert!(!world.send(&frame, VnetHeader::default()), "{what}");
        assert_eq!(world.flushed, declined(why), "{what}");
    }
    assert_eq!(world.engine.counters().opened, 0);
}

/// A datagram to [`TO`] with seven bytes of payload that gives itself this length, without a checksum.
fn udp_length(len: u16) -> Vec<u8> {
    let mut frame = datagram(4000, remote(), b"payload");
    frame[38..40].copy_from_slice(&len.to_be_bytes());
    frame[40..42].fill(0);
    frame
}

#[test]
fn a_full_table_and_a_full_quota_are_told_apart() {
    let limits = Limits { quota: 1, flows: 1, ..Limits::default() };
    let Some(mut world) = World::new(HostEgressConfig { limits, ..config() }) else { return };
    assert!(world.send(&datagram(1, remote(), b"x"), VnetHeader::default()));
    assert!(!world.send(&datagram(2, remote(), b"x"), VnetHeader::default()));
    assert_eq!(world.flushed, declined(Decline::Quota));
    let limits = Limits { quota: 9, flows: 1, ..Limits::default() };
    world.engine.configure(HostEgressConfig { limits, ..config() }).unwrap();
    assert!(!world.send(&datagram(2, remote(), b"x"), VnetHeader::default()));
    assert_eq!(world.flushed, declined(Decline::Full));
}

#[test]
fn what_the_kernel_refuses_is_the_kernels_refusal() {
    let Some(mut world) = World::new(config()) else { return };
    let nowhere = "203.0.113.7:99".parse().unwrap();
    assert!(!world.send(&datagram(4000, nowhere, b"x"), VnetHeader::default()));
    assert_eq!(world.flushed, Flushed { refused: 1, ..Flushed::default() });
}

/// RFC 768: the length is the datagram's own; what lies behind it in the packet is not payload.
#[test]
fn what_lies_behind_a_datagram_in_its_packet_does_not_go_out_with_it() {
    let Some(mut world) = World::new(config()) else { return };
    let server = UdpSocket::bind((HOST_V4, 0)).unwrap();
    server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let to = server.local_addr().unwrap();
    let l4 = datagram(4000, to, b"payload")[34..].to_vec();
    let surplus = ipv4(HOST_V4, 17, &[&l4[..], b"options"].concat());
    assert!(world.send(&surplus, VnetHeader::default()), "{:?}", world.engine.counters());
    let mut buffer = [0; 100];
    let (len, _) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"payload");
    // The same when it comes in fragments.
    let payload = [5; 40];
    let mut l4 = [&4000u16.to_be_bytes()[..], &to.port().to_be_bytes(), &[0, 48, 0, 0], &payload].concat();
    let octets = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let sum = pseudo_v4(octets(GUEST_V4), octets(HOST_V4), 17, 48).over(&l4).checksum();
    l4[6..8].copy_from_slice(&sum.to_be_bytes());
    l4.extend_from_slice(b"behind it");
    for (field, part) in [(0x2000u16, &l4[..32]), (4, &l4[32..])] {
        let piece = with(ipv4(HOST_V4, 17, part), 20, &field.to_be_bytes());
        assert!(world.send(&piece, VnetHeader::default()), "{:?}", world.flushed);
    }
    let (len, _) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], payload);
}
