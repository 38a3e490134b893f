//! One pass over the head of a frame.
//!
//! The dataplane reads addresses and the outer tag by itself. [`parse`] is for those who need more:
//! the offload check and software segmentation, capture, later NAT. It reads the head only, never the
//! tail, and takes any bytes: what is cut short or malformed simply has no offset.
//!
//! Up to [`TAGS_MAX`] tags (TPID 0x8100, 0x88a8, or that of a pair's peer link) are looked through, so that a guest's own tags under a
//! network's tag do not hide the IP header. Only an outermost 0x8100 tag is reported as `tci`.
//!
//! Left out on purpose: the innards of tunnels, ARP, ICMP and options. IPv6 extension headers are followed
//! up to [`EXTENSIONS_MAX`]; a longer chain has no `l4`.

/// IPv6 extension headers that are followed. RFC 8200 4.1 names seven; RFC 8504 5.3 lets a host limit them.
pub const EXTENSIONS_MAX: usize = 8;
/// Tags that are looked through: two of the guest's own and the two that we push.
pub const TAGS_MAX: usize = 4;

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
pub const ETHERTYPE_ARP: u16 = 0x0806;
pub const TPID_C: u16 = 0x8100;
pub const TPID_S: u16 = 0x88a8;
/// In front of what one half of an MLAG pair sends to the other (IEEE 802 local experimental 2).
pub const TPID_PEER: u16 = 0x88b6;

pub const PROTOCOL_TCP: u8 = 6;
pub const PROTOCOL_UDP: u8 = 17;
pub const PROTOCOL_SCTP: u8 = 132;

/// Which IP header is there, complete as far as its fixed part and its IPv4 options go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ip {
    #[default]
    None,
    V4,
    V6,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fragment {
    #[default]
    Whole,
    /// Offset 0 and more to come: the layer-4 header is (or begins) here.
    First,
    /// No layer-4 header here.
    Later,
}

/// Offsets count from the first byte of the frame, tags included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Layers {
    /// Tag control information of an outermost 802.1Q (0x8100) tag.
    pub tci: Option<u16>,
    /// The type behind the tags; 0 for a runt.
    pub ethertype: u16,
    /// First byte behind `ethertype`.
    pub l3: u16,
    /// First byte behind the IP header and all extension headers, if the head holds these whole and this
    /// is not a later fragment.
    pub l4: Option<u16>,
    /// First byte behind a complete TCP or UDP header.
    pub payload: Option<u16>,
    /// Source and destination port of TCP, UDP and SCTP.
    pub ports: Option<(u16, u16)>,
    pub ip: Ip,
    /// The last protocol number that was reached; 0 without an IP header.
    pub protocol: u8,
    pub fragment: Fragment,
}

#[inline]
fn word(head: &[u8], at: usize) -> Option<u16> {
    let bytes = head.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// Reads the layers of a frame from its head (the first bytes, at most 64 KiB of them).
pub fn parse(head: &[u8]) -> Layers {
    let head = &head[..head.len().min(usize::from(u16::MAX))];
    let mut layers = Layers::default();
    let mut at = 12;
    let Some(mut ethertype) = word(head, at) else { return layers };
    for depth in 0..TAGS_MAX {
        if ethertype != TPID_C && ethertype != TPID_S && ethertype != TPID_PEER {
            break;
        }
        // A tag that the frame ends in: its TPID stays the type.
        let (Some(tci), Some(next)) = (word(head, at + 2), word(head, at + 4)) else { break };
        if depth == 0 && ethertype == TPID_C {
            layers.tci = Some(tci);
        }
        ethertype = next;
        at += 4;
    }
    layers.ethertype = ethertype;
    layers.l3 = (at + 2) as u16;
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(head, &mut layers),
        ETHERTYPE_IPV6 => ipv6(head, &mut layers),
        _ => {}
    }
    layer4(head, &mut layers);
    layers
}

fn ipv4(head: &[u8], layers: &mut Layers) {
    let l3 = usize::from(layers.l3);
    let Some(fixed) = head.get(l3..l3 + 20) else { return };
    let header = usize::from(fixed[0] & 0xf) * 4;
    if fixed[0] >> 4 != 4 || header < 20 || head.len() < l3 + header {
        return;
    }
    layers.ip = Ip::V4;
    layers.protocol = fixed[9];
    let fragment = u16::from_be_bytes([fixed[6], fixed[7]]);
    layers.fragment = fragment_of(fragment & 0x1fff, fragment & 0x2000 != 0);
    if layers.fragment != Fragment::Later {
        layers.l4 = Some((l3 + header) as u16);
    }
}

fn ipv6(head: &[u8], layers: &mut Layers) {
    let l3 = usize::from(layers.l3);
    let Some(fixed) = head.get(l3..l3 + 40) else { return };
    if fixed[0] >> 4 != 6 {
        return;
    }
    layers.ip = Ip::V6;
    layers.protocol = fixed[6];
    let mut at = l3 + 40;
    for _ in 0..EXTENSIONS_MAX {
        // Hop-by-hop, routing, destination options, mobility, HIP, shim6: length in units of 8 octets, the
        // first not counted (RFC 6564). AH counts 4 octets, the first two not (RFC 4302 2.2).
        let unit = match layers.protocol {
            0 | 43 | 60 | 135 | 139 | 140 => 8,
            51 => 4,
            44 => {
                let Some(header) = head.get(at..at + 8) else { return };
                let fragment = u16::from_be_bytes([header[2], header[3]]);
                layers.fragment = fragment_of(fragment >> 3, fragment & 1 != 0);
                layers.protocol = header[0];
                if layers.fragment == Fragment::Later {
                    return;
                }
                at += 8;
                continue;
            }
            _ => break,
        };
        let Some(&[next, length]) = head.get(at..at + 2) else { return };
        let length = if unit == 8 { (usize::from(length) + 1) * 8 } else { (usize::from(length) + 2) * 4 };
        if head.len() < at + length {
            return;
        }
        layers.protocol = next;
        at += length;
    }
    // Still an extension header after the last one that is followed: the chain is too long.
    if !matches!(layers.protocol, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140) {
        layers.l4 = Some(at as u16);
    }
}

fn fragment_of(offset: u16, more: bool) -> Fragment {
    match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    }
}

fn layer4(head: &[u8], layers: &mut Layers) {
    let Some(l4) = layers.l4.map(usize::from) else { return };
    if matches!(layers.protocol, PROTOCOL_TCP | PROTOCOL_UDP | PROTOCOL_SCTP)
        && let (Some(source), Some(destination)) = (word(head, l4), word(head, l4 + 2))
    {
        layers.ports = Some((source, destination));
    }
    let header = match layers.protocol {
        PROTOCOL_UDP => 8,
        PROTOCOL_TCP => match head.get(l4 + 12) {
            Some(offset) if offset >> 4 >= 5 => usize::from(offset >> 4) * 4,
            _ => return,
        },
        _ => return,
    };
    if head.len() >= l4 + header {
        layers.payload = Some((l4 + header) as u16);
    }
}
