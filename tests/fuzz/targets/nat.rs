//! Translation under any frames from both sides: packets of flows with bytes changed at will, answers, ICMP
//! errors about what left, fragments in any order, and raw bytes; with forwards, a floating address, IPv4
//! and IPv6, and a clock.
//!
//! The input is a list of steps: what to do, a length, and as many bytes. Held at every step: nothing
//! panics, lengths stay, a right IPv4 header checksum stays right, what leaves has an outside source, what is
//! delivered goes inside, counters add up, and after a long silence nothing is left.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::net::IpAddr;
use switchd_nat::{
    Filtering, Floating, Forward, Nat, NatConfig, Prefix4, Prefix6, Proto, Side, Timeouts, Verdict,
};
use switchd_wire::checksum::Sum;
use switchd_wire::frame::HEAD_MAX;
use switchd_wire::{Frame, MacAddr, NoTails, Tail, VnetHeader};

const SECOND: u64 = 1_000_000_000;

fn config(endpoint_independent: bool) -> NatConfig {
    let forward = |proto, ports, to: &str| Forward { outside: None, proto, ports, to: to.parse().unwrap() };
    NatConfig {
        inside: Prefix4 { address: [10, 0, 0, 1].into(), len: 24 },
        inside6: Some(Prefix6 { address: "fd00::1".parse().unwrap(), len: 64 }),
        outside: vec![[192, 0, 2, 1].into(), [192, 0, 2, 2].into()],
        outside6: Some("2001:db8::1".parse().unwrap()),
        forwards: vec![
            forward(Proto::Tcp, 80..=90, "10.0.0.9:8080"),
            forward(Proto::Udp, 0..=9, "10.0.0.9:65530"),
            forward(Proto::Tcp, 443..=443, "[fd00::9]:443"),
        ],
        floating: vec![Floating { outside: [192, 0, 2, 9].into(), inside: [10, 0, 0, 7].into() }],
        filtering: if endpoint_independent { Filtering::EndpointIndependent } else { Filtering::default() },
        timeouts: Timeouts::default(),
        flows: 40,
        quota: 20,
        mtu_outside: 1500,
        mtu_inside: 1500,
    }
}

/// Makes the IPv4 header checksum right, and that of an ICMP message which the head holds whole.
fn repair(bytes: &mut [u8]) {
    if bytes.len() < 34 || bytes[12..14] != [8, 0] {
        return;
    }
    let header = usize::from(bytes[14] & 0xf) * 4;
    if header < 20 || bytes.len() < 14 + header {
        return;
    }
    bytes[24..26].fill(0);
    let sum = Sum::new().over(&bytes[14..14 + header]).checksum();
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    let l4 = 14 + header;
    let end = 14 + usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
    if bytes[23] == 1 && end >= l4 + 8 && end <= bytes.len() {
        bytes[l4 + 2..l4 + 4].fill(0);
        let sum = Sum::new().over(&bytes[l4..end]).checksum();
        bytes[l4 + 2..l4 + 4].copy_from_slice(&sum.to_be_bytes());
    }
}

fn header_is_right(bytes: &[u8]) -> bool {
    let header = bytes.get(14).map_or(0, |first| usize::from(first & 0xf) * 4);
    bytes.get(12..14) == Some(&[8, 0])
        && header >= 20
        && bytes.get(14..14 + header).is_some_and(|header| Sum::new().over(header).uncomplemented() == 0xffff)
}

/// A guest's frame: `pick` chooses protocol, guest and remote.
fn template(pick: u8) -> Vec<u8> {
    let guest = 2 + pick % 8;
    let remote = 1 + (pick >> 3) % 4;
    let protocol = [6, 17, 1, 47][usize::from(pick >> 5) % 4];
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, guest, 8, 0];
    bytes.extend([0x45, 0, 0, 60, 0, pick, 0, 0, 64, protocol, 0, 0, 10, 0, 0, guest, 198, 51, 100, remote]);
    bytes.extend([0x13, 0x88 + pick % 3, 0, 80, 0, 40, 0, 0, 0, 0, 0, 9, 0x50, 2, 0, 99]);
    bytes.extend([0; 24]);
    if protocol == 1 {
        bytes[34..36].copy_from_slice(&[8, 0]);
    }
    bytes
}

/// What the remote would answer.
fn answer(bytes: &[u8]) -> Vec<u8> {
    let mut back = bytes.to_vec();
    if back.len() >= 42 && back[12..14] == [8, 0] {
        let (source, destination) = (bytes[26..30].to_vec(), bytes[30..34].to_vec());
        back[26..30].copy_from_slice(&destination);
        back[30..34].copy_from_slice(&source);
        match back[23] {
            6 | 17 => {
                back[34..36].copy_from_slice(&bytes[36..38]);
                back[36..38].copy_from_slice(&bytes[34..36]);
            }
            1 => back[34] = 0,
            _ => {}
        }
    }
    back
}

