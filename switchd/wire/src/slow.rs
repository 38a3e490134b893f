//! Slow protocols (802.3 annex 57A): LACPDU and Marker PDU (802.1AX-2020 6.4.2, 6.5.3).
//!
//! A received LACPDU is read as the standard asks: version, TLV types and reserved fields are not judged, so
//! that version 2 and later, with TLVs that nobody here knows, are understood as version 1; the lengths of
//! the three information fields are. Sent PDUs are version 1.
//! Left out: OAM and organization-specific slow protocols, which are told apart and no more.

use crate::MacAddr;

pub const ETHERTYPE: u16 = 0x8809;
pub const DESTINATION: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x02]);
pub const SUBTYPE_LACP: u8 = 1;
pub const SUBTYPE_MARKER: u8 = 2;

const HEADER: usize = 14;
/// Of a version 1 LACPDU and of a Marker PDU, from the subtype on.
pub const PDU_LEN: usize = 110;

/// Actor_State and Partner_State (6.4.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct State(pub u8);

impl State {
    pub const ACTIVITY: u8 = 0x01;
    pub const TIMEOUT: u8 = 0x02;
    pub const AGGREGATION: u8 = 0x04;
    pub const SYNCHRONIZATION: u8 = 0x08;
    pub const COLLECTING: u8 = 0x10;
    pub const DISTRIBUTING: u8 = 0x20;
    pub const DEFAULTED: u8 = 0x40;
    pub const EXPIRED: u8 = 0x80;

