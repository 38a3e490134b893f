//! ICMP errors: the packet that they quote is put back into the words of whoever sent it (RFC 5508 4).
//!
//! From outside, the quoted packet is one that left: its source becomes the guest's again, and the error goes
//! to the guest (REQ-4). From inside, the quoted packet is one that was delivered: its destination becomes
//! the outside endpoint, and so does the error's source, also where a router inside has sent it (REQ-5).
//! Checksums of the quoted headers are corrected, as far as they were quoted, and the outer one with them.
//!
//! An error must have a right checksum and quote a packet with a right IPv4 header checksum (REQ-3), of a
//! flow that exists; it never opens, refreshes or ends one (REQ-6). What quotes an error, or a later
//! fragment, is dropped. The quotation's headers must lie in the frame's head, which they do by far.

use crate::hash::{Key, address};
use crate::nat::Nat;
use crate::packet::{Classified, ICMP, ICMP6, addresses, quad, query, word};
use crate::ports::Space;
use crate::rewrite::{End, checksum_of, correct, port_of, readdress, replace, rewrite};
use crate::verdict::{NatDrop, Side, Verdict};
use switchd_wire::checksum::{Delta, Sum, pseudo_v6};
use switchd_wire::parse::{PROTOCOL_TCP, PROTOCOL_UDP};
use switchd_wire::{Frame, TailSource};

/// Extension headers that are followed in a quoted IPv6 packet.
const EXTENSIONS: usize = 8;

/// A packet within an error.
struct Quoted {
    l3: usize,
    l4: usize,
    protocol: u8,
    source: u128,
    destination: u128,
    source_port: u16,
    destination_port: u16,
}

/// Reads the quotation that begins at `l3` of the head.
fn quoted(head: &[u8], l3: usize, v6: bool) -> Option<Quoted> {
    let (protocol, l4) = if v6 { layer4_v6(head, l3)? } else { layer4_v4(head, l3)? };
    let (source, destination) = addresses(head, l3, v6);
    let mut quoted = Quoted { l3, l4, protocol, source, destination, source_port: 0, destination_port: 0 };
    match protocol {
        PROTOCOL_TCP | PROTOCOL_UDP => {
            head.get(l4..l4 + 8)?;
            quoted.source_port = word(head, l4);
            quoted.destination_port = word(head, l4 + 2);
        }
        ICMP | ICMP6 => {
            let asks = query(v6, *head.get(l4..l4 + 8)?.first()?)?;
            let id = word(head, l4 + 4);
            // The side that asked has the identifier, as in a flow's key.
            (quoted.source_port, quoted.destination_port) = if asks { (id, 0) } else { (0, id) };
        }
        _ => {}
    }
    Some(quoted)
}

fn layer4_v4(head: &[u8], l3: usize) -> Option<(u8, usize)> {
    let fixed = head.get(l3..l3 + 20)?;
    let header = usize::from(fixed[0] & 0xf) * 4;
    let whole = head.get(l3..l3 + header)?;
    let is_right = fixed[0] >> 4 == 4
        && header >= 20
        && Sum::new().over(whole).uncomplemented() == 0xffff
        && word(fixed, 6) & 0x1fff == 0;
    is_right.then_some((fixed[9], l3 + header))
}

fn layer4_v6(head: &[u8], l3: usize) -> Option<(u8, usize)> {
    let fixed = head.get(l3..l3 + 40)?;
    if fixed[0] >> 4 != 6 {
        return None;
    }
    let (mut protocol, mut at) = (fixed[6], l3 + 40);
    for _ in 0..EXTENSIONS {
        let length = match protocol {
            0 | 43 | 60 | 135 | 139 | 140 => (usize::from(*head.get(at + 1)?) + 1) * 8,
            44 if word(head.get(at..at + 8)?, 2) & 0xfff8 == 0 => 8,
            44 => return None,
            _ => return Some((protocol, at)),
        };
        protocol = *head.get(at)?;
        at += length;
    }
    None
}

