//! LLDPDU (IEEE 802.1AB-2016, clauses 8 and 9.2.7.7): reading and writing.
//!
//! A PDU is judged as a whole: the three mandatory TLVs must come first, in order and once; a TLV that runs
//! over the end, or one that may stand once and stands twice, spoils it. TLVs that nobody here knows are
//! passed over and counted. Texts are cut at 255 bytes and stripped of control characters: they are
//! shown to people.
//! Left out: management addresses and capability bits of others, which nobody asks for.

use crate::MacAddr;
use std::fmt::Write;

pub const ETHERTYPE: u16 = 0x88cc;
/// Nearest bridge.
pub const DESTINATION: MacAddr = MacAddr([0x01, 0x80, 0xc2, 0, 0, 0x0e]);

const HEADER: usize = 14;
/// OUI of 802.1 with the subtype of the Link Aggregation TLV (802.1AX annex F; 7 in the version of 2009).
const OUI_8021: [u8; 3] = [0x00, 0x80, 0xc2];
const AGGREGATION: u8 = 7;
/// OUI of 802.3 with the subtypes of Link Aggregation (older senders) and Maximum Frame Size.
const OUI_8023: [u8; 3] = [0x00, 0x12, 0x0f];
const AGGREGATION_8023: u8 = 3;
const FRAME_SIZE: u8 = 4;
/// System capability "MAC bridge" (table 8-4).
const BRIDGE: u16 = 0x0004;

/// A chassis or port identifier: its subtype and bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Id {
    pub subtype: u8,
    pub bytes: Vec<u8>,
}

impl Id {
    /// A chassis by its MAC address (subtype 4).
    pub fn chassis_mac(mac: MacAddr) -> Id {
        Id { subtype: 4, bytes: mac.0.to_vec() }
    }

    /// A port by its interface's name (subtype 5).
    pub fn interface(name: &str) -> Id {
        Id { subtype: 5, bytes: name.as_bytes().iter().copied().take(255).collect() }
    }

    /// Addresses as such, names as text. `chassis` says which table of subtypes goes (8-2 or 8-3).
    pub fn show(&self, chassis: bool) -> String {
        let mac = if chassis { 4 } else { 3 };
        let network = if chassis { 5 } else { 4 };
        match (self.subtype, self.bytes.as_slice()) {
            (subtype, &[a, b, c, d, e, f]) if subtype == mac => MacAddr([a, b, c, d, e, f]).to_string(),
            (subtype, &[1, a, b, c, d]) if subtype == network => format!("{a}.{b}.{c}.{d}"),
            (subtype, &[2, ref rest @ ..]) if subtype == network && rest.len() == 16 => {
                let octets: [u8; 16] = rest.try_into().unwrap_or_default();
                std::net::Ipv6Addr::from(octets).to_string()
            }
            (subtype, bytes) if subtype == mac || subtype == network => hex(bytes),
            (_, bytes) => text(bytes),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What people may be shown.
fn text(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(255)];
    let readable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    String::from_utf8_lossy(bytes).trim_end_matches(['\0', '\n', '\r']).chars().map(readable).collect()
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lldpdu {
    pub chassis: Id,
    pub port: Id,
    /// Seconds; 0: the sender goes.
    pub ttl: u16,
    pub port_description: String,
    pub system_name: String,
    pub system_description: String,
    /// Capabilities and those enabled.
    pub capabilities: Option<(u16, u16)>,
    /// Status (bit 0 capable, bit 1 aggregated) and the aggregated port's number.
    pub aggregation: Option<(u8, u32)>,
    /// Largest frame, header and check sequence included.
    pub frame_size: Option<u16>,
    /// TLVs that were passed over.
    pub unknown: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadLldp {
    /// Not of this Ethertype.
    NotLldp,
    /// A TLV runs over the end.
    Cut,
    /// Chassis, port and time to live are not the first three.
    Order,
    /// A TLV with a length that its kind does not allow.
    Length,
    /// A TLV that may stand once stands twice.
    Twice,
}

impl BadLldp {
    pub const ALL: [BadLldp; 5] =
        [BadLldp::NotLldp, BadLldp::Cut, BadLldp::Order, BadLldp::Length, BadLldp::Twice];
}

/// A whole frame, Ethernet header first.
pub fn parse(frame: &[u8]) -> Result<Lldpdu, BadLldp> {
    if frame.len() < HEADER || frame[12..14] != ETHERTYPE.to_be_bytes() {
        return Err(BadLldp::NotLldp);
    }
    let mut rest = &frame[HEADER..];
    let chassis = id(mandatory(&mut rest, 1)?)?;
    let port = id(mandatory(&mut rest, 2)?)?;
    let ttl = mandatory(&mut rest, 3)?;
    let &[high, low, ..] = ttl else { return Err(BadLldp::Length) };
    let mut pdu = Lldpdu {
        chassis,
        port,
        ttl: u16::from_be_bytes([high, low]),
        port_description: String::new(),
        system_name: String::new(),
        system_description: String::new(),
        capabilities: None,
        aggregation: None,
        frame_size: None,
        unknown: 0,
    };
    let mut seen = 0u16;
    while let Some((kind, value)) = tlv(&mut rest)? {
        match kind {
            0 => break,
            1..=3 => return Err(BadLldp::Order),
            4..=7 if seen & 1 << kind != 0 => return Err(BadLldp::Twice),
            4 => pdu.port_description = bounded(value)?,
            5 => pdu.system_name = bounded(value)?,
            6 => pdu.system_description = bounded(value)?,
            7 => {
                let &[a, b, c, d] = value else { return Err(BadLldp::Length) };
                pdu.capabilities = Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])));
            }
            127 => organization(value, &mut pdu)?,
            _ => pdu.unknown += 1,
        }
        if kind < 16 {
            seen |= 1 << kind;
        }
    }
    Ok(pdu)
}