    pub const fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    pub fn set(&mut self, bit: u8, on: bool) {
        self.0 = if on { self.0 | bit } else { self.0 & !bit };
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const NAMES: [&str; 8] = [
            "activity",
            "timeout",
            "aggregation",
            "synchronized",
            "collecting",
            "distributing",
            "defaulted",
            "expired",
        ];
        let set = NAMES.iter().enumerate().filter(|(bit, _)| self.0 >> bit & 1 != 0);
        for (index, (_, name)) in set.enumerate() {
            write!(f, "{}{name}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// One end of a link as a LACPDU describes it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Info {
    pub system_priority: u16,
    pub system: MacAddr,
    pub key: u16,
    pub port_priority: u16,
    pub port: u16,
    pub state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lacpdu {
    pub version: u8,
    pub actor: Info,
    pub partner: Info,
    /// Tens of microseconds.
    pub collector_max_delay: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marker {
    /// Marker Response Information instead of Marker Information.
    pub response: bool,
    pub port: u16,
    pub system: MacAddr,
    pub transaction: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slow {
    Lacp(Lacpdu),
    Marker(Marker),
    /// OAM, OSSP or what may come.
    Other(u8),
}

/// Why a slow protocol frame is not understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadSlow {
    /// Cut: shorter than the PDU must be.
    TooShort,
    /// Not for this protocol's address and Ethertype.
    NotSlow,
    /// A length field of an information TLV is wrong.
    BadLength,
    /// The actor's system is a group address or zero: forged, or nonsense.
    BadSystem,
    /// A Marker PDU of a type that is neither information nor response.
    BadMarker,
}

impl BadSlow {
    pub const ALL: [BadSlow; 5] =
        [BadSlow::TooShort, BadSlow::NotSlow, BadSlow::BadLength, BadSlow::BadSystem, BadSlow::BadMarker];

    pub const fn name(self) -> &'static str {
        match self {
            BadSlow::TooShort => "too-short",
            BadSlow::NotSlow => "not-slow",
            BadSlow::BadLength => "bad-length",
            BadSlow::BadSystem => "bad-system",
            BadSlow::BadMarker => "bad-marker",
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn mac_at(bytes: &[u8], at: usize) -> MacAddr {
    MacAddr([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3], bytes[at + 4], bytes[at + 5]])
}

/// A whole frame, Ethernet header first.
pub fn parse(frame: &[u8]) -> Result<Slow, BadSlow> {
    if frame.len() < HEADER + 1 {
        return Err(BadSlow::TooShort);
    }
    if mac_at(frame, 0) != DESTINATION || u16_at(frame, 12) != ETHERTYPE {
        return Err(BadSlow::NotSlow);
    }
    let pdu = &frame[HEADER..];
    match pdu[0] {
        SUBTYPE_LACP => parse_lacp(pdu).map(Slow::Lacp),
        SUBTYPE_MARKER => parse_marker(pdu).map(Slow::Marker),
        other => Ok(Slow::Other(other)),
    }
}

fn parse_lacp(pdu: &[u8]) -> Result<Lacpdu, BadSlow> {
    if pdu.len() < PDU_LEN {
        return Err(BadSlow::TooShort);
    }
    if pdu[3] != 20 || pdu[23] != 20 || pdu[43] != 16 {
        return Err(BadSlow::BadLength);
    }
    let actor = info(pdu, 4);
    if actor.system.is_group() || actor.system.is_zero() {
        return Err(BadSlow::BadSystem);
    }
    Ok(Lacpdu { version: pdu[1], actor, partner: info(pdu, 24), collector_max_delay: u16_at(pdu, 44) })
}

fn info(pdu: &[u8], at: usize) -> Info {
    Info {
        system_priority: u16_at(pdu, at),
        system: mac_at(pdu, at + 2),
        key: u16_at(pdu, at + 8),
        port_priority: u16_at(pdu, at + 10),
        port: u16_at(pdu, at + 12),
        state: State(pdu[at + 14]),
    }
}

/// Padding is not asked for: only that the information is whole.
fn parse_marker(pdu: &[u8]) -> Result<Marker, BadSlow> {
    if pdu.len() < 18 {
        return Err(BadSlow::TooShort);
    }
    if pdu[3] != 16 {
        return Err(BadSlow::BadLength);
    }
    let response = match pdu[2] {
        1 => false,
        2 => true,
        _ => return Err(BadSlow::BadMarker),
    };
    let transaction = u32::from_be_bytes([pdu[12], pdu[13], pdu[14], pdu[15]]);
    Ok(Marker { response, port: u16_at(pdu, 4), system: mac_at(pdu, 6), transaction })
}

fn frame(source: MacAddr, subtype: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + PDU_LEN);
    bytes.extend_from_slice(&DESTINATION.0);
    bytes.extend_from_slice(&source.0);
    bytes.extend_from_slice(&ETHERTYPE.to_be_bytes());
    bytes.extend_from_slice(&[subtype, 1]);
    bytes
}

fn put_info(bytes: &mut Vec<u8>, kind: u8, info: &Info) {
    bytes.extend_from_slice(&[kind, 20]);
    bytes.extend_from_slice(&info.system_priority.to_be_bytes());
    bytes.extend_from_slice(&info.system.0);
    bytes.extend_from_slice(&info.key.to_be_bytes());
    bytes.extend_from_slice(&info.port_priority.to_be_bytes());
    bytes.extend_from_slice(&info.port.to_be_bytes());
    bytes.extend_from_slice(&[info.state.0, 0, 0, 0]);
}

impl Lacpdu {
    /// The whole frame, as version 1.
    pub fn to_frame(&self, source: MacAddr) -> Vec<u8> {
        let mut bytes = frame(source, SUBTYPE_LACP);
        put_info(&mut bytes, 1, &self.actor);
        put_info(&mut bytes, 2, &self.partner);
        bytes.extend_from_slice(&[3, 16]);
        bytes.extend_from_slice(&self.collector_max_delay.to_be_bytes());
        bytes.resize(HEADER + PDU_LEN, 0);
        bytes
    }
}

impl Marker {
    pub fn to_frame(&self, source: MacAddr) -> Vec<u8> {
        let mut bytes = frame(source, SUBTYPE_MARKER);
        bytes.extend_from_slice(&[if self.response { 2 } else { 1 }, 16]);
        bytes.extend_from_slice(&self.port.to_be_bytes());
        bytes.extend_from_slice(&self.system.0);
        bytes.extend_from_slice(&self.transaction.to_be_bytes());
        bytes.resize(HEADER + PDU_LEN, 0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: MacAddr = MacAddr([0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]);

    fn sample() -> Lacpdu {
        Lacpdu {
            version: 1,
            actor: Info {
                system_priority: 0x8000,
                system: MacAddr([2, 0, 0, 0, 0, 1]),
                key: 0x0102,
                port_priority: 0x7fff,
                port: 0x0304,
                state: State(0x3d),
            },
            partner: Info {
                system_priority: 1,
                system: MacAddr([2, 0, 0, 0, 0, 2]),
                key: 5,
                port_priority: 6,
                port: 7,
                state: State(0x47),
            },
            collector_max_delay: 0x1234,
        }
    }

    /// Written out by hand from figure 6-7; scapy's `LACP()` lays the fields out the same way.
    #[test]
    fn lacpdu_has_the_layout_of_clause_6_4_2_3() {
        let bytes = sample().to_frame(SOURCE);
        let mut want = vec![0x01, 0x80, 0xc2, 0, 0, 2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x88, 0x09, 1, 1];
        want.extend([1, 20, 0x80, 0, 2, 0, 0, 0, 0, 1, 1, 2, 0x7f, 0xff, 3, 4, 0x3d, 0, 0, 0]);
        want.extend([2, 20, 0, 1, 2, 0, 0, 0, 0, 2, 0, 5, 0, 6, 0, 7, 0x47, 0, 0, 0]);
        want.extend([3, 16, 0x12, 0x34]);
        want.resize(124, 0);
        assert_eq!(bytes, want);
        assert_eq!(parse(&bytes), Ok(Slow::Lacp(sample())));
    }

    #[test]
    fn later_versions_and_unknown_tlvs_are_read_as_version_1() {
        let mut bytes = sample().to_frame(SOURCE);
        bytes[15] = 2;
        // Types and reserved fields are not judged; a version 2 TLV follows the collector's.
        (bytes[16], bytes[33], bytes[36]) = (0x77, 0xff, 0x78);
        bytes[74..76].copy_from_slice(&[4, 8]);
        bytes.extend([9; 40]);
        let want = Lacpdu { version: 2, ..sample() };
        assert_eq!(parse(&bytes), Ok(Slow::Lacp(want)));
    }

    #[test]
    fn bad_pdus_are_told_apart() {
        let good = sample().to_frame(SOURCE);
        for cut in 0..good.len() {
            assert_eq!(parse(&good[..cut]), Err(BadSlow::TooShort), "cut at {cut}");
        }
        for at in [17, 37, 57] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(parse(&bad), Err(BadSlow::BadLength), "length at {at}");
        }
        let mut forged = good.clone();
        forged[20] = 3;
        assert_eq!(parse(&forged), Err(BadSlow::BadSystem));
        forged[20..26].fill(0);
        assert_eq!(parse(&forged), Err(BadSlow::BadSystem));
        let mut other = good.clone();
        other[13] = 0;
        assert_eq!(parse(&other), Err(BadSlow::NotSlow));
        let mut oam = good;
        oam[14] = 3;
        assert_eq!(parse(&oam), Ok(Slow::Other(3)));
    }

    #[test]
    fn marker_round_trip_and_refusals() {
        let marker = Marker { response: false, port: 9, system: SOURCE, transaction: 0xdead_beef };
        let bytes = marker.to_frame(SOURCE);
        assert_eq!(bytes.len(), 124);
        assert_eq!(
            &bytes[14..34],
            [2, 1, 1, 16, 0, 9, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0]
        );
        assert_eq!(parse(&bytes), Ok(Slow::Marker(marker)));
        let answer = Marker { response: true, ..marker };
        assert_eq!(parse(&answer.to_frame(SOURCE)), Ok(Slow::Marker(answer)));
        let mut bad = bytes.clone();
        bad[16] = 3;
        assert_eq!(parse(&bad), Err(BadSlow::BadMarker));
        bad[17] = 15;
        assert_eq!(parse(&bad), Err(BadSlow::BadLength));
        assert_eq!(parse(&bytes[..31]), Err(BadSlow::TooShort));
    }

    fn unhex(text: &str, length: usize) -> Vec<u8> {
        let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
        let mut bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        bytes.resize(length, 0);
        bytes
    }

    /// Captured from Open vSwitch 3.1, in step with a partner of system priority 0x8000.
    #[test]
    fn what_open_vswitch_sends_is_understood_and_written_alike() {
        let text = "0180c2000002 e2238d8ccaf2 8809 0101 0114 fffe 5e2a6a434c4a 0001 ffff 0001 3f 000000
                    0214 8000 02a8af30072c 000d 8000 0001 3f 000000 0310";
        let bytes = unhex(text, 124);
        let Ok(Slow::Lacp(pdu)) = parse(&bytes) else { panic!("a LACPDU") };
        assert_eq!((pdu.actor.system_priority, pdu.actor.key, pdu.actor.port_priority), (0xfffe, 1, 0xffff));
        assert_eq!((pdu.partner.key, pdu.partner.port, pdu.partner.state), (13, 1, State(0x3f)));
        assert_eq!(pdu.to_frame(MacAddr([0xe2, 0x23, 0x8d, 0x8c, 0xca, 0xf2])), bytes);
    }

    /// `bytes(Ether()/SlowProtocol()/LACP(…))` and `MarkerProtocol(…)` of scapy 2.8.
    #[test]
    fn what_scapy_builds_is_understood_and_written_alike() {
        let source = MacAddr([2, 0, 0, 0, 1, 1]);
        let lacp = unhex(
            "0180c2000002 020000000101 8809 0101 0114 1234 02000000000b 0007 4321 0009 3f 000000
             0214 8000 02000000000a 0005 8000 0001 0d 000000 0310 0010",
            124,
        );
        let Ok(Slow::Lacp(pdu)) = parse(&lacp) else { panic!("a LACPDU") };
        assert_eq!((pdu.actor.port, pdu.partner.state, pdu.collector_max_delay), (9, State(0x0d), 16));
        assert_eq!(pdu.to_frame(source), lacp);
        let marker = unhex("0180c2000002 020000000101 8809 0201 0110 0003 02000000000b 0000004d", 124);
        let want =
            Marker { response: false, port: 3, system: MacAddr([2, 0, 0, 0, 0, 0xb]), transaction: 77 };
        assert_eq!(parse(&marker), Ok(Slow::Marker(want)));
        assert_eq!(want.to_frame(source), marker);
    }

    #[test]
    fn state_reads_as_words() {
        assert_eq!(State(0x3d).to_string(), "activity aggregation synchronized collecting distributing");
        assert_eq!(State(0xc2).to_string(), "timeout defaulted expired");
    }
}
