//! The capture ring: hand-over, bounds, counts of what is lost.

use super::*;
use crate::packet::{Place, places};
use std::sync::atomic::Ordering::Relaxed;
use switchd_wire::frame::StaleTail;
use switchd_wire::frame::{HEAD_MAX, NoTails, Tail};
use switchd_wire::{Frame, TailSource, VnetHeader};
use switchd_wire::{Gso, MacAddr};

const SNAPLEN: u32 = 262_144;
const MS: u64 = 1_000_000;

fn meta(interface: u32) -> Meta {
    Meta { interface, outgoing: false, timestamp: 1_000 }
}

/// A frame of `len` bytes whose tail is all `0xaa`.
fn long(len: usize) -> Frame {
    let mut frame = Frame::default();
    let head = len.min(HEAD_MAX);
    frame.receive_area()[..head].fill(0x11);
    let tail = Tail { source: 0, slot: 0, len: (len - head) as u32, generation: 1 };
    frame.arrived(head, tail, VnetHeader::default());
    frame
}

struct Filled;

impl TailSource for Filled {
    fn copy_tail(&self, tail: Tail, offset: usize, dst: &mut [u8]) -> Result<(), StaleTail> {
        if tail.generation != 1 || offset + dst.len() > tail.len as usize {
            return Err(StaleTail);
        }
        dst.fill(0xaa);
        Ok(())
    }
}

/// Everything that waits: blocks and tallies.
fn drain(consumer: &mut Consumer) -> (Vec<Place>, Vec<Tally>, bool) {
    let (mut found, mut tallies) = (Vec::new(), Vec::new());
    loop {
        match consumer.take() {
            Next::Parcel(mut parcel) => {
                found.extend(parcel.pieces().flat_map(|piece| places(piece).collect::<Vec<_>>()));
                tallies.append(&mut parcel.tallies);
                consumer.give_back(parcel);
            }
            Next::Empty => return (found, tallies, false),
            Next::Ended => return (found, tallies, true),
        }
    }
}

#[test]
fn a_part_filled_chunk_is_handed_over_after_the_delay_and_not_before() {
    let (mut producer, mut consumer) = channel(DEFAULT_BYTES);
    assert!(!producer.flush(0));
    assert!(producer.push(meta(0), &long(100), &Filled, SNAPLEN, false));
    assert!(producer.flush(5 * MS));
    assert!(producer.flush(5 * MS + FLUSH_DELAY - 1));
    assert!(matches!(consumer.take(), Next::Empty));
    assert!(!producer.flush(5 * MS + FLUSH_DELAY));
    let (found, tallies, ended) = drain(&mut consumer);
    assert_eq!((found.len(), tallies.len(), ended), (1, 0, false));
    assert!(!producer.flush(30 * MS));
}

#[test]
fn a_ring_that_moves_to_a_worker_with_a_younger_clock_is_still_prompt() {
    let (mut producer, mut consumer) = channel(DEFAULT_BYTES);
    assert!(producer.push(meta(0), &long(100), &Filled, SNAPLEN, false));
    assert!(producer.flush(1_000_000 * MS));
    assert!(producer.flush(3 * MS));
    assert!(!producer.flush(3 * MS + FLUSH_DELAY));
    assert_eq!(drain(&mut consumer).0.len(), 1);
}

#[test]
fn head_and_tail_are_copied_up_to_the_snaplen() {
    let (mut producer, mut consumer) = channel(DEFAULT_BYTES);
    for snaplen in [0, 1, 100, 256, 257, 900, 65_535, SNAPLEN] {
        assert!(producer.push(meta(0), &long(1000), &Filled, snaplen, false));
    }
    drop(producer);
    let Next::Parcel(mut parcel) = consumer.take() else { panic!("nothing there") };
    let blocks = parcel.pieces().next().unwrap();
    let found: Vec<_> = places(blocks).collect();
    let lengths: Vec<_> = found.iter().map(|place| place.captured).collect();
    assert_eq!(lengths, [0, 1, 100, 256, 257, 900, 1000, 1000]);
    for place in found {
        let data = &blocks[place.at + 28..place.at + 28 + place.captured];
        assert!(data.iter().enumerate().all(|(at, &byte)| byte == if at < HEAD_MAX { 0x11 } else { 0xaa }));
        assert_eq!(blocks[place.at + 24..place.at + 28], 1000u32.to_le_bytes());
    }
    assert!(matches!(consumer.take(), Next::Ended));
}

