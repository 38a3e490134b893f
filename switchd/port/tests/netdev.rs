//! Veths as ports, through AF_PACKET.

mod common;

use common::*;
use std::net::UdpSocket;
use std::time::Duration;
use switchd_port::netdev::{self, Options};
use switchd_port::{Flushed, NetdevPort, Port, Sent};
use switchd_wire::{Frame, VnetHeader};

fn open_with(netns: &Netns, name: &str, options: &Options) -> NetdevPort {
    let index = netns.index(name);
    NetdevPort::from_fd(netns.run(|| netdev::open(index, options)).unwrap()).unwrap()
}

fn open(netns: &Netns, name: &str) -> NetdevPort {
    open_with(netns, name, &Options::default())
}

/// A port on each end of a veth.
fn pair(here: &Netns, there: &Netns) -> (NetdevPort, NetdevPort) {
    veth(here, "v0", there, "v1");
    (open(here, "v0"), open(there, "v1"))
}

fn frame(addresses_and_type: &[u8], len: usize) -> Frame {
    let mut bytes: Vec<u8> = [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1][..], addresses_and_type].concat();
    bytes.extend((bytes.len()..len).map(|at| at as u8));
    Frame::from_bytes(&bytes).unwrap()
}

fn send_all(port: &mut NetdevPort, frames: &mut [Frame]) -> Flushed {
    let (_, arena) = burst();
    for frame in frames {
        assert_eq!(port.send(frame, &arena), Sent::Queued);
    }
    port.flush(&arena)
}

#[test]
fn tags_of_both_kinds_are_put_back_where_they_were() {
    if !root() {
        return;
    }
    let (here, there) = (Netns::new(), Netns::new());
    let (mut near, mut far) = pair(&here, &there);
    let heads: [&[u8]; 5] = [
        &[0x88, 0xb5],
        &[0x81, 0, 0x60, 10, 0x88, 0xb5],
        &[0x81, 0, 0, 0, 0x88, 0xb5],
        &[0x88, 0xa8, 0, 20, 0x88, 0xb5],
        &[0x88, 0xa8, 0, 20, 0x81, 0, 0x2f, 0xff, 0x88, 0xb5],
    ];
    let mut sent: Vec<Frame> = heads.iter().map(|head| frame(head, 100)).collect();
    assert_eq!(send_all(&mut far, &mut sent).accepted, 5);
    let (mut frames, mut arena) = burst();
    let received = receive(&mut near, &mut frames, &mut arena);
    assert_eq!((received.frames, received.unreadable), (5, 0));
    for (seen, sent) in frames.iter().zip(&sent) {
        assert_eq!(bytes(seen, &arena), sent.head());
    }
    assert_eq!(frames[1].outer_tag(), Some(0x600a));
    assert_eq!(frames[3].outer_tag(), None);
}

#[test]
fn the_checksum_offset_moves_with_the_tag() {
    if !root() {
        return;
    }
    let (here, there) = (Netns::new(), Netns::new());
    let (mut near, mut far) = pair(&here, &there);
    let mut tagged = frame(&[0x81, 0, 0, 10, 0x08, 0], 120);
    tagged.vnet = VnetHeader { needs_csum: true, csum_start: 38, csum_offset: 6, ..VnetHeader::default() };
    assert_eq!(send_all(&mut far, &mut [tagged]).accepted, 1);
    let (mut frames, mut arena) = burst();
    receive(&mut near, &mut frames, &mut arena);
    assert!(frames[0].vnet.needs_csum);
    assert_eq!((frames[0].vnet.csum_start, frames[0].vnet.csum_offset), (38, 6));
    assert_eq!(frames[0].outer_tag(), Some(10));
}

#[test]
fn sockets_frames_arrive_whole_and_what_we_send_is_not_seen_again() {
    if !root() {
        return;
    }
    let (here, there) = (Netns::new(), Netns::new());
    veth(&here, "v0", &there, "v1");
    let mut near = open(&here, "v0");
    there.address("v1", "10.9.0.1", Some(("10.9.0.2", mac(2))));
    let socket = there.run(|| UdpSocket::bind("10.9.0.1:0").unwrap());
    let data: Vec<u8> = (0..1000).map(|at| at as u8).collect();
    socket.send_to(&data, "10.9.0.2:9").unwrap();
    let (mut frames, mut arena) = burst();
    let received = receive(&mut near, &mut frames, &mut arena);
    assert_eq!(received.frames, 1);
    assert_eq!(bytes(&frames[0], &arena)[42..], data);
    assert!(frames[0].vnet.needs_csum);
    assert_eq!(frames[0].vnet.csum_start, 34);
    send_all(&mut near, &mut [frame(&[0x88, 0xb5], 60)]);
    expect_silence(&mut near, Duration::from_millis(100));
}

#[test]
fn more_than_a_call_takes_arrives_in_order() {
    if !root() {
        return;
    }
    let (here, there) = (Netns::new(), Netns::new());
    let (mut near, mut far) = pair(&here, &there);
    let mut sent: Vec<Frame> = (0..150u8).map(|number| frame(&[0x88, 0xb5, number], 60)).collect();
    // The queue holds 64: the port sends by itself when it is full, and the flush counts it all.
    assert_eq!(
        send_all(&mut far, &mut sent),
        Flushed { accepted: 150, bytes: 150 * 60, ..Flushed::default() }
    );
    let (mut frames, mut arena) = burst();
    let mut seen = Vec::new();
    let mut more = Vec::new();
    while seen.len() < 150 {
        let received = receive(&mut near, &mut frames, &mut arena);
        seen.extend(frames[..received.frames].iter().map(|frame| frame.head()[14]));
        more.push(received.more);
    }
    assert_eq!(seen, (0..150).collect::<Vec<u8>>());
    assert_eq!(more, [true, true, false]);
}

