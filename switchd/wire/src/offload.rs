//! Is a virtio offload header true to its frame?
//!
//! A guest writes the header, so nothing in it is believed: `hdr_len` is replaced by what the headers say
//! (a far end would refuse a false one), the checksum field must lie behind the headers that policy reads,
//! and the segmentation type must be the type of the packet. A frame that fails is dropped at ingress,
//! before anyone relies on it. Whoever is given an admitted frame may rely on it as long as its headers
//! are changed only by pushing and popping tags and by address and port rewrites.
//!
//! Limits: the headers of a superframe and every checksum field lie in the head. A superframe arrives with at
//! most two tags and makes at most [`SEGMENTS_MAX`] segments.

use crate::frame::Frame;
use crate::parse::{Fragment, Ip, Layers, PROTOCOL_TCP, PROTOCOL_UDP, TAGS_MAX, parse};
use crate::vnet::Gso;

/// The most segments that one superframe may become. A choice: 64 KiB in segments of 32 bytes, less than
/// the smallest segment that TCP stacks use (48 in Linux).
pub const SEGMENTS_MAX: usize = 2048;

/// Where the checksum field of a layer-4 header is.
pub(crate) const TCP_CHECKSUM: u16 = 16;
pub(crate) const UDP_CHECKSUM: u16 = 6;

/// Why an offload header cannot be honoured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadOffload {
    /// The checksum field (`at`, two bytes) does not end within the frame of `len` bytes.
    ChecksumBeyondFrame { at: u32, len: u32 },
    /// The checksum field is in the frame, but behind the first bytes that we hold.
    ChecksumBeyondHead { at: u32, head: u32 },
    /// The checksum would be written over a header that policy reads, or not where the protocol has it.
    ChecksumMisplaced { start: u16, offset: u16 },
    /// A segment size of 0, or of 0xffff (which the kernel keeps for itself).
    SegmentSize(u16),
    /// The packet is not of the protocol that the segmentation type names, or its headers are not whole
    /// within the head.
    NotOfType(Gso),
    /// A fragment cannot be segmented.
    Fragment,
    /// More than [`SEGMENTS_MAX`].
    TooManySegments(u32),
    /// A segment would be longer than an IP length field can say.
    SegmentTooLong(u32),
    /// The tail's token is stale.
    Stale,
}

impl std::fmt::Display for BadOffload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BadOffload::ChecksumBeyondFrame { at, len } => {
                write!(f, "checksum field at {at} is outside the frame of {len} bytes")
            }
            BadOffload::ChecksumBeyondHead { at, head } => {
                write!(f, "checksum field at {at} is behind the first {head} bytes")
            }
            BadOffload::ChecksumMisplaced { start, offset } => {
                write!(f, "checksum from {start} with its field {offset} further lies in other headers")
            }
            BadOffload::SegmentSize(size) => write!(f, "segment size {size} is not usable"),
            BadOffload::NotOfType(gso) => write!(f, "the packet's headers are not those of {gso:?}"),
            BadOffload::Fragment => f.write_str("a fragment cannot be segmented"),
            BadOffload::TooManySegments(count) => {
                write!(f, "{count} segments are more than {SEGMENTS_MAX}")
            }
            BadOffload::SegmentTooLong(len) => write!(f, "a segment of {len} bytes is longer than IP allows"),
            BadOffload::Stale => f.write_str("the frame's tail is gone"),
        }
    }
}

impl std::error::Error for BadOffload {}

/// The check at ingress: one branch for a frame without offloads; otherwise parse and
/// [`validate_offload`]. Also sets `hdr_len` to what the headers say.
#[inline]
pub fn admit_offload(frame: &mut Frame) -> Result<(), BadOffload> {
    frame.vnet.hdr_len = 0;
    if !frame.vnet.needs_csum && !frame.vnet.is_gso() {
        return Ok(());
    }
    admit_offloaded(frame)
}

#[inline(never)]
fn admit_offloaded(frame: &mut Frame) -> Result<(), BadOffload> {
    let layers = parse(frame.head());
    validate_offload(frame, &layers)?;
    if frame.vnet.is_gso() {
        // The tag that we may push must not hide the headers from `segment`.
        if usize::from(layers.l3) > 14 + 4 * (TAGS_MAX - 1) {
            return Err(BadOffload::NotOfType(frame.vnet.gso));
        }
        frame.vnet.hdr_len = layers.payload.unwrap_or(0);
    }
    Ok(())
}

