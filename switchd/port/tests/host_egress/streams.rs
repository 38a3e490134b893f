//! Connections of a guest with a TCP stack of its own.

use super::world::*;
use smoltcp::socket::tcp::State;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).take(len).collect()
}

fn listener(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(SocketAddr::new(ip(address), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Both ways at once, then both ends close.
fn exchange(mtu: u16, host: &str, len: usize, loss: u32) {
    let Some(mut guest) = Guest::new(switchd_port::host_egress::HostEgressConfig { mtu, ..config() }) else {
        return;
    };
    guest.loss = loss;
    let (listener, address) = listener(host);
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = stream.try_clone().unwrap();
        let writer = thread::spawn(move || {
            stream.write_all(&pattern(len)).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        writer.join().unwrap();
        all
    });
    let handle = guest.connect(address, 256 * 1024);
    let (data, mut sent, mut got) = (pattern(len), 0, Vec::new());
    guest.until("both directions end", |guest| {
        let socket = guest.tcp(handle);
        if socket.can_send() && sent < len {
            sent += socket.send_slice(&data[sent..]).unwrap();
        }
        if sent == len && socket.may_send() {
            socket.close();
        }
        if socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), got.extend_from_slice(bytes))).unwrap();
        }
        got.len() == len && !socket.may_recv() && !socket.may_send()
    });
    assert!(got == data, "what the guest got");
    guest.until("the connection is gone", |guest| guest.world.engine.counters().tcp_flows == 0);
    assert!(server.join().unwrap() == data, "what the host got");
    let counters = guest.world.engine.counters();
    assert_eq!((counters.bytes_out, counters.bytes_in), (len as u64, len as u64));
    assert_eq!((counters.reset_by_guest, counters.reset_by_remote), (0, 0));
    if loss > 0 {
        assert!(counters.retransmits > 0);
    }
}

#[test]
fn a_stream_both_ways_arrives_whole_and_ends_in_order() {
    exchange(1500, HOST_V4, 3_000_000, 0);
}

#[test]
fn a_stream_over_ipv6_arrives_whole() {
    exchange(1500, HOST_V6, 1_000_000, 0);
}

#[test]
fn a_stream_in_frames_of_64_kib_arrives_whole() {
    exchange(65_520, HOST_V4, 3_000_000, 0);
}

#[test]
fn a_stream_over_a_wire_that_loses_frames_arrives_whole() {
    exchange(1500, HOST_V4, 200_000, 10);
}

#[test]
fn frames_to_the_guest_are_superframes_of_its_segment_size() {
    let Some(mut guest) = Guest::new(config()) else { return };
    let (listener, address) = listener(HOST_V4);
    let server = thread::spawn(move || listener.accept().unwrap().0.write_all(&pattern(1_000_000)).unwrap());
    let handle = guest.connect(address, 512 * 1024);
    let (mut largest, mut got) = (0, 0);
    while got < 1_000_000 {
        guest.step();
        let socket = guest.tcp(handle);
        while socket.can_recv() {
            got += socket.recv(|bytes| (bytes.len(), bytes.len())).unwrap();
        }
        guest.world.receive(Duration::from_millis(1));
        for came in guest.world.came.clone() {
            largest = largest.max(came.bytes.len());
            assert!(came.bytes.len() <= 1514 || came.vnet.gso_size == 1460, "{:?}", came.vnet);
            assert!(came.vnet.needs_csum);
        }
    }
    server.join().unwrap();
    assert!(largest > 30_000, "the largest frame had {largest} bytes");
}

#[test]
fn a_refused_connection_is_reset_and_an_unreachable_one_is_told_so() {
    let Some(mut guest) = Guest::new(config()) else { return };
    let handle = guest.connect(SocketAddr::new(ip(HOST_V4), 9), 4096);
    guest.until("a reset", |guest| guest.tcp(handle).state() == State::Closed);
    assert_eq!(guest.world.engine.counters().connect_failed, 1);
    // No route: the kernel says so at once.
    guest.connect("203.0.113.1:80".parse().unwrap(), 4096);
    guest.until("an ICMP error", |guest| guest.world.engine.counters().icmp_errors == 1);
    assert_eq!(guest.world.engine.counters().tcp_flows, 0);
}

#[test]
fn the_guest_may_close_its_direction_and_still_receive() {
    let Some(mut guest) = Guest::new(config()) else { return };
    let (listener, address) = listener(HOST_V4);
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        // Only after the guest's end was seen.
        thread::sleep(Duration::from_millis(50));
        stream.write_all(&all).unwrap();
    });
    let handle = guest.connect(address, 65_536);
    let mut got = Vec::new();
    guest.until("the echo", |guest| {
        let socket = guest.tcp(handle);
        if socket.may_send() {
            socket.send_slice(b"half").unwrap();
            socket.close();
        }
        if socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), got.extend_from_slice(bytes))).unwrap();
        }
        got == b"half"
    });
    server.join().unwrap();
    guest.until("the end", |guest| guest.world.engine.counters().tcp_flows == 0);
}

