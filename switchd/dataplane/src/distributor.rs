//! Distributor (802.1AX-2020 6.2.4): which member does a frame of the bond leave by?
//!
//! The frame's conversation is hashed into one of [`BUCKETS`] buckets, and each bucket belongs to a member.
//!
//! **Hash.** Both directions of a conversation get the same number, whatever the policy: each end is mixed by
//! itself and the two are added. `layer2` takes the MAC addresses; `layer2+3` these and the IP addresses;
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

/// A number that does not tell what it was made from.
pub(crate) fn scramble(seed: u64) -> u64 {
    mix(mix(seed).rotate_left(17))
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

#[inline(always)]
fn word16(bytes: &[u8; 2]) -> u16 {
    u16::from_be_bytes(*bytes)
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
    let sum = mix(ends.0).wrapping_add(mix(ends.1));
    (sum.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

#[inline(always)]
fn macs(addresses: &[u8; 14]) -> (u64, u64) {
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, _, _] = *addresses;
    let source = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, 0, 0]);
    let destination = u64::from_le_bytes([d0, d1, d2, d3, d4, d5, 0, 0]);
    (source, destination)
}

/// The ends of an IP packet, each in a word.
#[inline(always)]
fn ip_ends(head: &[u8], ports: bool) -> Option<(u64, u64)> {
    let mut rest = head.get(12..)?;
    let mut kind = word16(rest.first_chunk()?);
    for _ in 0..3 {
        if kind != 0x8100 && kind != 0x88a8 {
            break;
        }
        rest = rest.get(4..)?;
        kind = word16(rest.first_chunk()?);
    }
    match kind {
        0x0800 => v4(rest.get(2..)?, ports),
        0x86dd => v6(rest.get(2..)?, ports),
        _ => None,
    }
}

#[inline(always)]
fn v4(packet: &[u8], ports: bool) -> Option<(u64, u64)> {
    let fixed = packet.first_chunk::<20>()?;
    let header = usize::from(fixed[0] & 0xf) * 4;
    if fixed[0] >> 4 != 4 || header < 20 {
        return None;
    }
    let whole = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff == 0;
    let source = u32::from_be_bytes([fixed[12], fixed[13], fixed[14], fixed[15]]);
    let destination = u32::from_be_bytes([fixed[16], fixed[17], fixed[18], fixed[19]]);
    let ends = (u64::from(source), u64::from(destination));
    if !(ports && whole && carries_ports(fixed[9])) {
        return Some(ends);
    }
    Some(with_ports(ends, packet.get(header..)))
}

#[inline(always)]
fn v6(packet: &[u8], ports: bool) -> Option<(u64, u64)> {
    let fixed = packet.first_chunk::<40>()?;
    if fixed[0] >> 4 != 6 {
        return None;
    }
    let word = |at: usize| fixed[at..].first_chunk().map_or(0, |word| u64::from_be_bytes(*word));
    let fold = |at: usize| word(at).rotate_left(32) ^ word(at + 8);
    let ends = (fold(8), fold(24));
    if !(ports && carries_ports(fixed[6])) {
        return Some(ends);
    }
    Some(with_ports(ends, packet.get(40..)))
}

#[inline(always)]
fn with_ports((source, destination): (u64, u64), l4: Option<&[u8]>) -> (u64, u64) {
    let Some(&[a, b, c, d]) = l4.and_then(|l4| l4.first_chunk()) else { return (source, destination) };
    let port = |high, low| u64::from(u16::from_be_bytes([high, low])) << 40;
    (source ^ port(a, b), destination ^ port(c, d))
}

#[inline(always)]
fn carries_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 132)
}
