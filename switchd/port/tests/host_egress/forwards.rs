//! Ports of the host that lead to guests.

use super::segments::{read, segment};
use super::udp::datagram;
use super::world::*;
use smoltcp::socket::tcp::State;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;
use switchd_port::HostEgress;
use switchd_port::host_egress::tcp::{ACK, RST, SYN, Segment};
use switchd_port::host_egress::{Forward, Proto, listen};
use switchd_wire::{MacAddr, VnetHeader};

fn forward(engine: &mut HostEgress, proto: Proto, listen_at: &str, to: &str) -> SocketAddr {
    let socket = listen(proto, listen_at.parse().unwrap()).unwrap();
    let at = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
    let forward = Forward { proto, listen: at, to: to.parse().unwrap() };
    engine.add_forward(forward, socket).unwrap();
    at
}

#[test]
fn a_connection_from_outside_reaches_the_guest() {
    let Some(mut guest) = Guest::new(config()) else { return };
    let at = forward(&mut guest.world.engine, Proto::Tcp, "192.0.2.1:0", "10.7.0.9:80");
    // The guest is known by what it sent.
    guest.world.send(&datagram(1, "192.0.2.1:9".parse().unwrap(), b""), VnetHeader::default());
    let handle = guest.listen(80, 65_536);
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.write_all(b"from outside").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        all
    });
    let mut got = Vec::new();
    guest.until("the request", |guest| {
        let socket = guest.tcp(handle);
        if socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), got.extend_from_slice(bytes))).unwrap();
        }
        got == b"from outside"
    });
    guest.tcp(handle).send_slice(b"from the guest").unwrap();
    guest.tcp(handle).close();
    guest.until("the end", |guest| guest.tcp(handle).state() == State::Closed);
    guest.until("the client", |_| client.is_finished());
    assert_eq!(client.join().unwrap(), "from the guest");
    assert_eq!(guest.world.engine.counters().forwarded, 1);
}

#[test]
fn a_guest_that_refuses_resets_the_client_and_one_never_seen_is_left_to_the_gateway() {
    let Some(mut world) = World::new(config()) else { return };
    let at = forward(&mut world.engine, Proto::Tcp, "192.0.2.1:0", "10.7.0.9:80");
    let client = thread::spawn(move || TcpStream::connect(at).unwrap().read(&mut [0]));
    let came = world.next();
    assert_eq!(came.bytes[..6], MacAddr::ZERO.0, "the gateway looks it up");
    let (syn, _) = read(&came);
    assert_eq!((syn.flags, syn.mss, syn.shift), (SYN, Some(1460), Some(8)));
    let from = SocketAddr::new(ip(HOST_V4), u16::from_be_bytes([came.bytes[34], came.bytes[35]]));
    let reset = Segment { ack: syn.seq.wrapping_add(1), flags: RST | ACK, ..Segment::default() };
    world.send(&segment(from, 80, reset, &[]), VnetHeader::default());
    assert!(client.join().unwrap().is_err());
    assert_eq!(world.engine.counters().tcp_flows, 0);
}

#[test]
fn both_ends_may_open_at_once_rfc9293_3_5() {
    let Some(mut world) = World::new(config()) else { return };
    let at = forward(&mut world.engine, Proto::Tcp, "192.0.2.1:0", "10.7.0.9:80");
    let mut client = TcpStream::connect(at).unwrap();
    let came = world.next();
    let (syn, _) = read(&came);
    let from = SocketAddr::new(ip(HOST_V4), u16::from_be_bytes([came.bytes[34], came.bytes[35]]));
    // The guest's own SYN crosses ours.
    let mine = Segment { seq: 100, flags: SYN, window: 5000, mss: Some(1000), ..Segment::default() };
    world.send(&segment(from, 80, mine, &[]), VnetHeader::default());
    let (both, _) = read(&world.next());
    assert_eq!((both.flags, both.seq, both.ack), (SYN | ACK, syn.seq, 101));
    let ack = Segment { seq: 100, ack: syn.seq.wrapping_add(1), flags: SYN | ACK, window: 5000, ..mine };
    world.send(&segment(from, 80, ack, &[]), VnetHeader::default());
    assert_eq!(read(&world.next()).0.flags, ACK);
    client.write_all(b"data").unwrap();
    let (data, payload) = read(&world.next());
    assert_eq!((data.seq, &payload[..]), (syn.seq.wrapping_add(1), &b"data"[..]));
}

