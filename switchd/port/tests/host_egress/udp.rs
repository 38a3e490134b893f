//! Datagrams.

use super::segments::ipv4;
use super::world::*;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;
use switchd_port::host_egress::{Filtering, HostEgressConfig, Limits};
use switchd_wire::checksum::{Sum, pseudo_v4, pseudo_v6};
use switchd_wire::{Gso, VnetHeader};

const PORT: u16 = 4000;

fn header(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let len = (8 + payload.len()) as u16;
    let mut l4 = [from.to_be_bytes(), to.to_be_bytes(), len.to_be_bytes(), [0, 0]].concat();
    l4.extend_from_slice(payload);
    l4
}

pub fn datagram(from: u16, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut l4 = header(from, to.port(), payload);
    let octets = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let host = to.ip().to_string();
    let sum = pseudo_v4(octets(GUEST_V4), octets(&host), 17, l4.len() as u32).over(&l4).checksum();
    l4[6..8].copy_from_slice(&sum.to_be_bytes());
    ipv4(&host, 17, &l4)
}

fn datagram6(from: u16, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut l4 = header(from, to.port(), payload);
    let octets = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let host = to.ip().to_string();
    let sum = pseudo_v6(octets(GUEST_V6), octets(&host), 17, l4.len() as u32).over(&l4).checksum();
    l4[6..8].copy_from_slice(&sum.to_be_bytes());
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend_from_slice(&(l4.len() as u16).to_be_bytes());
    ip.extend_from_slice(&[17, 64]);
    [&GATEWAY.0[..], &GUEST.0, &[0x86, 0xdd], &ip, &octets(GUEST_V6), &octets(&host), &l4].concat()
}

