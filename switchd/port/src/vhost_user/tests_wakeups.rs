//! A driver and the port on two processors, each asleep whenever it may be: no wake-up is lost. What it is
//! about are the fences of `publish` and `arm` (virtio 1.2, 2.7.7 and 2.7.10): without either of them, or
//! with a kick held back for a wrong reason, both sides wait for each other, and the test ends in a panic.

use super::fuzzing::{Guest, port};
use crate::sys::mapping::Mapping;
use crate::{Arena, Port};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::os::fd::AsFd;
use std::sync::atomic::{Ordering, fence};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use switchd_wire::Frame;
use switchd_wire::frame::BURST;

const SIZE: u16 = 8;
const LEN: u64 = 1 << 16;
const RINGS: [[u64; 3]; 2] = [[0, 0x400, 0x800], [0x1000, 0x1400, 0x1800]];
const BUFFER: u64 = 0x4000;
const ROUNDS: u16 = 10_000;
/// Far longer than a wake-up takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn no_wakeup_is_lost(event_idx: bool) {
    let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, LEN).unwrap();
    let memory = Mapping::new(file.as_fd(), 0, LEN).unwrap();
    let [descriptors, available, used] = RINGS[1].map(|at| at as usize);
    for index in 0..usize::from(SIZE) {
        // A header, and a frame of 60 bytes behind it.
        let raw = [&BUFFER.to_le_bytes()[..], &72u32.to_le_bytes(), &[0; 4]].concat();
        assert!(memory.write(descriptors + 16 * index, &raw));
        assert!(memory.write(available + 4 + 2 * index, &(index as u16).to_le_bytes()));
    }
    let guest = Guest {
        features: 1 << 30 | 1 << 32 | u64::from(event_idx) << 29,
        size: SIZE,
        base: 0,
        guest: 0,
        user: 0,
        offset: 0,
        len: LEN,
        rings: RINGS,
    };
    let mut port = port(file.as_fd(), &guest).unwrap().unwrap();
    let (kick, kicks) = channel();
    let device = std::thread::spawn(move || {
        let mut arena = Arena::new();
        let mut frames: Vec<Frame> = (0..BURST).map(|_| Frame::default()).collect();
        let (mut count, mut slept) = (0usize, 0usize);
        while count < usize::from(ROUNDS) {
            arena.begin();
            let received = port.receive(&mut frames, &mut arena);
            port.burst_done();
            count += received.frames;
            if received.frames == 0 && !received.more && !port.arm() {
                slept += 1;
                match kicks.recv_timeout(PATIENCE) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Timeout) => panic!("nobody woke the device: {count} frames"),
                    Err(RecvTimeoutError::Disconnected) => return slept,
                }
            }
        }
        slept
    });
    let (event, flags) = (used + 4 + 8 * usize::from(SIZE), used);
    let mut random = 0x9e37_79b9u32;
    for round in 0..ROUNDS {
        let index = round.wrapping_add(1);
        assert!(memory.store(available + 2, index, Ordering::Release));
        fence(Ordering::SeqCst);
        let wanted = match event_idx {
            true => memory.load(event, Ordering::Relaxed) == Some(round),
            false => memory.load(flags, Ordering::Relaxed).is_some_and(|flags| flags & 1 == 0),
        };
        if wanted {
            // The device may have come to its end already.
            let _ = kick.send(());
        }
        let begun = Instant::now();
        while memory.load(used + 2, Ordering::Acquire) != Some(index) {
            assert!(begun.elapsed() < PATIENCE, "round {round} is not answered");
            std::thread::yield_now();
        }
        // Now before, now while, now after the device goes to sleep.
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        (0..random % 2000).for_each(|_| std::hint::spin_loop());
    }
    drop(kick);
    assert!(device.join().unwrap() > 10, "the device never slept: nothing was tried");
}

#[test]
fn with_event_idx_no_wakeup_is_lost() {
    no_wakeup_is_lost(true);
}

#[test]
fn with_flags_no_wakeup_is_lost() {
    no_wakeup_is_lost(false);
}