fn organization(value: &[u8], pdu: &mut Lldpdu) -> Result<(), BadLldp> {
    let &[a, b, c, subtype, ref info @ ..] = value else { return Err(BadLldp::Length) };
    match ([a, b, c], subtype, info) {
        (OUI_8021, AGGREGATION, &[status, w, x, y, z])
        | (OUI_8023, AGGREGATION_8023, &[status, w, x, y, z]) => {
            pdu.aggregation = Some((status, u32::from_be_bytes([w, x, y, z])));
        }
        (OUI_8023, FRAME_SIZE, &[x, y]) => pdu.frame_size = Some(u16::from_be_bytes([x, y])),
        _ => pdu.unknown += 1,
    }
    Ok(())
}

fn bounded(value: &[u8]) -> Result<String, BadLldp> {
    if value.len() > 255 { Err(BadLldp::Length) } else { Ok(text(value)) }
}

fn id(value: &[u8]) -> Result<Id, BadLldp> {
    match value {
        &[subtype, ref bytes @ ..] if (1..=255).contains(&bytes.len()) => {
            Ok(Id { subtype, bytes: bytes.to_vec() })
        }
        _ => Err(BadLldp::Length),
    }
}

fn mandatory<'a>(rest: &mut &'a [u8], kind: u8) -> Result<&'a [u8], BadLldp> {
    match tlv(rest)? {
        Some((found, value)) if found == kind => Ok(value),
        _ => Err(BadLldp::Order),
    }
}

/// The next TLV; `None` at the end of the frame, where End Of LLDPDU may be missing.
fn tlv<'a>(rest: &mut &'a [u8]) -> Result<Option<(u8, &'a [u8])>, BadLldp> {
    let &[high, low, ref after @ ..] = *rest else {
        return if rest.is_empty() { Ok(None) } else { Err(BadLldp::Cut) };
    };
    let length = usize::from(u16::from_be_bytes([high, low]) & 0x1ff);
    let value = after.get(..length).ok_or(BadLldp::Cut)?;
    *rest = &after[length..];
    Ok(Some((high >> 1, value)))
}

fn put(bytes: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    bytes.extend_from_slice(&(u16::from(kind) << 9 | (length as u16 & 0x1ff)).to_be_bytes());
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
}

/// What we say of ourselves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announcement {
    pub chassis: MacAddr,
    pub interface: String,
    pub system_name: String,
    pub system_description: String,
    /// Number of the aggregator, for a member of a bond; the second is whether it is in the aggregate.
    pub aggregation: Option<(u32, bool)>,
    /// Largest IP packet.
    pub mtu: u16,
}

fn short(text: &str) -> &[u8] {
    let mut end = text.len().min(255);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text.as_bytes()[..end]
}

