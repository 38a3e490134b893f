//! LLDP frames against one agent, with time that passes: the table stays within its bound, texts are fit to
//! be shown, and what the agent says can be read back.
//!
//! An input is a list of frames: seconds to pass, length (two bytes), bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use switchd_proto::lldp::{Agent, Announcement, NEIGHBORS_MAX};
use switchd_wire::{MacAddr, lldp};

fuzz_target!(|input: &[u8]| {
    let announcement = Announcement {
        chassis: MacAddr([2, 0, 0, 0, 0, 1]),
        interface: "eth0".to_owned(),
        system_name: String::from_utf8_lossy(input).into_owned(),
        system_description: "switchd".to_owned(),
        aggregation: Some((1, true)),
        mtu: 1500,
    };
    let mut agent = Agent::new(announcement.chassis, announcement);
    agent.set_link(0, true);
    let (mut now, mut rest) = (0u64, input);
    while let Some((&[seconds, high, low], after)) = rest.split_first_chunk() {
        now += u64::from(seconds) * 1_000_000_000;
        agent.handle_timeout(now);
        let length = usize::from(u16::from_be_bytes([high, low])).min(after.len());
        let (frame, after) = after.split_at(length);
        rest = after;
        agent.handle_frame(now, frame);
        assert!(agent.neighbors().count() <= NEIGHBORS_MAX);
        for neighbor in agent.neighbors() {
            for text in [neighbor.chassis(), neighbor.port(), neighbor.pdu.system_name.clone()] {
                assert!(!text.chars().any(char::is_control));
            }
        }
        while let Some(frame) = agent.poll_transmit() {
            assert!(lldp::parse(&frame).is_ok());
        }
        while agent.poll_event().is_some() {}
    }
});
