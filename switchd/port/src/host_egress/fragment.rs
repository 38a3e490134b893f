//! Fragments of guests, put together again: sockets take whole datagrams only.
//!
//! At most [`DATAGRAMS_MAX`] wait, the oldest gives way. Fragments that overlap end their datagram (RFC 5722
//! 4; for IPv4 the same, RFC 1858 tells why), and so does one that is not a multiple of 8 long.

use super::packet::{Packet, Piece};
use std::net::IpAddr;

pub const DATAGRAMS_MAX: usize = 64;
const LEN_MAX: usize = 65_535;

#[derive(PartialEq, Eq)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    id: u32,
}

struct Waiting {
    key: Key,
    since: u64,
    bytes: Vec<u8>,
    /// Ranges that have come, in order, not touching.
    have: Vec<(usize, usize)>,
    total: Option<usize>,
}

/// What became of a fragment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reassembly {
    /// The datagram, with this one as its last piece.
    Whole(Vec<u8>),
    Waits,
    Dropped,
}

#[derive(Default)]
pub struct Fragments {
    waiting: Vec<Waiting>,
    pub dropped: u64,
    pub expired: u64,
}

impl Fragments {
    /// Takes a fragment's data.
    pub fn take(&mut self, now: u64, packet: &Packet, piece: Piece, parts: [&[u8]; 2]) -> Reassembly {
        let len = parts[0].len() + parts[1].len();
        let end = piece.offset + len;
        let key = Key {
            source: packet.source,
            destination: packet.destination,
            protocol: packet.protocol,
            id: piece.id,
        };
        let place = self.waiting.iter().position(|waiting| {
            // The protocol of later IPv6 fragments is told by the fragment header, as that of the first.
            waiting.key == key
        });
        if len == 0 || end > LEN_MAX || (piece.more && !len.is_multiple_of(8)) {
            self.dropped += 1;
            if let Some(place) = place {
                self.waiting.swap_remove(place);
            }
            return Reassembly::Dropped;
        }
        let place = place.unwrap_or_else(|| {
            if self.waiting.len() >= DATAGRAMS_MAX {
                let oldest = (0..self.waiting.len()).min_by_key(|&at| self.waiting[at].since).unwrap_or(0);
                self.waiting.swap_remove(oldest);
                self.dropped += 1;
            }
            self.waiting.push(Waiting { key, since: now, bytes: Vec::new(), have: Vec::new(), total: None });
            self.waiting.len() - 1
        });
        let waiting = &mut self.waiting[place];
        if !waiting.add(piece, end) {
            self.waiting.swap_remove(place);
            self.dropped += 1;
            return Reassembly::Dropped;
        }
        if waiting.bytes.len() < end {
            waiting.bytes.resize(end, 0);
        }
        let middle = piece.offset + parts[0].len();
        waiting.bytes[piece.offset..middle].copy_from_slice(parts[0]);
        waiting.bytes[middle..end].copy_from_slice(parts[1]);
        let whole = waiting.total.is_some_and(|total| waiting.have == [(0, total)]);
        if whole { Reassembly::Whole(self.waiting.swap_remove(place).bytes) } else { Reassembly::Waits }
    }

    /// Forgets what has waited since before `since`.
    pub fn expire(&mut self, since: u64) {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| waiting.since > since);
        self.expired += (before - self.waiting.len()) as u64;
    }

    pub fn oldest(&self) -> Option<u64> {
        self.waiting.iter().map(|waiting| waiting.since).min()
    }
}

impl Waiting {
    /// Notes a range. False when it overlaps with another or contradicts the length.
    fn add(&mut self, piece: Piece, end: usize) -> bool {
        if !piece.more {
            if self.total.is_some_and(|total| total != end) {
                return false;
            }
            self.total = Some(end);
        }
        let last = self.have.last().map_or(0, |range| range.1);
        if self.total.is_some_and(|total| end > total || last > total) {
            return false;
        }
        let at = self.have.partition_point(|range| range.0 < piece.offset);
        if (at > 0 && self.have[at - 1].1 > piece.offset)
            || self.have.get(at).is_some_and(|next| next.0 < end)
        {
            return false;
        }
        self.have.insert(at, (piece.offset, end));
        self.have.dedup_by(|next, range| {
            let touches = range.1 == next.0;
            if touches {
                range.1 = next.1;
            }
            touches
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchd_wire::MacAddr;

    fn packet(id: u32) -> (Packet, Piece) {
        let piece = Piece { id, offset: 0, more: true };
        let packet = Packet {
            mac: MacAddr::ZERO,
            source: "10.7.0.9".parse().unwrap(),
            destination: "192.0.2.1".parse().unwrap(),
            protocol: 17,
            ttl: 64,
            dont_fragment: false,
            l3: 14,
            l4: 34,
            len: 0,
            fragment: Some(piece),
        };
        (packet, piece)
    }

    fn give(fragments: &mut Fragments, id: u32, offset: usize, more: bool, bytes: &[u8]) -> Option<Vec<u8>> {
        let (packet, piece) = packet(id);
        let half = bytes.len() / 2;
        let parts = [&bytes[..half], &bytes[half..]];
        match fragments.take(1, &packet, Piece { offset, more, ..piece }, parts) {
            Reassembly::Whole(whole) => Some(whole),
            Reassembly::Waits | Reassembly::Dropped => None,
        }
    }

    #[test]
    fn a_datagram_becomes_whole_in_any_order() {
        let whole: Vec<u8> = (0..40).collect();
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        for order in orders {
            let mut fragments = Fragments::default();
            let mut done = None;
            for part in order {
                assert_eq!(done, None);
                let (from, to) = (part * 16, (part * 16 + 16).min(40));
                done = give(&mut fragments, 1, from, part < 2, &whole[from..to]);
            }
            assert_eq!(done.as_deref(), Some(&whole[..]), "{order:?}");
            assert_eq!(fragments.oldest(), None);
        }
    }

    #[test]
    fn overlapping_fragments_end_their_datagram_rfc5722_4() {
        let mut fragments = Fragments::default();
        assert_eq!(give(&mut fragments, 1, 0, true, &[1; 16]), None);
        assert_eq!(give(&mut fragments, 1, 8, true, &[2; 16]), None);
        assert_eq!((fragments.dropped, fragments.oldest()), (1, None));
        assert_eq!(give(&mut fragments, 1, 16, false, &[3; 4]), None, "what is left does not become whole");
    }

    #[test]
    fn nonsense_and_too_many_are_dropped_and_time_ends_the_rest() {
        let mut fragments = Fragments::default();
        assert_eq!(give(&mut fragments, 1, 0, true, &[1; 15]), None);
        assert_eq!(give(&mut fragments, 1, 65_528, false, &[1; 16]), None);
        give(&mut fragments, 2, 16, false, &[1; 8]);
        assert_eq!(give(&mut fragments, 2, 32, true, &[1; 8]), None, "behind the end");
        assert_eq!(fragments.dropped, 3);
        for id in 0..DATAGRAMS_MAX as u32 + 1 {
            give(&mut fragments, 100 + id, 0, true, &[1; 8]);
        }
        assert_eq!((fragments.waiting.len(), fragments.dropped), (DATAGRAMS_MAX, 4));
        fragments.expire(1);
        assert_eq!((fragments.expired, fragments.oldest()), (DATAGRAMS_MAX as u64, None));
    }
}
