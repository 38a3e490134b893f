//! Frames for the tests, written by hand so that no code under test builds its own input.

#![allow(dead_code)] // Each test file takes what it needs.

use switchd_wire::frame::{HEAD_MAX, StaleTail};
use switchd_wire::{Frame, Gso, Tail, TailSource, VnetHeader};

/// A packet of TCP or UDP. [`Packet::default`] is the base; tests name the fields that they change.
#[derive(Clone, Debug)]
pub struct Packet {
    /// TPID and TCI, outermost first.
    pub tags: Vec<(u16, u16)>,
    pub v6: bool,
    pub tcp: bool,
    /// IPv4: words of options. IPv6: destination option headers of 8 octets.
    pub ip_options: usize,
    /// Words of TCP options.
    pub tcp_options: usize,
    pub id: u16,
    pub sequence: u32,
    pub flags: u8,
    pub payload: Vec<u8>,
}

impl Default for Packet {
    fn default() -> Self {
        Packet {
            tags: vec![],
            v6: false,
            tcp: true,
            ip_options: 0,
            tcp_options: 0,
            id: 0xfffe,
            sequence: 0xffff_ff00,
            flags: 0x18,
            payload: (0..3000u32).map(|i| (i * 7) as u8).collect(),
        }
    }
}

pub const V4: ([u8; 4], [u8; 4]) = ([10, 1, 2, 3], [192, 168, 200, 9]);
pub const V6: ([u8; 16], [u8; 16]) = (
    [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0xfd, 9, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
);

impl Packet {
    pub fn l3(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    pub fn l4(&self) -> usize {
        self.l3() + if self.v6 { 40 + 8 * self.ip_options } else { 20 + 4 * self.ip_options }
    }

    pub fn header(&self) -> usize {
        self.l4() + if self.tcp { 20 + 4 * self.tcp_options } else { 8 }
    }

    pub fn protocol(&self) -> u8 {
        if self.tcp { 6 } else { 17 }
    }

    pub fn gso(&self) -> Gso {
        match (self.tcp, self.v6) {
            (true, false) => Gso::TcpV4,
            (true, true) => Gso::TcpV6,
            (false, _) => Gso::UdpL4,
        }
    }

    /// The whole frame; the layer-4 checksum field holds the uncomplemented pseudo-header sum.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        for (tpid, tci) in &self.tags {
            out.extend(tpid.to_be_bytes());
            out.extend(tci.to_be_bytes());
        }
        out.extend(if self.v6 { [0x86, 0xdd] } else { [8, 0] });
        let l4_len = self.header() - self.l4() + self.payload.len();
        let l3_len = self.l4() - self.l3() + l4_len;
        let mut pseudo = Vec::new();
        if self.v6 {
            out.extend([0x60, 0, 0, 0]);
            out.extend(((l3_len - 40) as u16).to_be_bytes());
            out.extend([if self.ip_options > 0 { 60 } else { self.protocol() }, 64]);
            out.extend(V6.0);
            out.extend(V6.1);
            for index in 0..self.ip_options {
                let next = if index + 1 < self.ip_options { 60 } else { self.protocol() };
                out.extend([next, 0, 1, 4, 0, 0, 0, 0]); // PadN
            }
            pseudo.extend(V6.0);
            pseudo.extend(V6.1);
        } else {
            let at = out.len();
            out.extend([0x45 + self.ip_options as u8, 0]);
            out.extend((l3_len as u16).to_be_bytes());
            out.extend(self.id.to_be_bytes());
            out.extend([0x40, 0, 64, self.protocol(), 0, 0]);
            out.extend(V4.0);
            out.extend(V4.1);
            out.extend(vec![1; 4 * self.ip_options]); // no operation
            let sum = !by_the_book(&out[at..]);
            out[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
            pseudo.extend(V4.0);
            pseudo.extend(V4.1);
        }
        pseudo.extend((l4_len as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, self.protocol()]);
        let sum = by_the_book(&pseudo).to_be_bytes();
        out.extend([0x9c, 0x40, 0x14, 0x51]);
        if self.tcp {
            out.extend(self.sequence.to_be_bytes());
            out.extend([0, 0, 0, 9, ((5 + self.tcp_options) << 4) as u8, self.flags, 0x20, 0]);
            out.extend([sum[0], sum[1], 0, 0]);
            out.extend(vec![1; 4 * self.tcp_options]);
        } else {
            out.extend((l4_len as u16).to_be_bytes());
            out.extend(sum);
        }
        out.extend(&self.payload);
        out
    }

    /// An offload header with NEEDS_CSUM that tells the truth, but for its `hdr_len`.
    pub fn vnet(&self, gso_size: u16) -> VnetHeader {
        VnetHeader {
            needs_csum: true,
            gso: if gso_size > 0 { self.gso() } else { Gso::None },
            gso_size,
            hdr_len: 7,
            csum_start: self.l4() as u16,
            csum_offset: if self.tcp { 16 } else { 6 },
            ..VnetHeader::default()
        }
    }

    pub fn frame(&self, gso_size: u16) -> (Frame, Tails) {
        frame(&self.bytes(), self.vnet(gso_size))
    }
}

/// RFC 1071 4.1, uncomplemented.
pub fn by_the_book(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The one tail of a test's one frame.
pub struct Tails(pub Vec<u8>);

impl TailSource for Tails {
    fn copy_tail(&self, tail: Tail, offset: usize, dst: &mut [u8]) -> Result<(), StaleTail> {
        if tail.generation != 1 || tail.len as usize != self.0.len() {
            return Err(StaleTail);
        }
        dst.copy_from_slice(self.0.get(offset..offset + dst.len()).ok_or(StaleTail)?);
        Ok(())
    }
}

pub fn frame(bytes: &[u8], vnet: VnetHeader) -> (Frame, Tails) {
    let mut frame = Frame::default();
    let head = bytes.len().min(HEAD_MAX);
    frame.receive_area()[..head].copy_from_slice(&bytes[..head]);
    let tail = bytes[head..].to_vec();
    let token = match tail.len() {
        0 => Tail::default(),
        len => Tail { len: len as u32, generation: 1, ..Tail::default() },
    };
    frame.arrived(head, token, vnet);
    (frame, Tails(tail))
}

/// The frame's bytes, head and tail.
pub fn bytes_of(frame: &Frame, tails: &Tails) -> Vec<u8> {
    let mut out = vec![0; frame.len()];
    frame.copy_out(tails, 0, &mut out).unwrap();
    out
}
