//! The stack at the gateway against the same stack as a guest.

use super::*;
use smoltcp::wire::Ipv4Address;

const GATEWAY: Ipv4Address = Ipv4Address::new(10, 7, 0, 1);
const GUEST: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const OURS: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

struct Guest {
    interface: Interface,
    sockets: SocketSet<'static>,
    wire: Wire,
    handle: SocketHandle,
}

struct Stage {
    guest: Guest,
    server: TcpServer,
    now: Instant,
}

fn stage() -> Stage {
    let now = Instant::ZERO;
    let mut wire = Wire { mtu: 1500, ..Wire::default() };
    let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut wire, now);
    interface.update_ip_addrs(|addresses| {
        addresses.push(IpCidr::new(IpAddress::v4(10, 7, 0, 9), 24)).unwrap();
    });
    let mut sockets = SocketSet::new(Vec::new());
    let socket = Socket::new(SocketBuffer::new(vec![0; 4096]), SocketBuffer::new(vec![0; 4096]));
    let handle = sockets.add(socket);
    let v4 = Prefix4 { address: GATEWAY, len: 24 };
    let server = TcpServer::new(OURS, v4, None, 1500, now, 7);
    let mut stage = Stage { guest: Guest { interface, sockets, wire, handle }, server, now };
    let context = stage.guest.interface.context();
    stage.guest.sockets.get_mut::<Socket>(handle).connect(context, (GATEWAY, 53), 40_000).unwrap();
    stage
}

impl Stage {
    /// Some milliseconds of both sides; the queries that came.
    fn run(&mut self) -> Vec<(ConnectionId, Key, Vec<u8>)> {
        let mut queries = Vec::new();
        for _ in 0..20 {
            self.now += Duration::from_millis(1);
            let Guest { interface, sockets, wire, .. } = &mut self.guest;
            interface.poll(self.now, wire, sockets);
            for packet in std::mem::take(&mut wire.outwards) {
                let frame = [&OURS.0[..], &GUEST.0, &[8, 0], &packet].concat();
                self.server.take_frame(&frame, &"vm1".into());
            }
            let output = self.server.poll(self.now);
            queries.extend(output.queries);
            for frame in output.frames {
                assert_eq!((&frame[..6], &frame[6..12]), (&GUEST.0[..], &OURS.0[..]));
                wire.inwards.push_back(frame[14..].to_vec());
            }
        }
        queries
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.guest.sockets.get_mut(self.guest.handle)
    }

    fn received(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while self.socket().can_recv() {
            self.socket().recv(|bytes| (bytes.len(), all.extend_from_slice(bytes))).unwrap();
        }
        all
    }
}

#[test]
fn queries_come_one_by_one_and_replies_go_back_behind_their_length() {
    let mut stage = stage();
    stage.run();
    stage.socket().send_slice(b"\0\x03abc\0\x02d").unwrap();
    let queries = stage.run();
    assert_eq!(queries.len(), 1, "the second query is not whole yet");
    assert_eq!((&*queries[0].1, &queries[0].2[..]), ("vm1", &b"abc"[..]));
    stage.socket().send_slice(b"e").unwrap();
    let more = stage.run();
    assert_eq!(more[0].2, b"de");
    stage.server.reply(queries[0].0, Some(b"first"));
    stage.server.reply(more[0].0, Some(b"second"));
    stage.run();
    assert_eq!(stage.received(), b"\0\x05first\0\x06second");
}

#[test]
fn a_largest_reply_comes_whole() {
    let mut stage = stage();
    stage.run();
    stage.socket().send_slice(b"\0\x01q").unwrap();
    let queries = stage.run();
    stage.server.reply(queries[0].0, Some(&[7; 65_535]));
    let mut received = Vec::new();
    for _ in 0..60 {
        stage.run();
        received.extend(stage.received());
    }
    assert_eq!(received.len(), 65_537);
    assert!(received[..2] == [0xff, 0xff] && received[2..].iter().all(|&byte| byte == 7));
}

#[test]
fn a_guest_that_closes_still_gets_its_answer_and_the_socket_listens_again() {
    let mut stage = stage();
    stage.run();
    stage.socket().send_slice(b"\0\x01q").unwrap();
    let queries = stage.run();
    stage.socket().close();
    stage.run();
    stage.server.reply(queries[0].0, Some(b"late"));
    stage.run();
    assert_eq!(stage.received(), b"\0\x04late");
    stage.run();
    assert!(matches!(stage.socket().state(), State::TimeWait | State::Closed));
    let listening = |server: &TcpServer| {
        let all = server.connections.iter();
        all.filter(|it| server.sockets.get::<Socket>(it.handle).is_listening()).count()
    };
    assert_eq!(listening(&stage.server), CONNECTIONS);
    stage.server.reply(queries[0].0, Some(b"too late"));
    stage.run();
    assert!(stage.received().is_empty(), "an answer of an earlier use goes nowhere");
}

#[test]
fn a_guest_that_does_not_read_is_cut_off_at_its_bound() {
    let mut stage = stage();
    stage.run();
    stage.socket().send_slice(&b"\0\x01q".repeat(10)).unwrap();
    let queries = stage.run();
    assert_eq!(queries.len(), 10);
    for (connection, ..) in &queries {
        stage.server.reply(*connection, Some(&[1; 30_000]));
    }
    assert!(stage.server.refused > 0);
    stage.run();
    assert!(!stage.socket().may_send(), "the connection was reset");
}

/// A SYN of another guest at the same segment, whose port is `port`.
fn syn(server: &mut TcpServer, port: &str, source: [u8; 4], from: u16) {
    use switchd_wire::checksum::{Sum, pseudo_v4};
    let to = GATEWAY.octets();
    let mut tcp =
        [&from.to_be_bytes()[..], &53u16.to_be_bytes(), &[0; 8], &[0x50, SYN, 0x20, 0, 0, 0, 0, 0]].concat();
    let sum = pseudo_v4(source, to, PROTOCOL_TCP, 20).over(&tcp).checksum();
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut ip = [&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, PROTOCOL_TCP, 0, 0][..], &source, &to].concat();
    let sum = Sum::new().over(&ip).checksum();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    server.take_frame(&[&OURS.0[..], &[2, 0, 0, 0, 0, 0x66], &[8, 0], &ip, &tcp].concat(), &port.into());
}

#[test]
fn one_guest_cannot_take_all_connections_whatever_addresses_it_gives_itself() {
    let mut stage = stage();
    for number in 0..200u16 {
        syn(&mut stage.server, "greedy", [10, 7, 0, 100 + number as u8 % 100], 1000 + number);
        stage.server.poll(stage.now);
    }
    assert_eq!(stage.server.refused, 200 - CONNECTIONS as u64 / 2);
    stage.run();
    stage.socket().send_slice(b"\0\x01q").unwrap();
    assert_eq!(stage.run().len(), 1, "the other guest is served");
    // When those are given up there is room again.
    for _ in 0..20 {
        stage.now += Duration::from_secs(1);
        stage.server.poll(stage.now);
    }
    let before = stage.server.refused;
    syn(&mut stage.server, "greedy", [10, 7, 0, 100], 5000);
    assert_eq!(stage.server.refused, before);
}

#[test]
fn idle_is_dropped() {
    let mut stage = stage();
    stage.run();
    assert!(!stage.server.is_idle(stage.now));
    stage.now += Duration::from_secs(60);
    stage.server.poll(stage.now);
    stage.now += Duration::from_secs(60);
    stage.server.poll(stage.now);
    assert!(stage.server.is_idle(stage.now));
}
