//! Distributor (802.1AX-2020 6.2.4): which member does a frame of the bond leave by?
//!
//! The frame's conversation is hashed into one of [`BUCKETS`] buckets, and each bucket belongs to a member.
//!
//! **Hash.** Both directions of a conversation get the same number, whatever the policy: only the sum and the
//! difference of the two ends are looked at. `layer2` takes the MAC addresses; `layer2+3` these and the IP addresses;
//! `layer3+4` IP addresses and the ports of TCP, UDP and SCTP. Fragments of any kind, other protocols and
//! IPv6 with extension headers fall back to the IP addresses, what is not IP to the MAC addresses. Up to
//! three tags are looked through; they take no part.
//!
//! **Which member.** Rendezvous hashing: of the members that distribute, the one with the largest score for
//! the bucket. A member that goes moves only its own buckets; one that comes takes only those that it wins.
//!
//! **When a bucket moves.** When its member no longer distributes: at once; what lies in that member's queues
//! may be lost, and cannot arrive later than what follows by much. When its member still works and another
//! one has a better claim: once no frame of the bucket has come for [`DRAIN`], so that nothing can be
//! overtaken. A bucket that never pauses stays where it is for as long as its member works: no frame is
//! held, dropped, doubled or overtaken for the sake of balance.
//!
//! A change of the hash policy moves conversations between buckets without this care.

use crate::config::Hash;
use crate::table::NONE;

pub const BUCKETS: usize = 256;

/// In ticks of 2^20 ns: 50 ms and a bit. As long as frames may lie in queues on the way.
pub const DRAIN: u32 = 50;

const NOBODY: u16 = u16::MAX;

#[derive(Clone, Copy)]
struct Bucket {
    /// Ports of members: the one in use, and the one that has the best claim.
    now: u16,
    want: u16,
    /// Tick of the last frame.
    seen: u32,
}

pub(crate) struct Buckets(Box<[Bucket; BUCKETS]>);

#[inline]
pub(crate) fn tick(now: u64) -> u32 {
    (now >> 20) as u32
}

impl Buckets {
    pub fn new() -> Buckets {
        Buckets(Box::new([Bucket { now: NOBODY, want: NOBODY, seen: 0 }; BUCKETS]))
    }

    /// Works out whose each bucket is. `members` are ports and numbers of those that distribute; with
    /// `at_once` nothing waits.
    pub fn rebalance(&mut self, members: &[(u16, u16)], at_once: bool) {
        for (index, bucket) in self.0.iter_mut().enumerate() {
            let best = members.iter().max_by_key(|(_, number)| score(index, *number));
            bucket.want = best.map_or(NOBODY, |&(port, _)| port);
            if at_once || !members.iter().any(|&(port, _)| port == bucket.now) {
                bucket.now = bucket.want;
            }
        }
    }

    /// The member for a frame of this bucket.
    #[inline]
    pub fn choose(&mut self, bucket: u8, tick: u32) -> u32 {
        let bucket = &mut self.0[usize::from(bucket)];
        if bucket.now != bucket.want && tick.wrapping_sub(bucket.seen) > DRAIN {
            bucket.now = bucket.want;
        }
        bucket.seen = tick;
        if bucket.now == NOBODY { NONE } else { u32::from(bucket.now) }
    }
}

fn score(bucket: usize, number: u16) -> (u64, u16) {
    (mix(mix((bucket as u64) << 16 | u64::from(number))), number)
}

/// One folded multiplication.
#[inline]
fn mix(word: u64) -> u64 {
    let product = u128::from(word ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
    product as u64 ^ (product >> 64) as u64
}

/// The bucket of a frame as it is to leave, tags included.
#[inline]
pub(crate) fn bucket_of(head: &[u8], policy: Hash) -> u8 {
    let Some(addresses) = head.first_chunk::<14>() else { return 0 };
    let ends = match policy {
        Hash::Layer2 => macs(addresses),
        Hash::Layer34 => ip_ends(head, true).unwrap_or_else(|| macs(addresses)),
        Hash::Layer23 => {
            let (source, destination) = macs(addresses);
            match ip_ends(head, false) {
                Some((a, b)) => (a ^ source << 16, b ^ destination << 16),
                None => (source, destination),
            }
        }
    };
    // The sum and the difference tell the two ends, and not which of them is the source.
    let (a, b) = ends;
    let hash = (a ^ b).wrapping_mul(FACTORS[0]).wrapping_add(a.wrapping_add(b).wrapping_mul(FACTORS[1]));
    (hash >> 56) as u8
}

/// Odd, with bits spread evenly.
const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];

