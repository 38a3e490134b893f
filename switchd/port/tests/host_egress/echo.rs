//! Echo requests through an ICMP socket.

use super::segments::ipv4;
use super::world::*;
use std::time::Duration;
use switchd_port::host_egress::open_icmp;
use switchd_wire::VnetHeader;
use switchd_wire::checksum::{Sum, pseudo_v6};

fn request(id: u16, number: u16, payload: &[u8]) -> Vec<u8> {
    let mut message = [&[8, 0, 0, 0][..], &id.to_be_bytes(), &number.to_be_bytes(), payload].concat();
    let sum = Sum::new().over(&message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

fn ping(raw: bool) {
    let Some(mut world) = World::new(config()) else { return };
    if !raw {
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
    }
    world.engine.set_icmp(Some(open_icmp(false).unwrap()), Some(open_icmp(true).unwrap())).unwrap();
    for (id, number) in [(7, 1), (7, 2), (9, 1)] {
        assert!(world.send(&ipv4(HOST_V4, 1, &request(id, number, b"payload")), VnetHeader::default()));
        let packet = world.next().bytes[14..].to_vec();
        assert_eq!((packet[9], &packet[12..16], &packet[20..22]), (1, &[192, 0, 2, 1][..], &[0, 0][..]));
        assert_eq!(Sum::new().over(&packet[20..]).checksum(), 0);
        let want = [&id.to_be_bytes()[..], &number.to_be_bytes(), b"payload"].concat();
        assert_eq!(packet[24..], want);
    }
    assert_eq!(world.engine.counters().icmp_flows, 2);
    // One longer than the segment's MTU, in fragments both ways.
    let long = request(7, 3, &[4; 3000]);
    for (from, to) in [(0, 1480), (1480, 2960), (2960, long.len())] {
        let mut piece = ipv4(HOST_V4, 1, &long[from..to]);
        let field = (from / 8) as u16 | if to < long.len() { 0x2000 } else { 0 };
        piece[20..22].copy_from_slice(&field.to_be_bytes());
        piece[24..26].fill(0);
        let sum = Sum::new().over(&piece[14..34]).checksum();
        piece[24..26].copy_from_slice(&sum.to_be_bytes());
        assert!(world.send(&piece, VnetHeader::default()));
    }
    let whole: Vec<u8> = (0..3).flat_map(|_| world.next().bytes[34..].to_vec()).collect();
    assert_eq!((whole.len(), &whole[4..8], Sum::new().over(&whole).checksum()), (3008, &[0, 7, 0, 3][..], 0));
    ping6(&mut world);
}

fn ping6(world: &mut World) {
    let octets = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let mut message = [&[128, 0, 0, 0, 0, 7, 0, 9][..], b"payload"].concat();
    let sum =
        pseudo_v6(octets(GUEST_V6), octets(HOST_V6), 58, message.len() as u32).over(&message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let ip = [0x60, 0, 0, 0, 0, message.len() as u8, 58, 64];
    let frame = [&GATEWAY.0[..], &GUEST.0, &[0x86, 0xdd], &ip, &octets(GUEST_V6), &octets(HOST_V6), &message]
        .concat();
    assert!(world.send(&frame, VnetHeader::default()));
    let packet = world.next().bytes[14..].to_vec();
    let reply = &packet[40..];
    assert_eq!((reply[0], &reply[4..]), (129, &message[4..]));
    assert_eq!(
        pseudo_v6(octets(HOST_V6), octets(GUEST_V6), 58, reply.len() as u32).over(reply).checksum(),
        0
    );
}

#[test]
fn many_guests_pings_share_a_ping_socket() {
    ping(false);
}

#[test]
fn a_raw_socket_serves_where_nobody_may_ping() {
    ping(true);
}

#[test]
fn a_guest_that_floods_with_echo_requests_is_held_back_and_another_is_not() {
    let Some(mut world) = World::new(config()) else { return };
    world.engine.set_icmp(Some(open_icmp(false).unwrap()), None).unwrap();
    let begun = std::time::Instant::now();
    let mut send = |guest: u32, number: u16| {
        world.guest = Some(guest);
        world.send(&ipv4(HOST_V4, 1, &request(7, number, b"")), VnetHeader::default());
        world.engine.counters().dropped_echo_rate
    };
    let dropped = (0..3000).map(|number| send(1, number)).last().unwrap_or_default();
    // 500 at once and 5000 a second.
    let most = 502 + begun.elapsed().as_micros() as u64 / 200;
    assert!(3000 - dropped >= 500 && 3000 - dropped <= most, "{dropped} of 3000 dropped");
    assert_eq!(send(2, 1), dropped);
}

#[test]
fn without_a_socket_pings_are_prohibited_and_an_unreachable_host_is_told() {
    let Some(mut world) = World::new(config()) else { return };
    assert!(!world.send(&ipv4(HOST_V4, 1, &request(1, 1, b"")), VnetHeader::default()));
    assert_eq!(world.next().bytes[34..36], [3, 13]);
    world.engine.set_icmp(Some(open_icmp(false).unwrap()), None).unwrap();
    assert!(!world.send(&ipv4("203.0.113.1", 1, &request(1, 1, b"")), VnetHeader::default()));
    assert_eq!(world.next().bytes[34..36], [3, 0], "no route");
    // An answer to nobody's question, and one that nobody gives.
    world.send(&ipv4("224.0.0.1", 1, &request(1, 1, b"")), VnetHeader::default());
    world.expect_silence(Duration::from_millis(20));
}
