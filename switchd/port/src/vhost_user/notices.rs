//! Notices to us and interrupts to the driver: which words of a ring are written and read, and in which order,
//! so that nobody sleeps while something waits for him (virtio 1.2, 2.7.7, 2.7.10, 2.8.10).
//!
//! Either side does one of two things. It *shows* what is new, and then reads whether the other wants to be
//! told; or it *asks* to be told, and then looks whether something new has come. A full fence stands in the
//! middle of both: whatever the order of the two, at least one side sees what the other has written.
//!
//! The words are a parameter, because `tests_models` takes the same functions through every order that the
//! memory model allows.

use super::memory::Span;
use std::sync::atomic::{Ordering, fence};

/// In the available ring's flags: the driver wants no interrupts (2.7.7).
const NO_INTERRUPT: u16 = 1;
/// In the used ring's flags: we want no notices (2.7.10).
const NO_NOTIFY: u16 = 1;

/// Event flags of a packed ring (2.8.10).
pub const ENABLE: u16 = 0;
pub const DISABLE: u16 = 1;
pub const AT_POSITION: u16 = 2;

/// Words of a ring that both sides use.
pub trait Words {
    fn load(&self, at: usize, order: Ordering) -> u16;
    fn store(&self, at: usize, value: u16, order: Ordering);
    /// What was written before it is out before what is read behind it.
    fn full_fence();
}

impl Words for Span {
    #[inline(always)]
    fn load(&self, at: usize, order: Ordering) -> u16 {
        Span::load(self, at, order)
    }

    #[inline(always)]
    fn store(&self, at: usize, value: u16, order: Ordering) {
        Span::store(self, at, value, order);
    }

    #[inline(always)]
    fn full_fence() {
        fence(Ordering::SeqCst);
    }
}

/// When the driver wants to be interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    Never,
    Always,
    /// When what is shown passes this index or position.
    At(u16),
}

/// A split ring's words, apart from its descriptors.
pub struct SplitWords<'a, W> {
    pub available: &'a W,
    pub used: &'a W,
    pub size: u16,
    pub event_idx: bool,
}

impl<W: Words> SplitWords<'_, W> {
    /// The used entries before `index` are the driver's. [`SplitWords::wish`] comes after it.
    #[inline(always)]
    pub fn show(&self, index: u16) {
        // Release: entries and buffers are seen before the index.
        self.used.store(2, index, Ordering::Release);
    }

    /// Whether the driver wants to hear of what was shown.
    #[inline(always)]
    pub fn wish(&self) -> Wish {
        W::full_fence();
        if self.event_idx {
            Wish::At(self.available.load(4 + 2 * usize::from(self.size), Ordering::Relaxed))
        } else if self.available.load(0, Ordering::Relaxed) & NO_INTERRUPT == 0 {
            Wish::Always
        } else {
            Wish::Never
        }
    }

    /// We want to be told of the chain at `next`. Returns the available index.
    #[inline(always)]
    pub fn ask(&self, next: u16) -> u16 {
        if self.event_idx {
            self.used.store(4 + 8 * usize::from(self.size), next, Ordering::Relaxed);
        } else {
            self.used.store(0, 0, Ordering::Relaxed);
        }
        W::full_fence();
        self.available()
    }

    /// The index up to which chains are available.
    #[inline(always)]
    pub fn available(&self) -> u16 {
        // Acquire: what the driver wrote before it moved the index is seen.
        self.available.load(2, Ordering::Acquire)
    }

    /// We look by ourselves. With EVENT_IDX an event that lies behind says so already (2.7.10).
    #[inline(always)]
    pub fn ask_no_more(&self) {
        if !self.event_idx {
            self.used.store(0, NO_NOTIFY, Ordering::Relaxed);
        }
    }
}

/// A packed ring's words.
pub struct PackedWords<'a, W> {
    pub ring: &'a W,
    pub driver: &'a W,
    pub device: &'a W,
    pub event_idx: bool,
}

impl<W: Words> PackedWords<'_, W> {
    /// The used descriptors from `index` on are the driver's: `flags` are those of the first. `record` goes
    /// where the event position is. [`PackedWords::wish`] comes after it.
    #[inline(always)]
    pub fn show(&self, index: u16, flags: u16, record: Option<u16>) {
        // Release: all that was written for the burst is seen before these flags.
        self.ring.store(flags_at(index), flags, Ordering::Release);
        if let Some(record) = record {
            self.device.store(0, record, Ordering::Release);
        }
    }

    /// Whether the driver wants to hear of what was shown.
    #[inline(always)]
    pub fn wish(&self) -> Wish {
        W::full_fence();
        // Acquire: the position is no older than the flags that speak of it.
        match self.driver.load(2, Ordering::Acquire) & 3 {
            DISABLE => Wish::Never,
            AT_POSITION if self.event_idx => Wish::At(self.driver.load(0, Ordering::Relaxed)),
            _ => Wish::Always,
        }
    }

    /// We want to be told of the descriptor at `index`, which is `position`. Returns its flags.
    #[inline(always)]
    pub fn ask(&self, index: u16, position: u16) -> u16 {
        if self.event_idx {
            self.device.store(0, position, Ordering::Relaxed);
            self.device.store(2, AT_POSITION, Ordering::Release);
        } else {
            self.device.store(2, ENABLE, Ordering::Relaxed);
        }
        W::full_fence();
        self.flags(index)
    }

    #[inline(always)]
    pub fn flags(&self, index: u16) -> u16 {
        // Acquire: what the driver wrote before these flags is seen.
        self.ring.load(flags_at(index), Ordering::Acquire)
    }

    /// We look by ourselves.
    #[inline(always)]
    pub fn ask_no_more(&self, record: u16) {
        self.device.store(2, DISABLE, Ordering::Relaxed);
        self.device.store(0, record, Ordering::Release);
    }
}

#[inline(always)]
fn flags_at(index: u16) -> usize {
    16 * usize::from(index) + 14
}
