//! Frames that are to be finished: made, cut and summed here a second time, apart from the product's code.

use switchd_wire::{Gso, VnetHeader};

/// What a test sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Tcp4,
    Tcp6,
    Udp4,
    Udp6,
}

impl Kind {
    fn v6(self) -> bool {
        matches!(self, Kind::Tcp6 | Kind::Udp6)
    }

    fn tcp(self) -> bool {
        matches!(self, Kind::Tcp4 | Kind::Tcp6)
    }
}

fn sum(bytes: &[u8], start: u64) -> u64 {
    let pairs = bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    start + pairs.sum::<u64>()
}

/// RFC 1071: folded, not complemented.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1])
}

fn set(bytes: &mut [u8], at: usize, value: usize) {
    bytes[at..at + 2].copy_from_slice(&(value as u16).to_be_bytes());
}

/// Where the parts of a frame begin.
struct Parts {
    v6: bool,
    tcp: bool,
    ip: usize,
    transport: usize,
    payload: usize,
}

fn parts(frame: &[u8]) -> Parts {
    let ip = if word(frame, 12) == 0x8100 { 18 } else { 14 };
    let v6 = word(frame, ip - 2) == 0x86dd;
    let (protocol, transport) =
        if v6 { (frame[ip + 6], ip + 40) } else { (frame[ip + 9], ip + 4 * usize::from(frame[ip] & 15)) };
    let tcp = protocol == 6;
    let payload = transport + if tcp { 4 * usize::from(frame[transport + 12] >> 4) } else { 8 };
    Parts { v6, tcp, ip, transport, payload }
}

/// The sum over the pseudo-header of a frame as long as it is.
fn pseudo(frame: &[u8], parts: &Parts) -> u64 {
    let addresses =
        if parts.v6 { &frame[parts.ip + 8..parts.ip + 40] } else { &frame[parts.ip + 12..parts.ip + 20] };
    let len = frame.len() - parts.transport;
    sum(addresses, (len + if parts.tcp { 6 } else { 17 }) as u64)
}

/// Sets lengths and all checksums.
pub fn complete(frame: &mut [u8]) {
    let parts = parts(frame);
    let (len, from) = (frame.len(), parts.transport);
    if parts.v6 {
        set(frame, parts.ip + 4, len - from);
    } else {
        set(frame, parts.ip + 2, len - parts.ip);
        set(frame, parts.ip + 10, 0);
        let header = !fold(sum(&frame[parts.ip..from], 0));
        set(frame, parts.ip + 10, header.into());
    }
    if !parts.tcp {
        set(frame, from + 4, len - from);
    }
    let at = from + if parts.tcp { 16 } else { 6 };
    set(frame, at, 0);
    let check = !fold(sum(&frame[from..], pseudo(frame, &parts)));
    let check = if check == 0 && !parts.tcp { 0xffff } else { check };
    set(frame, at, check.into());
}

/// A finished frame.
pub fn frame(kind: Kind, to: [u8; 6], from: [u8; 6], tag: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [to, from].concat();
    if let Some(tci) = tag {
        bytes.extend([0x81, 0]);
        bytes.extend(tci.to_be_bytes());
    }
    let protocol = if kind.tcp() { 6 } else { 17 };
    if kind.v6() {
        bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, protocol, 64]);
        bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        bytes.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    } else {
        bytes.extend([8, 0, 0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]);
        bytes.extend([10, 9, 0, 1, 10, 9, 0, 2]);
    }
    bytes.extend([0x30, 0x39, 0x13, 0x88]);
    if kind.tcp() {
        // ACK, PSH and CWR, the last of which belongs to the first segment.
        bytes.extend([0, 0, 0x10, 0, 0, 0, 0, 1, 0x50, 0x18, 0x20, 0, 0, 0, 0, 0]);
    } else {
        bytes.extend([0; 4]);
    }
    bytes.extend(payload);
    complete(&mut bytes);
    bytes
}

/// The same, left unfinished as a guest does: the sum of the pseudo-header only, segments of `gso_size` bytes
/// or one frame when that is 0.
pub fn unfinished(frame: &[u8], gso_size: usize) -> (VnetHeader, Vec<u8>) {
    let mut frame = frame.to_vec();
    let parts = parts(&frame);
    let offset = if parts.tcp { 16 } else { 6 };
    let open = fold(pseudo(&frame, &parts));
    set(&mut frame, parts.transport + offset, open.into());
    let gso = match (gso_size, parts.tcp, parts.v6) {
        (0, ..) => Gso::None,
        (_, true, false) => Gso::TcpV4,
        (_, true, true) => Gso::TcpV6,
        (_, false, _) => Gso::UdpL4,
    };
    let vnet = VnetHeader {
        needs_csum: true,
        gso,
        hdr_len: parts.payload as u16,
        gso_size: gso_size as u16,
        csum_start: parts.transport as u16,
        csum_offset: offset as u16,
        ..VnetHeader::default()
    };
    (vnet, frame)
}

/// What a card makes of it: finished frames. The open sum is used as it was left, so that a wrong one is
/// seen.
pub fn cut(vnet: &VnetHeader, frame: &[u8]) -> Vec<Vec<u8>> {
    if !vnet.needs_csum {
        assert_eq!(vnet.gso, Gso::None, "segments without a checksum to be made");
        return vec![frame.to_vec()];
    }
    let (start, at) = (usize::from(vnet.csum_start), usize::from(vnet.csum_start + vnet.csum_offset));
    let mut whole = frame.to_vec();
    let mut check = !fold(sum(&frame[start..], 0));
    if check == 0 {
        check = 0xffff;
    }
    set(&mut whole, at, check.into());
    if vnet.gso == Gso::None {
        return vec![whole];
    }
    // A whole frame whose sum is wrong would be hidden by summing its segments anew.
    let mut right = whole.clone();
    complete(&mut right);
    assert_eq!(whole[at..at + 2], right[at..at + 2], "the open checksum of a superframe");
    let parts = parts(frame);
    let (head, payload) = frame.split_at(parts.payload);
    let pieces: Vec<&[u8]> = payload.chunks(vnet.gso_size.into()).collect();
    let segment = |number: usize| {
        let mut bytes = [head, pieces[number]].concat();
        if !parts.v6 {
            set(&mut bytes, parts.ip + 4, word(head, parts.ip + 4) + number);
        }
        if parts.tcp {
            let at = parts.transport + 4;
            let first = (word(head, at) << 16 | word(head, at + 2)) as u32;
            let sequence = first.wrapping_add((number * usize::from(vnet.gso_size)) as u32);
            bytes[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
            // FIN and PSH belong to the last segment.
            if number + 1 < pieces.len() {
                bytes[parts.transport + 13] &= !9;
            }
        }
        complete(&mut bytes);
        bytes
    };
    (0..pieces.len()).map(segment).collect()
}

/// Whether lengths and checksums of a finished frame are right.
pub fn is_right(frame: &[u8]) -> bool {
    let mut right = frame.to_vec();
    complete(&mut right);
    right == frame
}

/// With a tag put in behind the addresses, or the one there taken out.
pub fn retag(frame: &[u8], tag: Option<u16>) -> Vec<u8> {
    let rest = if word(frame, 12) == 0x8100 { &frame[16..] } else { &frame[12..] };
    let tag = tag.map_or(Vec::new(), |tci| [&[0x81, 0][..], &tci.to_be_bytes()].concat());
    [&frame[..12], &tag, rest].concat()
}
