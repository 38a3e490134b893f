//! What a frame costs on the road: nanoseconds a frame, the median of 51 short repetitions (longer ones
//! would measure the scheduler).
//!
//! Frames come from memory and go to memory, in bursts of 64: each round copies the head into the frame's
//! receive area, as a port does when it reads, and the rim copies it out again. That is part of the
//! figure, and shown alone behind it. Every frame is learned, looked up and counted.
//!
//! `cargo run --release -p switchd-dataplane --example road [SIZE/CASE [BURSTS]]`

use std::hint::black_box;
use std::time::{Duration, Instant};
use switchd_dataplane::{
    Cleared, Dataplane, Direction, MirrorId, NetworkConfig, NetworkId, PortConfig, PortId, Rim, Transmit,
};
use switchd_wire::frame::{BURST, HEAD_MAX};
use switchd_wire::{Frame, NoTails, Tail, VnetHeader};

const REPETITIONS: usize = 51;
const BURSTS: usize = 2_000;

/// Copies every frame out, as a port would.
struct Memory {
    ring: Vec<[u8; HEAD_MAX + 64]>,
    next: usize,
    frames: u64,
}

impl Memory {
    fn new() -> Memory {
        Memory { ring: vec![[0; HEAD_MAX + 64]; BURST], next: 0, frames: 0 }
    }

    #[inline]
    fn take(&mut self, frame: &Frame) {
        let head = frame.head();
        self.ring[self.next % BURST][..head.len()].copy_from_slice(head);
        self.next += 1;
        self.frames += 1;
    }
}

impl Rim for Memory {
    #[inline]
    fn transmit(&mut self, mut cleared: Cleared<'_>) -> Transmit {
        self.take(cleared.frame());
        Transmit::Done { segments: 1 }
    }

    fn mirror(&mut self, _: MirrorId, _: PortId, _: Direction, _: &Frame) -> bool {
        false
    }
}

/// xorshift64*, enough to choose addresses.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) * u64::from(bound)) >> 32) as u32
    }
}

/// A frame to be: who sends it, to whom, on which VLAN of an uplink (0: no tag).
#[derive(Clone, Copy)]
struct Plan {
    source: u32,
    destination: u32,
    vid: u16,
}

struct Case {
    name: String,
    dataplane: Dataplane,
    /// One burst each.
    bursts: Vec<(PortId, [Plan; BURST])>,
    size: usize,
}

fn write(frame: &mut Frame, template: &[u8], size: usize, plan: &Plan) {
    let head = size.min(HEAD_MAX);
    let area = frame.receive_area();
    area[..head].copy_from_slice(&template[..head]);
    area[..2].copy_from_slice(&[2, 0]);
    area[2..6].copy_from_slice(&plan.destination.to_be_bytes());
    area[6..8].copy_from_slice(&[2, 0]);
    area[8..12].copy_from_slice(&plan.source.to_be_bytes());
    if plan.vid != 0 {
        area[12..14].copy_from_slice(&[0x81, 0]);
        area[14..16].copy_from_slice(&plan.vid.to_be_bytes());
    }
    let tail = Tail { len: (size - head) as u32, ..Tail::default() };
    frame.arrived(head, tail, VnetHeader::default());
}

fn config(addresses: u32) -> NetworkConfig {
    NetworkConfig { mac_limit: addresses.max(16_384), ..NetworkConfig::default() }
}

/// `networks` networks with `ports` ports each and `addresses` addresses in all.
fn guests(networks: u32, ports: u32, addresses: u32, size: usize) -> Case {
    let mut dataplane = Dataplane::new(1);
    let mut random = Random(42);
    let mut places: Vec<Vec<PortId>> = Vec::new();
    for _ in 0..networks {
        let network = dataplane.add_network(config(addresses));
        let add = |_| {
            let port = dataplane.add_port(network, PortConfig::default());
            dataplane.set_link(port, true);
            port
        };
        places.push((0..ports).map(add).collect());
    }
    // Address a is in network a % networks, at the port that the rest of it says.
    let each = addresses / networks;
    let mut teach = Vec::new();
    let mut bursts = Vec::new();
    for (network, ports_of) in places.iter().enumerate() {
        for (index, &port) in ports_of.iter().enumerate() {
            let mine: Vec<u32> = (0..each).filter(|a| (a % ports) as usize == index).collect();
            let address = |a: u32| a * networks + network as u32;
            for chunk in mine.chunks(BURST) {
                let plan =
                    |i: usize| Plan { source: address(chunk[i % chunk.len()]), destination: 0, vid: 0 };
                teach.push((port, std::array::from_fn(plan)));
            }
            let rounds = (2 * addresses as usize / BURST / (networks * ports) as usize).max(1);
            for _ in 0..rounds {
                let plan = |_| {
                    let source = mine[random.below(mine.len() as u32) as usize];
                    let mut destination = random.below(each);
                    if destination % ports == index as u32 {
                        destination = (destination + 1) % each;
                    }
                    Plan { source: address(source), destination: address(destination), vid: 0 }
                };
                bursts.push((port, std::array::from_fn(plan)));
            }
        }
    }
    // Networks take turns.
    for at in (1..bursts.len()).rev() {
        bursts.swap(at, random.below(at as u32 + 1) as usize);
    }
    let name = format!("{size:>5} B  {addresses:>7} addresses  {networks:>5} networks");
    let mut case = Case { name, dataplane, bursts: teach, size };
    case.round(0, usize::MAX);
    case.bursts = bursts;
    case
}

