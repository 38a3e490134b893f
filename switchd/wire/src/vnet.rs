//! The virtio network header (virtio 1.2, 5.1.6), as taps and AF_PACKET sockets exchange it.
//!
//! On our descriptors it is the 10-byte legacy form in host byte order (`num_buffers` belongs to virtio
//! rings only). Offsets are counted from the first byte of the frame, tags included.

/// How a superframe is to be cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Gso {
    #[default]
    None,
    TcpV4,
    TcpV6,
    /// UDP segmentation offload (VIRTIO_NET_HDR_GSO_UDP_L4).
    UdpL4,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VnetHeader {
    /// The checksum field holds an uncomplemented pseudo-header sum and is still to be completed.
    pub needs_csum: bool,
    /// The producer vouches for the checksum.
    pub data_valid: bool,
    pub gso: Gso,
    /// The TCP segments carry CWR in the first one only (RFC 3168).
    pub ecn: bool,
    pub hdr_len: u16,
    pub gso_size: u16,
    pub csum_start: u16,
    pub csum_offset: u16,
}

/// Length of the header on our descriptors.
pub const VNET_LEN: usize = 10;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

impl VnetHeader {
    /// Reads the ten bytes. `None` for a segmentation type that we did not negotiate.
    #[inline]
    pub fn parse(raw: &[u8; VNET_LEN]) -> Option<VnetHeader> {
        // The common frame: nothing to offload.
        if raw[0] | raw[1] == 0 {
            return Some(VnetHeader::default());
        }
        let gso = match raw[1] & !GSO_ECN {
            0 => Gso::None,
            GSO_TCPV4 => Gso::TcpV4,
            GSO_TCPV6 => Gso::TcpV6,
            GSO_UDP_L4 => Gso::UdpL4,
            _ => return None,
        };
        let word = |at: usize| u16::from_ne_bytes([raw[at], raw[at + 1]]);
        Some(VnetHeader {
            needs_csum: raw[0] & F_NEEDS_CSUM != 0,
            data_valid: raw[0] & F_DATA_VALID != 0,
            gso,
            ecn: raw[1] & GSO_ECN != 0,
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        })
    }

    #[inline]
    pub fn emit(&self) -> [u8; VNET_LEN] {
        let gso = match self.gso {
            Gso::None => 0,
            Gso::TcpV4 => GSO_TCPV4,
            Gso::TcpV6 => GSO_TCPV6,
            Gso::UdpL4 => GSO_UDP_L4,
        };
        let mut raw = [0u8; VNET_LEN];
        raw[0] = u8::from(self.needs_csum) * F_NEEDS_CSUM + u8::from(self.data_valid) * F_DATA_VALID;
        raw[1] = gso | if self.ecn { GSO_ECN } else { 0 };
        raw[2..4].copy_from_slice(&self.hdr_len.to_ne_bytes());
        raw[4..6].copy_from_slice(&self.gso_size.to_ne_bytes());
        raw[6..8].copy_from_slice(&self.csum_start.to_ne_bytes());
        raw[8..10].copy_from_slice(&self.csum_offset.to_ne_bytes());
        raw
    }

    /// Nothing is to be finished, and nothing vouched for.
    #[inline]
    pub fn is_plain(&self) -> bool {
        !(self.needs_csum | self.data_valid | self.is_gso())
    }

    #[inline]
    pub fn is_gso(&self) -> bool {
        self.gso != Gso::None
    }

    /// Moves the offsets by `by` bytes after a tag was pushed (+4) or popped (-4).
    #[inline]
    pub fn shift(&mut self, by: i16) {
        if self.needs_csum {
            self.csum_start = self.csum_start.wrapping_add_signed(by);
        }
        if self.is_gso() {
            self.hdr_len = self.hdr_len.wrapping_add_signed(by);
        }
    }
}
