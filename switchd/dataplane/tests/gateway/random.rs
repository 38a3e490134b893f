//! Whatever comes from guests and from the wire: no panic, and every frame is accounted for (the world
//! checks the invariants after each step).

use super::packets::*;
use super::world::*;
use proptest::prelude::*;
use std::net::Ipv4Addr;
use switchd_wire::MacAddr;

#[derive(Clone, Debug)]
struct Draw {
    from_wire: bool,
    guest: u8,
    destination: u8,
    kind: u8,
    ttl: u8,
    size: usize,
    fragment: u16,
    port: u16,
    to_mac: u8,
    /// A byte that is changed afterwards.
    damage: Option<(usize, u8)>,
    wait: bool,
}

fn draws() -> impl Strategy<Value = Vec<Draw>> {
    let fragment = prop_oneof![Just(0), Just(DF), Just(MF), (0u16..60).prop_map(|offset| MF | offset)];
    let damage = proptest::option::weighted(0.3, (0usize..80, any::<u8>()));
    let draw = (
        (any::<bool>(), 1u8..3, 0u8..10, 0u8..7, prop_oneof![Just(64u8), Just(1), Just(0), Just(2)]),
        (0usize..1600, fragment, prop_oneof![Just(53u16), Just(67), Just(68), Just(80), 1024u16..1040]),
        (0u8..6, damage, proptest::bool::weighted(0.05)),
    );
    let draw =
        draw.prop_map(
            |((from_wire, guest, destination, kind, ttl), (size, fragment, port), (to_mac, damage, wait))| {
                Draw { from_wire, guest, destination, kind, ttl, size, fragment, port, to_mac, damage, wait }
            },
        );
    proptest::collection::vec(draw, 1..60)
}

fn build(draw: &Draw) -> Vec<u8> {
    let v4 = [
        REMOTE,
        SERVER,
        GATEWAY,
        OUTSIDE,
        guest(1),
        guest(2),
        guest(77),
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(224, 0, 0, 1),
        Ipv4Addr::new(192, 0, 2, 77),
    ];
    let mut ip = if draw.from_wire { from_wire(REMOTE) } else { from_guest(REMOTE) };
    if !draw.from_wire {
        (ip.from_mac, ip.source) = (guest_mac(draw.guest), guest(draw.guest).into());
    }
    (ip.ttl, ip.fragment) = (draw.ttl, draw.fragment);
    ip.destination = v4[usize::from(draw.destination)].into();
    ip.to_mac = match draw.to_mac {
        0..=2 => ip.to_mac,
        3 => MacAddr::BROADCAST,
        4 => guest_mac(1),
        _ => OUTSIDE_MAC,
    };
    let payload = vec![0x5a; draw.size];
    match draw.kind {
        0 => ip.udp(draw.port, draw.port, &payload),
        1 => ip.udp(4000, draw.port, &payload),
        2 => ip.tcp(4000, draw.port, 2, &payload),
        3 => ip.echo(&payload),
        4 => arp(draw.port & 1 == 0, ip.from_mac, v4[usize::from(draw.destination)], GATEWAY, ip.to_mac),
        5 => {
            let mut ip = from_guest6("2001:db8:9::1".parse().unwrap());
            if draw.from_wire {
                (ip.from_mac, ip.to_mac) = (ROUTER_MAC, OUTSIDE_MAC);
                (ip.source, ip.destination) = ("2001:db8:9::1".parse().unwrap(), OUTSIDE6.into());
            }
            ip.udp(4000, draw.port, &payload)
        }
        _ => solicit(ip.from_mac, guest6(draw.guest), GATEWAY6),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_frame_is_accounted_for(draws in draws(), host: bool, narrow: bool) {
        let mut lab = if host { Lab::host() } else { Lab::bare(|_| {}) };
        if narrow {
            lab.world.mtu(lab.segment, 1280);
        }
        for draw in &draws {
            let mut bytes = build(draw);
            if let Some((at, value)) = draw.damage {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            let port = match (draw.from_wire, host) {
                (true, false) => lab.uplink,
                (true, true) => lab.gateway_port(),
                _ => lab.guests[usize::from(draw.guest) - 1],
            };
            lab.world.send(port, &bytes);
            if draw.wait {
                lab.world.pass(2);
            }
        }
        lab.world.pass(10);
    }
}
