//! BPDUs against a bridge of two ports, with links that flap and time that passes: whatever comes, the bridge
//! settles, sends what can be read back, and forwards on no port whose link is down.
//!
//! An input is a list of steps: a byte that says what to do, and for a frame its length and bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use switchd_proto::rstp::{Config, PortConfig, Rstp};
use switchd_wire::{MacAddr, bpdu};

const SECOND: u64 = 1_000_000_000;

fuzz_target!(|input: &[u8]| {
    let mut bridge = Rstp::new(&Config { mac: MacAddr([2, 0, 0, 0, 0, 1]), priority: 0x8000 });
    for number in 1..=2 {
        let mac = MacAddr([2, 0, 0, 0, 1, number as u8]);
        bridge.add_port(
            0,
            PortConfig { number, mac, up: true, speed: 1000, point_to_point: true, edge: false },
        );
    }
    let (mut now, mut links) = (0, [true; 2]);
    let mut rest = input;
    while let Some((&step, after)) = rest.split_first() {
        rest = after;
        let port = u16::from(step & 1);
        match step >> 1 & 3 {
            0 => {
                links[usize::from(port)] = step & 8 != 0;
                bridge.set_link(now, port + 1, step & 8 != 0);
            }
            1 => {
                now += SECOND * u64::from(step >> 3);
                bridge.handle_timeout(now);
            }
            _ => {
                let Some((&length, after)) = rest.split_first() else { return };
                let (frame, after) = after.split_at(usize::from(length).min(after.len()));
                rest = after;
                bridge.handle_frame(now, port + 1, frame);
            }
        }
        while let Some((_, frame)) = bridge.poll_transmit() {
            // Far from the root a BPDU may be too old to be believed; that is for its receiver to say.
            assert!(!matches!(
                bpdu::parse(&frame),
                Err(bpdu::BadBpdu::NotBpdu | bpdu::BadBpdu::TooShort | bpdu::BadBpdu::Unknown)
            ));
        }
        while bridge.poll_event().is_some() {}
        for (index, up) in links.iter().enumerate() {
            let status = bridge.port(index as u16 + 1).expect("the port was added");
            assert!(*up || !(status.learning || status.forwarding));
            assert!(status.learning || !status.forwarding);
        }
    }
});