#[test]
fn what_the_kernel_refuses_does_not_hold_up_the_rest() {
    if !root() {
        return;
    }
    let (here, there) = (Netns::new(), Netns::new());
    let (mut near, mut far) = pair(&here, &there);
    let (_, mut arena) = burst();
    arena.begin();
    let mut frames: Vec<Frame> = (0..4u8).map(|number| frame(&[0x88, 0xb5, number], 60)).collect();
    // Longer than the MTU, and a checksum beyond the frame's end.
    frames[1].tail = arena.token(0, 1600);
    frames[2].vnet =
        VnetHeader { needs_csum: true, csum_start: 3000, csum_offset: 6, ..VnetHeader::default() };
    for frame in &mut frames {
        assert_eq!(far.send(frame, &arena), Sent::Queued);
    }
    assert_eq!(
        far.flush(&arena),
        Flushed { accepted: 2, bytes: 120, refused: 1, too_long: 1, ..Flushed::default() }
    );
    assert_eq!(far.flush(&arena), Flushed::default());
    let (mut frames, mut arena) = burst();
    assert_eq!(receive(&mut near, &mut frames, &mut arena).frames, 2);
    assert_eq!((frames[0].head()[14], frames[1].head()[14]), (0, 3));
}

#[test]
fn a_tail_of_an_earlier_burst_is_never_sent() {
    if !root() {
        return;
    }
    let (here, there) = (Netns::new(), Netns::new());
    let (mut near, mut far) = pair(&here, &there);
    let (_, mut arena) = burst();
    arena.begin();
    let mut late = frame(&[0x88, 0xb5], 60);
    late.tail = arena.token(0, 100);
    assert_eq!(far.send(&mut late, &arena), Sent::Queued);
    arena.begin();
    assert_eq!(far.flush(&arena), Flushed { refused: 1, ..Flushed::default() });
    assert_eq!(far.send(&mut late, &arena), Sent::Refused);
    expect_silence(&mut near, Duration::from_millis(50));
}

#[test]
fn a_down_interface_refuses_and_comes_back_and_a_deleted_one_is_dead() {
    if !root() {
        return;
    }
    let (here, there) = (Netns::new(), Netns::new());
    let (mut near, mut far) = pair(&here, &there);
    here.link("v0", |netlink, index| netlink.set_up(index, false));
    let (mut frames, mut arena) = burst();
    let received = near.receive(&mut frames, &mut arena);
    assert!(received.dead.is_none() && received.frames == 0, "{received:?}");
    assert_eq!(send_all(&mut near, &mut [frame(&[0x88, 0xb5], 60)]).refused, 1);
    here.link("v0", |netlink, index| netlink.set_up(index, true));
    assert_eq!(send_all(&mut far, &mut [frame(&[0x88, 0xb5], 60)]).accepted, 1);
    assert_eq!(receive(&mut near, &mut frames, &mut arena).frames, 1);

    here.link("v0", |netlink, index| netlink.delete(index));
    assert!(receive(&mut near, &mut frames, &mut arena).dead.is_some());
    assert_eq!(send_all(&mut near, &mut [frame(&[0x88, 0xb5], 60)]).refused, 1);
    assert!(near.receive(&mut frames, &mut arena).dead.is_some(), "noticed while sending");
}

#[test]
fn the_kernels_drops_are_counted_once() {
    if !root() {
        return;
    }
    let (here, there) = (Netns::new(), Netns::new());
    veth(&here, "v0", &there, "v1");
    let mut near = open_with(&here, "v0", &Options { buffer: 4096, ..Options::default() });
    let mut far = open(&there, "v1");
    for _ in 0..10 {
        let mut sent: Vec<Frame> = (0..60).map(|_| frame(&[0x88, 0xb5], 200)).collect();
        assert_eq!(send_all(&mut far, &mut sent).accepted, 60);
    }
    let (mut frames, mut arena) = burst();
    let mut read = 0;
    loop {
        let received = near.receive(&mut frames, &mut arena);
        read += received.frames as u64;
        if received.frames == 0 {
            break;
        }
    }
    assert!(read > 0 && read < 600, "{read}");
    assert_eq!(near.kernel_drops(), 600 - read);
    assert_eq!(near.kernel_drops(), 600 - read);
}

#[test]
fn tcp_passes_between_two_veths_in_superframes() {
    if !root() {
        return;
    }
    let (host, one, two) = (Netns::new(), Netns::new(), Netns::new());
    veth(&host, "p1", &one, "t0");
    veth(&host, "p2", &two, "t0");
    one.link("t0", |netlink, index| netlink.set_mac(index, mac(1)));
    two.link("t0", |netlink, index| netlink.set_mac(index, mac(2)));
    one.address("t0", "10.9.0.1", Some(("10.9.0.2", mac(2))));
    two.address("t0", "10.9.0.2", Some(("10.9.0.1", mac(1))));
    let wire = Wire::join(open(&host, "p1"), open(&host, "p2"));
    tcp_transfer(&one, &two, "10.9.0.2:5001", 8 << 20);
    let seen = wire.stop();
    assert!(seen.superframes > 0 && seen.longest > 16_000, "{seen:?}");
}

#[test]
fn a_missing_interface_is_an_error() {
    if !root() {
        return;
    }
    let here = Netns::new();
    let error = here.run(|| netdev::open(4242, &Options::default())).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
}
