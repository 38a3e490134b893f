//! Keys and their hash, and the random numbers that choose ports.
//!
//! Guests and strangers choose what is hashed, so the hash is keyed with the seed. It is folded
//! multiplication, two rounds for IPv4 and five for IPv6. An address is a `u128`: IPv6 as it is, IPv4 in the
//! low 32 bits; `v6` tells them apart.

use crate::verdict::Side;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use switchd_wire::secret::Secret;

/// What identifies a flow, seen from one side. `local` is the guest's address from inside and the outside
/// address from outside; ports of ICMP are the identifier and 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    pub local: u128,
    pub remote: u128,
    pub local_port: u16,
    pub remote_port: u16,
    pub protocol: u8,
    pub v6: bool,
    pub side: Side,
}

pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[inline]
pub(crate) fn address(number: u128, v6: bool) -> IpAddr {
    if v6 { IpAddr::V6(Ipv6Addr::from_bits(number)) } else { IpAddr::V4(Ipv4Addr::from_bits(number as u32)) }
}

/// A guest sees the ports that it gets: from these nobody must foresee another's (RFC 7857 9, RFC 6056 3.1).
#[derive(Clone)]
pub(crate) struct Random(Secret);

impl Random {
    /// Of [`Secret`].
    const PURPOSE: u32 = u32::from_be_bytes(*b"nat:");

    pub fn new(seed: u64) -> Random {
        Random(Secret::new(seed, Random::PURPOSE))
    }

    pub fn next(&mut self) -> u64 {
        self.0.number()
    }

    /// Even over 0…`bound` − 1 but for a bias below 2^-32.
    pub fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Hasher {
    masks: [u64; 2],
    factors: [u64; 2],
}

#[inline]
fn fold(word: u64, factor: u64) -> u64 {
    let product = u128::from(word) * u128::from(factor);
    product as u64 ^ (product >> 64) as u64
}

impl Hasher {
    pub fn new(random: &mut Random) -> Hasher {
        Hasher {
            masks: [random.next(), random.next()],
            factors: [random.next() | 1 << 63 | 1, random.next() | 1 << 63 | 1],
        }
    }

    #[inline]
    pub fn v4(&self, local: u32, remote: u32, ports: u32, rest: u32) -> u32 {
        let addresses = u64::from(local) << 32 | u64::from(remote);
        let first = fold(addresses ^ self.masks[0], self.factors[0]);
        let second = u64::from(ports) << 32 | u64::from(rest);
        fold(first ^ second ^ self.masks[1], self.factors[1]) as u32
    }

    pub fn v6(&self, local: u128, remote: u128, ports: u32, rest: u32) -> u32 {
        let words = [(local >> 64) as u64, local as u64, (remote >> 64) as u64, remote as u64];
        let mut state = self.masks[0];
        for word in words {
            state = fold(state ^ word, self.factors[0]).wrapping_add(word);
        }
        let last = u64::from(ports) << 32 | u64::from(rest);
        fold(state ^ last ^ self.masks[1], self.factors[1]) as u32
    }

    #[inline]
    pub fn key(&self, key: &Key) -> u32 {
        let ports = u32::from(key.local_port) << 16 | u32::from(key.remote_port);
        let rest = u32::from(key.protocol) << 8 | key.side as u32;
        if key.v6 {
            self.v6(key.local, key.remote, ports, rest)
        } else {
            self.v4(key.local as u32, key.remote as u32, ports, rest)
        }
    }

    /// Of something with one address: a mapping's end, a host.
    pub fn one(&self, address: u128, port: u16, rest: u32) -> u32 {
        self.v6(address, 0, u32::from(port), rest | 1 << 24)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn keys_that_differ_little_have_different_hashes() {
        let hasher = Hasher::new(&mut Random::new(5));
        let mut seen = HashSet::new();
        for at in 0..100_000u32 {
            let (guest, port) = (at % 100, at / 100);
            seen.insert(hasher.v4(0x0a00_0002 + guest, 7, port << 16 | 443, 6 << 8));
        }
        for at in 0..100_000u128 {
            seen.insert(hasher.v6((0xfd << 120) | (at % 100), 7, (at as u32 / 100) << 16, 6 << 8));
        }
        // By chance about five of 200,000 meet in 32 bits.
        assert!(seen.len() > 199_970, "{}", seen.len());
    }
}
