//! Software segmentation and checksum completion, for an egress that cannot take a frame unfinished.
//!
//! [`segment`] cuts a superframe into the packets that would be on a wire, one after the other in one
//! scratch buffer; [`finish_checksum`] completes a NEEDS_CSUM frame in place, so that its tail still goes
//! out uncopied. Both check the offload header themselves first ([`crate::offload`]).
//!
//! As a wire wants it: the IPv4 identification counts up, total and payload lengths and the IPv4 header
//! checksum are each segment's own, TCP sequence numbers advance, PSH and FIN stay with the last segment,
//! and CWR with the first if the header says ECN (RFC 3168 6.1.2). UDP datagrams get their own length and
//! checksum. IP options, TCP options, extension headers and tags are repeated as they are.
//!
//! With NEEDS_CSUM the field holds the pseudo-header sum over the whole length. Only the length part of it is
//! replaced, as the kernel does it: the sum may cover a destination that only a routing header names, and a
//! wrong sum stays wrong instead of turning into a valid packet. Without NEEDS_CSUM the pseudo-header is
//! built from the addresses.
//!
//! Limit: IP payload lengths are 16 bits; jumbograms do not exist here.

use crate::checksum::{Delta, Sum, pseudo_v4, pseudo_v6};
use crate::frame::{FRAME_MAX, Frame, HEAD_MAX, HEADROOM, TailSource};
use crate::offload::{BadOffload, TCP_CHECKSUM, UDP_CHECKSUM, validate_offload};
use crate::parse::{Ip, Layers, PROTOCOL_TCP, PROTOCOL_UDP, parse};
use crate::vnet::VnetHeader;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Room for one finished frame. One a worker, allocated once.
pub struct Scratch {
    buf: Box<[u8]>,
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch::new()
    }
}

impl Scratch {
    pub fn new() -> Scratch {
        Scratch { buf: vec![0; FRAME_MAX + HEADROOM + HEAD_MAX].into_boxed_slice() }
    }
}

/// Hands the frame to `emit` as finished packets, in order, and returns how many these were. A frame
/// without segmentation is one packet, its checksum completed if it needs that. After an error nothing
/// more is emitted; only `Stale` can come after a first packet.
pub fn segment(
    frame: &Frame,
    tails: &impl TailSource,
    scratch: &mut Scratch,
    mut emit: impl FnMut(&[u8]),
) -> Result<u32, BadOffload> {
    let layers = parse(frame.head());
    validate_offload(frame, &layers)?;
    if !frame.vnet.is_gso() {
        let packet = scratch.buf.get_mut(..frame.len()).ok_or(BadOffload::Stale)?;
        frame.copy_out(tails, 0, packet).map_err(|_| BadOffload::Stale)?;
        if frame.vnet.needs_csum {
            let (start, offset) = (usize::from(frame.vnet.csum_start), frame.vnet.csum_offset);
            let sum = completed(Sum::new().over(&packet[start..]), offset);
            put(packet, start + usize::from(offset), sum);
        }
        emit(packet);
        return Ok(1);
    }
    let template = Template::new(frame, &layers)?;
    let header = template.header;
    let payload = frame.len() - header;
    let step = usize::from(frame.vnet.gso_size);
    scratch.buf[..header].copy_from_slice(&frame.head()[..header]);
    let (mut done, mut count) = (0, 0u32);
    loop {
        let take = step.min(payload - done);
        let packet = scratch.buf.get_mut(..header + take).ok_or(BadOffload::Stale)?;
        frame.copy_out(tails, header + done, &mut packet[header..]).map_err(|_| BadOffload::Stale)?;
        template.write(packet, count, done, done + take == payload);
        emit(packet);
        count += 1;
        done += take;
        if done == payload {
            return Ok(count);
        }
    }
}

/// Completes the checksum of a NEEDS_CSUM frame in its head and clears the mark. Superframes are for
/// [`segment`]: here they are left as they are. A frame that needs nothing costs one branch.
#[inline]
pub fn finish_checksum(frame: &mut Frame, tails: &impl TailSource) -> Result<(), BadOffload> {
    if !frame.vnet.needs_csum || frame.vnet.is_gso() {
        return Ok(());
    }
    let layers = parse(frame.head());
    validate_offload(frame, &layers)?;
    let VnetHeader { csum_start, csum_offset, .. } = frame.vnet;
    let mut sum = Sum::new().over(&frame.head()[usize::from(csum_start)..]);
    let tail = frame.tail.len as usize;
    let mut chunk = [0u8; 2048];
    let mut at = 0;
    while at < tail {
        let part = &mut chunk[..(tail - at).min(2048)];
        tails.copy_tail(frame.tail, at, part).map_err(|_| BadOffload::Stale)?;
        sum = sum.over(part);
        at += part.len();
    }
    let at = usize::from(csum_start) + usize::from(csum_offset);
    put(frame.head_mut(), at, completed(sum, csum_offset));
    frame.vnet = VnetHeader { data_valid: true, ..VnetHeader::default() };
    Ok(())
}