impl Announcement {
    /// The whole frame. With a time to live of 0 it is the shutdown PDU (9.2.7.2): mandatory TLVs only.
    pub fn to_frame(&self, source: MacAddr, ttl: u16) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&DESTINATION.0);
        bytes.extend_from_slice(&source.0);
        bytes.extend_from_slice(&ETHERTYPE.to_be_bytes());
        put(&mut bytes, 1, &[&[4], &self.chassis.0]);
        put(&mut bytes, 2, &[&[5], short(&self.interface)]);
        put(&mut bytes, 3, &[&ttl.to_be_bytes()]);
        if ttl > 0 {
            put(&mut bytes, 4, &[short(&self.interface)]);
            put(&mut bytes, 5, &[short(&self.system_name)]);
            put(&mut bytes, 6, &[short(&self.system_description)]);
            put(&mut bytes, 7, &[&BRIDGE.to_be_bytes(), &BRIDGE.to_be_bytes()]);
            // Bit 0: capable of aggregation, bit 1: aggregated.
            let status = self.aggregation.map_or(0, |(_, inside)| if inside { 3 } else { 1 });
            let number = self.aggregation.map_or(0, |(number, inside)| if inside { number } else { 0 });
            put(&mut bytes, 127, &[&OUI_8021, &[AGGREGATION, status], &number.to_be_bytes()]);
            // Ethernet header and frame check sequence, and a tag.
            let size = self.mtu.saturating_add(22);
            put(&mut bytes, 127, &[&OUI_8023, &[FRAME_SIZE], &size.to_be_bytes()]);
        }
        put(&mut bytes, 0, &[]);
        bytes.resize(bytes.len().max(60), 0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    fn announcement() -> Announcement {
        Announcement {
            chassis: MAC,
            interface: "eth0".to_owned(),
            system_name: "host".to_owned(),
            system_description: "switchd 1".to_owned(),
            aggregation: Some((7, true)),
            mtu: 1500,
        }
    }

    fn frame(tlvs: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = [&DESTINATION.0[..], &MAC.0, &ETHERTYPE.to_be_bytes()].concat();
        tlvs.iter().for_each(|(kind, value)| put(&mut bytes, *kind, &[value]));
        bytes
    }

    #[test]
    fn an_announcement_reads_back() {
        let bytes = announcement().to_frame(MAC, 120);
        // Chassis TLV by hand: type 1, length 7, subtype 4, address.
        assert_eq!(bytes[14..23], [2, 7, 4, 2, 0, 0, 0, 0, 9]);
        let pdu = parse(&bytes).unwrap();
        assert_eq!(pdu.chassis.show(true), "02:00:00:00:00:09");
        assert_eq!(pdu.port.show(false), "eth0");
        assert_eq!(
            (pdu.ttl, pdu.system_name.as_str(), pdu.system_description.as_str()),
            (120, "host", "switchd 1")
        );
        assert_eq!(pdu.capabilities, Some((4, 4)));
        assert_eq!(pdu.aggregation, Some((3, 7)));
        assert_eq!(pdu.frame_size, Some(1522));
        assert_eq!(pdu.unknown, 0);
    }

    #[test]
    fn the_shutdown_pdu_has_the_mandatory_tlvs_only() {
        let pdu = parse(&announcement().to_frame(MAC, 0)).unwrap();
        assert_eq!((pdu.ttl, pdu.system_name.as_str(), pdu.capabilities), (0, "", None));
    }

    #[test]
    fn mandatory_tlvs_come_first_in_order_and_once() {
        type Tlv = (u8, &'static [u8]);
        let (c, p, t): (Tlv, Tlv, Tlv) = ((1, &[7, b'x']), (2, &[7, b'y']), (3, &[0, 9]));
        assert!(parse(&frame(&[c, p, t])).is_ok());
        for bad in [&[p, c, t][..], &[c, p], &[c, p, (5, b"n"), t], &[c, p, t, c], &[c, p, t, t], &[]] {
            assert_eq!(parse(&frame(bad)), Err(BadLldp::Order), "{bad:?}");
        }
        assert_eq!(parse(&frame(&[(1, &[7]), p, t])), Err(BadLldp::Length));
        assert_eq!(parse(&frame(&[c, p, (3, &[9])])), Err(BadLldp::Length));
        assert_eq!(parse(&frame(&[c, p, t, (5, b"a"), (5, b"b")])), Err(BadLldp::Twice));
        assert_eq!(parse(&frame(&[c, p, t, (5, &[b'a'; 256])])), Err(BadLldp::Length));
        assert_eq!(parse(&frame(&[c, p, t, (127, &[0, 1])])), Err(BadLldp::Length));
    }

    #[test]
    fn cut_frames_are_refused_and_unknown_tlvs_counted() {
        let good = announcement().to_frame(MAC, 120);
        let end = good.iter().rposition(|byte| *byte != 0).unwrap();
        for cut in 14..end {
            // Cut between two TLVs it is whole, but for its End; elsewhere it is refused.
            if let Ok(pdu) = parse(&good[..cut]) {
                assert_eq!(pdu.ttl, 120);
            }
        }
        assert_eq!(parse(&good[..20]), Err(BadLldp::Cut));
        assert_eq!(parse(&good[..13]), Err(BadLldp::NotLldp));
        let base: [(u8, &[u8]); 5] =
            [(1, &[7, b'x']), (2, &[7, b'y']), (3, &[0, 9]), (8, &[1]), (127, &[0, 1, 2, 3])];
        assert_eq!(parse(&frame(&base)).unwrap().unknown, 2);
    }

    #[test]
    fn texts_of_strangers_are_made_harmless() {
        let pdu =
            parse(&frame(&[(1, &[7, b'x']), (2, &[7, b'\x1b']), (3, &[0, 9]), (5, b"a\x1b[31m\xff\0")]))
                .unwrap();
        assert_eq!(pdu.system_name, "a\u{fffd}[31m\u{fffd}");
        assert_eq!(pdu.port.show(false), "\u{fffd}");
        assert_eq!(Id { subtype: 4, bytes: vec![1, 2] }.show(true), "0102");
        assert_eq!(Id { subtype: 5, bytes: vec![1, 10, 0, 0, 1] }.show(true), "10.0.0.1");
    }
}
