//! Taps in namespaces: made, moved, taken again, deleted; frames in and out.

mod common;

use common::*;
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use switchd_port::netlink::{Change, Netlink};
use switchd_port::tap::{Tap, TapError, TapFactory, TapSpec};
use switchd_port::{Flushed, Port, Sent, TapPort, sys};
use switchd_wire::Frame;
use switchd_wire::vnet::Gso;

fn spec<'a>(name: &'a str, netns: &'a Netns) -> TapSpec<'a> {
    TapSpec { name, netns: Some(netns.fd()), mac: mac(1), mtu: 1500 }
}

/// Opens as the broker does: from a namespace that plays the host.
fn open(host: &Netns, spec: &TapSpec<'_>) -> Result<Tap, TapError> {
    host.run(|| TapFactory::new().unwrap().open(spec))
}

fn delete(host: &Netns, name: &str, netns: &Netns) -> Result<bool, TapError> {
    host.run(|| TapFactory::new().unwrap().delete(name, Some(netns.fd())))
}

/// A tap port `t0` in `guest` with an address, and the peer 10.9.0.2 (MAC …02) behind it.
fn port(host: &Netns, guest: &Netns) -> TapPort {
    let tap = open(host, &spec("t0", guest)).unwrap();
    guest.address("t0", "10.9.0.1", Some(("10.9.0.2", mac(2))));
    TapPort::from_fd(tap.fd).unwrap()
}

fn names(netns: &Netns) -> Vec<String> {
    Netlink::in_netns(netns.fd(), |netlink| netlink.links())
        .unwrap()
        .into_iter()
        .map(|link| link.name)
        .collect()
}

#[test]
fn a_new_tap_stands_in_its_namespace_and_nowhere_else() {
    if !root() {
        return;
    }
    let (host, guest) = (Netns::new(), Netns::new());
    let tap = open(&host, &TapSpec { mtu: 9000, ..spec("vm1.0", &guest) }).unwrap();
    assert!(!tap.reattached);
    let link = Netlink::in_netns(guest.fd(), |netlink| netlink.link("vm1.0")).unwrap().unwrap();
    assert_eq!(
        (link.mac, link.mtu, link.up, link.carrier, link.is_tap()),
        (Some(mac(1)), 9000, true, true, true)
    );
    assert_eq!(names(&host), ["lo"]);
}

#[test]
fn the_same_name_can_stand_in_two_namespaces_and_on_the_host() {
    if !root() {
        return;
    }
    let (host, one, two) = (Netns::new(), Netns::new(), Netns::new());
    let taps = [
        open(&host, &spec("t0", &one)).unwrap(),
        open(&host, &spec("t0", &two)).unwrap(),
        open(&host, &TapSpec { netns: None, ..spec("t0", &one) }).unwrap(),
    ];
    assert!(taps.iter().all(|tap| !tap.reattached));
    assert_eq!(names(&host), ["lo", "t0"]);
    assert!(host.run(|| TapFactory::new().unwrap().delete("t0", None)).unwrap());
}

#[test]
fn a_failed_creation_leaves_nothing_behind() {
    if !root() {
        return;
    }
    let (host, guest) = (Netns::new(), Netns::new());
    let error = open(&host, &TapSpec { mtu: 1_000_000, ..spec("t0", &guest) }).unwrap_err();
    assert_eq!(error.errno(), Some(libc::EINVAL), "{error}");
    assert_eq!((names(&host), names(&guest)), (vec!["lo".to_owned()], vec!["lo".to_owned()]));
    assert!(open(&host, &spec("name-longer-than-15", &guest)).is_err());
}