/// A thousand networks behind one uplink, every frame in another one.
fn uplink(networks: u16, size: usize) -> Case {
    let mut dataplane = Dataplane::new(1);
    let uplink = dataplane.add_uplink(Vec::new());
    dataplane.set_link(uplink, true);
    let mut teach = Vec::new();
    for vid in 1..=networks {
        let network: NetworkId = dataplane.add_network(config(0));
        let port = dataplane.add_port(network, PortConfig::default());
        dataplane.set_link(port, true);
        dataplane.join_uplink(network, uplink, Some(vid)).expect("the VLAN is free");
        let plan = |i: usize| Plan { source: u32::from(vid) << 8 | i as u32 & 7, destination: 0, vid: 0 };
        teach.push((port, std::array::from_fn(plan)));
    }
    let mut random = Random(7);
    let plan = |random: &mut Random| {
        let vid = 1 + random.below(networks.into()) as u16;
        let mac = u32::from(vid) << 8;
        Plan { source: mac | 128 | random.below(8), destination: mac | random.below(8), vid }
    };
    let bursts = (0..1024).map(|_| (uplink, std::array::from_fn(|_| plan(&mut random)))).collect();
    let name = format!("{size:>5} B  {:>7} addresses  {networks:>5} networks on one uplink", 16 * networks);
    let mut case = Case { name, dataplane, bursts: teach, size };
    case.round(0, usize::MAX);
    case.bursts = bursts;
    case
}

impl Case {
    /// Sends up to `count` bursts and returns the time a frame took.
    fn round(&mut self, now: u64, count: usize) -> f64 {
        let template = [0x5a; HEAD_MAX];
        let mut frames: Vec<Frame> = (0..BURST).map(|_| Frame::default()).collect();
        let mut rim = Memory::new();
        let count = if count == usize::MAX { self.bursts.len() } else { count };
        let start = Instant::now();
        for (port, plans) in self.bursts.iter().cycle().take(count) {
            for (frame, plan) in frames.iter_mut().zip(plans) {
                write(frame, &template, self.size, plan);
            }
            self.dataplane.process(now, *port, &mut frames, &NoTails, &mut rim);
        }
        let took = start.elapsed();
        black_box(rim.frames);
        nanos(took, count)
    }

    /// The copies alone.
    fn copies(&self, count: usize) -> f64 {
        let template = [0x5a; HEAD_MAX];
        let mut frames: Vec<Frame> = (0..BURST).map(|_| Frame::default()).collect();
        let mut rim = Memory::new();
        let start = Instant::now();
        for (_, plans) in self.bursts.iter().cycle().take(count) {
            for (frame, plan) in frames.iter_mut().zip(plans) {
                write(frame, &template, self.size, plan);
            }
            for frame in black_box(&mut frames) {
                rim.take(frame);
            }
        }
        let took = start.elapsed();
        black_box(rim.frames);
        nanos(took, count)
    }
}

fn nanos(took: Duration, bursts: usize) -> f64 {
    took.as_nanos() as f64 / (bursts * BURST) as f64
}

fn median(mut of: impl FnMut(usize) -> f64) -> (f64, f64, f64) {
    let mut times: Vec<f64> = (0..REPETITIONS).map(&mut of).collect();
    times.sort_by(f64::total_cmp);
    (times[REPETITIONS / 2], times[0], times[REPETITIONS - 1])
}

fn main() {
    let only = std::env::args().nth(1);
    let count = std::env::args().nth(2).and_then(|count| count.parse().ok()).unwrap_or(BURSTS);
    println!("ns a frame: median (least … most) of {REPETITIONS} times {} frames", count * BURST);
    for size in [64, 1514] {
        let cases: [fn(usize) -> Case; 4] = [
            |size| guests(1, 2, 10, size),
            |size| guests(1, 10, 100_000, size),
            |size| guests(1000, 2, 10_000, size),
            |size| uplink(1000, size),
        ];
        for (number, case) in cases.iter().enumerate() {
            if only.as_ref().is_some_and(|only| *only != format!("{size}/{number}")) {
                continue;
            }
            let mut case = case(size);
            let (copies, ..) = median(|_| case.copies(count));
            // The clock runs, so entries are refreshed as often as they would be.
            let start = Instant::now();
            let (all, least, most) = median(|_| case.round(start.elapsed().as_nanos() as u64, count));
            println!("{}: {all:5.1} ({least:.1} … {most:.1}), copies alone {copies:.1}", case.name);
        }
    }
}
