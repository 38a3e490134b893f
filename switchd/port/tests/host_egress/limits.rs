//! Bounds: of flows, guests and descriptors.

use super::segments::{Hand, read, segment};
use super::udp::datagram;
use super::world::*;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;
use switchd_port::host_egress::tcp::{ACK, RST, SYN, Segment};
use switchd_port::host_egress::{HostEgressConfig, HostEgressNotice, Limits};
use switchd_wire::VnetHeader;

#[test]
fn one_guest_at_its_quota_is_refused_and_others_are_not() {
    let limits = Limits { quota: 3, flows: 5, ..Limits::default() };
    let Some(mut world) = World::new(HostEgressConfig { limits, ..config() }) else { return };
    let to: SocketAddr = "192.0.2.1:99".parse().unwrap();
    for port in 1..=3 {
        assert!(world.send(&datagram(port, to, b"x"), VnetHeader::default()));
    }
    assert!(!world.send(&datagram(4, to, b"x"), VnetHeader::default()));
    let syn = Segment { seq: 1, flags: SYN, window: 1000, ..Segment::default() };
    assert!(!world.send(&segment(to, 5, syn, &[]), VnetHeader::default()));
    // A second guest fills the table.
    for port in 1..=3 {
        let mut bytes = datagram(100 + port, to, b"x");
        bytes[11] = 0x77;
        assert_eq!(world.send(&bytes, VnetHeader::default()), port < 3);
    }
    let counters = world.engine.counters();
    assert_eq!((counters.refused_quota, counters.refused_full, counters.udp_flows), (2, 1, 5));
    assert_eq!(
        world.engine.take_notices(),
        [HostEgressNotice::Quota { guest: GUEST, flows: 3 }, HostEgressNotice::Full { flows: 5 }]
    );
    let mut seen = [0; 2];
    while let Some(came) = world.next_within(Duration::from_millis(20)) {
        match came.bytes[23] {
            1 if came.bytes[34..36] == [3, 13] => seen[0] += 1,
            6 => {
                let (reset, _) = read(&came);
                assert_eq!((reset.flags, reset.ack), (RST | ACK, 2));
                seen[1] += 1;
            }
            _ => {}
        }
    }
    assert_eq!(seen, [2, 1], "ICMP for datagrams, RST for connections");
}

#[test]
fn a_guest_that_gives_itself_many_addresses_is_one_guest() {
    let limits = Limits { quota: 40, flows: 80, ..Limits::default() };
    let Some(mut world) = World::new(HostEgressConfig { limits, ..config() }) else { return };
    let to: SocketAddr = "192.0.2.1:99".parse().unwrap();
    let mut send = |guest: u32, number: u16| {
        let mut bytes = datagram(1000 + number, to, b"x");
        bytes[10..12].copy_from_slice(&number.to_be_bytes());
        world.guest = Some(guest);
        world.send(&bytes, VnetHeader::default())
    };
    assert_eq!((0..300).filter(|&number| send(1, number)).count(), 40);
    assert_eq!((300..320).filter(|&number| send(2, number)).count(), 20, "its neighbour has its own");
    let counters = world.engine.counters();
    assert_eq!((counters.refused_quota, counters.icmp_errors + counters.icmp_limited), (260, 260));
}

