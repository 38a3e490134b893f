//! Our own Enhanced Packet Block (pcapng, draft-ietf-opsawg-pcapng 4.3): made where the frame is copied,
//! written to the file as it is.
//!
//! ```text
//!  type 6 | length | interface | time high, low | captured | original      28 bytes
//!  data, padded to 4
//!  epb_flags (code 2): direction and offload marks                          8
//!  opt_comment (code 1), superframes only: "GSO tcpv4 1448"                 4 + text, padded
//!  end of options | length                                                  8
//! ```
//! Little-endian. Marks, in the flags word (table 5 of the draft): bit 9 *checksum not ready* when the
//! checksum field holds only the pseudo-header sum (NEEDS_CSUM: the bytes stay as they are, an analyser
//! must not call them wrong), bit 10 *checksum valid* when the sender vouches for it, bit 11 *segmentation
//! offloaded* for a superframe. Time is in nanoseconds (the interface block's if_tsresol is 9).

use switchd_wire::{Gso, VnetHeader};

/// Block type of an Enhanced Packet Block.
pub const EPB: u32 = 6;
/// In front of the data.
pub const HEADER: usize = 28;
/// A block without data and comment.
pub const OVERHEAD: usize = HEADER + 8 + 8;
/// The longest comment, padded, with its option header.
pub const COMMENT_MAX: usize = 4 + 20;

const FLAG_INBOUND: u32 = 1;
const FLAG_OUTBOUND: u32 = 2;
const FLAG_CHECKSUM_NOT_READY: u32 = 1 << 9;
const FLAG_CHECKSUM_VALID: u32 = 1 << 10;
const FLAG_SEGMENTATION: u32 = 1 << 11;

/// Everything in the block but the data.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub interface: u32,
    /// Nanoseconds of the real-time clock.
    pub timestamp: u64,
    /// It left the switch by the interface; otherwise it came in by it.
    pub outgoing: bool,
    pub captured: usize,
    pub original: usize,
    /// How the frame is still unfinished.
    pub vnet: VnetHeader,
}

impl Packet {
    /// Bytes of the block.
    #[inline]
    pub fn block_len(&self) -> usize {
        let comment = if self.vnet.is_gso() { 4 + comment(&self.vnet).1.next_multiple_of(4) } else { 0 };
        OVERHEAD + self.captured.next_multiple_of(4) + comment
    }

    /// Writes the block into `block` (of [`Packet::block_len`] bytes) and returns where the data goes.
    #[inline]
    pub fn emit<'a>(&self, block: &'a mut [u8]) -> &'a mut [u8] {
        let length = (block.len() as u32).to_le_bytes();
        let (header, rest) = block.split_at_mut(HEADER);
        header[0..4].copy_from_slice(&EPB.to_le_bytes());
        header[4..8].copy_from_slice(&length);
        header[8..12].copy_from_slice(&self.interface.to_le_bytes());
        header[12..16].copy_from_slice(&((self.timestamp >> 32) as u32).to_le_bytes());
        header[16..20].copy_from_slice(&(self.timestamp as u32).to_le_bytes());
        header[20..24].copy_from_slice(&(self.captured as u32).to_le_bytes());
        header[24..28].copy_from_slice(&(self.original as u32).to_le_bytes());
        let (data, options) = rest.split_at_mut(self.captured.next_multiple_of(4));
        if let Some(last) = data.last_chunk_mut::<4>() {
            // The padding; what is data of it is written over.
            *last = [0; 4];
        }
        let flags = self.flags().to_le_bytes();
        if let Ok(options) = <&mut [u8; 16]>::try_from(&mut *options) {
            // The common packet has no comment.
            options[0..4].copy_from_slice(&[2, 0, 4, 0]);
            options[4..8].copy_from_slice(&flags);
            options[8..12].fill(0);
            options[12..16].copy_from_slice(&length);
        } else {
            self.emit_with_comment(options, flags, length);
        }
        &mut data[..self.captured]
    }

    fn emit_with_comment(&self, options: &mut [u8], flags: [u8; 4], length: [u8; 4]) {
        let (text, len) = comment(&self.vnet);
        let padded = len.next_multiple_of(4);
        options[0..4].copy_from_slice(&[2, 0, 4, 0]);
        options[4..8].copy_from_slice(&flags);
        options[8..12].copy_from_slice(&[1, 0, len as u8, 0]);
        options[12..12 + padded].copy_from_slice(&text[..padded]);
        options[12 + padded..16 + padded].fill(0);
        options[16 + padded..20 + padded].copy_from_slice(&length);
    }

    #[inline]
    fn flags(&self) -> u32 {
        let mut flags = if self.outgoing { FLAG_OUTBOUND } else { FLAG_INBOUND };
        if self.vnet.needs_csum {
            flags |= FLAG_CHECKSUM_NOT_READY;
        } else if self.vnet.data_valid {
            flags |= FLAG_CHECKSUM_VALID;
        }
        if self.vnet.is_gso() {
            flags |= FLAG_SEGMENTATION;
        }
        flags
    }
}

