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

#[inline]
fn word16(head: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*head.get(at..)?.first_chunk()?))
}

#[inline]
fn word32(head: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(u32::from_be_bytes(*head.get(at..)?.first_chunk()?)))
}

#[inline]
fn word64(head: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*head.get(at..)?.first_chunk()?))
}

/// The bucket of a frame as it is to leave, tags included.
#[inline]
pub(crate) fn bucket_of(head: &[u8], policy: Hash) -> u8 {
    let Some(&[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5]) = head.first_chunk::<12>() else { return 0 };
    let source = u64::from_be_bytes([0, 0, s0, s1, s2, s3, s4, s5]);
    let destination = u64::from_be_bytes([0, 0, d0, d1, d2, d3, d4, d5]);
    let ends = match policy {
        Hash::Layer2 => None,
        Hash::Layer23 => addresses(head, false).map(|(a, b)| (a ^ source << 16, b ^ destination << 16)),
        Hash::Layer34 => addresses(head, true),
    };
    let (a, b) = ends.unwrap_or((source, destination));
    (mix(a).wrapping_add(mix(b)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// The ends of an IP packet, each in a word.
#[inline]
fn addresses(head: &[u8], ports: bool) -> Option<(u64, u64)> {
    let mut at = 12;
    let mut kind = word16(head, at)?;
    for _ in 0..3 {
        if kind != 0x8100 && kind != 0x88a8 {
            break;
        }
        at += 4;
        kind = word16(head, at)?;
    }
    let ip = at + 2;
    let (source, destination, l4) = match kind {
        0x0800 => {
            let &[version, ..] = head.get(ip..ip + 20)? else { return None };
            let header = usize::from(version & 0xf) * 4;
            if version >> 4 != 4 || header < 20 {
                return None;
            }
            let whole = word16(head, ip + 6)? & 0x3fff == 0;
            let l4 = (whole && carries_ports(head[ip + 9])).then_some(ip + header);
            (word32(head, ip + 12)?, word32(head, ip + 16)?, l4)
        }
        0x86dd => {
            let &[version, ..] = head.get(ip..ip + 40)? else { return None };
            if version >> 4 != 6 {
                return None;
            }
            let l4 = carries_ports(head[ip + 6]).then_some(ip + 40);
            let fold = |at| Some(mix(word64(head, at)?) ^ word64(head, at + 8)?);
            (fold(ip + 8)?, fold(ip + 24)?, l4)
        }
        _ => return None,
    };
    let ports = l4.filter(|_| ports).and_then(|at| word32(head, at)).unwrap_or(0);
    Some((source ^ (ports >> 16) << 40, destination ^ (ports & 0xffff) << 40))
}

#[inline]
fn carries_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 132)
}