#[test]
fn a_client_of_the_other_family_or_the_loopback_appears_as_the_gateway() {
    let Some(mut world) = World::new(config()) else { return };
    let at = forward(&mut world.engine, Proto::Tcp, "[::]:0", "10.7.0.9:80");
    for client in [format!("[::1]:{}", at.port()), format!("127.0.0.1:{}", at.port())] {
        let client: SocketAddr = client.parse().unwrap();
        let _stream = TcpStream::connect(client).unwrap();
        let came = world.next();
        assert_eq!((read(&came).0.flags, &came.bytes[26..30]), (SYN, &[10, 7, 0, 1][..]));
    }
    let _stream = TcpStream::connect((HOST_V4, at.port())).unwrap();
    let came = world.next();
    assert_eq!((read(&came).0.flags, &came.bytes[26..30]), (SYN, &[192, 0, 2, 1][..]), "its own address");
}

#[test]
fn datagrams_go_both_ways_and_the_guest_answers_from_the_forwards_port() {
    let Some(mut world) = World::new(config()) else { return };
    let at = forward(&mut world.engine, Proto::Udp, "192.0.2.1:0", "10.7.0.9:53");
    let client = UdpSocket::bind((HOST_V4, 0)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    client.send_to(b"question", at).unwrap();
    let came = world.next();
    let (from, port, payload) = super::udp::read(&mut world, &came);
    assert_eq!((from, port, &payload[..]), (client.local_addr().unwrap(), 53, &b"question"[..]));
    world.send(&datagram(53, from, b"answer"), VnetHeader::default());
    let mut buffer = [0; 64];
    let (len, via) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], via), (&b"answer"[..], at));
    // To somebody who never asked, too: one port outside for one inside (RFC 4787 4.1).
    let other = UdpSocket::bind((HOST_V4, 0)).unwrap();
    other.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    world.send(&datagram(53, other.local_addr().unwrap(), b"unasked"), VnetHeader::default());
    assert_eq!(other.recv_from(&mut buffer).unwrap().1, at);
    assert_eq!(world.engine.counters().udp_flows, 1);
}

#[test]
fn a_client_on_the_loopback_has_a_stand_in_and_gets_its_answers() {
    let Some(mut world) = World::new(config()) else { return };
    let at = forward(&mut world.engine, Proto::Udp, "[::]:0", "10.7.0.9:53");
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let client = UdpSocket::bind(local).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let local = client.local_addr().unwrap();
        client.send_to(b"question", SocketAddr::new(local.ip(), at.port())).unwrap();
        let came = world.next();
        let (from, _, payload) = super::udp::read(&mut world, &came);
        assert_eq!((from.ip(), &payload[..]), (ip("10.7.0.1"), &b"question"[..]));
        world.send(&datagram(53, from, b"answer"), VnetHeader::default());
        let mut buffer = [0; 64];
        let (len, via) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], via.port()), (&b"answer"[..], at.port()));
    }
}

#[test]
fn a_forward_that_is_gone_takes_no_more_and_what_came_through_it_stays() {
    let Some(mut world) = World::new(config()) else { return };
    let socket = listen(Proto::Tcp, "192.0.2.1:0".parse().unwrap()).unwrap();
    // The broker keeps a copy.
    let copy = socket.try_clone().unwrap();
    let at = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
    let forward = Forward { proto: Proto::Tcp, listen: at, to: "10.7.0.9:80".parse().unwrap() };
    world.engine.add_forward(forward, socket).unwrap();
    let _first = TcpStream::connect(at).unwrap();
    world.next();
    assert!(world.engine.remove_forward(&forward) && !world.engine.remove_forward(&forward));
    let calls = world.received;
    let _second = TcpStream::connect(at).unwrap();
    world.expect_silence(Duration::from_millis(50));
    assert_eq!((world.received, world.engine.counters().tcp_flows), (calls, 1));
    drop(copy);
    // Another test's child may hold a copy until it has become `ip`.
    let end = std::time::Instant::now() + Duration::from_secs(2);
    while let Err(error) = listen(Proto::Tcp, at).map(drop) {
        assert!(std::time::Instant::now() < end, "the port is still taken: {error}");
        thread::sleep(Duration::from_millis(10));
    }
    let outside = Forward { to: "10.8.0.9:80".parse().unwrap(), ..forward };
    let socket = listen(Proto::Udp, "192.0.2.1:0".parse().unwrap()).unwrap();
    let error = world.engine.add_forward(outside, socket).unwrap_err();
    assert!(error.to_string().contains("10.8.0.9:80"), "{error}");
}
