//! Segments made by hand: what a well-behaved stack does not send.

use super::world::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use switchd_port::host_egress::tcp::{ACK, FIN, PSH, RST, SYN, Segment};
use switchd_wire::VnetHeader;
use switchd_wire::checksum::{Sum, pseudo_v4};

pub const PORT: u16 = 5000;

/// An IPv4 packet of the guest in its frame.
pub fn ipv4(to: &str, protocol: u8, l4: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&(20 + l4.len() as u16).to_be_bytes());
    header[8] = 64;
    header[9] = protocol;
    let octets = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    header[12..16].copy_from_slice(&octets(GUEST_V4));
    header[16..20].copy_from_slice(&octets(to));
    let sum = Sum::new().over(&header).checksum();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&GATEWAY.0[..], &GUEST.0, &[8, 0], &header, l4].concat()
}

/// A TCP segment of the guest with a good checksum.
pub fn segment(to: SocketAddr, from: u16, segment: Segment, payload: &[u8]) -> Vec<u8> {
    let mut l4 = vec![0; 20];
    l4[..2].copy_from_slice(&from.to_be_bytes());
    l4[2..4].copy_from_slice(&to.port().to_be_bytes());
    l4[4..8].copy_from_slice(&segment.seq.to_be_bytes());
    l4[8..12].copy_from_slice(&segment.ack.to_be_bytes());
    l4[13] = segment.flags;
    l4[14..16].copy_from_slice(&segment.window.to_be_bytes());
    if let Some(mss) = segment.mss {
        l4.extend_from_slice(&[2, 4]);
        l4.extend_from_slice(&mss.to_be_bytes());
    }
    if let Some(shift) = segment.shift {
        l4.extend_from_slice(&[1, 3, 3, shift]);
    }
    l4[12] = (l4.len() as u8 / 4) << 4;
    l4.extend_from_slice(payload);
    let octets = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let host = to.ip().to_string();
    let sum = pseudo_v4(octets(GUEST_V4), octets(&host), 6, l4.len() as u32).over(&l4).checksum();
    l4[16..18].copy_from_slice(&sum.to_be_bytes());
    ipv4(&host, 6, &l4)
}

/// Header and payload of a segment that came.
pub fn read(came: &Came) -> (Segment, Vec<u8>) {
    assert_eq!(came.bytes[23], 6, "TCP: {:?}", came.bytes);
    let (segment, len) = Segment::parse(&came.bytes[34..]).unwrap();
    (segment, came.bytes[34 + len..].to_vec())
}

/// A guest that is a test, and its connection.
pub struct Hand {
    pub world: World,
    pub to: SocketAddr,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
}

impl Hand {
    pub fn send(&mut self, flags: u8, payload: &[u8]) {
        self.send_at(self.seq, flags, payload);
        self.seq = self.seq.wrapping_add(payload.len() as u32 + u32::from(flags & FIN));
    }

    pub fn send_at(&mut self, seq: u32, flags: u8, payload: &[u8]) {
        let header = Segment { seq, ack: self.ack, flags, window: self.window, ..Segment::default() };
        self.world.send(&segment(self.to, PORT, header, payload), VnetHeader::default());
    }

    /// The next segment; takes its payload as received.
    pub fn take(&mut self) -> (Segment, Vec<u8>) {
        let (header, payload) = read(&self.world.next());
        if header.seq == self.ack {
            self.ack = self.ack.wrapping_add(payload.len() as u32 + u32::from(header.flags & FIN));
        }
        (header, payload)
    }

    /// Nothing but acknowledgements of what is known.
    pub fn take_ack(&mut self) -> Segment {
        let (header, payload) = read(&self.world.next());
        assert_eq!((header.flags & !PSH, payload.len()), (ACK, 0), "{header:?}");
        header
    }

