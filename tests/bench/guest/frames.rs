//! The frames that the guests send: UDP of many flows, TCP superframes, ARP.

use crate::nic::HEADER;
use switchd_wire::MacAddr;

/// How the flows differ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Vary {
    /// In their UDP source ports and, beyond these, their IP addresses.
    Ports,
    /// In the MAC addresses of both ends as well.
    Addresses,
}

/// Two guests and the flows between them.
pub struct Flows {
    pub count: usize,
    pub vary: Vary,
    /// The receivers' MAC address, in place of the guest's own: a gateway's.
    pub gateway: Option<MacAddr>,
    pub ip: [[u8; 4]; 2],
}

/// Bytes up to the end of the UDP header: what differs from flow to flow lies here.
pub const VARIED: usize = 42;
const PORTS: usize = 40_000;

impl Flows {
    pub fn mac(&self, side: usize, flow: usize) -> MacAddr {
        let flow = if self.vary == Vary::Addresses { flow as u32 } else { 0 };
        let [_, a, b, c] = flow.to_be_bytes();
        MacAddr([0x02, 0, 0x10 * (side as u8 + 1), a, b, c])
    }

    /// A UDP frame of `len` bytes from a side.
    pub fn frame(&self, side: usize, flow: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let to = self.gateway.unwrap_or_else(|| self.mac(1 - side, flow));
        bytes[..6].copy_from_slice(&to.0);
        bytes[6..12].copy_from_slice(&self.mac(side, flow).0);
        bytes[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0]);
        bytes[16..18].copy_from_slice(&(len as u16 - 14).to_be_bytes());
        bytes[22..24].copy_from_slice(&[64, 17]);
        bytes[26..30].copy_from_slice(&self.ip[side]);
        bytes[30..34].copy_from_slice(&self.ip[1 - side]);
        set_ip_checksum(&mut bytes);
        let port = 20_000 + (flow % PORTS) as u16;
        bytes[34..36].copy_from_slice(&port.to_be_bytes());
        bytes[36..38].copy_from_slice(&(9_000 + (flow / PORTS) as u16).to_be_bytes());
        // The UDP checksum stays zero: none (RFC 768).
        bytes[38..40].copy_from_slice(&(len as u16 - 34).to_be_bytes());
        bytes
    }

    /// A TCP superframe and its header (virtio 1.2, 5.1.6.2): checksum to be completed, segments of `mss`.
    pub fn superframe(&self, side: usize, len: usize, mss: u16) -> ([u8; HEADER], Vec<u8>) {
        let mut bytes = self.frame(side, 0, len);
        bytes[23] = 6;
        set_ip_checksum(&mut bytes);
        bytes[34..54].fill(0);
        bytes[34..38].copy_from_slice(&[0x4e, 0x20, 0x23, 0x28]);
        // Length of the header, ACK, window.
        bytes[46..50].copy_from_slice(&[0x50, 0x10, 0xff, 0xff]);
        let mut pseudo = bytes[26..34].to_vec();
        pseudo.extend([0, 6]);
        pseudo.extend((len as u16 - 34).to_be_bytes());
        bytes[50..52].copy_from_slice(&(!checksum(&pseudo)).to_be_bytes());
        let mut header = [0; HEADER];
        // NEEDS_CSUM, TCPV4.
        header[..2].copy_from_slice(&[1, 1]);
        header[2..4].copy_from_slice(&54u16.to_le_bytes());
        header[4..6].copy_from_slice(&mss.to_le_bytes());
        header[6..8].copy_from_slice(&34u16.to_le_bytes());
        header[8..10].copy_from_slice(&16u16.to_le_bytes());
        (header, bytes)
    }
}

fn set_ip_checksum(bytes: &mut [u8]) {
    bytes[24..26].fill(0);
    let sum = checksum(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
}

fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// ARP, RFC 826: `operation` 1 asks, 2 answers.
pub fn arp(operation: u8, from: (MacAddr, [u8; 4]), to: (MacAddr, [u8; 4])) -> Vec<u8> {
    let mut bytes = vec![0; 60];
    bytes[..6].copy_from_slice(&to.0.0);
    bytes[6..12].copy_from_slice(&from.0.0);
    bytes[12..22].copy_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation]);
    bytes[22..28].copy_from_slice(&from.0.0);
    bytes[28..32].copy_from_slice(&from.1);
    if operation == 2 {
        bytes[32..38].copy_from_slice(&to.0.0);
    }
    bytes[38..42].copy_from_slice(&to.1);
    bytes
}

/// Operation, sender's MAC and IP, wanted IP.
pub fn parse_arp(bytes: &[u8]) -> Option<(u8, MacAddr, [u8; 4], [u8; 4])> {
    if bytes.len() < 42 || bytes[12..14] != [0x08, 0x06] {
        return None;
    }
    let mac = MacAddr(bytes[22..28].try_into().ok()?);
    Some((bytes[21], mac, bytes[28..32].try_into().ok()?, bytes[38..42].try_into().ok()?))
}
