//! MAC addresses (IEEE 802, 48 bits), ordered and hashed as their six octets.

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);
    pub const ZERO: MacAddr = MacAddr([0; 6]);

    /// Group bit (I/G) of the first octet: broadcast or multicast.
    #[inline]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    #[inline]
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }

    /// The 16 addresses 01-80-C2-00-00-00…0F that a bridge never forwards (802.1Q table 8-1).
    #[inline]
    pub fn is_reserved_group(self) -> bool {
        self.0[..5] == [0x01, 0x80, 0xc2, 0, 0] && self.0[5] & 0xf0 == 0
    }

    /// The 48 bits as an integer, first octet most significant.
    #[inline]
    pub const fn to_u64(self) -> u64 {
        let b = self.0;
        u64::from_be_bytes([0, 0, b[0], b[1], b[2], b[3], b[4], b[5]])
    }

    #[inline]
    pub const fn from_u64(bits: u64) -> Self {
        let b = bits.to_be_bytes();
        MacAddr([b[2], b[3], b[4], b[5], b[6], b[7]])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = self.0;
        write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", b[0], b[1], b[2], b[3], b[4], b[5])
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct BadMac;

impl fmt::Display for BadMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a MAC address: write six pairs of hex digits, as in 02:00:00:00:00:01")
    }
}

impl std::error::Error for BadMac {}

impl FromStr for MacAddr {
    type Err = BadMac;

    /// Six pairs of hex digits, all separated by `:` or all by `-`.
    fn from_str(text: &str) -> Result<Self, BadMac> {
        let bytes = text.as_bytes();
        if bytes.len() != 17 {
            return Err(BadMac);
        }
        let separator = bytes[2];
        if separator != b':' && separator != b'-' {
            return Err(BadMac);
        }
        let mut octets = [0u8; 6];
        for (index, octet) in octets.iter_mut().enumerate() {
            let at = index * 3;
            let digit = |byte: u8| (byte as char).to_digit(16).ok_or(BadMac);
            *octet = (digit(bytes[at])? * 16 + digit(bytes[at + 1])?) as u8;
            if index < 5 && bytes[at + 2] != separator {
                return Err(BadMac);
            }
        }
        Ok(MacAddr(octets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip_and_refusals() {
        let mac: MacAddr = "02:aB:00:ff:10:01".parse().unwrap();
        assert_eq!(mac, MacAddr([2, 0xab, 0, 0xff, 0x10, 1]));
        assert_eq!(mac.to_string(), "02:ab:00:ff:10:01");
        assert_eq!(MacAddr::from_u64(mac.to_u64()), mac);
        for bad in ["", "02:ab:00:ff:10", "02:ab:00:ff:10:0g", "02-ab:00:ff:10:01", "02:ab:00:ff:10:01 "] {
            assert_eq!(bad.parse::<MacAddr>(), Err(BadMac), "{bad:?}");
        }
    }

    #[test]
    fn reserved_groups_are_the_first_sixteen() {
        assert!(MacAddr([1, 0x80, 0xc2, 0, 0, 0]).is_reserved_group());
        assert!(MacAddr([1, 0x80, 0xc2, 0, 0, 0xf]).is_reserved_group());
        assert!(!MacAddr([1, 0x80, 0xc2, 0, 0, 0x10]).is_reserved_group());
        assert!(!MacAddr([1, 0x80, 0xc2, 0, 1, 0]).is_reserved_group());
    }
}
