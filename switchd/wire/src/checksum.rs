//! The Internet checksum: RFC 1071 sums, RFC 1624 updates.
//!
//! A sum is kept in the machine's own byte order (RFC 1071 2(B)) in a wide register and folded once, at the
//! end. Numbers that go in and out are as the field reads: `u16::from_be_bytes` of the two octets.

/// A running one's complement sum. Pieces may have any length and may start at odd offsets.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sum {
    /// Native order, not folded: every added piece is below 2^32.
    words: u64,
    /// An odd number of bytes was added: the next piece counts with its bytes swapped (RFC 1071 2(B)).
    odd: bool,
}

#[inline]
fn fold(mut sum: u64) -> u16 {
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// Sum of the 16-bit words of `bytes` in native order, an odd last byte padded with zero.
#[inline]
fn native(bytes: &[u8]) -> u16 {
    // Halves of a u64 summed apart cannot overflow below 2^32 words, and vectorise.
    let (mut low, mut high) = (0u64, 0u64);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_ne_bytes(*word);
        low += word & 0xffff_ffff;
        high += word >> 32;
    }
    let mut last = [0u8; 8];
    last[..rest.len()].copy_from_slice(rest);
    let last = u64::from_ne_bytes(last);
    low += last & 0xffff_ffff;
    high += last >> 32;
    // Each folded on its own: their plain sum could carry out of 64 bits.
    fold(u64::from(fold(low)) + u64::from(fold(high)))
}

impl Sum {
    #[inline]
    pub fn new() -> Sum {
        Sum::default()
    }

    #[inline]
    #[must_use]
    pub fn over(mut self, bytes: &[u8]) -> Sum {
        let sum = native(bytes);
        self.words += u64::from(if self.odd { sum.swap_bytes() } else { sum });
        self.odd ^= bytes.len() % 2 == 1;
        self
    }

    /// Adds a 16-bit number as if its two octets had been added at an even offset.
    #[inline]
    #[must_use]
    pub fn add_u16(mut self, number: u16) -> Sum {
        self.words += u64::from(number.to_be());
        self
    }

    #[inline]
    #[must_use]
    pub fn add_u32(mut self, number: u32) -> Sum {
        // Both halves at once: folding brings them together.
        self.words += u64::from(number.to_be());
        self
    }

    /// The sum, not complemented: what a field holds while the checksum is still to be completed.
    #[inline]
    pub fn uncomplemented(self) -> u16 {
        u16::from_be(fold(self.words))
    }

    /// The checksum as it goes into a field.
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.uncomplemented()
    }
}

/// Sum of the IPv4 pseudo-header (RFC 793 3.1, RFC 768); `length` is the layer-4 length in bytes.
#[inline]
pub fn pseudo_v4(source: [u8; 4], destination: [u8; 4], protocol: u8, length: u32) -> Sum {
    Sum::new().over(&source).over(&destination).add_u16(u16::from(protocol)).add_u32(length)
}

/// Sum of the IPv6 pseudo-header (RFC 8200 8.1).
#[inline]
pub fn pseudo_v6(source: [u8; 16], destination: [u8; 16], protocol: u8, length: u32) -> Sum {
    Sum::new().over(&source).over(&destination).add_u16(u16::from(protocol)).add_u32(length)
}

/// Several replaced fields, gathered, then applied to every checksum that covers them.
#[derive(Clone, Copy, Default, Debug)]
pub struct Delta(Sum);

impl Delta {
    #[inline]
    pub fn new() -> Delta {
        Delta::default()
    }

    #[inline]
    #[must_use]
    pub fn replace_u16(self, old: u16, new: u16) -> Delta {
        Delta(self.0.add_u16(!old).add_u16(new))
    }

    #[inline]
    #[must_use]
    pub fn replace_u32(self, old: u32, new: u32) -> Delta {
        Delta(self.0.add_u32(!old).add_u32(new))
    }

    /// RFC 1624 equation 3: `HC' = ~(~HC + ~m + m')`. For UDP the caller leaves a field of 0 alone (no
    /// checksum) and writes a result of 0 as 0xffff (RFC 768).
    #[inline]
    pub fn apply(self, checksum: u16) -> u16 {
        self.0.add_u16(!checksum).checksum()
    }

    /// The same for a field that still holds the uncomplemented pseudo-header sum.
    #[inline]
    pub fn apply_uncomplemented(self, sum: u16) -> u16 {
        self.0.add_u16(sum).uncomplemented()
    }
}

/// The checksum after one covered 16-bit field changed.
#[inline]
pub fn update_u16(checksum: u16, old: u16, new: u16) -> u16 {
    Delta::new().replace_u16(old, new).apply(checksum)
}

/// The checksum after one covered 32-bit field changed.
#[inline]
pub fn update_u32(checksum: u16, old: u32, new: u32) -> u16 {
    Delta::new().replace_u32(old, new).apply(checksum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 4.1, word for word.
    fn by_the_book(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::new().over(&bytes).uncomplemented(), 0xddf2);
        assert_eq!(Sum::new().over(&bytes).checksum(), 0x220d);
    }

    #[test]
    fn the_example_of_rfc_1624() {
        // Section 4: HC = 0xDD2F, m = 0x5555, m' = 0x3285, HC' = 0x0000 and not 0xffff.
        assert_eq!(update_u16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn all_ones_do_not_carry_out() {
        let bytes = vec![0xff; 65_557];
        assert_eq!(Sum::new().over(&bytes).uncomplemented(), by_the_book(&bytes));
    }

    proptest::proptest! {
        #[test]
        fn any_cut_gives_the_same_sum(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
            first in 0usize..300,
            second in 0usize..300,
        ) {
            let (mut a, mut b) = (first.min(bytes.len()), second.min(bytes.len()));
            if a > b {
                std::mem::swap(&mut a, &mut b);
            }
            let sum = Sum::new().over(&bytes[..a]).over(&bytes[a..b]).over(&bytes[b..]);
            proptest::prop_assert_eq!(sum.uncomplemented(), by_the_book(&bytes));
        }

        #[test]
        fn an_update_equals_a_new_sum(
            mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 20..60),
            at in 0usize..4,
            new in proptest::num::u32::ANY,
        ) {
            // Not all zero after the change: +0 and -0 differ then, and both verify (RFC 1624 section 3).
            bytes[18] = 1;
            let at = at * 4;
            let old = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            let before = Sum::new().over(&bytes);
            bytes[at..at + 4].copy_from_slice(&new.to_be_bytes());
            let after = Sum::new().over(&bytes);
            proptest::prop_assert_eq!(update_u32(before.checksum(), old, new), after.checksum());
            let by_halves = update_u16(before.checksum(), (old >> 16) as u16, (new >> 16) as u16);
            proptest::prop_assert_eq!(update_u16(by_halves, old as u16, new as u16), after.checksum());
            let delta = Delta::new().replace_u32(old, new);
            proptest::prop_assert_eq!(
                delta.apply_uncomplemented(before.uncomplemented()),
                after.uncomplemented()
            );
        }
    }
}