/// Is the error's own checksum right? Offloaded frames have none yet, or one that was checked.
fn is_intact(seen: &Classified, frame: &Frame, tails: &dyn TailSource) -> bool {
    if frame.vnet.needs_csum || frame.vnet.data_valid {
        return true;
    }
    let (l3, l4) = (seen.l3(), seen.l4());
    let head = frame.head();
    let end = if seen.v6() {
        l3 + 40 + usize::from(word(head, l3 + 4))
    } else {
        l3 + usize::from(word(head, l3 + 2))
    };
    if end < l4 + 8 || end > frame.len() {
        return false;
    }
    let mut sum = if seen.v6() {
        let (source, destination) = (quad(head, l3 + 8), quad(head, l3 + 24));
        pseudo_v6(source.to_be_bytes(), destination.to_be_bytes(), ICMP6, (end - l4) as u32)
    } else {
        Sum::new()
    };
    sum = sum.over(&head[l4..end.min(head.len())]);
    let (mut at, tail) = (0, end.saturating_sub(head.len()));
    let mut chunk = [0; 512];
    while at < tail {
        let part = &mut chunk[..(tail - at).min(512)];
        if tails.copy_tail(frame.tail, at, part).is_err() {
            return false;
        }
        sum = sum.over(part);
        at += part.len();
    }
    sum.uncomplemented() == 0xffff
}

/// Gives one end of the quoted packet another address and port. Corrects the checksums of the quotation and of
/// the error around it; the error's own addresses are left.
fn requote(frame: &mut Frame, seen: &Classified, quoted: &Quoted, end: End, new: u128, port: Option<u16>) {
    let v6 = seen.v6();
    let l4 = seen.l4();
    let unfinished = frame.vnet.needs_csum && usize::from(frame.vnet.csum_start) == l4;
    let head = frame.head_mut();
    let header_sum = if v6 { 0 } else { word(head, quoted.l3 + 10) };
    let moved = readdress(head, quoted.l3, v6, end, new);
    let mut outer = moved;
    if !v6 {
        outer = outer.replace_u16(header_sum, word(head, quoted.l3 + 10));
    }
    let ported = port.zip(port_of(quoted.protocol, end));
    let inner = ported.map(|(port, at)| replace(head, quoted.l4 + at, port));
    if let Some((offset, covers)) = checksum_of(quoted.protocol) {
        let at = quoted.l4 + offset;
        if at + 2 <= head.len() {
            let addresses = if covers { moved } else { Delta::new() };
            let old = word(head, at);
            let rest = joined(addresses, inner);
            correct(head, at, quoted.protocol, false, addresses, rest);
            outer = outer.replace_u16(old, word(head, at));
        }
    }
    correct(head, l4 + 2, seen.protocol(), unfinished, Delta::new(), joined(outer, inner));
}

/// One change and another one.
fn joined(one: Delta, other: Option<(u16, u16)>) -> Delta {
    other.map_or(one, |(old, new)| one.replace_u16(old, new))
}

impl Nat {
    fn read_error(&mut self, seen: &Classified, frame: &Frame) -> Option<Quoted> {
        quoted(frame.head(), seen.l4() + 8, seen.v6())
    }

    /// An error from outside, about a packet that a guest sent.
    pub(crate) fn error_in(
        &mut self,
        seen: &Classified,
        frame: &mut Frame,
        tails: &dyn TailSource,
    ) -> Verdict {
        let (_, destination) = addresses(frame.head(), seen.l3(), seen.v6());
        if !self.is_ours(destination, seen.v6()) {
            return self.drop(NatDrop::NotOurs);
        }
        if !is_intact(seen, frame, tails) {
            return self.drop(NatDrop::IcmpUnmatched);
        }
        match self.deliver_error(seen, frame) {
            Some((inside, mac)) => {
                self.counters.inbound += 1;
                Verdict::Deliver { to: address(inside, seen.v6()), mac }
            }
            None => self.drop(NatDrop::IcmpUnmatched),
        }
    }

