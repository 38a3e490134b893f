//! The file in which a back-end notes which chains it has under way, so that another run of it can go on
//! (vhost-user, "Inflight I/O tracking"). The front-end keeps it while the back-end is away.
//!
//! Chains are returned in the order in which they were taken, and one counts as taken when it is returned:
//! the used index (of a packed ring: the record in the device's area) says where to go on. So the file that
//! we make stays empty, which is the truth at any moment, and costs nothing a frame. One that another
//! back-end has filled is read: chains that it had under way are returned unused, in their order. A frame
//! may be lost by that, as on any network; no buffer is.
//!
//! ```text
//! split, a queue:   features 8, version 2, entries 2, last of the batch 2, used index 2
//!                   entries × { in flight 1, padding 5, next 2, counter 8 }
//! packed, a queue:  features 8, version 2, entries 2, free 2, old free 2, used 2, old used 2, wrap 1,
//!                   old wrap 1, padding to 32
//!                   entries × { in flight 1, padding 1, next 2, last 2, count 2, counter 8, id 2, flags 2,
//!                   length 4, address 8 }
//! ```

use super::PAIRS_MAX;
use super::split::SIZE_MAX;
use crate::sys::mapping::Mapping;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

const VERSION: u16 = 1;
/// Each queue's part begins at a cache line.
const ALIGNMENT: usize = 64;

/// What the messages say of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    pub queues: u16,
    pub entries: u16,
    pub packed: bool,
}

impl Form {
    /// `None`: more queues than a port has, or no size of a queue.
    fn part(self) -> Option<usize> {
        let sound =
            (1..=2 * PAIRS_MAX as u16).contains(&self.queues) && (1..=SIZE_MAX).contains(&self.entries);
        let (head, entry) = self.sizes();
        sound.then(|| (head + entry * usize::from(self.entries)).next_multiple_of(ALIGNMENT))
    }

    fn sizes(self) -> (usize, usize) {
        if self.packed { (32, 32) } else { (16, 16) }
    }

    pub fn len(self) -> Option<u64> {
        self.part().map(|part| part as u64 * u64::from(self.queues))
    }
}

pub struct Inflight {
    mapping: Mapping,
    pub form: Form,
    part: usize,
}

impl Inflight {
    /// A new file, with nothing under way. Nobody can shrink it.
    pub fn make(form: Form) -> io::Result<(File, u64)> {
        let refused = || io::Error::new(io::ErrorKind::InvalidInput, "no such queues");
        let len = form.len().ok_or_else(refused)?;
        let file = memfd_create("inflight", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, len)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let file = File::from(file);
        Inflight::open(form, &file, 0, len)?.prepare();
        Ok((file, len))
    }

    pub fn open(form: Form, file: &File, offset: u64, len: u64) -> io::Result<Inflight> {
        let refused = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
        let part = form.part().ok_or_else(|| refused("an inflight file of no such queues"))?;
        if form.len().is_none_or(|least| len < least) || !offset.is_multiple_of(8) {
            return Err(refused("an inflight file that is too small for its queues, or misaligned"));
        }
        let inflight = Inflight { mapping: Mapping::new(file.as_fd(), offset, len)?, form, part };
        for queue in 0..form.queues {
            let (version, entries) = (inflight.word(queue, 8), inflight.word(queue, 10));
            // Version 0: nobody has used it yet.
            if version > VERSION || (version == VERSION && entries != form.entries) {
                return Err(refused("an inflight file of another version or other queues"));
            }
        }
        Ok(inflight)
    }

    pub fn is_dead(&self) -> bool {
        self.mapping.is_dead()
    }

    fn at(&self, queue: u16, at: usize) -> usize {
        usize::from(queue) * self.part + at
    }

    fn word(&self, queue: u16, at: usize) -> u16 {
        self.mapping.load(self.at(queue, at), Ordering::Relaxed).unwrap_or(0)
    }

    fn set_word(&self, queue: u16, at: usize, value: u16) {
        let _ = self.mapping.store(self.at(queue, at), value, Ordering::Relaxed);
    }

    /// As the document wants a fresh one.
    fn prepare(&self) {
        let (head, entry) = self.form.sizes();
        for queue in 0..self.form.queues {
            self.set_word(queue, 8, VERSION);
            self.set_word(queue, 10, self.form.entries);
            if self.form.packed {
                // All entries are in the free list.
                for number in 0..self.form.entries {
                    let next = if number + 1 < self.form.entries { number + 1 } else { 0 };
                    self.set_word(queue, head + entry * usize::from(number) + 2, next);
                }
                let _ = self.mapping.write(self.at(queue, 20), &[1, 1]);
            }
        }
    }