/// The checksum over a sum that already contains the pseudo-header. A UDP checksum of 0 would say "none"
/// (RFC 768); no other checksum has its field there.
#[inline]
fn completed(sum: Sum, offset: u16) -> u16 {
    match sum.checksum() {
        0 if offset == UDP_CHECKSUM => 0xffff,
        checksum => checksum,
    }
}

#[inline]
fn put(bytes: &mut [u8], at: usize, number: u16) {
    bytes[at..at + 2].copy_from_slice(&number.to_be_bytes());
}

#[inline]
fn get(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// What all segments of a frame share.
struct Template {
    l3: usize,
    l4: usize,
    /// Length of all headers.
    header: usize,
    ip: Ip,
    tcp: bool,
    ecn: bool,
    /// First IPv4 identification.
    id: u16,
    /// First TCP sequence number.
    sequence: u32,
    flags: u8,
    /// Pseudo-header sum for a layer-4 length of 0; none for a UDP that goes without a checksum.
    pseudo: Option<u16>,
}

impl Template {
    /// For a frame whose offload header was validated: the headers are whole.
    fn new(frame: &Frame, layers: &Layers) -> Result<Template, BadOffload> {
        let head = frame.head();
        let (Some(l4), Some(header)) = (layers.l4, layers.payload) else {
            return Err(BadOffload::NotOfType(frame.vnet.gso));
        };
        let (l3, l4, header) = (usize::from(layers.l3), usize::from(l4), usize::from(header));
        let tcp = layers.protocol == PROTOCOL_TCP;
        let field = get(head, l4 + usize::from(if tcp { TCP_CHECKSUM } else { UDP_CHECKSUM }));
        let pseudo = if frame.vnet.needs_csum {
            let whole = (frame.len() - l4) as u32;
            Some(Delta::new().replace_u32(whole, 0).apply_uncomplemented(field))
        } else if !tcp && field == 0 && layers.ip == Ip::V4 {
            None
        } else {
            Some(pseudo(head, l3, layers.ip, if tcp { PROTOCOL_TCP } else { PROTOCOL_UDP }))
        };
        let (sequence, flags) = if tcp {
            (u32::from(get(head, l4 + 4)) << 16 | u32::from(get(head, l4 + 6)), head[l4 + 13])
        } else {
            (0, 0)
        };
        let id = get(head, l3 + 4);
        Ok(Template { l3, l4, header, ip: layers.ip, tcp, ecn: frame.vnet.ecn, id, sequence, flags, pseudo })
    }

    /// Writes the headers of segment `index`, whose payload begins `done` bytes into the whole payload.
    fn write(&self, packet: &mut [u8], index: u32, done: usize, last: bool) {
        let (l3, l4) = (self.l3, self.l4);
        match self.ip {
            Ip::V4 => {
                put(packet, l3 + 2, (packet.len() - l3) as u16);
                put(packet, l3 + 4, self.id.wrapping_add(index as u16));
                put(packet, l3 + 10, 0);
                let checksum = Sum::new().over(&packet[l3..l4]).checksum();
                put(packet, l3 + 10, checksum);
            }
            Ip::V6 => put(packet, l3 + 4, (packet.len() - l3 - 40) as u16),
            Ip::None => {}
        }
        let length = packet.len() - l4;
        let offset = if self.tcp {
            let sequence = self.sequence.wrapping_add(done as u32);
            packet[l4 + 4..l4 + 8].copy_from_slice(&sequence.to_be_bytes());
            let mut flags = self.flags;
            if !last {
                flags &= !(FIN | PSH);
            }
            if self.ecn && index > 0 {
                flags &= !CWR;
            }
            packet[l4 + 13] = flags;
            TCP_CHECKSUM
        } else {
            put(packet, l4 + 4, length as u16);
            UDP_CHECKSUM
        };
        if let Some(pseudo) = self.pseudo {
            put(packet, l4 + usize::from(offset), 0);
            let sum = Sum::new().add_u16(pseudo).add_u32(length as u32).over(&packet[l4..]);
            put(packet, l4 + usize::from(offset), completed(sum, offset));
        }
    }
}

/// The pseudo-header sum for a length of 0, from the addresses of the IP header at `l3`.
fn pseudo(head: &[u8], l3: usize, ip: Ip, protocol: u8) -> u16 {
    let mut addresses = [0u8; 32];
    let sum = match ip {
        Ip::V4 => {
            addresses[..8].copy_from_slice(&head[l3 + 12..l3 + 20]);
            let [a, b, c, d, e, f, g, h, ..] = addresses;
            pseudo_v4([a, b, c, d], [e, f, g, h], protocol, 0)
        }
        Ip::V6 | Ip::None => {
            addresses.copy_from_slice(&head[l3 + 8..l3 + 40]);
            let (source, destination) = addresses.split_at(16);
            let half = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).expect("half of 32 bytes");
            pseudo_v6(half(source), half(destination), protocol, 0)
        }
    };
    sum.uncomplemented()
}