    /// Shakes hands with a listener of the host.
    pub fn connect(mut world: World, window: u16) -> (Hand, TcpStream) {
        let listener = TcpListener::bind((HOST_V4, 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let syn = Segment { seq: 999, flags: SYN, window, mss: Some(1000), ..Segment::default() };
        world.send(&segment(to, PORT, syn, &[]), VnetHeader::default());
        let (header, _) = read(&world.next());
        assert_eq!((header.flags, header.ack, header.mss, header.shift), (SYN | ACK, 1000, Some(1460), None));
        let mut hand = Hand { world, to, seq: 1000, ack: header.seq.wrapping_add(1), window };
        hand.send(ACK, &[]);
        (hand, listener.accept().unwrap().0)
    }
}

#[test]
fn a_syn_ack_comes_only_after_the_host_has_connected_and_a_syn_sent_twice_gets_one() {
    let Some(mut world) = World::new(config()) else { return };
    let listener = TcpListener::bind((HOST_V4, 0)).unwrap();
    let to = listener.local_addr().unwrap();
    let syn = Segment { seq: 1, flags: SYN, window: 1000, shift: Some(7), ..Segment::default() };
    for _ in 0..2 {
        world.send(&segment(to, PORT, syn, &[]), VnetHeader::default());
    }
    let (header, _) = read(&world.next());
    assert_eq!((header.flags, header.ack, header.shift), (SYN | ACK, 2, Some(8)));
    assert!(listener.accept().is_ok());
    // Not acknowledged: it comes again after a second (RFC 6298 2.1), and at the guest's asking.
    world.send(&segment(to, PORT, syn, &[]), VnetHeader::default());
    assert_eq!(read(&world.next()).0.seq, header.seq);
    let again = world.next();
    assert_eq!(read(&again).0, header);
}

#[test]
fn what_the_guest_acknowledged_is_gone_and_the_rest_is_sent_again() {
    let Some(world) = World::new(config()) else { return };
    let (mut hand, mut stream) = Hand::connect(world, 8000);
    stream.write_all(&[7; 3000]).unwrap();
    let start = hand.ack;
    let (first, payload) = hand.take();
    assert_eq!((first.seq, payload.len()), (start, 3000));
    // Only a part is acknowledged.
    hand.ack = start.wrapping_add(1000);
    hand.send(ACK, &[]);
    let (again, payload) = hand.take();
    assert_eq!((again.seq, payload.len()), (start.wrapping_add(1000), 1000), "one segment after a timeout");
    assert_eq!(payload, [7; 1000]);
    hand.ack = start.wrapping_add(3000);
    hand.send(ACK, &[]);
    hand.world.expect_silence(Duration::from_millis(500));
    assert_eq!(hand.world.engine.counters().bytes_in, 3000);
}

#[test]
fn three_duplicate_acknowledgements_bring_the_segment_at_once_rfc5681_3_2() {
    let Some(world) = World::new(config()) else { return };
    let (mut hand, mut stream) = Hand::connect(world, 60_000);
    stream.write_all(&[7; 20_000]).unwrap();
    let mut got = 0;
    let start = hand.ack;
    while got < 20_000 {
        got += hand.take().1.len();
    }
    // None of it arrived.
    hand.ack = start;
    let began = std::time::Instant::now();
    hand.send(ACK, &[]);
    for _ in 0..3 {
        hand.send(ACK, &[]);
    }
    let (again, payload) = hand.take();
    assert!(began.elapsed() < Duration::from_millis(150), "before the timer");
    assert_eq!((again.seq, payload.len()), (start, 10_000), "at half the flight");
    assert_eq!(hand.world.engine.counters().fast_retransmits, 1);
}

#[test]
fn a_closed_window_is_probed_and_goes_on_when_it_opens_rfc9293_3_8_6_1() {
    let Some(world) = World::new(config()) else { return };
    let (mut hand, mut stream) = Hand::connect(world, 1000);
    stream.write_all(&[7; 3000]).unwrap();
    assert_eq!(hand.take().1.len(), 1000);
    hand.window = 0;
    hand.send(ACK, &[]);
    // Each probe is answered with the window still closed.
    for _ in 0..3 {
        let probe = hand.take_ack();
        assert_eq!(probe.seq, hand.ack.wrapping_sub(1));
        hand.send(ACK, &[]);
    }
    assert_eq!(hand.world.engine.counters().window_probes, 3);
    hand.window = 5000;
    hand.send(ACK, &[]);
    assert_eq!(hand.take().1.len(), 2000);
}

#[test]
fn segments_out_of_order_are_acknowledged_again_and_an_overlap_counts_once() {
    let Some(world) = World::new(config()) else { return };
    let (mut hand, mut stream) = Hand::connect(world, 8000);
    hand.send_at(1100, ACK, &[2; 100]);
    assert_eq!(hand.take_ack().ack, 1000);
    hand.send_at(1000, ACK, &[1; 100]);
    assert_eq!(hand.take_ack().ack, 1100);
    // The first half is known.
    hand.send_at(1050, ACK | PSH, &[&[1; 50][..], &[2; 50]].concat());
    assert_eq!(hand.take_ack().ack, 1150);
    // All of it is known.
    hand.send_at(1000, ACK, &[9; 100]);
    assert_eq!(hand.take_ack().ack, 1150);
    let mut got = [0; 150];
    stream.read_exact(&mut got).unwrap();
    assert_eq!((&got[..100], &got[100..]), (&[1; 100][..], &[2; 50][..]));
    assert_eq!(hand.world.engine.counters().out_of_order, 1);
}

#[test]
fn a_superframe_with_an_unfinished_checksum_is_one_write() {
    let Some(world) = World::new(config()) else { return };
    let (mut hand, mut stream) = Hand::connect(world, 8000);
    let payload: Vec<u8> = (0..30_000u32).map(|at| at as u8).collect();
    let header = Segment { seq: 1000, ack: hand.ack, flags: ACK | PSH, window: 8000, ..Segment::default() };
    let mut bytes = segment(hand.to, PORT, header, &payload);
    bytes[50..52].fill(0);
    let vnet = VnetHeader {
        needs_csum: true,
        gso: switchd_wire::Gso::TcpV4,
        gso_size: 1460,
        csum_start: 34,
        csum_offset: 16,
        hdr_len: 54,
        ..VnetHeader::default()
    };
    assert!(hand.world.send(&bytes, vnet));
    assert_eq!(hand.take_ack().ack, 31_000);
    let mut got = vec![0; 30_000];
    stream.read_exact(&mut got).unwrap();
    assert!(got == payload);
}

#[test]
fn a_wrong_checksum_is_dropped_and_counted() {
    let Some(world) = World::new(config()) else { return };
    let (mut hand, _stream) = Hand::connect(world, 8000);
    let header = Segment { seq: 1000, ack: hand.ack, flags: ACK, window: 8000, ..Segment::default() };
    let mut bytes = segment(hand.to, PORT, header, b"data");
    bytes[55] ^= 1;
    assert!(!hand.world.send(&bytes, VnetHeader::default()));
    bytes[55] ^= 1;
    bytes[16] ^= 1;
    assert!(!hand.world.send(&bytes, VnetHeader::default()));
    let counters = hand.world.engine.counters();
    assert_eq!((counters.dropped_checksum, counters.bytes_out), (2, 0));
}

#[test]
fn blind_resets_and_syns_are_challenged_and_exact_ones_count_rfc5961() {
    let Some(world) = World::new(config()) else { return };
    let (mut hand, mut stream) = Hand::connect(world, 8000);
    hand.send_at(1010, RST, &[]);
    assert_eq!(hand.take_ack().ack, 1000);
    hand.send_at(1000, SYN, &[]);
    assert_eq!(hand.take_ack().ack, 1000);
    hand.send_at(900_000, RST, &[]);
    hand.world.expect_silence(Duration::from_millis(20));
    assert_eq!(hand.world.engine.counters().tcp_flows, 1);
    hand.send_at(1000, RST, &[]);
    assert_eq!(hand.world.engine.counters().tcp_flows, 0);
    assert!(stream.read(&mut [0]).is_err());
}

#[test]
fn a_keepalive_of_the_guest_is_answered() {
    let Some(world) = World::new(config()) else { return };
    let (mut hand, _stream) = Hand::connect(world, 8000);
    for payload in [&[][..], &[0]] {
        hand.send_at(999, ACK, payload);
        assert_eq!(hand.take_ack().ack, 1000);
    }
    assert_eq!(hand.world.engine.counters().bytes_out, 0);
}

#[test]
fn a_fin_sent_twice_is_acknowledged_twice_and_time_wait_lets_a_new_connection_in() {
    let Some(world) = World::new(config()) else { return };
    let (mut hand, stream) = Hand::connect(world, 8000);
    drop(stream);
    let (fin, _) = hand.take();
    assert_eq!(fin.flags, ACK | FIN);
    hand.send(ACK | FIN, &[]);
    assert_eq!(hand.take_ack().ack, 1001);
    hand.send_at(1000, ACK | FIN, &[]);
    assert_eq!(hand.take_ack().ack, 1001);
    let counters = hand.world.engine.counters();
    assert_eq!((counters.tcp_flows, counters.time_wait), (0, 1));
    // RFC 9293 3.6.1: a higher number begins anew.
    let (hand, _stream) = {
        let listener = TcpListener::bind(hand.to).unwrap();
        let syn = Segment { seq: 900_000, flags: SYN, window: 1000, ..Segment::default() };
        hand.world.send(&segment(hand.to, PORT, syn, &[]), VnetHeader::default());
        let (header, _) = read(&hand.world.next());
        assert_eq!((header.flags, header.ack), (SYN | ACK, 900_001));
        (hand, listener.accept().unwrap().0)
    };
    let counters = hand.world.engine.counters();
    assert_eq!((counters.tcp_flows, counters.time_wait), (1, 0));
}

#[test]
fn a_segment_without_a_connection_is_reset_and_one_to_a_group_is_not() {
    let Some(mut world) = World::new(config()) else { return };
    let header = Segment { seq: 5, ack: 77, flags: ACK, window: 0, ..Segment::default() };
    world.send(&segment("192.0.2.1:80".parse().unwrap(), PORT, header, b"x"), VnetHeader::default());
    let (reset, _) = read(&world.next());
    assert_eq!((reset.flags, reset.seq), (RST, 77));
    let fin = Segment { seq: 5, flags: FIN, ..header };
    world.send(&segment("192.0.2.1:80".parse().unwrap(), PORT, fin, b"x"), VnetHeader::default());
    let (reset, _) = read(&world.next());
    assert_eq!((reset.flags, reset.ack), (RST | ACK, 7));
    world.send(&segment("224.0.0.5:80".parse().unwrap(), PORT, header, b"x"), VnetHeader::default());
    let rst = Segment { flags: RST, ..header };
    world.send(&segment("192.0.2.1:80".parse().unwrap(), PORT, rst, &[]), VnetHeader::default());
    world.expect_silence(Duration::from_millis(20));
    assert_eq!(world.engine.counters().dropped_no_flow, 4);
}

#[test]
fn a_packet_whose_time_to_live_ends_here_is_told_so() {
    let Some(mut world) = World::new(config()) else { return };
    let syn = Segment { seq: 1, flags: SYN, window: 1000, ..Segment::default() };
    let mut bytes = segment("192.0.2.1:80".parse().unwrap(), PORT, syn, &[]);
    bytes[22] = 1;
    bytes[24..26].fill(0);
    let sum = Sum::new().over(&bytes[14..34]).checksum();
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    assert!(!world.send(&bytes, VnetHeader::default()));
    let told = world.next().bytes;
    assert_eq!((told[23], &told[34..36], &told[26..30]), (1, &[11, 0][..], &[10, 7, 0, 1][..]));
    assert_eq!(told[42..], bytes[14..], "it quotes the packet");
}
