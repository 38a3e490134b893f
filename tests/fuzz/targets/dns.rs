//! Any bytes as a query of a guest, as the reply of a name server, and as packets of DNS over TCP.
//!
//! What is answered is a response to that query which a resolver can read; what is cut down fits; a reply that
//! does not bear its query's question never belongs to it. The first octet says which.

#![no_main]

use hickory_proto::op::{Message, MessageType};
use libfuzzer_sys::fuzz_target;
use smoltcp::wire::{IpAddress, Ipv4Packet, TcpPacket};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use switchd_nat::{Prefix4, Prefix6};
use switchd_wire::MacAddr;

// The forwarder's own modules, without the sockets around them.
#[allow(dead_code, unused_imports)]
#[path = "../../../switchd/src/services/dns/answer.rs"]
mod answer;
#[allow(dead_code)]
#[path = "../../../switchd/src/services/dns/names.rs"]
mod names;
#[allow(dead_code)]
#[path = "../../../switchd/src/services/shares.rs"]
mod shares;
#[allow(dead_code)]
#[path = "../../../switchd/src/services/dns/tcp.rs"]
mod tcp;

// Where they look for what is beside them.
mod services {
    pub(crate) use crate::shares;
}
mod worker {
    pub mod command {
        pub type Key = std::sync::Arc<str>;
    }
}

use answer::Decision;
use names::{Host, Names};

const V4: Prefix4 = Prefix4 { address: Ipv4Addr::new(10, 7, 0, 1), len: 24 };
const V6: Prefix6 = Prefix6 { address: Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, 1), len: 64 };

fn known(hostname: &[u8]) -> Names {
    let mut names = Names::new("lab", V4, Some(V6));
    let host = |last, port: &str, hostname| Host {
        address: IpAddr::V4(Ipv4Addr::new(10, 7, 0, last)),
        port: port.into(),
        mac: Some(MacAddr([2, 0, 0, 0, 0, last])),
        hostname,
    };
    let given = String::from_utf8_lossy(hostname).into_owned();
    names.set_hosts(&[
        host(2, "vm1", None),
        host(3, "vm2", Some("mail".into())),
        host(4, "vm3", Some(given)),
    ]);
    names
}

fn query(bytes: &[u8]) {
    let names = known(&bytes[..bytes.len().min(8)]);
    match answer::decide(bytes, &names) {
        Decision::Answer(reply, _) => {
            assert!(reply[..2] == bytes[..2] && reply[2] & 0x80 != 0, "a response, to this query");
            let read = Message::from_vec(&reply).expect("what we answer can be read");
            assert_eq!(read.metadata.message_type, MessageType::Response);
            let short = answer::fit(reply.clone(), answer::PLAIN_PAYLOAD);
            assert!(short == reply || short.len() <= answer::PLAIN_PAYLOAD && short[2] & 2 != 0);
        }
        Decision::Forward { fits } => {
            assert!(fits >= answer::PLAIN_PAYLOAD);
            let failed = answer::failure(bytes).expect("what is forwarded can fail");
            assert!(failed[..2] == bytes[..2] && failed[3] & 15 == 2);
            assert!(answer::belongs(&failed, bytes), "a failure bears its question");
        }
        Decision::Ignore(_) => {}
    }
}

fn reply(bytes: &[u8]) {
    let Some((&cut, bytes)) = bytes.split_first() else { return };
    let (question, reply) = bytes.split_at(usize::from(cut).min(bytes.len()));
    if answer::belongs(reply, question) {
        assert!(reply[..2] == question[..2] && reply[2] & 0x80 != 0);
        let end = answer::question_end(question).expect("it has one question");
        assert!(reply[12..end].eq_ignore_ascii_case(&question[12..end]));
    }
    let whole = reply.to_vec();
    let fits = 12 + usize::from(cut);
    let short = answer::fit(whole.clone(), fits);
    assert!(short == whole || short.len() <= fits);
}

/// A segment to the gateway's port 53, its header completed; `next` is what the gateway is about to send.
fn segment(bytes: &[u8], next: u32) -> Vec<u8> {
    let mut frame = vec![0; (14 + 20 + 20).max(14 + bytes.len())];
    frame[14..14 + bytes.len()].copy_from_slice(bytes);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    let total = (frame.len() - 14) as u16;
    let packet = &mut frame[14..];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    packet[6..10].copy_from_slice(&[0, 0, 64, 6]);
    packet[12..20].copy_from_slice(&[10, 7, 0, 2, 10, 7, 0, 1]);
    packet[22..24].copy_from_slice(&53u16.to_be_bytes());
    packet[28..32].copy_from_slice(&next.to_be_bytes());
    packet[32] = 0x50;
    let (source, destination) = ([10, 7, 0, 2].into(), [10, 7, 0, 1].into());
    Ipv4Packet::new_unchecked(&mut packet[..20]).fill_checksum();
    TcpPacket::new_unchecked(&mut packet[20..])
        .fill_checksum(&IpAddress::Ipv4(source), &IpAddress::Ipv4(destination));
    frame
}

fn packets(mut bytes: &[u8]) {
    let at = |now| smoltcp::time::Instant::from_millis(now);
    let (mut now, mut next) = (0, 0);
    let mut server = tcp::TcpServer::new(MacAddr([2, 0, 0, 0, 0, 1]), V4, Some(V6), 1500, at(now), 7);
    while let Some((&[high, low], rest)) = bytes.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes([high & 7, low]));
        let (frame, rest) = rest.split_at(len.min(rest.len()));
        bytes = rest;
        let port = if high & 0x20 == 0 { "vm1" } else { "vm2" }.into();
        match high & 0x80 {
            0 => server.take_frame(&segment(frame, next), &port),
            _ => server.take_frame(frame, &port),
        }
        now += 100;
        let output = server.poll(at(now));
        for (connection, _, message) in output.queries {
            assert!(message.len() <= 65_535);
            server.reply(connection, (high & 0x40 == 0).then_some(message.as_slice()));
        }
        for frame in output.frames {
            assert!((14 + 20..=1514).contains(&frame.len()));
            if frame[12..14] == [0x08, 0x00] && frame[23] == 6 {
                let sent = u32::from_be_bytes([frame[38], frame[39], frame[40], frame[41]]);
                let opens = u32::from(frame[47] & 2 != 0);
                next = sent.wrapping_add(opens + (frame.len() - 34 - usize::from(frame[46] >> 4) * 4) as u32);
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&which, rest)) = input.split_first() else { return };
    match which % 3 {
        0 => query(rest),
        1 => reply(rest),
        _ => packets(rest),
    }
});