/// An ICMP error about a frame, to its source.
fn error(about: &[u8], kind: u8) -> Vec<u8> {
    let mut bytes = template(0x40);
    bytes.truncate(34);
    bytes[26..30].copy_from_slice(&[203, 0, 113, 1]);
    if let Some(source) = about.get(26..30) {
        bytes[30..34].copy_from_slice(source);
    }
    bytes.extend([[3, 11, 12, 5][usize::from(kind) % 4], kind >> 4, 0, 0, 0, 0, 5, 0]);
    bytes.extend(about.iter().skip(14).take(160));
    let length = (bytes.len() - 14) as u16;
    bytes[16..18].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// Writes pairs of place and value over a frame.
fn disturb(bytes: &mut [u8], changes: &[u8]) {
    for change in changes.chunks_exact(2) {
        if let Some(byte) = bytes.get_mut(usize::from(change[0])) {
            *byte = change[1];
        }
    }
}

struct World {
    nat: Nat,
    now: u64,
    /// What left last.
    left: Vec<u8>,
}

impl World {
    fn pass(&mut self, side: Side, bytes: &[u8], pick: u8) {
        let bytes = &bytes[..bytes.len().min(HEAD_MAX)];
        let mut frame = Frame::default();
        frame.receive_area()[..bytes.len()].copy_from_slice(bytes);
        let vnet = VnetHeader {
            needs_csum: pick & 64 != 0,
            csum_start: 34,
            csum_offset: 16,
            ..VnetHeader::default()
        };
        frame.arrived(bytes.len(), Tail::default(), vnet);
        let mut seen = [self.nat.classify(&frame, side)];
        if pick & 128 != 0 {
            self.nat.prepare(&mut seen);
        }
        let verdict = match side {
            Side::Inside => {
                let mac = MacAddr([2, 0, 0, 0, 0, 9]);
                self.nat.outbound(self.now, u32::from(pick % 4), mac, &seen[0], &mut frame, &NoTails)
            }
            Side::Outside => self.nat.inbound(self.now, &seen[0], &mut frame, &NoTails),
        };
        assert_eq!(frame.head().len(), bytes.len());
        self.judge(verdict, bytes, frame.head());
        for released in self.nat.released() {
            self.judge(released.verdict, &[], &released.bytes);
        }
        let counters = self.nat.counters();
        assert_eq!(self.nat.flows(self.now, 1000).len(), counters.flows as usize);
        assert_eq!(u64::from(counters.flows), counters.created - counters.expired - counters.evicted);
        assert!(counters.flows <= 40 && counters.mappings <= counters.flows);
        assert!(counters.held >= counters.released + counters.held_lost);
    }

    fn judge(&mut self, verdict: Verdict, before: &[u8], after: &[u8]) {
        if header_is_right(before) {
            assert!(header_is_right(after));
        }
        let four = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&after[at..at + 4]).unwrap());
        // One tag or none.
        let plain = after.get(12..14) == Some(&[8, 0]);
        match verdict {
            Verdict::Forward { .. } => {
                self.left = after.to_vec();
                if plain {
                    assert!(self.nat.is_outside(four(26)), "{:?} leaves", four(26));
                }
            }
            Verdict::Deliver { to, .. } | Verdict::Hairpin { to, .. } => {
                if plain {
                    assert_eq!(to, four(30));
                    assert_eq!(after[30..33], [10, 0, 0]);
                }
                if plain && matches!(verdict, Verdict::Hairpin { .. }) {
                    assert!(self.nat.is_outside(four(26)));
                }
            }
            Verdict::Held | Verdict::Local => assert_eq!(before, after),
            Verdict::Drop(_) => {}
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&first, mut rest)) = input.split_first() else { return };
    let mut world = World {
        nat: Nat::new(config(first & 1 != 0), u64::from(first)),
        now: 1000 * SECOND,
        left: Vec::new(),
    };
    for _ in 0..200 {
        let Some((&[what, pick, length], more)) = rest.split_first_chunk::<3>() else { break };
        let (bytes, more) = more.split_at(more.len().min(usize::from(length)));
        rest = more;
        let mut made = match what % 8 {
            0 => bytes.to_vec(),
            1 | 2 => template(pick),
            3 | 4 => answer(&world.left),
            5 => error(&world.left, pick),
            6 => {
                // An error from a guest about what it was given.
                let mut about = template(pick);
                about.swap(29, 33);
                error(&about, pick)
            }
            _ => {
                world.now += u64::from(pick) * u64::from(length) * SECOND / 16;
                world.nat.expire(world.now, 1000);
                if bytes.first() == Some(&255) {
                    world.nat.configure(world.now, config(pick & 1 != 0));
                }
                continue;
            }
        };
        if what % 8 != 0 {
            disturb(&mut made, bytes);
        }
        if what & 16 == 0 {
            repair(&mut made);
        }
        let inside = match what % 8 {
            0 => what & 32 != 0,
            1 | 2 | 6 => true,
            _ => false,
        };
        world.pass(if inside { Side::Inside } else { Side::Outside }, &made, pick);
    }
    world.now += 100_000 * SECOND;
    world.nat.expire(world.now, 100_000);
    let counters = world.nat.counters();
    assert_eq!((counters.flows, counters.mappings), (0, 0));
    assert_eq!(world.nat.next_expiry(), None);
    assert_eq!(counters.held, counters.released + counters.held_lost);
});