    fn deliver_error(
        &mut self,
        seen: &Classified,
        frame: &mut Frame,
    ) -> Option<(u128, Option<switchd_wire::MacAddr>)> {
        let v6 = seen.v6();
        let quoted = self.read_error(seen, frame)?;
        let (_, destination) = addresses(frame.head(), seen.l3(), v6);
        if quoted.source != destination {
            return None;
        }
        let (inside, port, mac) = match self.rules.floating(quoted.source, v6) {
            Some(inside) => (inside, None, self.mac_of(inside, v6)),
            None => {
                let key = Key {
                    local: quoted.source,
                    remote: quoted.destination,
                    local_port: quoted.source_port,
                    remote_port: quoted.destination_port,
                    protocol: quoted.protocol,
                    v6,
                    side: Side::Outside,
                };
                let slot = self.table.lookup(&key)?;
                let session = &self.table.hot[slot as usize];
                let mac = (!session.mac.is_zero()).then_some(session.mac);
                (session.inside, Some(session.inside_port), mac)
            }
        };
        requote(frame, seen, &quoted, End::Source, inside, port);
        rewrite(frame, seen.place(), End::Destination, inside, None);
        self.counters.icmp_errors += 1;
        Some((inside, mac))
    }

    /// An error from a guest, about a packet that it was given.
    pub(crate) fn error_out(
        &mut self,
        seen: &Classified,
        frame: &mut Frame,
        tails: &dyn TailSource,
    ) -> Verdict {
        let v6 = seen.v6();
        let (source, destination) = addresses(frame.head(), seen.l3(), v6);
        if !self.is_inside(source, v6) {
            return self.drop(NatDrop::NotInside);
        }
        let found = is_intact(seen, frame, tails)
            .then(|| self.read_error(seen, frame))
            .flatten()
            .and_then(|quoted| self.outside_of_quoted(&quoted, v6).map(|outside| (quoted, outside)));
        let Some((quoted, (outside, port))) = found else { return self.drop(NatDrop::IcmpUnmatched) };
        requote(frame, seen, &quoted, End::Destination, outside, port);
        let own = self.rules.floated(source, v6).unwrap_or(outside);
        rewrite(frame, seen.place(), End::Source, own, None);
        if !self.is_ours(destination, v6) {
            self.counters.icmp_errors += 1;
            self.counters.outbound += 1;
            return Verdict::Forward { to: address(destination, v6) };
        }
        let back = seen.turned();
        match self.deliver_error(&back, frame) {
            Some((inside, mac)) => {
                self.counters.hairpin += 1;
                Verdict::Hairpin { to: address(inside, v6), mac }
            }
            None => self.drop(NatDrop::IcmpUnmatched),
        }
    }

    /// The outside endpoint to which the quoted packet was addressed before it was delivered.
    fn outside_of_quoted(&self, quoted: &Quoted, v6: bool) -> Option<(u128, Option<u16>)> {
        let key = Key {
            local: quoted.destination,
            remote: quoted.source,
            local_port: quoted.destination_port,
            remote_port: quoted.source_port,
            protocol: quoted.protocol,
            v6,
            side: Side::Inside,
        };
        if let Some(slot) = self.table.lookup(&key) {
            let session = &self.table.hot[slot as usize];
            let outside = self.table.outsides[usize::from(session.outside)];
            return Some((outside, Some(session.outside_port)));
        }
        if let Some(outside) = self.rules.floated(quoted.destination, v6) {
            return Some((outside, None));
        }
        // Let in by the mapping alone.
        let space = Space::of(quoted.protocol)?;
        let mapping = self.maps.of_inside(space, v6, quoted.destination, quoted.destination_port)?;
        let mapping = self.maps.get(mapping);
        let outside = self.table.outsides[usize::from(mapping.outside)];
        Some((outside, Some(mapping.outside_port)))
    }
}
