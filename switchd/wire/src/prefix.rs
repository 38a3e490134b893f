//! Addresses with the length of their on-link prefix.

use std::net::{Ipv4Addr, Ipv6Addr};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Prefix4 {
    pub address: Ipv4Addr,
    pub len: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Prefix6 {
    pub address: Ipv6Addr,
    pub len: u8,
}

/// The netmask of a length; 32 for anything above.
#[inline]
pub fn mask4(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0)
}

/// The netmask of a length; 128 for anything above.
#[inline]
pub fn mask6(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0)
}

impl Prefix4 {
    #[inline]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.address.to_bits() ^ address.to_bits()) & mask4(self.len) == 0
    }

    pub fn network(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() & mask4(self.len))
    }
}

impl Prefix6 {
    #[inline]
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        (self.address.to_bits() ^ address.to_bits()) & mask6(self.len) == 0
    }

    pub fn network(&self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.address.to_bits() & mask6(self.len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_every_length() {
        assert_eq!(
            [mask4(0), mask4(1), mask4(24), mask4(32), mask4(99)],
            [0, 1 << 31, 0xffff_ff00, u32::MAX, u32::MAX]
        );
        assert_eq!([mask6(0), mask6(64), mask6(128)], [0, u128::MAX << 64, u128::MAX]);
    }

    #[test]
    fn a_prefix_holds_its_own_and_nothing_else() {
        let prefix = Prefix4 { address: Ipv4Addr::new(10, 7, 0, 9), len: 24 };
        assert!(
            prefix.contains(Ipv4Addr::new(10, 7, 0, 255)) && !prefix.contains(Ipv4Addr::new(10, 7, 1, 9))
        );
        assert_eq!(prefix.network(), Ipv4Addr::new(10, 7, 0, 0));
        let prefix = Prefix6 { address: "fd00:7::9".parse().unwrap(), len: 64 };
        assert!(
            prefix.contains("fd00:7::1".parse().unwrap()) && !prefix.contains("fd00:8::9".parse().unwrap())
        );
        assert_eq!(prefix.network(), "fd00:7::".parse::<Ipv6Addr>().unwrap());
    }
}
