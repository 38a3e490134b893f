//! Whether a section may be appended to a file: it is a pcapng file, and its last block is whole.
//!
//! Nothing is repaired. A file of at most [`WALK_MAX`] bytes is walked from its first block to the last. A
//! larger one is followed from its end backwards, block by block (each ends in its length, so that this
//! works: draft-ietf-opsawg-pcapng 3.1), for [`BACK_BLOCKS`] blocks: a torn tail does not survive that.
//! Only little-endian files are continued, which is what we write.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A file up to this size is walked as a whole.
const WALK_MAX: u64 = 16 * 1024 * 1024;
const BACK_BLOCKS: usize = 64;
/// Bytes that are read at a time.
const PIECE: usize = 64 * 1024;
/// A block that is larger was not written by us.
const BLOCK_MAX: u64 = 1 << 20;
const SECTION: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
const LITTLE_ENDIAN: [u8; 4] = [0x4d, 0x3c, 0x2b, 0x1a];

/// True when a section can be appended to the file's `len` bytes.
pub fn can_append(file: &File, len: u64) -> io::Result<bool> {
    let mut start = [0; 12];
    if len < 28 || !len.is_multiple_of(4) {
        return Ok(false);
    }
    file.read_exact_at(&mut start, 0)?;
    if start[0..4] != SECTION || start[8..12] != LITTLE_ENDIAN {
        return Ok(false);
    }
    let mut words = Words { file, len, piece: Vec::new(), from: 0 };
    if len <= WALK_MAX { walk(&mut words) } else { back(&mut words) }
}

/// Reads words of a file, through a small piece of it that is kept.
struct Words<'a> {
    file: &'a File,
    len: u64,
    piece: Vec<u8>,
    from: u64,
}

impl Words<'_> {
    /// The word at `at`; `None` beyond the end.
    fn at(&mut self, at: u64) -> io::Result<Option<u64>> {
        if at + 4 > self.len {
            return Ok(None);
        }
        if at < self.from || at + 4 > self.from + self.piece.len() as u64 {
            self.piece.resize(PIECE.min((self.len - at) as usize), 0);
            self.file.read_exact_at(&mut self.piece, at)?;
            self.from = at;
        }
        let at = (at - self.from) as usize;
        let word = self.piece[at..].first_chunk().map(|raw| u64::from(u32::from_le_bytes(*raw)));
        Ok(word)
    }
}

fn plausible(len: u64) -> bool {
    (12..=BLOCK_MAX).contains(&len) && len.is_multiple_of(4)
}

fn walk(words: &mut Words) -> io::Result<bool> {
    let mut at = 0;
    while at < words.len {
        let Some(block) = words.at(at + 4)? else { return Ok(false) };
        if !plausible(block) || block > words.len - at || words.at(at + block - 4)? != Some(block) {
            return Ok(false);
        }
        at += block;
    }
    Ok(true)
}

fn back(words: &mut Words) -> io::Result<bool> {
    let mut end = words.len;
    for _ in 0..BACK_BLOCKS {
        if end == 0 {
            break;
        }
        let Some(block) = words.at(end - 4)? else { return Ok(false) };
        if !plausible(block) || block > end || words.at(end - block + 4)? != Some(block) {
            return Ok(false);
        }
        end -= block;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcapng::{About, Section};
    use std::io::Write;

    fn check(bytes: &[u8]) -> bool {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        can_append(&file, bytes.len() as u64).unwrap()
    }

    fn header() -> Vec<u8> {
        Section::begin(&About::default(), 0).pending().clone()
    }

    #[test]
    fn whole_files_are_continued_and_torn_ones_are_not() {
        let whole = header();
        assert!(check(&whole));
        for cut in 1..whole.len() {
            assert!(!check(&whole[..cut]), "cut to {cut}");
        }
        assert!(!check(b"this is a text, not a capture at all"));
        let mut zeroed = whole.clone();
        zeroed.extend([0; 64]);
        assert!(!check(&zeroed));
        let mut big_endian = whole;
        big_endian[8..12].reverse();
        assert!(!check(&big_endian));
    }

    #[test]
    fn a_large_file_is_judged_by_its_end() {
        let mut bytes = header();
        let mut block = vec![0; 200_000];
        block[0] = 6;
        block[4..8].copy_from_slice(&200_000u32.to_le_bytes());
        let end = block.len() - 4;
        block[end..].copy_from_slice(&200_000u32.to_le_bytes());
        while (bytes.len() as u64) <= WALK_MAX {
            bytes.extend(&block);
        }
        assert!(check(&bytes));
        assert!(!check(&bytes[..bytes.len() - 100_000]));
        let torn = bytes.len() - 8;
        assert!(!check(&bytes[..torn]));
    }
}