    /// Of a split queue: heads of the chains that were under way when the used index was `used`, in the
    /// order in which they were taken; from now on none is.
    pub fn take(&self, queue: u16, used: u16) -> Vec<u16> {
        if self.form.packed || queue >= self.form.queues {
            return Vec::new();
        }
        let (head, entry) = self.form.sizes();
        let place = |number: u16| head + entry * usize::from(number);
        // A last batch that was shown to the driver, but not yet noted.
        let batch = used.wrapping_sub(self.word(queue, 14)).min(self.form.entries);
        let mut last = self.word(queue, 12);
        for _ in 0..batch {
            if last >= self.form.entries {
                break;
            }
            self.clear(queue, place(last));
            last = self.word(queue, place(last) + 6);
        }
        let mut heads = Vec::new();
        for number in 0..self.form.entries {
            let mut raw = [0; 16];
            if self.mapping.read(self.at(queue, place(number)), &mut raw) && raw[0] == 1 {
                let [.., a, b, c, d, e, f, g, h] = raw;
                heads.push((u64::from_le_bytes([a, b, c, d, e, f, g, h]), number));
                self.clear(queue, place(number));
            }
        }
        heads.sort_unstable();
        self.set_word(queue, 8, VERSION);
        self.set_word(queue, 10, self.form.entries);
        self.set_word(queue, 14, used.wrapping_add(heads.len() as u16));
        heads.into_iter().map(|(_, number)| number).collect()
    }

    fn clear(&self, queue: u16, at: usize) {
        let _ = self.mapping.write(self.at(queue, at), &[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: Form = Form { queues: 2, entries: 8, packed: false };

    fn made(form: Form) -> (File, Inflight) {
        let (file, len) = Inflight::make(form).unwrap();
        let inflight = Inflight::open(form, &file, 0, len).unwrap();
        (file, inflight)
    }

    fn under_way(inflight: &Inflight, queue: u16, number: u16, next: u16, counter: u64) {
        let at = inflight.at(queue, 16 + 16 * usize::from(number));
        let mut raw = [0; 16];
        raw[0] = 1;
        raw[6..8].copy_from_slice(&next.to_le_bytes());
        raw[8..].copy_from_slice(&counter.to_le_bytes());
        assert!(inflight.mapping.write(at, &raw));
    }

    #[test]
    fn a_file_of_ours_is_empty_and_as_the_document_draws_it() {
        let (file, split) = made(FORM);
        assert_eq!(file.metadata().unwrap().len(), 2 * 192);
        assert_eq!((split.word(1, 8), split.word(1, 10)), (1, 8));
        assert_eq!((split.take(0, 0), split.take(1, 77)), (vec![], vec![]));
        assert!(file.set_len(4096).is_err() && file.set_len(1).is_err());
        let (_, packed) = made(Form { packed: true, ..FORM });
        assert_eq!((packed.word(1, 8), packed.word(1, 10), packed.word(1, 20)), (1, 8, 0x101));
        assert_eq!((packed.word(0, 32 + 2), packed.word(0, 32 + 7 * 32 + 2)), (1, 0));
    }

    #[test]
    fn chains_under_way_are_taken_once_in_the_order_of_their_counters() {
        let (_file, inflight) = made(FORM);
        for (number, counter) in [(5, 1), (2, 9), (7, 3)] {
            under_way(&inflight, 1, number, 0, counter);
        }
        assert_eq!(inflight.take(0, 0), [0; 0], "another queue");
        assert_eq!(inflight.take(1, 0), [5, 7, 2]);
        assert_eq!(inflight.take(1, 3), [0; 0]);
        assert_eq!(inflight.word(1, 14), 3);
    }

    #[test]
    fn a_batch_that_the_driver_has_seen_is_not_under_way_any_more() {
        let (_file, inflight) = made(FORM);
        for (number, next) in [(4, 6), (6, 0), (1, 0)] {
            under_way(&inflight, 0, number, next, u64::from(number));
        }
        inflight.set_word(0, 12, 4);
        inflight.set_word(0, 14, 10);
        assert_eq!(inflight.take(0, 12), [1]);
        // A list that leads nowhere, and a used index that means nothing.
        inflight.set_word(0, 12, 8);
        assert_eq!(inflight.take(0, 9), [0; 0]);
    }

    #[test]
    fn files_that_do_not_fit_are_refused() {
        let (file, _) = made(FORM);
        for (form, offset, len) in [
            (Form { entries: 16, ..FORM }, 0, 2 * 192),
            (Form { entries: 4, ..FORM }, 0, 2 * 192),
            (Form { queues: 0, ..FORM }, 0, 2 * 192),
            (Form { queues: 17, ..FORM }, 0, 2 * 192),
            (Form { entries: 0, ..FORM }, 0, 2 * 192),
            (FORM, 0, 2 * 192 - 1),
            (FORM, 1, 2 * 192),
            (FORM, u64::MAX, 2 * 192),
        ] {
            assert!(Inflight::open(form, &file, offset, len).is_err(), "{form:?} {offset} {len}");
        }
        assert!(Inflight::make(Form { queues: 17, ..FORM }).is_err());
    }
}
