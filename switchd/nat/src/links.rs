//! Lists threaded through the records themselves: what a record is in costs it two numbers, joining and
//! leaving is constant time and nothing is allocated.

use crate::index::NONE;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    prev: u32,
    next: u32,
}

pub(crate) const LOOSE: Link = Link { prev: NONE, next: NONE };

impl Link {
    /// The next one in its list.
    pub fn following(self) -> Option<u32> {
        (self.next != NONE).then_some(self.next)
    }
}

/// Something with links, one for each kind of list that it can be in.
pub(crate) trait Linked<const KIND: usize> {
    fn link(&mut self) -> &mut Link;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct List {
    head: u32,
    tail: u32,
}

impl Default for List {
    fn default() -> Self {
        List { head: NONE, tail: NONE }
    }
}

impl List {
    pub fn first(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    pub fn push<const KIND: usize, T: Linked<KIND>>(&mut self, all: &mut [T], slot: u32) {
        *all[slot as usize].link() = Link { prev: self.tail, next: NONE };
        match self.tail {
            NONE => self.head = slot,
            tail => all[tail as usize].link().next = slot,
        }
        self.tail = slot;
    }

    /// The slot is in this list.
    pub fn unlink<const KIND: usize, T: Linked<KIND>>(&mut self, all: &mut [T], slot: u32) {
        let Link { prev, next } = std::mem::replace(all[slot as usize].link(), LOOSE);
        match prev {
            NONE => self.head = next,
            prev => all[prev as usize].link().next = next,
        }
        match next {
            NONE => self.tail = prev,
            next => all[next as usize].link().prev = prev,
        }
    }
}