#[test]
fn the_remote_end_may_close_its_direction_and_still_receive() {
    let Some(mut guest) = Guest::new(config()) else { return };
    let (listener, address) = listener(HOST_V4);
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    });
    let handle = guest.connect(address, 65_536);
    guest.until("the remote's end", |guest| guest.tcp(handle).state() == State::CloseWait);
    guest.tcp(handle).send_slice(&pattern(10_000)).unwrap();
    guest.tcp(handle).close();
    guest.until("the end", |guest| guest.world.engine.counters().tcp_flows == 0);
    assert_eq!(server.join().unwrap(), pattern(10_000));
    // The remote end closed first, so TIME-WAIT is on our side (RFC 9293 3.6).
    assert_eq!(guest.world.engine.counters().time_wait, 1);
}

#[test]
fn a_reset_of_either_side_reaches_the_other() {
    let Some(mut guest) = Guest::new(config()) else { return };
    let (listener, address) = listener(HOST_V4);
    let handle = guest.connect(address, 65_536);
    guest.until("a connection", |guest| guest.tcp(handle).may_send());
    let (mut stream, _) = listener.accept().unwrap();
    guest.tcp(handle).abort();
    guest.until("the guest's reset", |guest| guest.world.engine.counters().reset_by_guest == 1);
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let handle = guest.connect(address, 65_536);
    guest.until("a connection", |guest| guest.tcp(handle).may_send());
    let (stream, _) = listener.accept().unwrap();
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
    guest.until("the remote's reset", |guest| guest.tcp(handle).state() == State::Closed);
    assert_eq!(guest.world.engine.counters().reset_by_remote, 1);
}

#[test]
fn a_receiver_that_does_not_read_stops_the_sender_and_nothing_is_lost() {
    let Some(mut guest) = Guest::new(config()) else { return };
    let (listener, address) = listener(HOST_V4);
    let handle = guest.connect(address, 256 * 1024);
    guest.until("a connection", |guest| guest.tcp(handle).may_send());
    let (mut stream, _) = listener.accept().unwrap();
    // From the guest: until neither buffer takes any more.
    let data = pattern(64 << 20);
    let (mut sent, mut still) = (0, 0);
    while still < 300 {
        let socket = guest.tcp(handle);
        let taken = if socket.can_send() { socket.send_slice(&data[sent..]).unwrap() } else { 0 };
        sent += taken;
        still = if taken == 0 { still + 1 } else { 0 };
        guest.step();
    }
    assert!(sent < 32 << 20, "{sent} bytes went into a socket that nobody reads");
    let calls = guest.world.received;
    guest.world.expect_silence(Duration::from_millis(100));
    assert!(guest.world.received - calls < 20, "a blocked connection costs no turns");
    // It goes on where it stood.
    let reader = thread::spawn(move || {
        let mut all = vec![0; sent + 1000];
        stream.read_exact(&mut all).unwrap();
        all
    });
    let end = sent + 1000;
    guest.until("the rest", |guest| {
        let socket = guest.tcp(handle);
        if socket.can_send() && sent < end {
            sent += socket.send_slice(&data[sent..end]).unwrap();
        }
        reader.is_finished()
    });
    assert!(reader.join().unwrap() == data[..end]);
}

#[test]
fn a_guest_that_does_not_read_stops_the_remote_end_and_costs_no_turns() {
    let Some(mut guest) = Guest::new(config()) else { return };
    let (listener, address) = listener(HOST_V4);
    let handle = guest.connect(address, 32 * 1024);
    guest.until("a connection", |guest| guest.tcp(handle).may_send());
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let (data, mut sent, mut still) = (pattern(64 << 20), 0, 0);
    while still < 100 {
        match stream.write(&data[sent..]) {
            Ok(taken) => (sent, still) = (sent + taken, 0),
            Err(_) => still += 1,
        }
        guest.step();
    }
    assert!(sent < 32 << 20, "{sent} bytes are under way to a guest that does not read");
    let calls = guest.world.received;
    for _ in 0..50 {
        guest.step();
    }
    assert!(guest.world.received - calls < 25, "{} turns", guest.world.received - calls);
    let mut got = Vec::new();
    guest.until("all of it", |guest| {
        let socket = guest.tcp(handle);
        while socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), got.extend_from_slice(bytes))).unwrap();
        }
        got.len() == sent
    });
    assert!(got == data[..sent]);
}
