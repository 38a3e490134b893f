//! What a frame costs on its way through a NAT network's gateway: guest's port → gateway → translation →
//! segment → uplink. Nanoseconds a frame, the median of 31 short repetitions, in bursts of 64 from memory
//! to memory; the copies of the `road` example are in it (about 4 ns).
//!
//! `cargo run --release -p switchd-dataplane --example gateway [FLOWS]`

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::Instant;
use switchd_dataplane::{
    Cleared, Dataplane, Direction, Egress, GatewayConfig, MirrorId, NetworkConfig, OutsideConfig, PortConfig,
    PortId, Rim, Transmit,
};
use switchd_nat::{NatConfig, Prefix4};
use switchd_wire::checksum::Sum;
use switchd_wire::frame::BURST;
use switchd_wire::{Frame, MacAddr, NoTails, Tail, VnetHeader};

const REPETITIONS: usize = 31;
const BURSTS: usize = 500;
const GATEWAY_MAC: MacAddr = MacAddr([2, 0xaa, 0, 0, 0, 1]);
const ROUTER_MAC: MacAddr = MacAddr([2, 0xcc, 0, 0, 0, 1]);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

struct Memory {
    ring: Vec<[u8; 320]>,
    next: usize,
    frames: u64,
}

impl Rim for Memory {
    #[inline]
    fn transmit(&mut self, mut cleared: Cleared<'_>) -> Transmit {
        let head = cleared.frame().head();
        self.ring[self.next % BURST][..head.len()].copy_from_slice(head);
        self.next += 1;
        self.frames += 1;
        Transmit::Done { segments: 1 }
    }

    fn mirror(&mut self, _: MirrorId, _: PortId, _: Direction, _: &Frame) -> bool {
        false
    }
}

/// Flows to one remote address; their source ports tell them apart.
const PORTS: u32 = 20_000;

/// A UDP packet to a remote address.
fn packet(remote: u32) -> [u8; 64] {
    let mut frame = [0u8; 64];
    frame[..6].copy_from_slice(&GATEWAY_MAC.0);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 17]);
    frame[26..30].copy_from_slice(&[10, 7, 0, 20]);
    frame[30..34].copy_from_slice(&(0xc633_0000 + remote).to_be_bytes());
    let checksum = Sum::new().over(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame[36..40].copy_from_slice(&[0, 9, 0, 30]);
    frame
}

fn main() {
    let flows: u32 = std::env::args().nth(1).and_then(|flows| flows.parse().ok()).unwrap_or(1);
    let mut dataplane = Dataplane::new(1);
    let segment = dataplane.add_network(NetworkConfig::default());
    let network = dataplane.add_network(NetworkConfig::default());
    let uplink = dataplane.add_uplink(Vec::new());
    dataplane.set_link(uplink, true);
    dataplane.join_uplink(segment, uplink, None).expect("is free");
    let guest = dataplane.add_port(network, PortConfig::default());
    dataplane.set_link(guest, true);
    let inside = Prefix4 { address: Ipv4Addr::new(10, 7, 0, 1), len: 24 };
    let nat = NatConfig {
        inside,
        inside6: None,
        outside: vec![OUTSIDE],
        outside6: None,
        forwards: Vec::new(),
        floating: Vec::new(),
        filtering: Default::default(),
        timeouts: Default::default(),
        flows: flows + 1000,
        quota: flows + 1000,
        mtu_outside: 1500,
        mtu_inside: 1500,
    };
    let outside = OutsideConfig {
        segment,
        mac: MacAddr([2, 0xbb, 0, 0, 0, 1]),
        v4: Some(Prefix4 { address: OUTSIDE, len: 24 }),
        gateway: Some(ROUTER),
        v6: None,
        gateway6: None,
        nat,
    };
    let config =
        GatewayConfig { mac: GATEWAY_MAC, v4: inside, v6: None, egress: Egress::Outside(Box::new(outside)) };
    dataplane.set_gateway(0, network, Some(config)).expect("is valid");
    let mut rim = Memory { ring: vec![[0; 320]; BURST], next: 0, frames: 0 };
    let mut arp = [[0xff; 6], ROUTER_MAC.0].concat();
    arp.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.extend(ROUTER_MAC.0);
    arp.extend(ROUTER.octets());
    arp.extend([0; 6]);
    arp.extend(OUTSIDE.octets());
    let mut frame = Frame::from_bytes(&arp).expect("is short");
    dataplane.process(1, uplink, std::slice::from_mut(&mut frame), &NoTails, &mut rim);

    let mut frames: Vec<Frame> = (0..BURST).map(|_| Frame::default()).collect();
    let packets: Vec<[u8; 64]> = (0..=flows / PORTS).map(packet).collect();
    let mut number = 0u32;
    let mut burst = |dataplane: &mut Dataplane, rim: &mut Memory, now: u64| {
        for frame in &mut frames {
            let area = frame.receive_area();
            area[..64].copy_from_slice(&packets[(number / PORTS) as usize]);
            area[34..36].copy_from_slice(&(10_000 + (number % PORTS) as u16).to_be_bytes());
            frame.arrived(64, Tail::default(), VnetHeader::default());
            number = (number + 7919) % flows;
        }
        dataplane.process(now, guest, &mut frames, &NoTails, rim);
    };
    // Every flow is opened: 7919 is prime.
    for _ in 0..(flows as usize).div_ceil(BURST) + 1 {
        burst(&mut dataplane, &mut rim, 2);
    }
    let start = Instant::now();
    let mut times: Vec<f64> = (0..REPETITIONS)
        .map(|_| {
            let begun = Instant::now();
            for _ in 0..BURSTS {
                burst(&mut dataplane, &mut rim, start.elapsed().as_nanos() as u64);
            }
            begun.elapsed().as_nanos() as f64 / (BURSTS * BURST) as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let (least, median) = (times[0], times[REPETITIONS / 2]);
    println!("64 B through a gateway, {flows} flows: {median:.1} ns a frame (least {least:.1})");
    black_box(rim.frames);
    assert!(rim.frames > (REPETITIONS * BURSTS * BURST) as u64, "frames left");
}
