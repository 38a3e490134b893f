//! What translation alone costs: nanoseconds a frame, the median of 51 short repetitions (longer ones would
//! measure the scheduler).
//!
//! Frames come from memory in bursts of 64, each of another flow chosen at random, as the gateway hands them
//! over: classified and prepared ahead of the one that is translated. Writing a frame's 54 bytes
//! into its receive area, as a port does, is part of the figure and shown alone behind it. All flows are
//! established TCP connections; every frame is parsed, looked up, rewritten and counted.
//!
//! In the daemon large tables have huge pages; here the allocator is told to ask for them:
//! `GLIBC_TUNABLES=glibc.malloc.hugetlb=1 cargo run --release -p switchd-nat --example stage [FLOWS [BURSTS]]`

use std::hint::black_box;
use std::time::{Duration, Instant};
use switchd_nat::{AHEAD, Classified, Nat, NatConfig, Prefix4, Side, Timeouts, Verdict};
use switchd_wire::frame::BURST;
use switchd_wire::{Frame, MacAddr, NoTails, Tail, VnetHeader};

const REPETITIONS: usize = 51;
const BURSTS: usize = 2_000;
const GUESTS: u32 = 100;
const OUTSIDES: u32 = 16;
const HEAD: usize = 54;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// xorshift64*, enough to choose flows.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) * u64::from(bound)) >> 32) as u32
    }
}

/// Addresses and ports of a frame.
#[derive(Clone, Copy)]
struct Ends {
    source: u32,
    destination: u32,
    from: u16,
    to: u16,
}

fn write(frame: &mut Frame, ends: &Ends, flags: u8) {
    let area = frame.receive_area();
    area[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    area[14..26].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0x12, 0x34]);
    area[26..30].copy_from_slice(&ends.source.to_be_bytes());
    area[30..34].copy_from_slice(&ends.destination.to_be_bytes());
    area[34..36].copy_from_slice(&ends.from.to_be_bytes());
    area[36..38].copy_from_slice(&ends.to.to_be_bytes());
    area[38..HEAD].copy_from_slice(&[0, 0, 0, 9, 0, 0, 0, 7, 0x50, flags, 16, 0, 0x56, 0x78, 0, 0]);
    frame.arrived(HEAD, Tail::default(), VnetHeader::default());
}

fn read(frame: &Frame) -> Ends {
    let head = frame.head();
    let four = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let two = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    Ends { source: four(26), destination: four(30), from: two(34), to: two(36) }
}

fn inside(flow: u32) -> Ends {
    let guest = flow % GUESTS;
    Ends {
        source: 0x0a00_0002 + guest,
        destination: 0xc633_6401,
        from: 1024 + (flow / GUESTS) as u16,
        to: 443,
    }
}

fn config() -> NatConfig {
    NatConfig {
        inside: Prefix4 { address: "10.0.0.1".parse().expect("an address"), len: 8 },
        inside6: None,
        outside: (0..OUTSIDES).map(|last| (0xc000_0201 + last).into()).collect(),
        outside6: None,
        forwards: Vec::new(),
        floating: Vec::new(),
        filtering: switchd_nat::Filtering::default(),
        timeouts: Timeouts::default(),
        flows: 1 << 20,
        quota: 1 << 20,
        mtu_outside: 1500,
        mtu_inside: 1500,
    }
}

struct Stage {
    nat: Nat,
    /// What a random flow's frames look like on their way out and in.
    out: Vec<Ends>,
    back: Vec<Ends>,
    frames: Vec<Frame>,
    seen: Vec<Classified>,
}

fn mac(ends: &Ends) -> MacAddr {
    let [_, _, high, low] = ends.source.to_be_bytes();
    MacAddr([2, 0, 0, 0, high, low])
}

