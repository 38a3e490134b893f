//! Frames of the slow protocols against an aggregator of two ports, one after another: LACPDUs and Markers
//! cut, forged and in any order, with links that flap and time that passes. Whatever comes, the aggregator
//! answers within its bounds, and what it sends and keeps can be read back.
//!
//! An input is a list of steps: a byte that says what to do, and for a frame its length and bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use switchd_proto::lacp::{Config, Lacp, Link, PortConfig};
use switchd_wire::MacAddr;
use switchd_wire::slow::{self, Slow};

const SECOND: u64 = 1_000_000_000;

fuzz_target!(|input: &[u8]| {
    let Some((&options, mut rest)) = input.split_first() else { return };
    let config = Config {
        system: MacAddr([2, 0, 0, 0, 0, 1]),
        system_priority: 0x8000,
        key: (options & 1 != 0).then_some(5),
        active: options & 2 != 0,
        fast: options & 4 != 0,
        min_links: u32::from(options >> 3 & 3),
        max_links: (options & 32 != 0).then_some(1),
        fallback: options & 64 != 0,
    };
    let up = Link { up: true, speed: 10_000, full_duplex: true };
    let mut lacp = Lacp::new(config.clone());
    for number in 1..=2 {
        let mac = MacAddr([2, 0, 0, 0, 1, number as u8]);
        lacp.add_port(0, PortConfig { number, priority: 0x8000, mac }, up);
    }
    let mut now = 0;
    while let Some((&step, after)) = rest.split_first() {
        rest = after;
        let port = u16::from(step & 1) + 1;
        match step >> 1 & 7 {
            0 => lacp.set_link(now, port, Link { up: false, ..up }),
            1 => lacp.set_link(now, port, up),
            2 => {
                now += SECOND * u64::from(step >> 4);
                lacp.handle_timeout(now);
            }
            3 => lacp = Lacp::import(config.clone(), rest, now),
            _ => {
                let Some((&length, after)) = rest.split_first() else { return };
                let (frame, after) = after.split_at(usize::from(length).min(after.len()));
                rest = after;
                lacp.handle_frame(now, port, frame);
            }
        }
        while let Some((_, frame)) = lacp.poll_transmit() {
            assert!(matches!(slow::parse(&frame), Ok(Slow::Lacp(_) | Slow::Marker(_))));
        }
        while lacp.poll_event().is_some() {}
        for number in 1..=2 {
            if let Some(status) = lacp.port(now, number) {
                assert!(!status.distributing || status.collecting);
                assert!(status.distributing != status.reason.is_some());
            }
        }
    }
    let kept = lacp.export();
    assert_eq!(Lacp::import(config, &kept, now).export().is_empty(), kept.is_empty());
});