/// `GSO tcpv4 1448` with its length, zero-padded.
fn comment(vnet: &VnetHeader) -> ([u8; 20], usize) {
    let kind: &[u8] = match vnet.gso {
        Gso::None => b"GSO none ",
        Gso::TcpV4 => b"GSO tcpv4 ",
        Gso::TcpV6 => b"GSO tcpv6 ",
        Gso::UdpL4 => b"GSO udp ",
    };
    let mut text = [0; 20];
    text[..kind.len()].copy_from_slice(kind);
    let mut len = kind.len();
    let mut divisor = 10_000;
    while divisor > 0 {
        let digit = vnet.gso_size / divisor;
        if digit > 0 || len > kind.len() || divisor == 1 {
            text[len] = b'0' + (digit % 10) as u8;
            len += 1;
        }
        divisor /= 10;
    }
    (text, len)
}

/// Where a block lies in a buffer of whole packet blocks, and what the writer needs of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub at: usize,
    pub len: usize,
    pub interface: u32,
    pub captured: usize,
}

/// The packet block at `at`; `None` at the end of the buffer.
#[inline]
pub fn place(bytes: &[u8], at: usize) -> Option<Place> {
    let header: &[u8; HEADER] = bytes.get(at..)?.first_chunk()?;
    let word = |from: usize| {
        u32::from_le_bytes([header[from], header[from + 1], header[from + 2], header[from + 3]])
    };
    let len = word(4) as usize;
    (len >= OVERHEAD).then_some(Place { at, len, interface: word(8), captured: word(20) as usize })
}

/// All packet blocks of a buffer.
pub fn places(bytes: &[u8]) -> impl Iterator<Item = Place> + '_ {
    std::iter::successors(place(bytes, 0), |last| place(bytes, last.at + last.len))
}

/// Writes the interface's number in the section.
#[inline]
pub fn set_interface(bytes: &mut [u8], at: usize, interface: u32) {
    bytes[at + 8..at + 12].copy_from_slice(&interface.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Packet = Packet {
        interface: 3,
        timestamp: 0x1234_5678_9abc_def0,
        outgoing: false,
        captured: 61,
        original: 1514,
        vnet: VnetHeader {
            needs_csum: false,
            data_valid: false,
            gso: Gso::None,
            ecn: false,
            hdr_len: 0,
            gso_size: 0,
            csum_start: 0,
            csum_offset: 0,
        },
    };

    fn block(packet: &Packet) -> Vec<u8> {
        let mut block = vec![0xee; packet.block_len()];
        packet.emit(&mut block).fill(0x55);
        block
    }

    #[test]
    fn an_independent_parser_reads_what_was_written() {
        let superframe = VnetHeader { gso: Gso::TcpV4, gso_size: 1448, needs_csum: true, ..PLAIN.vnet };
        for captured in 0..=9 {
            for (vnet, flags, text) in [
                (PLAIN.vnet, 2, None),
                (VnetHeader { needs_csum: true, ..PLAIN.vnet }, 2 | 1 << 9, None),
                (VnetHeader { data_valid: true, ..PLAIN.vnet }, 2 | 1 << 10, None),
                (superframe, 2 | 1 << 9 | 1 << 11, Some("GSO tcpv4 1448")),
                (VnetHeader { gso: Gso::UdpL4, gso_size: 7, ..PLAIN.vnet }, 2 | 1 << 11, Some("GSO udp 7")),
                (
                    VnetHeader { gso: Gso::TcpV6, gso_size: 65535, ..PLAIN.vnet },
                    2 | 1 << 11,
                    Some("GSO tcpv6 65535"),
                ),
            ] {
                let packet = Packet { captured, vnet, outgoing: true, ..PLAIN };
                let bytes = block(&packet);
                let (rest, parsed) =
                    pcap_parser::pcapng::parse_enhancedpacketblock_le(&bytes).expect("a valid block");
                assert!(rest.is_empty());
                assert_eq!((parsed.if_id, parsed.caplen, parsed.origlen), (3, captured as u32, 1514));
                assert_eq!((parsed.ts_high, parsed.ts_low), (0x1234_5678, 0x9abc_def0));
                assert_eq!(&parsed.data[..captured], &vec![0x55; captured][..]);
                assert!(parsed.data[captured..].iter().all(|&byte| byte == 0));
                let option = |code: u16| parsed.options.iter().find(|option| option.code.0 == code);
                assert_eq!(option(2).unwrap().value[..], u32::to_le_bytes(flags));
                assert_eq!(option(1).map(|o| std::str::from_utf8(&o.value[..o.len as usize]).unwrap()), text);
            }
        }
    }

    #[test]
    fn blocks_are_found_one_after_the_other() {
        let mut bytes = block(&PLAIN);
        let first = bytes.len();
        bytes.extend(block(&Packet { captured: 0, interface: 9, ..PLAIN }));
        set_interface(&mut bytes, first, 4);
        let found: Vec<_> = places(&bytes).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], Place { at: 0, len: first, interface: 3, captured: 61 });
        assert_eq!(found[1], Place { at: first, len: OVERHEAD, interface: 4, captured: 0 });
    }
}
