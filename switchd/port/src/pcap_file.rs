//! A port whose far end is two files: frames arrive from a capture, what is sent is written to another.
//!
//! It reads pcap and pcapng (Ethernet only; pcapng enhanced and simple packets) and writes classic pcap with
//! nanoseconds. Frames carry the timestamp of their record, and so do written ones: a replay has no clock.
//! At the end of the file, or at the first record that cannot be read, the port simply stays silent
//! ([`PcapFilePort::finished`]).
//!
//! Bounds: records longer than a frame may be and records that were cut at capture are skipped and counted
//! as unreadable; one block may have [`BLOCK_MAX`] bytes; the written file ends at the given length, later
//! frames are refused as full. Frames must be finished (no offloads).

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapReader, PcapTsResolution, PcapWriter, RawPcapPacket};
use pcap_file::pcapng::{Block, PcapNgReader};
use switchd_wire::frame::{BURST, FRAME_MAX};
use switchd_wire::{Frame, VnetHeader};

use crate::memory::{arrive, takes};
use crate::{Arena, Flushed, Offloads, Port, Received, Sent};

/// The longest block that is read.
pub const BLOCK_MAX: usize = 1 << 20;
/// Length of a pcap file header and of a record header.
const FILE_HEADER: u64 = 24;
const RECORD_HEADER: u64 = 16;

enum Source {
    Pcap(Box<PcapReader<BufReader<File>>>),
    PcapNg(Box<PcapNgReader<BufReader<File>>>),
    Finished,
}

struct Target {
    writer: PcapWriter<BufWriter<File>>,
    /// Bytes that may still be written.
    left: u64,
}

pub struct PcapFilePort {
    source: Source,
    target: Option<Target>,
    /// One frame as it is written.
    whole: Box<[u8]>,
    unreadable: u64,
    full: u64,
    refused: u64,
}