#[test]
fn errors_to_one_guest_are_limited_and_anothers_are_told_rfc1812_4_3_2_8() {
    let Some(mut world) = World::new(config()) else { return };
    let (to, mut last): (SocketAddr, _) = ("192.0.2.1:99".parse().unwrap(), Duration::ZERO);
    let begun = std::time::Instant::now();
    // With a time to live of one, which the IPv4 header's checksum knows.
    let mut probe = datagram(1, to, b"x");
    probe[22] = 1;
    probe[24..26].fill(0);
    let sum = switchd_wire::checksum::Sum::new().over(&probe[14..34]).checksum();
    probe[24..26].copy_from_slice(&sum.to_be_bytes());
    for _ in 0..500 {
        assert!(!world.send(&probe, VnetHeader::default()));
        last = begun.elapsed();
    }
    let counters = world.engine.counters();
    // 100 at once, and 1000 a second.
    let most = 101 + last.as_millis() as u64;
    assert!((100..=most).contains(&counters.icmp_errors), "{counters:?} in {last:?}");
    assert_eq!((counters.ttl_exceeded, counters.icmp_errors + counters.icmp_limited), (500, 500));
    probe[11] = 0x77;
    assert!(!world.send(&probe, VnetHeader::default()));
    assert_eq!(world.engine.counters().icmp_errors, counters.icmp_errors + 1);
}

#[test]
fn ten_thousand_connections_live_and_the_next_is_refused() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const FLOWS: u32 = 10_000;
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    // Both ends of every connection are in this process: bare listeners keep the far ends in the kernel's
    // queues, so only the near ones take descriptors.
    let Some(mut world) = World::new(config()) else { return };
    std::fs::write("/proc/sys/net/core/somaxconn", "4096").unwrap();
    std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "0").unwrap();
    std::fs::write("/proc/sys/net/ipv4/tcp_max_syn_backlog", "8192").unwrap();
    let listeners: Vec<TcpListener> = (0..5)
        .map(|_| {
            let listener = TcpListener::bind((HOST_V4, 0)).unwrap();
            rustix::net::listen(&listener, 4096).unwrap();
            listener
        })
        .collect();
    let to: Vec<SocketAddr> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    let allowed = maximum.is_none_or(|maximum| maximum >= u64::from(FLOWS) + 400);
    let mut made = 0;
    for flow in 0..FLOWS {
        let (to, port) = (to[flow as usize % 5], 1000 + (flow / 5) as u16);
        let syn = Segment { seq: 1, flags: SYN, window: 1000, ..Segment::default() };
        if !world.send(&segment(to, port, syn, &[]), VnetHeader::default()) {
            break;
        }
        let (header, _) = read(&world.next());
        assert_eq!(header.flags, SYN | ACK, "connection {flow}");
        let ack = Segment { seq: 2, ack: header.seq.wrapping_add(1), flags: ACK, window: 1000, ..syn };
        world.send(&segment(to, port, ack, &[]), VnetHeader::default());
        made += 1;
    }
    let counters = world.engine.counters();
    assert_eq!(counters.tcp_flows, u64::from(made));
    if allowed {
        assert_eq!(made, FLOWS);
    }
    let syn = Segment { seq: 1, flags: SYN, window: 1000, ..Segment::default() };
    assert!(!world.send(&segment(to[0], 65_000, syn, &[]), VnetHeader::default()));
    assert_eq!(read(&world.next()).0.flags, RST | ACK);
    let counters = world.engine.counters();
    assert_eq!(counters.refused_full + counters.refused_quota + counters.refused_descriptors, 1);
    // The others live: data of the first one goes through, and an idle engine stays idle.
    let (mut stream, from) = listeners[0].accept().unwrap();
    use std::io::Write;
    stream.write_all(b"still here").unwrap();
    let (_, payload) = read(&world.next());
    assert_eq!(payload, b"still here", "{from}");
    assert_eq!(world.engine.flows(usize::MAX).len(), made as usize);
}

#[test]
fn a_changed_subnet_ends_the_flows_of_its_former_guests() {
    let Some(world) = World::new(config()) else { return };
    let (mut hand, _stream) = Hand::connect(world, 8000);
    let mut other = config();
    other.v4.gateway = "10.9.0.1".parse().unwrap();
    hand.world.engine.configure(other).unwrap();
    assert_eq!(hand.world.engine.counters().tcp_flows, 0);
    let mut bad = config();
    bad.mtu = 1000;
    let error = hand.world.engine.configure(bad).unwrap_err();
    assert!(error.to_string().contains("MTU 1000"), "{error}");
}