#[test]
fn a_full_ring_loses_copies_counts_them_for_each_interface_and_goes_on() {
    let (mut producer, mut consumer) = channel(2 * CHUNK);
    let frame = long(FRAME_MAX);
    let (mut kept, mut lost) = (0, [0; 2]);
    for round in 0..20 {
        if producer.push(meta(round % 2), &frame, &Filled, SNAPLEN, false) {
            kept += 1;
        } else {
            lost[round as usize % 2] += 1;
        }
    }
    assert_eq!(kept, 2 * (CHUNK / (FRAME_MAX + OVERHEAD)), "two chunks");
    assert_eq!(producer.counted(), Counted { seen: 20, filtered: 0, lost: lost[0] + lost[1] });
    producer.filtered(1);
    let (found, ..) = drain(&mut consumer);
    assert_eq!(found.len(), kept);
    assert!(producer.push(meta(0), &frame, &Filled, SNAPLEN, false));
    drop(producer);
    let (found, mut tallies, ended) = drain(&mut consumer);
    tallies.sort_by_key(|tally| tally.interface);
    let expected = [
        Tally { interface: 0, filtered: 0, lost: lost[0] },
        Tally { interface: 1, filtered: 1, lost: lost[1] },
    ];
    assert_eq!((found.len(), tallies.as_slice(), ended), (1, expected.as_slice(), true));
    assert_eq!(consumer.watch().counted().seen, 22);
}

#[test]
fn nothing_goes_missing_between_two_threads() {
    let (mut producer, mut consumer) = channel(2 * CHUNK);
    let worker = std::thread::spawn(move || {
        for round in 0..200_000u64 {
            producer.push(
                meta((round % 3) as u32),
                &long(64 + (round % 700) as usize),
                &Filled,
                SNAPLEN,
                false,
            );
            if round % 64 == 0 {
                producer.flush(round * MS);
            }
            if round % 5 == 0 {
                producer.filtered(2);
            }
        }
        producer.counted()
    });
    let (mut blocks, mut tallies) = (0, [Counted::default(); 3]);
    loop {
        let (found, told, ended) = drain(&mut consumer);
        blocks += found.len() as u64;
        for tally in told {
            tallies[tally.interface as usize].filtered += tally.filtered;
            tallies[tally.interface as usize].lost += tally.lost;
        }
        if ended {
            break;
        }
        std::thread::yield_now();
    }
    let counted = worker.join().unwrap();
    assert_eq!(counted.filtered, 40_000);
    assert_eq!(counted.seen, 240_000);
    assert_eq!(tallies.iter().map(|tally| tally.filtered).sum::<u64>(), counted.filtered);
    assert_eq!(tallies.iter().map(|tally| tally.lost).sum::<u64>(), counted.lost);
    assert_eq!(counted.seen, counted.filtered + counted.lost + blocks);
}

#[test]
fn memory_is_taken_when_needed_and_given_back() {
    let (mut producer, mut consumer) = channel(DEFAULT_BYTES);
    let chunks = |producer: &Producer| producer.shared.chunks.load(Relaxed);
    assert_eq!(chunks(&producer), 0);
    while producer.push(meta(0), &long(60_000), &Filled, SNAPLEN, false) {}
    assert_eq!(chunks(&producer), DEFAULT_BYTES / CHUNK);
    drain(&mut consumer);
    assert!(consumer.trim());
    assert_eq!(chunks(&producer), DEFAULT_BYTES / CHUNK, "the last period needed them");
    assert!(!consumer.trim());
    assert!(chunks(&producer) <= 1, "{}", chunks(&producer));
    for _ in 0..100 {
        assert!(producer.push(meta(0), &long(60_000), &Filled, SNAPLEN, false));
        drain(&mut consumer);
    }
    let kept = chunks(&producer);
    assert!(kept <= BATCH + 1, "a consumer that keeps up needs no more than what is handed over: {kept}");
}

#[test]
fn losses_are_told_even_when_nothing_follows() {
    let (mut producer, mut consumer) = channel(DEFAULT_BYTES);
    producer.filtered(0);
    assert!(producer.flush(0));
    assert!(producer.flush(TELL_DELAY - 1));
    assert!(!producer.flush(TELL_DELAY));
    let (found, tallies, _) = drain(&mut consumer);
    assert_eq!((found.len(), tallies), (0, vec![Tally { interface: 0, filtered: 1, lost: 0 }]));
}