/// Whole words are loaded and shifted: put together octet by octet they would cost more than all the rest.
#[inline(always)]
fn load64(bytes: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*bytes)
}

#[inline(always)]
fn macs(addresses: &[u8; 14]) -> (u64, u64) {
    const MASK: u64 = 0xffff_ffff_ffff;
    let source = addresses.last_chunk().map_or(0, load64);
    let destination = addresses.first_chunk().map_or(0, load64);
    (source & MASK, destination & MASK)
}

/// The ends of an IP packet, each in a word.
#[inline(always)]
fn ip_ends(head: &[u8], ports: bool) -> Option<(u64, u64)> {
    let mut at = 12;
    let mut kind = *head.get(at..)?.first_chunk::<2>()?;
    for _ in 0..3 {
        if kind != [0x81, 0x00] && kind != [0x88, 0xa8] {
            break;
        }
        at += 4;
        kind = *head.get(at..)?.first_chunk::<2>()?;
    }
    let packet = head.get(at + 2..)?;
    match kind {
        [0x08, 0x00] => v4(packet, ports),
        [0x86, 0xdd] => v6(packet, ports),
        _ => None,
    }
}

#[inline(always)]
fn v4(packet: &[u8], ports: bool) -> Option<(u64, u64)> {
    // Most packets have no options, and more behind the header.
    let Some(fixed) = packet.first_chunk::<24>().filter(|fixed| fixed[0] == 0x45) else {
        return v4_with_options(packet, ports);
    };
    // Behind the identification: flags and offset, time to live, protocol, checksum, and the source.
    let (middle, ends) = (load64(fixed[6..].first_chunk()?), load64(fixed[12..].first_chunk()?));
    let addresses = (ends & 0xffff_ffff, ends >> 32);
    let whole = middle & 0xff3f == 0;
    if !(ports && whole && carries_ports((middle >> 24) as u8)) {
        return Some(addresses);
    }
    Some(with_ports(addresses, fixed[20..].first_chunk()?))
}

#[cold]
fn v4_with_options(packet: &[u8], ports: bool) -> Option<(u64, u64)> {
    let fixed = packet.first_chunk::<20>()?;
    let header = usize::from(fixed[0] & 0xf) * 4;
    if fixed[0] >> 4 != 4 || header < 20 {
        return None;
    }
    let ends = load64(fixed[12..].first_chunk()?);
    let addresses = (ends & 0xffff_ffff, ends >> 32);
    let whole = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff == 0;
    let l4 = packet.get(header..).and_then(|l4| l4.first_chunk());
    match l4.filter(|_| ports && whole && carries_ports(fixed[9])) {
        Some(l4) => Some(with_ports(addresses, l4)),
        None => Some(addresses),
    }
}

#[inline(always)]
fn v6(packet: &[u8], ports: bool) -> Option<(u64, u64)> {
    let fixed = packet.first_chunk::<40>()?;
    if fixed[0] >> 4 != 6 {
        return None;
    }
    let word = |at: usize| fixed[at..].first_chunk().map_or(0, load64);
    let addresses = (word(8).rotate_left(32) ^ word(16), word(24).rotate_left(32) ^ word(32));
    let l4 = packet.get(40..).and_then(|l4| l4.first_chunk());
    match l4.filter(|_| ports && carries_ports(fixed[6])) {
        Some(l4) => Some(with_ports(addresses, l4)),
        None => Some(addresses),
    }
}

#[inline(always)]
fn with_ports((source, destination): (u64, u64), l4: &[u8; 4]) -> (u64, u64) {
    let ports = u64::from(u32::from_le_bytes(*l4));
    (source ^ (ports & 0xffff) << 40, destination ^ (ports >> 16) << 40)
}

#[inline(always)]
fn carries_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 132)
}
