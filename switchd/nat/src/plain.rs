//! The short way: a frame as nearly all are, of a flow that is open.
//!
//! IPv4 without options behind an untagged Ethernet header, whole, UDP or an established TCP connection's
//! segment without SYN, FIN or RST, and `prepare` has found the flow. It does what `translate` does for such a
//! frame, with every offset known beforehand. Whatever does not fit is left untouched and goes the long way.

use crate::nat::Nat;
use crate::packet::{Classified, double, word};
use crate::state::State;
use crate::table::{FROM_OUTSIDE, HAIRPIN, LIVE, V6};
use crate::tcp;
use crate::timers::tick;
use crate::translate::Sender;
use std::net::Ipv4Addr;
use switchd_wire::checksum::Delta;
use switchd_wire::parse::PROTOCOL_TCP;
use switchd_wire::{Frame, MacAddr};

/// Ethernet, IPv4, ports and the rest of a UDP header.
const HEADERS: usize = 42;
const L4: u16 = 34;
/// Behind the first 42 bytes: what else of a TCP header is needed.
const TCP_REST: usize = 12;
const TCP_FLAGS: usize = 47 - HEADERS;
const TCP_SUM: usize = 50 - HEADERS;

#[inline(always)]
fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// The address at `at` and the port at `port_at` become others; all checksums with them.
#[inline(always)]
fn replace(
    headers: &mut [u8; HEADERS],
    rest: Option<&mut [u8; TCP_REST]>,
    unfinished: bool,
    (at, address): (usize, u32),
    (port_at, port): (usize, u16),
) {
    let addresses = Delta::new().replace_u32(double(headers, at), address);
    let all = addresses.replace_u16(word(headers, port_at), port);
    headers[at..at + 4].copy_from_slice(&address.to_be_bytes());
    put(headers, port_at, port);
    let sum = addresses.apply(word(headers, 24));
    put(headers, 24, sum);
    if let Some(rest) = rest {
        let old = word(rest, TCP_SUM);
        put(rest, TCP_SUM, if unfinished { addresses.apply_uncomplemented(old) } else { all.apply(old) });
        return;
    }
    let old = word(headers, 40);
    let new = if unfinished {
        addresses.apply_uncomplemented(old)
    } else if old == 0 {
        0
    } else {
        match all.apply(old) {
            0 => 0xffff,
            sum => sum,
        }
    };
    put(headers, 40, new);
}

/// May a segment with these flags go the short way?
#[inline(always)]
fn is_steady(state: State, rest: Option<&[u8; TCP_REST]>, traits: u8) -> bool {
    match rest {
        Some(rest) => state == State::Established && rest[TCP_FLAGS] & (tcp::SYN | tcp::FIN | tcp::RST) == 0,
        None => state == State::UdpOpen || state == State::UdpNew && traits & FROM_OUTSIDE == 0,
    }
}

impl Nat {
    #[inline(always)]
    pub(crate) fn plain_out(
        &mut self,
        now: u64,
        sender: Sender,
        seen: &Classified,
        frame: &mut Frame,
    ) -> Option<Ipv4Addr> {
        let bytes = frame.len() as u64;
        let unfinished = frame.vnet.needs_csum && frame.vnet.csum_start == L4;
        let session = self.table.hot.get_mut(seen.slot() as usize)?;
        let (headers, rest) = frame.head_mut().split_first_chunk_mut::<HEADERS>()?;
        let tcp = seen.protocol() == PROTOCOL_TCP;
        let rest = if tcp { Some(rest.first_chunk_mut::<TCP_REST>()?) } else { None };
        let remote = double(headers, 30);
        let differs = (session.inside as u32 ^ double(headers, 26))
            | (session.remote as u32 ^ remote)
            | u32::from(session.inside_port ^ seen.local_port())
            | u32::from(session.remote_port ^ seen.remote_port())
            | u32::from(session.protocol ^ seen.protocol())
            | u32::from(session.flags & (V6 | LIVE | HAIRPIN) ^ LIVE);
        if differs != 0 || !is_steady(session.state, rest.as_deref(), session.flags) {
            return None;
        }
        session.packets = session.packets.wrapping_add(1);
        session.bytes += bytes;
        session.mac = sender.mac;
        session.last = tick(now);
        let outside = self.table.outsides[usize::from(session.outside)] as u32;
        replace(headers, rest, unfinished, (26, outside), (34, session.outside_port));
        self.counters.outbound += 1;
        Some(Ipv4Addr::from_bits(remote))
    }

    #[inline(always)]
    pub(crate) fn plain_in(
        &mut self,
        now: u64,
        seen: &Classified,
        frame: &mut Frame,
    ) -> Option<(Ipv4Addr, MacAddr)> {
        let bytes = frame.len() as u64;
        let unfinished = frame.vnet.needs_csum && frame.vnet.csum_start == L4;
        let session = self.table.hot.get_mut(seen.slot() as usize)?;
        let (headers, rest) = frame.head_mut().split_first_chunk_mut::<HEADERS>()?;
        let tcp = seen.protocol() == PROTOCOL_TCP;
        let rest = if tcp { Some(rest.first_chunk_mut::<TCP_REST>()?) } else { None };
        let outside = self.table.outsides[usize::from(session.outside)] as u32;
        let differs = (outside ^ double(headers, 30))
            | (session.remote as u32 ^ double(headers, 26))
            | u32::from(session.outside_port ^ seen.local_port())
            | u32::from(session.remote_port ^ seen.remote_port())
            | u32::from(session.protocol ^ seen.protocol())
            | u32::from(session.flags & (V6 | LIVE) ^ LIVE);
        // A flow's first answer changes its state; a UDP flow is refreshed by its guest only.
        let state = session.state;
        if differs != 0 || state == State::UdpNew || !is_steady(state, rest.as_deref(), session.flags) {
            return None;
        }
        session.packets = session.packets.wrapping_add(1);
        session.bytes += bytes;
        if tcp {
            session.last = tick(now);
        }
        let (inside, mac) = (session.inside as u32, session.mac);
        replace(headers, rest, unfinished, (30, inside), (36, session.inside_port));
        self.counters.inbound += 1;
        Some((Ipv4Addr::from_bits(inside), mac))
    }
}
