//! What a capture costs the worker: nanoseconds of its processor time for each frame pushed, the least and
//! the median of nine rounds.
//!
//! `cargo run --release -p switchd-capture --example ring_cost [FOLDER]`: with a folder (a tmpfs) the writer
//! thread writes what the ring hands over; without one a reader throws it away.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use switchd_capture::filter::{Instruction, Program};
use switchd_capture::ring::{self, Meta, Producer};
use switchd_capture::writer::{Accept, Files, Opened, Rotation, Spec, Target, Writer};
use switchd_wire::frame::{BURST, HEAD_MAX, StaleTail, Tail, TailSource};
use switchd_wire::{Frame, VnetHeader};

struct Payload(Vec<u8>);

impl TailSource for Payload {
    fn copy_tail(&self, _: Tail, offset: usize, dst: &mut [u8]) -> Result<(), StaleTail> {
        dst.copy_from_slice(self.0.get(offset..offset + dst.len()).ok_or(StaleTail)?);
        Ok(())
    }
}

struct Folder(PathBuf);

impl Files for Folder {
    fn open(&mut self, path: &str) -> io::Result<Opened> {
        let path = self.0.join(path);
        let file: File = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        Ok(Opened { file, path })
    }

    fn numbers(&mut self, _: &str) -> io::Result<Vec<u32>> {
        Ok(Vec::new())
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        std::fs::remove_file(self.0.join(path))
    }
}

fn frame(len: usize) -> Frame {
    let mut frame = Frame::default();
    let head = len.min(HEAD_MAX);
    let tail = Tail { source: 0, slot: 0, len: (len - head) as u32, generation: 0 };
    frame.arrived(head, tail, VnetHeader::default());
    frame
}

/// Of this thread; a reading costs some 100 ns, once a burst.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// One round: `frames` in bursts, with a pause of `pause` after each burst. Nanoseconds a frame, pauses left out.
fn round(producer: &mut Producer, length: usize, snaplen: u32, frames: usize, pause: Duration) -> f64 {
    let payload = Payload(vec![0x5a; 1 << 16]);
    let burst: Vec<Frame> = (0..BURST).map(|_| frame(length)).collect();
    let begin = Instant::now();
    let mut spent = Duration::ZERO;
    for _ in 0..frames / BURST {
        let start = processor_time();
        for frame in &burst {
            let meta = Meta { interface: 1, outgoing: false, timestamp: 1 };
            producer.push(meta, frame, &payload, snaplen, false);
        }
        producer.flush(begin.elapsed().as_nanos() as u64);
        spent += processor_time() - start;
        let until = Instant::now() + pause;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    }
    spent.as_nanos() as f64 / (frames / BURST * BURST) as f64
}

fn main() -> io::Result<()> {
    let folder = std::env::args().nth(1).map(PathBuf::from);
    let files: PathBuf = folder.clone().unwrap_or_default();
    let writer = Writer::spawn(Box::new(Folder(files.clone())))?;
    println!("{:<34} {:>8} {:>8} {:>8} {:>8}", "case", "least ns", "median", "GB/s", "lost");
    for (case, length, snaplen, frames, pause) in [
        ("64 B", 64, 262_144, 200_000, 90),
        ("1514 B, 1 GB/s", 1514, 262_144, 100_000, 90),
        ("64 KiB, snaplen 128", 65_549, 128, 100_000, 90),
        ("64 KiB, whole, 1 GB/s", 65_549, 262_144, 6_400, 4_000),
    ] {
        let mut rounds = Vec::new();
        let (mut seen, mut lost) = (0, 0);
        for _ in 0..9 {
            let (mut producer, consumer) = ring::channel(ring::DEFAULT_BYTES);
            let taken = Arc::new(AtomicU64::new(0));
            let target = match &folder {
                Some(_) => Target::File { path: "cost.pcapng".into(), rotation: Rotation::default() },
                None => {
                    let taken = Arc::clone(&taken);
                    let deliver = Box::new(move |piece: Vec<u8>| {
                        taken.fetch_add(piece.len() as u64, Ordering::Relaxed);
                        Accept::Taken
                    });
                    Target::Live { deliver, count: None }
                }
            };
            let spec = Spec { name: "cost".into(), snaplen, filter: None, target };
            writer.add(spec, consumer).map_err(io::Error::other)?;
            rounds.push(round(&mut producer, length, snaplen, frames, Duration::from_micros(pause)));
            drop(producer);
            let counters = writer.remove("cost").map_err(io::Error::other)?.counters;
            seen += counters.seen;
            lost += counters.lost;
            if folder.is_some() {
                std::fs::remove_file(files.join("cost.pcapng"))?;
            }
        }
        rounds.sort_by(f64::total_cmp);
        let median = rounds[rounds.len() / 2];
        let speed = length.min(snaplen as usize) as f64 / median;
        let lost = lost as f64 * 100.0 / seen as f64;
        println!("{case:<34} {:>8.1} {median:>8.1} {speed:>8.2} {lost:>7.2}%", rounds[0]);
    }
    // "tcp port 80" as libpcap compiles it for IPv4 only: the usual depth of a filter.
    let program = [
        (0x28, 0, 0, 12),
        (0x15, 0, 8, 0x800),
        (0x30, 0, 0, 23),
        (0x15, 0, 6, 6),
        (0x28, 0, 0, 20),
        (0x45, 4, 0, 0x1fff),
        (0xb1, 0, 0, 14),
        (0x48, 0, 0, 16),
        (0x15, 0, 1, 80),
        (6, 0, 0, 1),
        (6, 0, 0, 0),
    ];
    let program = program.iter().map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect();
    let program = Program::new(program).map_err(io::Error::other)?;
    let mut tcp = frame(64);
    tcp.head_mut()[12..15].copy_from_slice(&[8, 0, 0x45]);
    tcp.head_mut()[23] = 6;
    tcp.head_mut()[37] = 80;
    let start = processor_time();
    let matched =
        (0..1_000_000).filter(|_| program.matches(std::hint::black_box(&tcp), &Payload(Vec::new()))).count();
    assert_eq!(matched, 1_000_000);
    let each = (processor_time() - start).as_nanos() as f64 / 1e6;
    println!("{:<34} {:>8.1}", "filter of 10 instructions", each);
    writer.stop();
    Ok(())
}