impl Stage {
    fn new(flows: u32) -> Stage {
        let mut nat = Nat::new(config(), 7);
        let mut frame = Frame::default();
        let outside: Vec<Ends> = (0..flows)
            .map(|flow| {
                let ends = inside(flow);
                let mut pass = |side, ends: &Ends, flags| {
                    write(&mut frame, ends, flags);
                    let seen = nat.classify(&frame, side);
                    let verdict = match side {
                        Side::Inside => {
                            nat.outbound(1 << 40, flow % GUESTS, mac(ends), &seen, &mut frame, &NoTails)
                        }
                        Side::Outside => nat.inbound(1 << 40, &seen, &mut frame, &NoTails),
                    };
                    assert!(!matches!(verdict, Verdict::Drop(_) | Verdict::Local), "{verdict:?}");
                    read(&frame)
                };
                let left = pass(Side::Inside, &ends, SYN);
                let back =
                    Ends { source: left.destination, destination: left.source, from: left.to, to: left.from };
                pass(Side::Outside, &back, SYN | ACK);
                pass(Side::Inside, &ends, ACK);
                back
            })
            .collect();
        assert_eq!(nat.counters().flows, flows);
        let mut random = Random(42);
        let order: Vec<u32> = (0..BURSTS * BURST).map(|_| random.below(flows)).collect();
        Stage {
            out: order.iter().map(|&flow| inside(flow)).collect(),
            back: order.iter().map(|&flow| outside[flow as usize]).collect(),
            frames: (0..BURST).map(|_| Frame::default()).collect(),
            seen: Vec::with_capacity(BURST),
            nat,
        }
    }

    fn round(&mut self, side: Side, bursts: usize, now: u64) -> f64 {
        let Stage { nat, out, back, frames, seen } = self;
        let plan = if side == Side::Inside { out } else { back };
        let start = Instant::now();
        for ends in plan.chunks_exact(BURST).cycle().take(bursts) {
            for (frame, ends) in frames.iter_mut().zip(ends) {
                write(frame, ends, ACK);
            }
            seen.clear();
            seen.extend(frames[..2 * AHEAD].iter().map(|frame| nat.classify(frame, side)));
            nat.prepare(&mut seen[..AHEAD]);
            for (at, ends) in ends.iter().enumerate() {
                if let Some(frame) = frames.get(at + 2 * AHEAD) {
                    seen.push(nat.classify(frame, side));
                }
                if let Some(seen) = seen.get_mut(at + AHEAD..at + AHEAD + 1) {
                    nat.prepare(seen);
                }
                let (seen, frame) = (&seen[at], &mut frames[at]);
                let verdict = match side {
                    Side::Inside => nat.outbound(now, 1, mac(ends), seen, frame, &NoTails),
                    Side::Outside => nat.inbound(now, seen, frame, &NoTails),
                };
                black_box(verdict);
            }
        }
        nanos(start.elapsed(), bursts)
    }

    fn copies(&mut self, bursts: usize) -> f64 {
        let start = Instant::now();
        for ends in self.out.chunks_exact(BURST).cycle().take(bursts) {
            for (frame, ends) in self.frames.iter_mut().zip(ends) {
                write(frame, ends, ACK);
            }
            black_box(&mut self.frames);
        }
        nanos(start.elapsed(), bursts)
    }
}

fn nanos(took: Duration, bursts: usize) -> f64 {
    took.as_nanos() as f64 / (bursts * BURST) as f64
}

fn median(mut of: impl FnMut() -> f64) -> (f64, f64, f64) {
    let mut times: Vec<f64> = (0..REPETITIONS).map(|_| of()).collect();
    times.sort_by(f64::total_cmp);
    (times[REPETITIONS / 2], times[0], times[REPETITIONS - 1])
}

fn main() {
    let only: Option<u32> = std::env::args().nth(1).and_then(|flows| flows.parse().ok());
    let bursts = std::env::args().nth(2).and_then(|bursts| bursts.parse().ok()).unwrap_or(BURSTS);
    println!("ns a frame: median (least … most) of {REPETITIONS} times {} frames", bursts * BURST);
    for flows in [1, 10_000, 500_000] {
        if only.is_some_and(|only| only != flows) {
            continue;
        }
        let mut stage = Stage::new(flows);
        let (copies, ..) = median(|| stage.copies(bursts));
        let mut now = 1 << 40;
        for (side, name) in [(Side::Inside, "out"), (Side::Outside, "in")] {
            let (all, least, most) = median(|| {
                now += 1 << 24;
                stage.round(side, bursts, now)
            });
            println!(
                "{flows:>7} flows  {name:>3}: {all:5.1} ({least:.1} … {most:.1}), copies alone {copies:.1}"
            );
        }
    }
}
