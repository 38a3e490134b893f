//! ARP (RFC 826) as a gateway speaks it, with the probes and announcements of RFC 5227.

use std::net::Ipv4Addr;
use switchd_wire::parse::ETHERTYPE_ARP;
use switchd_wire::{Frame, MacAddr};

/// Without padding, behind the Ethernet header.
const LEN: usize = 28;
/// Ethernet's shortest frame, without its check sequence.
const MIN_FRAME: usize = 60;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    pub request: bool,
    pub sender_mac: MacAddr,
    pub sender: Ipv4Addr,
    pub target_mac: MacAddr,
    pub target: Ipv4Addr,
}

/// `None`: not ARP for IPv4 over Ethernet, neither request nor reply, or a sender that can be nobody.
pub fn read(frame: &Frame) -> Option<Arp> {
    let arp: &[u8; LEN] = frame.head().get(14..14 + LEN)?.try_into().ok()?;
    let mac = |at: usize| MacAddr(arp[at..at + 6].try_into().expect("six octets"));
    let address = |at: usize| Ipv4Addr::new(arp[at], arp[at + 1], arp[at + 2], arp[at + 3]);
    let request = match arp[..8] {
        [0, 1, 8, 0, 6, 4, 0, 1] => true,
        [0, 1, 8, 0, 6, 4, 0, 2] => false,
        _ => return None,
    };
    let sender_mac = mac(8);
    let arp = Arp { request, sender_mac, sender: address(14), target_mac: mac(18), target: address(24) };
    (!sender_mac.is_group() && !sender_mac.is_zero()).then_some(arp)
}

impl Arp {
    /// The answer of `mac`, who has the target.
    pub fn reply(&self, mac: MacAddr) -> Vec<u8> {
        let reply = Arp {
            request: false,
            sender_mac: mac,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
        };
        reply.write(self.sender_mac)
    }

    fn write(&self, to: MacAddr) -> Vec<u8> {
        let mut frame = Vec::with_capacity(MIN_FRAME);
        frame.extend_from_slice(&to.0);
        frame.extend_from_slice(&self.sender_mac.0);
        frame.extend_from_slice(&ETHERTYPE_ARP.to_be_bytes());
        frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, if self.request { 1 } else { 2 }]);
        frame.extend_from_slice(&self.sender_mac.0);
        frame.extend_from_slice(&self.sender.octets());
        frame.extend_from_slice(&self.target_mac.0);
        frame.extend_from_slice(&self.target.octets());
        frame.resize(MIN_FRAME, 0);
        frame
    }
}

/// Asks who has `target`: its holder alone, or everybody.
pub fn ask(mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr, to: Option<MacAddr>) -> Vec<u8> {
    let arp = Arp { request: true, sender_mac: mac, sender, target_mac: MacAddr::ZERO, target };
    arp.write(to.unwrap_or(MacAddr::BROADCAST))
}

/// RFC 5227 2.1.1: does anybody use `address`?
pub fn probe(mac: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    ask(mac, Ipv4Addr::UNSPECIFIED, address, None)
}

/// RFC 5227 2.3: `address` is ours.
pub fn announce(mac: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    ask(mac, address, address, None)
}
