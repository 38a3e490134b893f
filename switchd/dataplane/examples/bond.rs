//! What the distributor costs: nanoseconds a frame more than a plain uplink, the median of many short
//! repetitions, taken in turns.
//!
//! A guest sends bursts of 64 frames, each of another conversation, to addresses behind the uplink. The same
//! bursts go out by an uplink of one interface and by bonds of two and of eight members; the difference is
//! the header peek, the hash, the bucket, and the member's counters. Frames come from memory and go to
//! memory, as in `road`.
//!
//! `cargo run --release -p switchd-dataplane --example bond [MEMBERS]`; with a number: that case alone, briefly.

use std::hint::black_box;
use std::time::Instant;
use switchd_dataplane::{
    BondConfig, BondMode, Cleared, Dataplane, Direction, Hash, MemberState, MirrorId, NetworkConfig,
    PortConfig, PortId, Rim, Transmit,
};
use switchd_wire::frame::{BURST, HEAD_MAX};
use switchd_wire::{Frame, MacAddr, NoTails, Tail, VnetHeader};

const REPETITIONS: usize = 101;
const BURSTS: usize = 1_000;
const FLOWS: usize = 1_024;

/// Copies every frame out, as a port would.
struct Memory {
    ring: Vec<[u8; HEAD_MAX + 64]>,
    next: usize,
    by: Vec<u64>,
}

impl Rim for Memory {
    #[inline]
    fn transmit(&mut self, mut cleared: Cleared<'_>) -> Transmit {
        let port = cleared.port();
        let head = cleared.frame().head();
        self.ring[self.next % BURST][..head.len()].copy_from_slice(head);
        self.next += 1;
        self.by[port.0 as usize] += 1;
        Transmit::Done { segments: 1 }
    }

    fn mirror(&mut self, _: MirrorId, _: PortId, _: Direction, _: &Frame) -> bool {
        false
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Tcp4,
    Tcp6,
    Arp,
}

fn packet(kind: Kind, flow: usize) -> Vec<u8> {
    let [.., a, b] = flow.to_be_bytes();
    let mut bytes = vec![2, 9, 0, 0, 0, 1, 2, 1, 0, 0, 0, 1];
    let port = 1024 + flow as u16;
    match kind {
        Kind::Arp => bytes.extend([0x08, 0x06]),
        Kind::Tcp4 => {
            bytes.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, a, b, 10, 9, 9, 9]);
            bytes.extend(port.to_be_bytes());
            bytes.extend([0, 80]);
        }
        Kind::Tcp6 => {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
            for end in [[a, b], [9, 9]] {
                bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
                bytes.extend(end);
            }
            bytes.extend(port.to_be_bytes());
            bytes.extend([0, 80]);
        }
    }
    bytes.resize(74, 0);
    bytes
}

struct Case {
    dataplane: Dataplane,
    guest: PortId,
    packets: Vec<Vec<u8>>,
    rim: Memory,
}

/// With no members: a plain uplink.
fn case(members: u16, hash: Hash, kind: Kind) -> Case {
    let mut dataplane = Dataplane::new(1);
    let network = dataplane.add_network(NetworkConfig::default());
    let config = PortConfig { storm_limit: None, loop_guard: false, ..PortConfig::default() };
    let guest = dataplane.add_port(network, config);
    dataplane.set_link(guest, true);
    let uplink = match members {
        0 => {
            let uplink = dataplane.add_uplink(Vec::new());
            dataplane.set_link(uplink, true);
            uplink
        }
        members => {
            let bond = dataplane.add_bond(Vec::new(), BondConfig { mode: BondMode::Lacp, hash }, 1);
            for number in 1..=members {
                let member = dataplane.add_member(bond, number).expect("there is room");
                dataplane.set_link(member, true);
                dataplane.set_member(member, MemberState { collecting: true, distributing: true });
            }
            bond
        }
    };
    dataplane.join_uplink(network, uplink, None).expect("free");
    // The far address is behind the uplink.
    dataplane.fdb_add(network, MacAddr([2, 9, 0, 0, 0, 1]), None, uplink).expect("free");
    let packets = (0..FLOWS).map(|flow| packet(kind, flow)).collect();
    let rim = Memory { ring: vec![[0; HEAD_MAX + 64]; BURST], next: 0, by: vec![0; 64] };
    Case { dataplane, guest, packets, rim }
}

impl Case {
    fn round(&mut self, now: u64) -> f64 {
        let mut frames: Vec<Frame> = (0..BURST).map(|_| Frame::default()).collect();
        let start = Instant::now();
        for burst in 0..BURSTS {
            for (at, frame) in frames.iter_mut().enumerate() {
                let bytes = &self.packets[(burst * BURST + at) % FLOWS];
                frame.receive_area()[..bytes.len()].copy_from_slice(bytes);
                frame.arrived(bytes.len(), Tail::default(), VnetHeader::default());
            }
            self.dataplane.process(now, self.guest, &mut frames, &NoTails, &mut self.rim);
        }
        let took = start.elapsed();
        black_box(&self.rim.by);
        took.as_nanos() as f64 / (BURSTS * BURST) as f64
    }
}

/// The median and the least.
fn middle(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[0])
}

fn main() {
    if let Some(members) = std::env::args().nth(1).and_then(|members| members.parse().ok()) {
        // For a profiler: one case, a few rounds.
        let mut case = case(members, Hash::Layer34, Kind::Tcp4);
        for round in 0..5 {
            black_box(case.round(round));
        }
        return;
    }
    println!("ns a frame, median of {REPETITIONS} times {} frames, taken in turns", BURSTS * BURST);
    let kinds = [("IPv4 TCP", Kind::Tcp4), ("IPv6 TCP", Kind::Tcp6), ("ARP", Kind::Arp)];
    let hashes = [("layer2", Hash::Layer2), ("layer2+3", Hash::Layer23), ("layer3+4", Hash::Layer34)];
    for (kind_name, kind) in kinds {
        for (hash_name, hash) in hashes {
            let mut cases = [case(0, hash, kind), case(2, hash, kind), case(8, hash, kind)];
            let mut times = [const { Vec::new() }; 3];
            let start = Instant::now();
            for _ in 0..REPETITIONS {
                for (case, times) in cases.iter_mut().zip(&mut times) {
                    times.push(case.round(start.elapsed().as_nanos() as u64));
                }
            }
            let [plain, two, eight] = times.each_mut().map(|times| middle(times));
            let more = |of: (f64, f64)| format!("+{:.1} (least +{:.1})", of.0 - plain.0, of.1 - plain.1);
            println!(
                "{kind_name:8}  {hash_name:8}: uplink {:5.1} (least {:.1}), 2 members {}, 8 members {}",
                plain.0,
                plain.1,
                more(two),
                more(eight)
            );
        }
    }
}
