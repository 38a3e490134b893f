//! Numbers that nobody can foresee from those that were seen: ChaCha20 (RFC 8439 2.3) in counter mode.
//!
//! What guests or strangers see (source ports, numbers in probes) must tell nothing of what comes next, nor of
//! the keys of tables made from the same seed. The seed is an argument, so that tests repeat themselves; it
//! is 64 bits long, and no stronger than that.

const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

fn quarter(state: &mut [u32; 16], [a, b, c, d]: [usize; 4]) {
    for (x, y, z, turn) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
        state[x] = state[x].wrapping_add(state[y]);
        state[z] = (state[z] ^ state[x]).rotate_left(turn);
    }
}

/// RFC 8439 2.3.1. `last` is the counter and the nonce.
fn block(key: &[u32; 8], last: [u32; 4]) -> [u32; 16] {
    let mut first = [0; 16];
    first[..4].copy_from_slice(&CONSTANTS);
    first[4..12].copy_from_slice(key);
    first[12..].copy_from_slice(&last);
    let mut state = first;
    for _ in 0..10 {
        for column in 0..4 {
            quarter(&mut state, [column, column + 4, column + 8, column + 12]);
        }
        for diagonal in 0..4 {
            let at = |row: usize| row * 4 + (diagonal + row) % 4;
            quarter(&mut state, [at(0), at(1), at(2), at(3)]);
        }
    }
    for (word, first) in state.iter_mut().zip(first) {
        *word = word.wrapping_add(first);
    }
    state
}

#[derive(Clone)]
pub struct Secret {
    key: [u32; 8],
    purpose: u32,
    blocks: u64,
    words: [u32; 16],
    used: usize,
}

impl Secret {
    /// Numbers for different purposes have nothing to do with each other, though the seed is one.
    pub fn new(seed: u64, purpose: u32) -> Secret {
        let mut key = [0; 8];
        (key[0], key[1]) = (seed as u32, (seed >> 32) as u32);
        Secret { key, purpose, blocks: 0, words: [0; 16], used: 16 }
    }

    pub fn number(&mut self) -> u64 {
        if self.used + 2 > self.words.len() {
            let counter = [self.blocks as u32, (self.blocks >> 32) as u32, self.purpose, 0];
            self.words = block(&self.key, counter);
            (self.blocks, self.used) = (self.blocks + 1, 0);
        }
        let number = u64::from(self.words[self.used]) << 32 | u64::from(self.words[self.used + 1]);
        self.used += 2;
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc8439_2_3_2_the_block_is_that_of_the_standard() {
        let bytes: Vec<u8> = (0..32).collect();
        let key = std::array::from_fn(|at| u32::from_le_bytes(bytes[at * 4..at * 4 + 4].try_into().unwrap()));
        let wanted = [
            0xe4e7_f110,
            0x1559_3bd1,
            0x1fdd_0f50,
            0xc471_20a3,
            0xc7f4_d1c7,
            0x0368_c033,
            0x9aaa_2204,
            0x4e6c_d4c3,
            0x4664_82d2,
            0x09aa_9f07,
            0x05d7_c214,
            0xa202_8bd9,
            0xd19c_12b5,
            0xb94e_16de,
            0xe883_d0cb,
            0x4e3c_50a2,
        ];
        assert_eq!(block(&key, [1, 0x0900_0000, 0x4a00_0000, 0]), wanted);
    }

    #[test]
    fn seeds_and_purposes_have_numbers_of_their_own_and_no_block_comes_twice() {
        let mut seen = std::collections::HashSet::new();
        for (seed, purpose) in [(1, 1), (1, 2), (2, 1)] {
            let mut secret = Secret::new(seed, purpose);
            assert!((0..1000).all(|_| seen.insert(secret.number())), "{seed} {purpose}");
            let mut again = Secret::new(seed, purpose);
            assert!(seen.contains(&again.number()), "a seed repeats itself");
        }
    }
}
