//! Fragments of guests, put together again: sockets take whole datagrams only.
//!
//! At most [`DATAGRAMS_MAX`] wait, [`GUEST_MAX`] of one guest: beyond that its own oldest gives way, or else
//! the oldest of all. Fragments that overlap end their datagram (RFC 5722
//! 4; for IPv4 the same, RFC 1858 tells why), and so does one that is not a multiple of 8 long.

use super::packet::{Packet, Piece};
use std::net::IpAddr;

pub const DATAGRAMS_MAX: usize = 64;
pub const GUEST_MAX: usize = 16;
const LEN_MAX: usize = 65_535;

#[derive(PartialEq, Eq)]
struct Key {
    /// Nobody continues, or spoils, another guest's datagram.
    guest: u32,
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
            guest: packet.guest,
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
            let of_guest = |waiting: &Waiting| waiting.key.guest == packet.guest;
            if self.waiting.iter().filter(|waiting| of_guest(waiting)).count() >= GUEST_MAX {
                self.give_up_oldest(of_guest);
            } else if self.waiting.len() >= DATAGRAMS_MAX {
                self.give_up_oldest(|_| true);
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

    fn give_up_oldest(&mut self, among: impl Fn(&Waiting) -> bool) {
        let candidates = self.waiting.iter().enumerate().filter(|(_, waiting)| among(waiting));
        if let Some((oldest, _)) = candidates.min_by_key(|(_, waiting)| waiting.since) {
            self.waiting.swap_remove(oldest);
            self.dropped += 1;
        }
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
            guest: id >> 16,
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
            give(&mut fragments, id << 16 | 100, 0, true, &[1; 8]);
        }
        assert_eq!((fragments.waiting.len(), fragments.dropped), (DATAGRAMS_MAX, 4));
        fragments.expire(1);
        assert_eq!((fragments.expired, fragments.oldest()), (DATAGRAMS_MAX as u64, None));
    }

    #[test]
    fn one_guests_fragments_do_not_push_out_anothers_and_do_not_spoil_them() {
        let mut fragments = Fragments::default();
        let (other, greedy) = (1 << 16, 2 << 16);
        assert_eq!(give(&mut fragments, other | 7, 0, true, &[1; 8]), None);
        for id in 0..200 {
            give(&mut fragments, greedy | id, 0, true, &[2; 8]);
        }
        assert_eq!(fragments.waiting.len(), GUEST_MAX + 1);
        assert_eq!(give(&mut fragments, other | 7, 8, false, &[3; 4]).map(|whole| whole.len()), Some(12));
        // The same addresses and identification, given by another guest.
        let (packet, piece) = packet(other | 9);
        let forged = Packet { guest: 2, ..packet };
        assert_eq!(fragments.take(1, &packet, piece, [&[1; 8], &[]]), Reassembly::Waits);
        assert_eq!(fragments.take(1, &forged, piece, [&[2; 8], &[]]), Reassembly::Waits);
        let last = Piece { offset: 8, more: false, ..piece };
        let whole = [[1; 8], [3; 8]].concat();
        assert_eq!(fragments.take(1, &packet, last, [&[3; 8], &[]]), Reassembly::Whole(whole));
    }
}