#[test]
fn a_stale_tail_is_a_lost_copy() {
    let (mut producer, mut consumer) = channel(DEFAULT_BYTES);
    assert!(!producer.push(meta(0), &long(1000), &NoTails, SNAPLEN, false));
    assert!(producer.push(meta(0), &long(1000), &NoTails, 256, false), "the head alone needs no tail");
    drop(producer);
    let (found, tallies, _) = drain(&mut consumer);
    assert_eq!((found.len(), tallies), (1, vec![Tally { interface: 0, filtered: 0, lost: 1 }]));
}

#[test]
fn interfaces_keep_their_names_when_numbers_are_used_again() {
    let (mut producer, consumer) = channel(DEFAULT_BYTES);
    producer.interface(4, "vm1", "tap");
    producer.interface(5, "vm2", "tap");
    producer.interface(4, "vm3", "tap");
    producer.interface(9, "vm1", "tap");
    assert_eq!([4, 5, 9].map(|port| producer.index(port)), [2, 1, 0]);
    let unnamed = producer.index(77);
    let names: Vec<_> = (0..5).map(|index| consumer.interface(index).name).collect();
    assert_eq!(names, ["vm1", "vm2", "vm3", "port-77", "interface-4"]);
    assert_eq!(unnamed, 3);
    assert_eq!(producer.index(u32::MAX), producer.index(70_000));
    for port in 0..5000 {
        producer.interface(port, &format!("p{port}"), "");
    }
    assert_eq!(consumer.interface(producer.index(4999)).name, "others");
    assert_eq!(producer.index(4998), producer.index(4999));
}

#[test]
fn without_a_consumer_copies_are_lost() {
    let (mut producer, consumer) = channel(2 * CHUNK);
    drop(consumer);
    for _ in 0..100 {
        producer.push(meta(0), &long(60_000), &Filled, SNAPLEN, false);
    }
    producer.flush(0);
    producer.flush(FLUSH_DELAY);
    let counted = producer.counted();
    assert_eq!((counted.seen, counted.lost), (100, 100));
}

/// A TCP/IPv4 superframe of `payload` bytes with valid headers.
fn superframe(payload: usize) -> Frame {
    let total = (40 + payload) as u16;
    let mut head = Vec::new();
    head.extend(MacAddr([2, 0, 0, 0, 0, 1]).0);
    head.extend(MacAddr([2, 0, 0, 0, 0, 2]).0);
    head.extend([8, 0, 0x45, 0]);
    head.extend(total.to_be_bytes());
    head.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    head.extend([0, 80, 0, 90, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    let mut frame = Frame::default();
    frame.receive_area()[..54].copy_from_slice(&head);
    let rest = payload.min(HEAD_MAX - 54);
    frame.receive_area()[54..54 + rest].fill(0xaa);
    let tail = Tail { source: 0, slot: 0, len: (payload - rest) as u32, generation: 1 };
    let vnet = VnetHeader {
        needs_csum: true,
        gso: Gso::TcpV4,
        hdr_len: 54,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
        ..VnetHeader::default()
    };
    frame.arrived(54 + rest, tail, vnet);
    frame
}

#[test]
fn a_superframe_is_kept_whole_or_cut_when_asked() {
    let (mut producer, mut consumer) = channel(DEFAULT_BYTES);
    assert!(producer.push(meta(0), &superframe(4000), &Filled, SNAPLEN, false));
    assert!(producer.push(meta(0), &superframe(4000), &Filled, SNAPLEN, true));
    assert!(producer.push(meta(0), &superframe(4000), &Filled, 60, true));
    drop(producer);
    let (found, ..) = drain(&mut consumer);
    let lengths: Vec<_> = found.iter().map(|place| place.captured).collect();
    assert_eq!(lengths, [4054, 54 + 1448, 54 + 1448, 54 + 1104, 60, 60, 60]);
    assert_eq!(consumer.watch().counted().seen, 7);
}

#[test]
fn what_cannot_be_cut_is_kept_as_it_came() {
    let (mut producer, mut consumer) = channel(DEFAULT_BYTES);
    let mut frame = superframe(4000);
    frame.vnet.gso_size = 0;
    assert!(producer.push(meta(0), &frame, &Filled, SNAPLEN, true));
    drop(producer);
    let (found, tallies, _) = drain(&mut consumer);
    assert_eq!((found.len(), found[0].captured, tallies.len()), (1, 4054, 0));
}
