//! Bridge PDUs (802.1Q-2022 clause 14): Configuration, Topology Change Notification, Rapid Spanning Tree.
//!
//! Later versions are read as RST BPDUs, as 14.4 asks for: an MST BPDU begins like one. Bridge and port
//! identifiers are integers, priority first, so that they compare as the standard compares them.
//! Left out: what MST and SPB BPDUs carry beyond that.

use crate::MacAddr;

pub const DESTINATION: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0]);
/// Length field and LLC header follow the addresses.
const HEADER: usize = 17;
const LLC: [u8; 3] = [0x42, 0x42, 0x03];
const CONFIG_LEN: usize = 35;
const RST_LEN: usize = 36;

/// Bits of the flags octet (14.5).
pub mod flags {
    pub const TOPOLOGY_CHANGE: u8 = 0x01;
    pub const PROPOSAL: u8 = 0x02;
    /// Two bits.
    pub const ROLE: u8 = 0x0c;
    pub const LEARNING: u8 = 0x10;
    pub const FORWARDING: u8 = 0x20;
    pub const AGREEMENT: u8 = 0x40;
    pub const TOPOLOGY_CHANGE_ACK: u8 = 0x80;
}

/// Port Role of an RST BPDU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    Unknown,
    AlternateOrBackup,
    Root,
    Designated,
}

/// Times in seconds. (On the wire they are 1/256 s; fractions are cut, as nobody sends them.)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    pub message_age: u16,
    pub max_age: u16,
    pub hello: u16,
    pub forward_delay: u16,
}

/// Root, cost to it, designated bridge and port: what is compared, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Priority {
    pub root: u64,
    pub cost: u32,
    pub bridge: u64,
    pub port: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    pub flags: u8,
    pub priority: Priority,
    pub times: Times,
}

