//! Live captures: pieces for a reader that may be slow, or go.

use super::*;

/// A reader of `room` pieces.
pub fn live(bench: &Bench, count: Option<u64>, room: usize) -> (Producer, Receiver<Vec<u8>>) {
    let (sender, receiver) = bounded(room);
    let deliver: Deliver = Box::new(move |piece| match sender.try_send(piece) {
        Ok(()) => Accept::Taken,
        Err(crossbeam_channel::TrySendError::Full(_)) => Accept::Full,
        Err(crossbeam_channel::TrySendError::Disconnected(_)) => Accept::Closed,
    });
    let (producer, consumer) = ring::channel(ring::DEFAULT_BYTES);
    let spec =
        Spec { name: "live".into(), snaplen: 262_144, filter: None, target: Target::Live { deliver, count } };
    bench.writer.add(spec, consumer).unwrap();
    (producer, receiver)
}

#[test]
fn a_live_stream_begins_at_once_and_is_prompt() {
    let mut bench = Bench::new();
    let (mut producer, stream) = live(&bench, None, 100);
    let mut bytes = stream.recv_timeout(Duration::from_secs(5)).expect("the section header comes first");
    assert_eq!(read_bytes(&bytes).sections.len(), 1);
    for round in 1..=3 {
        bench.push(&mut producer, 0, 1);
        let start = Instant::now();
        bytes.extend(stream.recv_timeout(Duration::from_secs(5)).unwrap());
        assert!(start.elapsed() < Duration::from_millis(500));
        assert_eq!(read_bytes(&bytes).packets(), round);
    }
    drop(producer);
    let status = bench.writer.remove("live").unwrap();
    assert_eq!((status.state, status.counters.copied), (State::Finished, 3));
    bytes.extend(stream.iter().flatten());
    let read = read_bytes(&bytes);
    read.assert_exact();
    assert_eq!(read.packets(), 3);
}

#[test]
fn a_live_stream_ends_after_its_count() {
    let mut bench = Bench::new();
    let (mut producer, stream) = live(&bench, Some(25), 100);
    for _ in 0..4 {
        bench.push(&mut producer, 0, 10);
    }
    let bytes: Vec<u8> = stream.iter().flatten().collect();
    let read = read_bytes(&bytes);
    read.assert_exact();
    assert_eq!(read.packets(), 25);
    assert_eq!(bench.until("live", |status| status.state == State::Finished).counters.bytes, 2500);
    bench.writer.remove("live").unwrap();
}

#[test]
fn a_slow_reader_loses_pieces_and_is_told_how_many() {
    let mut bench = Bench::new();
    let (mut producer, stream) = live(&bench, None, 2);
    // The section header and one piece fill the reader's queue.
    for round in 0..6 {
        bench.push(&mut producer, round % 2, 10);
    }
    let status = bench.until("live", |status| status.counters.lost + status.counters.bytes / 100 == 60);
    assert!(status.counters.lost >= 50, "{status:?}");
    let mut bytes: Vec<u8> = stream.try_iter().flatten().collect();
    bench.push(&mut producer, 0, 10);
    bytes.extend(stream.recv_timeout(Duration::from_secs(5)).unwrap());
    drop(producer);
    bytes.extend(stream.iter().flatten());
    let read = read_bytes(&bytes);
    read.assert_exact();
    assert_eq!(read.packets() + read.dropped(), 70);
    assert_eq!(read.dropped(), status.counters.lost);
    bench.writer.remove("live").unwrap();
}

#[test]
fn a_reader_that_goes_ends_the_capture() {
    let mut bench = Bench::new();
    let (mut producer, stream) = live(&bench, None, 2);
    drop(stream);
    bench.push(&mut producer, 0, 1);
    bench.until("live", |status| status.state == State::Finished);
    bench.push(&mut producer, 0, 1);
    bench.writer.remove("live").unwrap();
}
