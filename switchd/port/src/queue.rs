//! Frames on their way out, kept from `send` to the burst's `flush`.
//!
//! Heads are copied, with the virtio header in front of them, because a flood changes the next copy's tags.
//! Tails stay in the arena and are named by token; they become bytes only when the system calls are made.
//! A queue holds one burst, is filled and emptied within it, and allocates nothing.

use crate::Arena;
use switchd_wire::Frame;
use switchd_wire::frame::{BURST, HEAD_MAX, Tail};
use switchd_wire::vnet::VNET_LEN;

/// Virtio header, the head as it arrived, two pushed tags.
const BYTES: usize = VNET_LEN + HEAD_MAX + 8;

pub(crate) struct Queued {
    bytes: [u8; BYTES],
    len: u16,
    tail: Tail,
}

impl Queued {
    /// The virtio header and the head.
    #[inline]
    pub fn head(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    #[inline]
    pub fn tail<'a>(&self, arena: &'a Arena) -> &'a [u8] {
        arena.bytes(self.tail).unwrap_or_default()
    }

    /// Bytes of the frame, without the virtio header.
    #[inline]
    pub fn frame_len(&self) -> u64 {
        u64::from(self.len) - VNET_LEN as u64 + u64::from(self.tail.len)
    }
}

pub(crate) struct Queue {
    slots: Box<[Queued]>,
    used: usize,
}

impl Queue {
    pub fn new() -> Queue {
        let empty = || Queued { bytes: [0; BYTES], len: 0, tail: Tail::default() };
        Queue { slots: (0..BURST).map(|_| empty()).collect(), used: 0 }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    #[inline]
    pub fn is_full(&self) -> bool {
        self.used == self.slots.len()
    }

    /// Takes a frame. False when it cannot be sent: its tail is of an earlier burst, or its head has grown
    /// beyond what two tags explain. The queue must not be full.
    #[inline]
    pub fn push(&mut self, frame: &Frame, arena: &Arena) -> bool {
        let head = frame.head();
        let len = VNET_LEN + head.len();
        if len > BYTES || arena.bytes(frame.tail).is_err() {
            return false;
        }
        let slot = &mut self.slots[self.used];
        slot.bytes[..VNET_LEN].copy_from_slice(&frame.vnet.emit());
        slot.bytes[VNET_LEN..len].copy_from_slice(head);
        slot.len = len as u16;
        slot.tail = frame.tail;
        self.used += 1;
        true
    }

    /// Empties the queue: the frames in order, without those whose tails are of an earlier burst (there are
    /// none unless a flush was forgotten), and how many those were.
    pub fn take(&mut self, arena: &Arena) -> (&[Queued], u64) {
        let mut live = 0;
        for index in 0..self.used {
            if arena.bytes(self.slots[index].tail).is_ok() {
                if live != index {
                    self.slots.swap(live, index);
                }
                live += 1;
            }
        }
        let stale = (self.used - live) as u64;
        self.used = 0;
        (&self.slots[..live], stale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_keeps_a_burst_in_order_as_it_was_when_it_was_sent() {
        let arena = Arena::new();
        let mut queue = Queue::new();
        let mut frame = Frame::from_bytes(&[1; 60]).unwrap();
        for number in 0..BURST {
            assert!(!queue.is_full());
            frame.head_mut()[0] = number as u8;
            assert!(queue.push(&frame, &arena));
        }
        assert!(queue.is_full());
        let (taken, stale) = queue.take(&arena);
        assert_eq!((taken.len(), stale), (BURST, 0));
        for (number, queued) in taken.iter().enumerate() {
            assert_eq!(
                (queued.head().len(), queued.head()[VNET_LEN], queued.frame_len()),
                (70, number as u8, 60)
            );
        }
        assert!(queue.is_empty());
    }

    #[test]
    fn two_tags_fit_and_a_longer_head_does_not() {
        let arena = Arena::new();
        let mut queue = Queue::new();
        let mut frame = Frame::from_bytes(&[1; HEAD_MAX]).unwrap();
        assert!(frame.push_tag(1) && frame.push_tag(2));
        assert!(queue.push(&frame, &arena));
        assert!(frame.push_tag(3));
        assert!(!queue.push(&frame, &arena));
        assert_eq!(queue.take(&arena).0.len(), 1);
    }

    #[test]
    fn stale_frames_are_left_out_and_counted() {
        let mut arena = Arena::new();
        let mut queue = Queue::new();
        arena.begin();
        let mut with_tail = Frame::from_bytes(&[1; 60]).unwrap();
        with_tail.tail = arena.token(0, 10);
        let short = Frame::from_bytes(&[2; 60]).unwrap();
        assert!(queue.push(&with_tail, &arena) && queue.push(&short, &arena));
        arena.begin();
        let (taken, stale) = queue.take(&arena);
        assert_eq!((taken.len(), stale, taken[0].head()[VNET_LEN]), (1, 1, 2));
        assert!(!queue.push(&with_tail, &arena));
    }
}