#[test]
fn a_persistent_tap_is_taken_again_with_its_addresses() {
    if !root() {
        return;
    }
    let (host, guest) = (Netns::new(), Netns::new());
    drop(port(&host, &guest));
    // Nobody holds it: no carrier. (Another test's child process may still hold a copy until its exec.)
    let carrier = || Netlink::in_netns(guest.fd(), |netlink| netlink.link("t0")).unwrap().unwrap().carrier;
    let end = Instant::now() + Duration::from_secs(2);
    while carrier() {
        assert!(Instant::now() < end, "a tap that nobody holds has a carrier");
        std::thread::sleep(Duration::from_millis(5));
    }
    let again = open(&host, &TapSpec { mtu: 1400, ..spec("t0", &guest) }).unwrap();
    assert!(again.reattached);
    let link = Netlink::in_netns(guest.fd(), |netlink| netlink.link("t0")).unwrap().unwrap();
    assert_eq!((link.carrier, link.mtu), (true, 1400));
    let mut port = TapPort::from_fd(again.fd).unwrap();
    let socket = guest.run(|| UdpSocket::bind("10.9.0.1:0").unwrap());
    socket.send_to(b"still here", "10.9.0.2:9").unwrap();
    let (mut frames, mut arena) = burst();
    assert_eq!(receive(&mut port, &mut frames, &mut arena).frames, 1);
}

#[test]
fn a_tap_that_someone_holds_is_busy() {
    if !root() {
        return;
    }
    let (host, guest) = (Netns::new(), Netns::new());
    let _held = open(&host, &spec("t0", &guest)).unwrap();
    let error = open(&host, &spec("t0", &guest)).unwrap_err();
    assert!(matches!(error, TapError::Busy { .. }), "{error}");
}

#[test]
fn a_tap_of_somebody_else_is_left_as_it_is() {
    if !root() {
        return;
    }
    let (host, guest) = (Netns::new(), Netns::new());
    let link = || Netlink::in_netns(guest.fd(), |netlink| netlink.link("t0")).unwrap().unwrap();
    // Persistent and held by nobody, as `ip tuntap add` leaves it.
    guest.run(|| {
        let fd = sys::tun::open_control().unwrap();
        sys::tun::attach(&fd, "t0").unwrap();
        sys::tun::set_persistent(&fd, true).unwrap();
    });
    let before = link();
    let error = open(&host, &spec("t0", &guest)).unwrap_err();
    assert!(matches!(error, TapError::Foreign { .. }), "{error}");
    assert_eq!((link().mac, link().mtu, link().alias), (before.mac, before.mtu, None));
    assert!(delete(&host, "t0", &guest).unwrap());
}

#[test]
fn a_tap_of_ours_is_known_by_its_mark_or_its_address() {
    if !root() {
        return;
    }
    let (host, guest) = (Netns::new(), Netns::new());
    let index = |name| Netlink::in_netns(guest.fd(), |netlink| netlink.link(name)).unwrap().unwrap().index;
    let change = |alias, address| {
        let change = Change { mac: Some(address), alias: Some(alias), ..Change::default() };
        Netlink::in_netns(guest.fd(), |netlink| netlink.change(index("t0"), &change)).unwrap();
    };
    drop(port(&host, &guest));
    for (alias, address) in [("switchd", mac(9)), ("of the customer", mac(1))] {
        change(alias, address);
        assert!(open(&host, &spec("t0", &guest)).unwrap().reattached, "{alias}");
    }
    change("of the customer", mac(9));
    let error = open(&host, &spec("t0", &guest)).unwrap_err();
    assert!(matches!(error, TapError::Foreign { .. }), "{error}");
}

#[test]
fn an_interface_of_another_kind_is_neither_taken_nor_deleted() {
    if !root() {
        return;
    }
    let (host, guest) = (Netns::new(), Netns::new());
    veth(&host, "v0", &guest, "t0");
    let error = open(&host, &spec("t0", &guest)).unwrap_err();
    assert!(matches!(&error, TapError::NotATap { kind, .. } if kind == "veth"), "{error}");
    assert!(matches!(delete(&host, "t0", &guest), Err(TapError::NotATap { .. })));
    assert_eq!(names(&guest), ["lo", "t0"]);
}

#[test]
fn a_deleted_tap_is_dead_and_deleting_twice_is_no_error() {
    if !root() {
        return;
    }
    let (host, guest) = (Netns::new(), Netns::new());
    let mut port = port(&host, &guest);
    assert!(delete(&host, "t0", &guest).unwrap());
    assert!(!delete(&host, "t0", &guest).unwrap());
    let (mut frames, mut arena) = burst();
    wait(&port, Duration::from_secs(2));
    assert!(receive(&mut port, &mut frames, &mut arena).dead.is_some());
    let mut frame = Frame::from_bytes(&[0xff; 60]).unwrap();
    assert_eq!(send(&mut port, &mut frame, &arena), Sent::Refused);
    assert!(port.receive(&mut frames, &mut arena).dead.is_some(), "noticed while sending");
}