/// Holds the frame's offload header against its length and its parsed headers.
#[inline]
pub fn validate_offload(frame: &Frame, layers: &Layers) -> Result<(), BadOffload> {
    if !frame.vnet.needs_csum && !frame.vnet.is_gso() {
        return Ok(());
    }
    if frame.vnet.needs_csum {
        checksum(frame, layers)?;
    }
    if frame.vnet.is_gso() {
        segmentation(frame, layers)?;
    }
    Ok(())
}

fn checksum(frame: &Frame, layers: &Layers) -> Result<(), BadOffload> {
    let (start, offset) = (frame.vnet.csum_start, frame.vnet.csum_offset);
    let at = u32::from(start) + u32::from(offset);
    let (len, head) = (frame.len() as u32, frame.head().len() as u32);
    if at + 2 > len {
        return Err(BadOffload::ChecksumBeyondFrame { at, len });
    }
    if at + 2 > head {
        return Err(BadOffload::ChecksumBeyondHead { at, head });
    }
    // Completing the checksum writes two bytes that the guest chose: never over addresses, tags, the IP
    // header or ports. Further in (a tunnel's inner packet) is the guest's own affair.
    let misplaced = match (layers.l4, layers.protocol) {
        (Some(l4), PROTOCOL_TCP) if start == l4 => offset != TCP_CHECKSUM,
        (Some(l4), PROTOCOL_UDP) if start == l4 => offset != UDP_CHECKSUM,
        (Some(l4), PROTOCOL_TCP) => u32::from(start) < u32::from(l4) + 20,
        (Some(l4), PROTOCOL_UDP) => u32::from(start) < u32::from(l4) + 8,
        (Some(l4), _) => start < l4,
        (None, _) => {
            let ip = match layers.ip {
                Ip::None => 0,
                Ip::V4 => 20,
                Ip::V6 => 40,
            };
            layers.l3 == 0 || u32::from(start) < u32::from(layers.l3) + ip
        }
    };
    if misplaced { Err(BadOffload::ChecksumMisplaced { start, offset }) } else { Ok(()) }
}

fn segmentation(frame: &Frame, layers: &Layers) -> Result<(), BadOffload> {
    let vnet = &frame.vnet;
    if matches!(vnet.gso_size, 0 | u16::MAX) {
        return Err(BadOffload::SegmentSize(vnet.gso_size));
    }
    if layers.fragment != Fragment::Whole {
        return Err(BadOffload::Fragment);
    }
    let (of_type, field) = match vnet.gso {
        Gso::None => (true, vnet.csum_offset),
        Gso::TcpV4 => (layers.ip == Ip::V4 && layers.protocol == PROTOCOL_TCP, TCP_CHECKSUM),
        Gso::TcpV6 => (layers.ip == Ip::V6 && layers.protocol == PROTOCOL_TCP, TCP_CHECKSUM),
        Gso::UdpL4 => (layers.ip != Ip::None && layers.protocol == PROTOCOL_UDP, UDP_CHECKSUM),
    };
    let (true, Some(l4), Some(payload)) = (of_type, layers.l4, layers.payload) else {
        return Err(BadOffload::NotOfType(vnet.gso));
    };
    // A superframe's checksum is that of the header which is repeated, not of an inner packet.
    if vnet.needs_csum && (vnet.csum_start != l4 || vnet.csum_offset != field) {
        return Err(BadOffload::ChecksumMisplaced { start: vnet.csum_start, offset: vnet.csum_offset });
    }
    let segments = (frame.len() - usize::from(payload)).div_ceil(usize::from(vnet.gso_size));
    if segments > SEGMENTS_MAX {
        return Err(BadOffload::TooManySegments(segments as u32));
    }
    let longest = packet_len(frame, layers);
    if longest > usize::from(u16::MAX) { Err(BadOffload::SegmentTooLong(longest as u32)) } else { Ok(()) }
}

/// Length of the longest layer-3 packet that an admitted frame becomes on a wire: what an MTU bounds.
/// Tags and the Ethernet header do not count.
pub fn packet_len(frame: &Frame, layers: &Layers) -> usize {
    let whole = frame.len().saturating_sub(usize::from(layers.l3));
    match layers.payload {
        Some(payload) if frame.vnet.is_gso() => {
            whole.min(usize::from(payload) - usize::from(layers.l3) + usize::from(frame.vnet.gso_size))
        }
        _ => whole,
    }
}