impl Message {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub fn role(&self) -> Role {
        match (self.flags & flags::ROLE) >> 2 {
            1 => Role::AlternateOrBackup,
            2 => Role::Root,
            3 => Role::Designated,
            _ => Role::Unknown,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bpdu {
    Config(Message),
    Tcn,
    Rst(Message),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadBpdu {
    /// Not to the bridge group address with the spanning tree LLC header.
    NotBpdu,
    /// Shorter than its kind is.
    TooShort,
    /// Another protocol identifier, or a type that does not go with the version.
    Unknown,
    /// Message Age is not below Max Age: it has travelled too far (14.4).
    TooOld,
}

impl BadBpdu {
    pub const ALL: [BadBpdu; 4] = [BadBpdu::NotBpdu, BadBpdu::TooShort, BadBpdu::Unknown, BadBpdu::TooOld];
}

/// Of priority (16 bits) and address.
pub fn bridge_id(priority: u16, mac: MacAddr) -> u64 {
    u64::from(priority) << 48 | mac.to_u64()
}

/// A whole frame, Ethernet header first.
pub fn parse(frame: &[u8]) -> Result<Bpdu, BadBpdu> {
    if frame.len() < HEADER || frame[..6] != DESTINATION.0 || frame[14..17] != LLC {
        return Err(BadBpdu::NotBpdu);
    }
    // What lies beyond the length field is padding.
    let length = usize::from(u16::from_be_bytes([frame[12], frame[13]])).saturating_sub(LLC.len());
    let pdu = &frame[HEADER..];
    let pdu = &pdu[..length.min(pdu.len())];
    let &[0, 0, version, kind, ref rest @ ..] = pdu else {
        return Err(if pdu.len() < 4 { BadBpdu::TooShort } else { BadBpdu::Unknown });
    };
    match (version, kind) {
        (_, 0x80) => Ok(Bpdu::Tcn),
        (_, 0x00) if pdu.len() < CONFIG_LEN => Err(BadBpdu::TooShort),
        (_, 0x00) => message(rest).map(Bpdu::Config),
        (2.., 0x02) if pdu.len() < RST_LEN => Err(BadBpdu::TooShort),
        (2.., 0x02) => {
            let message = message(rest)?;
            // 14.5: a port of unknown role speaks as in a Configuration BPDU.
            Ok(if message.role() == Role::Unknown { Bpdu::Config(message) } else { Bpdu::Rst(message) })
        }
        _ => Err(BadBpdu::Unknown),
    }
}

fn message(rest: &[u8]) -> Result<Message, BadBpdu> {
    let u16_at = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    let u32_at = |at: usize| u32::from(u16_at(at)) << 16 | u32::from(u16_at(at + 2));
    let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
    if u16_at(23) >= u16_at(25) {
        return Err(BadBpdu::TooOld);
    }
    let seconds = |at: usize| u16_at(at) >> 8;
    Ok(Message {
        flags: rest[0],
        priority: Priority { root: u64_at(1), cost: u32_at(9), bridge: u64_at(13), port: u16_at(21) },
        times: Times {
            message_age: seconds(23),
            max_age: seconds(25),
            hello: seconds(27),
            forward_delay: seconds(29),
        },
    })
}

impl Bpdu {
    /// The whole frame, padded to the least length.
    pub fn to_frame(&self, source: MacAddr) -> Vec<u8> {
        let mut pdu = Vec::with_capacity(RST_LEN);
        match self {
            Bpdu::Tcn => pdu.extend_from_slice(&[0, 0, 0, 0x80]),
            Bpdu::Config(message) => {
                pdu.extend_from_slice(&[0, 0, 0, 0]);
                // The other bits are of later versions.
                let flags = message.flags & (flags::TOPOLOGY_CHANGE | flags::TOPOLOGY_CHANGE_ACK);
                put(&mut pdu, flags, message);
            }
            Bpdu::Rst(message) => {
                pdu.extend_from_slice(&[0, 0, 2, 2]);
                put(&mut pdu, message.flags, message);
                pdu.push(0);
            }
        }
        let mut bytes = Vec::with_capacity(60);
        bytes.extend_from_slice(&DESTINATION.0);
        bytes.extend_from_slice(&source.0);
        bytes.extend_from_slice(&((pdu.len() + LLC.len()) as u16).to_be_bytes());
        bytes.extend_from_slice(&LLC);
        bytes.extend_from_slice(&pdu);
        bytes.resize(60, 0);
        bytes
    }
}

fn put(pdu: &mut Vec<u8>, flags: u8, message: &Message) {
    let Priority { root, cost, bridge, port } = message.priority;
    pdu.push(flags);
    pdu.extend_from_slice(&root.to_be_bytes());
    pdu.extend_from_slice(&cost.to_be_bytes());
    pdu.extend_from_slice(&bridge.to_be_bytes());
    pdu.extend_from_slice(&port.to_be_bytes());
    let Times { message_age, max_age, hello, forward_delay } = message.times;
    for seconds in [message_age, max_age, hello, forward_delay] {
        pdu.extend_from_slice(&(seconds.min(255) << 8).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn sample() -> Message {
        Message {
            flags: 0x3c | flags::AGREEMENT,
            priority: Priority {
                root: bridge_id(0x1000, MacAddr([2, 0, 0, 0, 0, 9])),
                cost: 0x0001_86a0,
                bridge: bridge_id(0x8000, SOURCE),
                port: 0x8003,
            },
            times: Times { message_age: 1, max_age: 20, hello: 2, forward_delay: 15 },
        }
    }

    /// Octets of figure 14-2, written out by hand.
    #[test]
    fn an_rst_bpdu_has_the_layout_of_clause_14() {
        let bytes = Bpdu::Rst(sample()).to_frame(SOURCE);
        let mut want =
            vec![0x01, 0x80, 0xc2, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 39, 0x42, 0x42, 3, 0, 0, 2, 2, 0x7c];
        want.extend([0x10, 0, 2, 0, 0, 0, 0, 9, 0, 1, 0x86, 0xa0, 0x80, 0, 2, 0, 0, 0, 0, 1, 0x80, 3]);
        want.extend([1, 0, 20, 0, 2, 0, 15, 0, 0]);
        want.resize(60, 0);
        assert_eq!(bytes, want);
        assert_eq!(parse(&bytes), Ok(Bpdu::Rst(sample())));
        assert_eq!(sample().role(), Role::Designated);
    }

    #[test]
    fn configuration_and_topology_change_bpdus_read_back() {
        let message = Message { flags: flags::TOPOLOGY_CHANGE, ..sample() };
        let config = Bpdu::Config(message);
        assert_eq!(parse(&config.to_frame(SOURCE)), Ok(config));
        let flags = parse(&Bpdu::Config(Message { flags: 0xff, ..sample() }).to_frame(SOURCE));
        assert_eq!(flags, Ok(Bpdu::Config(Message { flags: 0x81, ..sample() })));
        let tcn = Bpdu::Tcn.to_frame(SOURCE);
        assert_eq!((parse(&tcn), tcn.len(), tcn[13]), (Ok(Bpdu::Tcn), 60, 7));
    }

    #[test]
    fn mst_bpdus_are_read_as_rst_and_unknown_roles_as_configuration() {
        let mut mst = Bpdu::Rst(sample()).to_frame(SOURCE);
        mst[19] = 3;
        mst[13] = 105;
        mst.resize(119, 7);
        assert_eq!(parse(&mst), Ok(Bpdu::Rst(sample())));
        let unknown = Message { flags: 0, ..sample() };
        assert_eq!(parse(&Bpdu::Rst(unknown).to_frame(SOURCE)), Ok(Bpdu::Config(unknown)));
    }

    /// Captured from Open vSwitch 3.1, a root of priority 4096. It is not padded.
    #[test]
    fn what_open_vswitch_sends_is_understood() {
        let mut bytes =
            vec![0x01, 0x80, 0xc2, 0, 0, 0, 2, 0x82, 0x34, 0x42, 0x31, 0x58, 0, 0x27, 0x42, 0x42, 3];
        bytes.extend([0, 0, 2, 2, 0x7c, 0x10, 0, 0xfe, 0x78, 0x27, 0x9c, 0x3d, 0x43, 0, 0, 0, 0]);
        bytes.extend([0x10, 0, 0xfe, 0x78, 0x27, 0x9c, 0x3d, 0x43, 0x80, 2, 0, 0, 0x14, 0, 2, 0, 0x0f, 0, 0]);
        let Ok(Bpdu::Rst(message)) = parse(&bytes) else { panic!("an RST BPDU") };
        let root = bridge_id(0x1000, MacAddr([0xfe, 0x78, 0x27, 0x9c, 0x3d, 0x43]));
        assert_eq!(message.priority, Priority { root, cost: 0, bridge: root, port: 0x8002 });
        assert_eq!((message.role(), message.flags), (Role::Designated, 0x7c));
        let ours = Bpdu::Rst(message).to_frame(MacAddr([2, 0x82, 0x34, 0x42, 0x31, 0x58]));
        assert_eq!(ours[..53], bytes);
    }

    #[test]
    fn bad_bpdus_are_told_apart() {
        let good = Bpdu::Rst(sample()).to_frame(SOURCE);
        for cut in 0..53 {
            let want = if cut < 17 { BadBpdu::NotBpdu } else { BadBpdu::TooShort };
            assert_eq!(parse(&good[..cut]), Err(want), "cut at {cut}");
        }
        let mut length = good.clone();
        length[13] = 38;
        assert_eq!(parse(&length), Err(BadBpdu::TooShort));
        let changed = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            parse(&bytes)
        };
        assert_eq!(changed(17, 1), Err(BadBpdu::Unknown));
        assert_eq!(changed(20, 9), Err(BadBpdu::Unknown));
        assert_eq!(changed(19, 1), Err(BadBpdu::Unknown));
        assert_eq!(changed(44, 20), Err(BadBpdu::TooOld));
        assert_eq!(changed(14, 0xaa), Err(BadBpdu::NotBpdu));
    }
}