#[test]
fn a_tap_ends_with_its_namespace_when_it_was_made_outside() {
    if !root() {
        return;
    }
    let (host, guest) = (Netns::new(), Netns::new());
    let mut port = port(&host, &guest);
    guest.delete();
    let (mut frames, mut arena) = burst();
    let error = receive(&mut port, &mut frames, &mut arena).dead.expect("the namespace is gone");
    assert_eq!(error.raw_os_error(), Some(libc::EBADFD));
}

#[test]
fn frames_pass_both_ways_with_their_checksums_unfinished() {
    if !root() {
        return;
    }
    let (host, guest) = (Netns::new(), Netns::new());
    let mut port = port(&host, &guest);
    assert!(port.offloads().csum && port.offloads().tso4 && port.offloads().tso6);
    let socket = guest.run(|| UdpSocket::bind("10.9.0.1:700").unwrap());
    // 300 bytes: head and tail.
    let question: Vec<u8> = (0..300).map(|at| at as u8).collect();
    socket.send_to(&question, "10.9.0.2:900").unwrap();
    let (mut frames, mut arena) = burst();
    let received = receive(&mut port, &mut frames, &mut arena);
    assert_eq!((received.frames, received.unreadable, received.more), (1, 0, false));
    let frame = &mut frames[0];
    assert_eq!((frame.source(), frame.destination(), frame.len()), (mac(1), mac(2), 14 + 20 + 8 + 300));
    assert!(frame.vnet.needs_csum);
    assert_eq!((frame.vnet.csum_start, frame.vnet.csum_offset, frame.vnet.gso), (34, 6, Gso::None));
    assert_eq!(bytes(frame, &arena)[42..], question);

    // The answer: both addresses and both ports swapped, which leaves the sums as they are.
    let head = frame.head_mut();
    let (to, from) = head[..12].split_at_mut(6);
    to.swap_with_slice(from);
    let (from, to) = head[26..34].split_at_mut(4);
    from.swap_with_slice(to);
    let (from, to) = head[34..38].split_at_mut(2);
    from.swap_with_slice(to);
    assert_eq!(send(&mut port, &mut frames[0], &arena), Sent::Accepted);
    let mut answer = [0; 400];
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let (len, from) = socket.recv_from(&mut answer).unwrap();
    assert_eq!((&answer[..len], from.to_string().as_str()), (&question[..], "10.9.0.2:900"));
}

#[test]
fn a_burst_stops_at_its_frames_and_says_that_there_is_more() {
    if !root() {
        return;
    }
    let (host, guest) = (Netns::new(), Netns::new());
    let mut port = port(&host, &guest);
    let socket = guest.run(|| UdpSocket::bind("10.9.0.1:0").unwrap());
    for number in 0..5u8 {
        socket.send_to(&[number], "10.9.0.2:9").unwrap();
    }
    let (mut frames, mut arena) = burst();
    let mut seen = Vec::new();
    for expected in [(2, true), (2, true), (1, false)] {
        arena.begin();
        let received = port.receive(&mut frames[..2], &mut arena);
        assert_eq!((received.frames, received.more), expected);
        seen.extend(frames[..received.frames].iter().map(|frame| bytes(frame, &arena)[42]));
    }
    assert_eq!(seen, [0, 1, 2, 3, 4]);
}

#[test]
fn a_tap_that_is_down_refuses_and_comes_back() {
    if !root() {
        return;
    }
    let (host, guest) = (Netns::new(), Netns::new());
    let mut port = port(&host, &guest);
    guest.link("t0", |netlink, index| netlink.set_up(index, false));
    let (mut frames, mut arena) = burst();
    let mut frame = Frame::from_bytes(&[0xff; 60]).unwrap();
    assert_eq!(send(&mut port, &mut frame, &arena), Sent::Refused);
    let received = port.receive(&mut frames, &mut arena);
    assert!(received.dead.is_none() && received.frames == 0, "{received:?}");
    guest.link("t0", |netlink, index| netlink.set_up(index, true));
    assert_eq!(send(&mut port, &mut frame, &arena), Sent::Accepted);
}