fn invalid(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

impl PcapFilePort {
    /// `source`: nothing arrives without one. `target`: an empty file and the most bytes that it may get;
    /// everything sent is refused without one. Errors: not a capture, not of Ethernet, not writable.
    pub fn new(source: Option<File>, target: Option<(File, u64)>) -> io::Result<PcapFilePort> {
        let source = source.map_or(Ok(Source::Finished), open)?;
        let target = match target {
            None => None,
            Some((file, limit)) => {
                let header = PcapHeader {
                    snaplen: FRAME_MAX.next_power_of_two() as u32,
                    ts_resolution: PcapTsResolution::NanoSecond,
                    ..PcapHeader::default()
                };
                let writer = PcapWriter::with_header(BufWriter::new(file), header).map_err(invalid)?;
                Some(Target { writer, left: limit.saturating_sub(FILE_HEADER) })
            }
        };
        let whole = vec![0; FRAME_MAX + 8].into_boxed_slice();
        Ok(PcapFilePort { source, target, whole, unreadable: 0, full: 0, refused: 0 })
    }

    /// Everything was received.
    pub fn finished(&self) -> bool {
        matches!(self.source, Source::Finished)
    }

    /// Records skipped, and one for an end that came too early.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// Frames not written because the file has its length.
    pub fn full(&self) -> u64 {
        self.full
    }

    /// Frames not written for another reason: no target, unfinished, a write that failed.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

fn open(mut file: File) -> io::Result<Source> {
    let mut magic = [0u8; 4];
    file.read_exact(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    let reader = BufReader::new(file);
    if magic == [0x0a, 0x0d, 0x0d, 0x0a] {
        let reader = PcapNgReader::with_capacity(reader, BLOCK_MAX).map_err(invalid)?;
        return Ok(Source::PcapNg(Box::new(reader)));
    }
    let reader = PcapReader::with_capacity(reader, BLOCK_MAX).map_err(invalid)?;
    match reader.header().datalink {
        DataLink::ETHERNET => Ok(Source::Pcap(Box::new(reader))),
        other => Err(invalid(format!("a capture of link type {other:?}: only Ethernet can be replayed"))),
    }
}

/// What a look at the next record brought.
enum Next {
    Frame,
    Skipped,
    /// Not a packet.
    Nothing,
    End,
    Broken,
}

impl Source {
    fn next(&mut self, frame: &mut Frame, arena: &mut Arena, slot: usize) -> Next {
        let mut take = |time: Duration, original: u32, bytes: &[u8]| {
            let whole = bytes.len() == original as usize;
            if !whole || !arrive(frame, arena, slot, bytes, VnetHeader::default()) {
                return Next::Skipped;
            }
            frame.timestamp = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            Next::Frame
        };
        match self {
            Source::Finished => Next::End,
            Source::Pcap(reader) => match reader.next_packet() {
                None => Next::End,
                Some(Err(_)) => Next::Broken,
                Some(Ok(packet)) => take(packet.timestamp(), packet.orig_len(), packet.data()),
            },
            Source::PcapNg(reader) => match reader.next_block() {
                None => Next::End,
                Some(Err(_)) => Next::Broken,
                Some(Ok((block, state))) => {
                    let ethernet = |interface: u32| {
                        let interface = state.interfaces().get(interface as usize);
                        interface.is_some_and(|interface| interface.linktype == DataLink::ETHERNET)
                    };
                    match block {
                        Block::EnhancedPacket(packet) if ethernet(packet.interface_id) => {
                            take(packet.timestamp, packet.original_len, &packet.data)
                        }
                        Block::SimplePacket(packet) if ethernet(0) => {
                            take(Duration::ZERO, packet.original_len, &packet.data)
                        }
                        Block::EnhancedPacket(_) | Block::SimplePacket(_) | Block::Packet(_) => Next::Skipped,
                        _ => Next::Nothing,
                    }
                }
            },
        }
    }
}

impl Port for PcapFilePort {
    fn receive(&mut self, frames: &mut [Frame], arena: &mut Arena) -> Received {
        let mut received = Received::default();
        let room = frames.len().min(BURST);
        // A file of skipped records must not hold the worker: look at a bounded number a call.
        for _ in 0..4 * BURST {
            if received.frames == room {
                break;
            }
            match self.source.next(&mut frames[received.frames], arena, received.frames) {
                Next::Frame => received.frames += 1,
                Next::Skipped => received.unreadable += 1,
                Next::Nothing => {}
                Next::End => self.source = Source::Finished,
                Next::Broken => {
                    received.unreadable += 1;
                    self.source = Source::Finished;
                }
            }
            if self.finished() {
                break;
            }
        }
        received.more = !self.finished();
        self.unreadable += received.unreadable;
        received
    }

    fn send(&mut self, frame: &mut Frame, arena: &Arena) -> Sent {
        let sent = self.write(frame, arena);
        match sent {
            Sent::Full => self.full += 1,
            Sent::Refused | Sent::Down => self.refused += 1,
            Sent::Accepted | Sent::Queued => {}
        }
        sent
    }

    fn flush(&mut self, _: &Arena) -> Flushed {
        if let Some(target) = &mut self.target
            && target.writer.flush().is_err()
        {
            // What was accepted is lost with the disk; nothing more is taken.
            self.target = None;
        }
        Flushed::default()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn offloads(&self) -> Offloads {
        Offloads::default()
    }
}

impl PcapFilePort {
    fn write(&mut self, frame: &Frame, arena: &Arena) -> Sent {
        let Some(target) = &mut self.target else { return Sent::Refused };
        let Some(bytes) = self.whole.get_mut(..frame.len()) else { return Sent::Refused };
        if !takes(Offloads::default(), &frame.vnet) || frame.copy_out(arena, 0, bytes).is_err() {
            return Sent::Refused;
        }
        let record = RECORD_HEADER + bytes.len() as u64;
        if record > target.left {
            return Sent::Full;
        }
        let len = bytes.len() as u32;
        let packet = RawPcapPacket {
            ts_sec: (frame.timestamp / 1_000_000_000) as u32,
            ts_frac: (frame.timestamp % 1_000_000_000) as u32,
            incl_len: len,
            orig_len: len,
            data: (&*bytes).into(),
        };
        if target.writer.write_raw_packet(&packet).is_err() {
            self.target = None;
            return Sent::Refused;
        }
        target.left -= record;
        Sent::Accepted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcapng::PcapNgWriter;
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
    use pcap_file::pcapng::blocks::interface_description::{
        InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
    };

    const LENGTHS: [usize; 5] = [14, 60, 256, 257, 9000];
    const TIME: u64 = 1_700_000_000_123_456_789;

    fn burst() -> Vec<Frame> {
        (0..BURST).map(|_| Frame::default()).collect()
    }

    fn rewound(mut file: File) -> File {
        file.seek(SeekFrom::Start(0)).unwrap();
        file
    }

    fn frame(len: usize, arena: &mut Arena) -> Frame {
        let mut frame = Frame::default();
        assert!(arrive(&mut frame, arena, 0, &vec![len as u8; len], VnetHeader::default()));
        frame.timestamp = TIME;
        frame
    }

    fn written() -> File {
        let file = tempfile::tempfile().unwrap();
        let mut port = PcapFilePort::new(None, Some((file.try_clone().unwrap(), 1 << 20))).unwrap();
        let mut arena = Arena::new();
        for len in LENGTHS {
            assert_eq!(port.send(&mut frame(len, &mut arena), &arena), Sent::Accepted);
        }
        port.flush(&arena);
        rewound(file)
    }

    fn all(port: &mut PcapFilePort) -> Vec<(u64, Vec<u8>)> {
        let (mut frames, mut arena, mut out) = (burst(), Arena::new(), Vec::new());
        while !port.finished() {
            arena.begin();
            let received = port.receive(&mut frames, &mut arena);
            for frame in &frames[..received.frames] {
                let mut bytes = vec![0; frame.len()];
                frame.copy_out(&arena, 0, &mut bytes).unwrap();
                out.push((frame.timestamp, bytes));
            }
        }
        out
    }

    #[test]
    fn what_was_written_arrives_again_to_the_nanosecond() {
        let mut port = PcapFilePort::new(Some(written()), None).unwrap();
        assert_eq!(all(&mut port), LENGTHS.map(|len| (TIME, vec![len as u8; len])));
        assert_eq!(port.unreadable(), 0);
    }

    #[test]
    fn a_pcapng_is_read_and_cut_or_foreign_records_are_skipped() {
        let file = tempfile::tempfile().unwrap();
        let mut writer = PcapNgWriter::new(file.try_clone().unwrap()).unwrap();
        for linktype in [DataLink::ETHERNET, DataLink::RAW] {
            let options = vec![InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO)];
            writer.write_pcapng_block(InterfaceDescriptionBlock { linktype, snaplen: 0, options }).unwrap();
        }
        for (interface_id, len, original_len) in [(0, 60, 60), (0, 60, 61), (1, 60, 60), (0, 1500, 1500)] {
            let packet = EnhancedPacketBlock {
                interface_id,
                timestamp: Duration::from_nanos(TIME),
                original_len,
                data: vec![3; len].into(),
                options: vec![],
            };
            writer.write_pcapng_block(packet).unwrap();
        }
        let mut port = PcapFilePort::new(Some(rewound(file)), None).unwrap();
        assert_eq!(all(&mut port), [(TIME, vec![3; 60]), (TIME, vec![3; 1500])]);
        assert_eq!(port.unreadable(), 2);
    }

    #[test]
    fn a_file_that_ends_in_a_record_gives_the_frames_before_it() {
        let file = written();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        let mut port = PcapFilePort::new(Some(file), None).unwrap();
        assert_eq!(all(&mut port).len(), LENGTHS.len() - 1);
        assert_eq!(port.unreadable(), 1);
    }

    #[test]
    fn the_written_file_is_bounded() {
        let file = tempfile::tempfile().unwrap();
        let mut port = PcapFilePort::new(None, Some((file.try_clone().unwrap(), 24 + 2 * 76))).unwrap();
        let mut arena = Arena::new();
        let sent = [60, 61, 60, 60].map(|len| port.send(&mut frame(len, &mut arena), &arena));
        assert_eq!(sent, [Sent::Accepted, Sent::Full, Sent::Accepted, Sent::Full]);
        port.flush(&arena);
        assert_eq!(file.metadata().unwrap().len(), 24 + 2 * 76);
        assert_eq!((port.full(), port.refused()), (2, 0));
    }

    #[test]
    fn an_unfinished_frame_and_a_missing_target_are_refused() {
        let mut arena = Arena::new();
        let mut port = PcapFilePort::new(None, Some((tempfile::tempfile().unwrap(), 1 << 20))).unwrap();
        let mut unfinished = frame(60, &mut arena);
        unfinished.vnet.needs_csum = true;
        assert_eq!(port.send(&mut unfinished, &arena), Sent::Refused);
        let mut port = PcapFilePort::new(None, None).unwrap();
        assert_eq!(port.send(&mut frame(60, &mut arena), &arena), Sent::Refused);
        assert_eq!(port.refused(), 1);
    }

    #[test]
    fn what_is_no_capture_is_refused() {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"This is not a capture file at all.").unwrap();
        assert!(PcapFilePort::new(Some(rewound(file)), None).is_err());
        assert!(PcapFilePort::new(Some(tempfile::tempfile().unwrap()), None).is_err());
    }
}