fn server() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((HOST_V4, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn get(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (len, from) = socket.recv_from(&mut buffer).unwrap();
    buffer.truncate(len);
    (buffer, from)
}

/// Source, destination port and payload of an IPv4 datagram that came, its checksum held.
pub fn read(world: &mut World, came: &Came) -> (SocketAddr, u16, Vec<u8>) {
    let packet = world.packets(came).remove(0);
    assert_eq!(packet[9], 17, "UDP: {packet:?}");
    let l4 = &packet[20..];
    let octets = |at: usize| <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap();
    assert_eq!(pseudo_v4(octets(12), octets(16), 17, l4.len() as u32).over(l4).checksum(), 0);
    let word = |at: usize| u16::from_be_bytes([l4[at], l4[at + 1]]);
    (SocketAddr::new(octets(12).into(), word(0)), word(2), l4[8..].to_vec())
}

#[test]
fn a_datagram_goes_out_and_its_answer_comes_back() {
    let Some(mut world) = World::new(config()) else { return };
    let (server, address) = server();
    assert!(world.send(&datagram(PORT, address, b"question"), VnetHeader::default()));
    let (question, from) = get(&server);
    assert_eq!((&question[..], from.ip()), (&b"question"[..], ip(HOST_V4)));
    server.send_to(b"answer", from).unwrap();
    let came = world.next();
    assert_eq!(read(&mut world, &came), (address, PORT, b"answer".to_vec()));
    let flows = world.engine.flows(10);
    assert_eq!((flows.len(), flows[0].protocol, flows[0].state), (1, "udp", "mapped"));
    assert_eq!((flows[0].inside.port(), flows[0].outside.map(|end| end.port())), (PORT, Some(from.port())));
}

#[test]
fn a_datagram_over_ipv6_goes_out_and_its_answer_comes_back() {
    let Some(mut world) = World::new(config()) else { return };
    let server = UdpSocket::bind((HOST_V6, 0)).unwrap();
    let address = server.local_addr().unwrap();
    assert!(world.send(&datagram6(PORT, address, b"question"), VnetHeader::default()));
    let (question, from) = get(&server);
    assert_eq!(question, b"question");
    server.send_to(b"answer", from).unwrap();
    let came = world.next();
    let packet = world.packets(&came).remove(0);
    assert_eq!((&packet[48..], packet[6]), (&b"answer"[..], 17));
}

#[test]
fn one_mapping_serves_all_destinations_rfc4787_4_1() {
    let Some(mut world) = World::new(config()) else { return };
    let (one, to_one) = server();
    let (two, to_two) = server();
    world.send(&datagram(PORT, to_one, b"1"), VnetHeader::default());
    world.send(&datagram(PORT, to_two, b"2"), VnetHeader::default());
    assert_eq!(get(&one).1, get(&two).1);
    assert_eq!(world.engine.counters().udp_flows, 1);
    world.send(&datagram(PORT + 1, to_one, b"3"), VnetHeader::default());
    assert_eq!(world.engine.counters().udp_flows, 2);
}

#[test]
fn strangers_are_let_in_only_where_that_was_asked_for_rfc4787_5() {
    let Some(mut world) = World::new(config()) else { return };
    let (known, address) = server();
    let (stranger, other) = server();
    world.send(&datagram(PORT, address, b"x"), VnetHeader::default());
    let outside = get(&known).1;
    stranger.send_to(b"unasked", outside).unwrap();
    world.expect_silence(Duration::from_millis(30));
    assert_eq!(world.engine.counters().dropped_filtered, 1);
    let open = HostEgressConfig { filtering: Filtering::EndpointIndependent, ..config() };
    world.engine.configure(open).unwrap();
    stranger.send_to(b"welcome", outside).unwrap();
    let came = world.next();
    assert_eq!(read(&mut world, &came), (other, PORT, b"welcome".to_vec()));
}

#[test]
fn a_silent_mapping_is_forgotten_and_inbound_packets_do_not_keep_it_rfc4787_4_3() {
    let limits = Limits { udp: Duration::from_millis(300), ..Limits::default() };
    let Some(mut world) = World::new(HostEgressConfig { limits, ..config() }) else { return };
    let (server, address) = server();
    world.send(&datagram(PORT, address, b"x"), VnetHeader::default());
    let outside = get(&server).1;
    let end = std::time::Instant::now() + Duration::from_secs(2);
    while world.engine.counters().udp_flows == 1 {
        assert!(std::time::Instant::now() < end, "the mapping stays");
        let _ = server.send_to(b"y", outside);
        world.receive(Duration::from_millis(20));
    }
}

#[test]
fn a_superframe_of_datagrams_goes_out_as_datagrams() {
    let Some(mut world) = World::new(config()) else { return };
    let (server, address) = server();
    let mut bytes = datagram(PORT, address, &[5; 2500]);
    bytes[40..42].fill(0);
    let vnet = VnetHeader {
        needs_csum: true,
        gso: Gso::UdpL4,
        gso_size: 1000,
        csum_start: 34,
        csum_offset: 6,
        hdr_len: 42,
        ..VnetHeader::default()
    };
    assert!(world.send(&bytes, vnet));
    assert_eq!([get(&server).0.len(), get(&server).0.len(), get(&server).0.len()], [1000, 1000, 500]);
}

#[test]
fn datagrams_of_one_burst_go_out_together_each_as_it_was_and_in_order() {
    let Some(mut world) = World::new(config()) else { return };
    let (socket, to) = server();
    let (other, elsewhere) = server();
    let mut sent: Vec<Vec<u8>> = (0..70).map(|number: u8| vec![number; 18]).collect();
    // A shorter one, longer ones, an empty one, and back.
    sent.extend([vec![1; 5], vec![2; 18], vec![3; 1400], vec![4; 1400], vec![], vec![5; 18]]);
    let mut frames: Vec<Vec<u8>> = sent.iter().map(|payload| datagram(4000, to, payload)).collect();
    frames.insert(30, datagram(4000, elsewhere, b"x"));
    frames.insert(40, datagram(4000, elsewhere, b"y"));
    let flushed = world.send_burst(&frames);
    let bytes: usize = frames.iter().map(Vec::len).sum();
    assert_eq!((flushed.accepted, flushed.bytes), (frames.len() as u64, bytes as u64));
    assert_eq!(sent.iter().map(|_| get(&socket).0).collect::<Vec<_>>(), sent);
    assert_eq!([get(&other).0, get(&other).0], [b"x", b"y"]);
    let flows = world.engine.flows(9);
    assert_eq!((flows.len(), flows[0].packets), (1, frames.len() as u64));
}

#[test]
fn of_a_burst_that_the_kernel_does_not_take_as_one_each_goes_alone() {
    let Some(mut world) = World::new(config()) else { return };
    let nowhere = "203.0.113.7:99".parse().unwrap();
    let flushed = world.send_burst(&vec![datagram(PORT, nowhere, &[7; 18]); 3]);
    let counters = world.engine.counters();
    assert_eq!((flushed.accepted, flushed.refused), (0, 3), "{counters:?}");
    assert_eq!((counters.dropped_socket_error, counters.icmp_errors), (3, 3));
}

#[test]
fn a_datagram_longer_than_the_mtu_comes_in_fragments() {
    let Some(mut world) = World::new(config()) else { return };
    let (server, address) = server();
    world.send(&datagram(PORT, address, b"x"), VnetHeader::default());
    let payload: Vec<u8> = (0..4000u32).map(|at| at as u8).collect();
    server.send_to(&payload, get(&server).1).unwrap();
    let mut whole = Vec::new();
    for more in [true, true, false] {
        let packet = world.next().bytes[14..].to_vec();
        assert!(packet.len() <= 1500);
        assert_eq!(Sum::new().over(&packet[..20]).checksum(), 0);
        let field = u16::from_be_bytes([packet[6], packet[7]]);
        assert_eq!((usize::from(field & 0x1fff) * 8, field & 0x2000 != 0), (whole.len(), more));
        whole.extend_from_slice(&packet[20..]);
    }
    let octets = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    assert_eq!(pseudo_v4(octets(HOST_V4), octets(GUEST_V4), 17, 4008).over(&whole).checksum(), 0);
    assert!(whole[8..] == payload);
    assert_eq!(world.engine.counters().fragmented, 1);
}

#[test]
fn fragments_of_the_guest_become_one_datagram_in_any_order() {
    let Some(mut world) = World::new(config()) else { return };
    let (server, address) = server();
    let whole = datagram(PORT, address, &[3; 3000]);
    let l4 = &whole[34..];
    for (from, to) in [(1480, 2960), (2960, l4.len()), (0, 1480)] {
        let mut piece = ipv4(HOST_V4, 17, &l4[from..to]);
        let field = (from / 8) as u16 | if to < l4.len() { 0x2000 } else { 0 };
        piece[18..20].copy_from_slice(&77u16.to_be_bytes());
        piece[20..22].copy_from_slice(&field.to_be_bytes());
        piece[24..26].fill(0);
        let sum = Sum::new().over(&piece[14..34]).checksum();
        piece[24..26].copy_from_slice(&sum.to_be_bytes());
        assert!(world.send(&piece, VnetHeader::default()));
    }
    assert_eq!(get(&server).0, [3; 3000]);
    assert_eq!(world.engine.counters().reassembled, 1);
}

#[test]
fn an_icmp_error_of_the_network_reaches_the_guest_with_its_own_packet() {
    let Some(mut world) = World::new(config()) else { return };
    let (server, address) = server();
    drop(server);
    let bytes = datagram(PORT, address, b"nobody");
    world.send(&bytes, VnetHeader::default());
    let told = world.next().bytes;
    assert_eq!((told[23], &told[34..36]), (1, &[3, 3][..]), "port unreachable");
    assert_eq!(Sum::new().over(&told[34..]).checksum(), 0);
    let inner = &told[42..];
    assert_eq!((&inner[12..20], &inner[20..24]), (&bytes[26..34], &bytes[34..38]), "addresses and ports");
    // The mapping stays (RFC 5508 3: errors never tear one down).
    assert_eq!(world.engine.counters().udp_flows, 1);
}

#[test]
fn what_must_not_be_reached_is_prohibited() {
    let Some(mut world) = World::new(config()) else { return };
    for to in ["127.0.0.1:53", "169.254.169.254:80", "0.0.0.0:53", "10.7.0.77:53"] {
        assert!(!world.send(&datagram(PORT, to.parse().unwrap(), b"x"), VnetHeader::default()));
        let told = world.next().bytes;
        assert_eq!((told[23], &told[34..36]), (1, &[3, 13][..]), "{to}");
    }
    // The gateway itself is a host without that port.
    world.send(&datagram(PORT, "10.7.0.1:999".parse().unwrap(), b"x"), VnetHeader::default());
    assert_eq!(world.next().bytes[34..36], [3, 3]);
    for to in ["239.1.1.1:53", "255.255.255.255:53"] {
        assert!(!world.send(&datagram(PORT, to.parse().unwrap(), b"x"), VnetHeader::default()));
    }
    world.expect_silence(Duration::from_millis(20));
    let counters = world.engine.counters();
    assert_eq!((counters.refused_destination, counters.dropped_group, counters.udp_flows), (5, 2, 0));
    // Nor may anybody speak from another segment.
    let mut bytes = datagram(PORT, "192.0.2.1:53".parse().unwrap(), b"x");
    bytes[26..30].copy_from_slice(&[192, 168, 1, 1]);
    bytes[24..26].fill(0);
    let sum = Sum::new().over(&bytes[14..34]).checksum();
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    let vnet = VnetHeader { data_valid: true, ..VnetHeader::default() };
    assert!(!world.send(&bytes, vnet));
    assert_eq!(world.engine.counters().refused_source, 1);
}

#[test]
fn guests_reach_each_others_outside_ports_rfc4787_6() {
    let Some(mut world) = World::new(config()) else { return };
    let (remote, address) = server();
    world.send(&datagram(PORT, address, b"x"), VnetHeader::default());
    let one = get(&remote).1;
    world.send(&datagram(PORT + 1, address, b"x"), VnetHeader::default());
    let two = get(&remote).1;
    // Neither has sent to the other before.
    world.send(&datagram(PORT, two, b"hairpin"), VnetHeader::default());
    let came = world.next();
    assert_eq!(read(&mut world, &came), (one, PORT + 1, b"hairpin".to_vec()), "from its outside end");
    // A host's own socket is no mapping.
    let (stranger, _) = server();
    stranger.send_to(b"unasked", two).unwrap();
    world.expect_silence(Duration::from_millis(30));
}