#[test]
fn a_burst_ends_after_enough_bytes() {
    if !root() {
        return;
    }
    let (host, guest) = (Netns::new(), Netns::new());
    let tap = open(&host, &TapSpec { mtu: 65000, ..spec("t0", &guest) }).unwrap();
    guest.address("t0", "10.9.0.1", Some(("10.9.0.2", mac(2))));
    let mut port = TapPort::from_fd(tap.fd).unwrap();
    let socket = guest.run(|| UdpSocket::bind("10.9.0.1:0").unwrap());
    for number in 0..10 {
        socket.send_to(&vec![number; 60_000], "10.9.0.2:9").unwrap();
    }
    let (mut frames, mut arena) = burst();
    let mut seen = Vec::new();
    for (expected, more) in [(5, true), (5, true), (0, false)] {
        arena.begin();
        let received = port.receive(&mut frames, &mut arena);
        assert_eq!((received.frames, received.more), (expected, more));
        for frame in &frames[..received.frames] {
            let bytes = bytes(frame, &arena);
            assert!(bytes[42..].iter().all(|&byte| byte == bytes[42]));
            seen.push((bytes.len(), bytes[42]));
        }
    }
    assert_eq!(seen, (0..10).map(|number| (60_042, number)).collect::<Vec<_>>());
}

#[test]
fn more_than_a_queue_holds_is_sent_and_counted_once() {
    if !root() {
        return;
    }
    let (host, guest) = (Netns::new(), Netns::new());
    let mut port = port(&host, &guest);
    let before =
        Netlink::in_netns(guest.fd(), |netlink| netlink.counters("t0")).unwrap().unwrap()["rx_packets"];
    let (_, arena) = burst();
    let mut frame = Frame::from_bytes(&[0xff; 60]).unwrap();
    for _ in 0..150 {
        assert_eq!(port.send(&mut frame, &arena), Sent::Queued);
    }
    let flushed = port.flush(&arena);
    assert_eq!(flushed, Flushed { accepted: 150, bytes: 150 * 60, ..Flushed::default() });
    assert_eq!(port.flush(&arena), Flushed::default());
    let after =
        Netlink::in_netns(guest.fd(), |netlink| netlink.counters("t0")).unwrap().unwrap()["rx_packets"];
    assert_eq!(after - before, 150);
}

#[test]
fn a_stale_tail_is_refused() {
    if !root() {
        return;
    }
    let (host, guest) = (Netns::new(), Netns::new());
    let mut port = port(&host, &guest);
    let (_, mut arena) = burst();
    arena.begin();
    let mut frame = Frame::from_bytes(&[0xff; 60]).unwrap();
    frame.tail = arena.token(0, 100);
    assert_eq!(send(&mut port, &mut frame, &arena), Sent::Accepted);
    arena.begin();
    assert_eq!(send(&mut port, &mut frame, &arena), Sent::Refused);
}

#[test]
fn tcp_passes_between_two_taps_in_superframes() {
    if !root() {
        return;
    }
    let (host, one, two) = (Netns::new(), Netns::new(), Netns::new());
    let a = open(&host, &TapSpec { mac: mac(1), ..spec("t0", &one) }).unwrap();
    let b = open(&host, &TapSpec { mac: mac(2), ..spec("t0", &two) }).unwrap();
    one.address("t0", "10.9.0.1", Some(("10.9.0.2", mac(2))));
    two.address("t0", "10.9.0.2", Some(("10.9.0.1", mac(1))));
    let wire = Wire::join(TapPort::from_fd(a.fd).unwrap(), TapPort::from_fd(b.fd).unwrap());
    tcp_transfer(&one, &two, "10.9.0.2:5001", 8 << 20);
    let seen = wire.stop();
    assert!(seen.superframes > 0 && seen.longest > 16_000, "{seen:?}");
    assert_eq!(seen.lost, 0);
}
