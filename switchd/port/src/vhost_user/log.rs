//! The dirty log of a live migration: a bit for each page of guest memory that we have written.
//!
//! The monitor copies the guest's memory while it runs, and again what changes meanwhile; it cannot see our
//! writes, so we note them in memory that it shares (vhost-user, "Migration"). A page is 4096 bytes; bit
//! `page % 8` of byte `page / 8`, the log beginning with guest address 0. Bits are set after the bytes were
//! written, with an atomic or: the monitor fetches and clears them at any time, and then reads the page.

use crate::sys::mapping::Mapping;
use std::io;
use std::os::fd::BorrowedFd;

const PAGE: u64 = 4096;

pub struct Log(Mapping);

impl Log {
    pub fn new(file: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<Log> {
        Mapping::new(file, offset, len).map(Log)
    }

    /// Whether all below `end` has its bit.
    pub fn covers(&self, end: u64) -> bool {
        end.div_ceil(PAGE).div_ceil(8) <= self.0.len() as u64
    }

    /// Its file has shrunk.
    pub fn is_dead(&self) -> bool {
        self.0.is_dead()
    }

    /// Notes that `len` bytes at `address` were written. What the log does not cover is not written to at
    /// all: rings wait for a log that covers the memory.
    pub fn mark(&self, address: u64, len: usize) {
        let Some(last) = (len as u64).checked_sub(1).and_then(|more| address.checked_add(more)) else {
            return;
        };
        for page in address / PAGE..=last / PAGE {
            let Ok(byte) = usize::try_from(page / 8) else { return };
            if !self.0.set_bits(byte, 1 << (page % 8)) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use std::os::fd::AsFd;

    #[test]
    fn each_page_that_a_write_touches_has_its_bit_set_and_no_other() {
        let file = memfd_create("log", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, 8192).unwrap();
        let log = Log::new(file.as_fd(), 4096, 4).unwrap();
        let seen = Mapping::new(file.as_fd(), 4096, 8).unwrap();
        let bits = || {
            let mut bytes = [0; 8];
            assert!(seen.read(0, &mut bytes));
            u64::from_le_bytes(bytes)
        };
        log.mark(0, 0);
        assert_eq!(bits(), 0);
        log.mark(4095, 1);
        assert_eq!(bits(), 1);
        log.mark(3 * PAGE - 1, 2);
        assert_eq!(bits(), 0b1101);
        log.mark(8 * PAGE, 3 * PAGE as usize);
        assert_eq!(bits(), 0b111_0000_1101);
        // Beyond its end, also where a range begins within.
        log.mark(31 * PAGE, 2 * PAGE as usize);
        log.mark(u64::MAX, 2);
        log.mark(u64::MAX, 1);
        assert_eq!(bits(), 0x8000_070d);
        assert!(log.covers(32 * PAGE) && !log.covers(32 * PAGE + 1));
    }
}
