//! The writer on a real folder; what it wrote is read back by pcap-parser.

use super::*;
use crate::ring::{self, Meta, Producer};
use pcap_parser::{Block, PcapBlockOwned, PcapNGReader, traits::PcapReaderIterator};
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use switchd_wire::Frame;
use switchd_wire::frame::NoTails;

#[path = "writer_disk_tests.rs"]
mod disk;
#[path = "writer_live_tests.rs"]
mod live;
#[path = "writer_peer_tests.rs"]
mod peers;

/// Says on the terminal, whatever the test harness captures, that a test could not run.
fn not_run(test: &str, why: &str) {
    use io::Write;
    let _ = writeln!(io::stderr(), "NOT RUN: {test}: {why}");
}

/// Files of a folder; refuses while `broken` exists.
pub struct Folder(pub PathBuf);

impl Files for Folder {
    fn open(&mut self, path: &str) -> io::Result<Opened> {
        let full = self.0.join(path);
        if self.0.join("broken").exists() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if let Some(folder) = full.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = fs::OpenOptions::new().read(true).append(true).create(true).open(&full)?;
        Ok(Opened { file, path: full })
    }

    fn numbers(&mut self, path: &str) -> io::Result<Vec<u32>> {
        let names = Names::new(path);
        let folder = self.0.join(path).parent().map(Path::to_owned).unwrap_or_default();
        let listed = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed?,
        };
        let of = |entry: io::Result<fs::DirEntry>| names.number_of(entry.ok()?.file_name().to_str()?);
        Ok(listed.filter_map(of).collect())
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(path))
    }
}

/// What a file holds, a section after the other.
#[derive(Default, Debug)]
struct Read {
    sections: Vec<SectionRead>,
}

#[derive(Default, Debug)]
struct SectionRead {
    names: Vec<String>,
    packets: HashMap<String, u64>,
    /// The last statistics of each interface: received, dropped, accepted, delivered.
    statistics: HashMap<String, [u64; 4]>,
}

impl Read {
    fn packets(&self) -> u64 {
        self.sections.iter().flat_map(|section| section.packets.values()).sum()
    }

    fn dropped(&self) -> u64 {
        self.sections.iter().flat_map(|section| section.statistics.values()).map(|counts| counts[1]).sum()
    }

    /// In each section, the statistics tell exactly what is in it.
    fn assert_exact(&self) {
        for section in &self.sections {
            for name in &section.names {
                let packets = section.packets.get(name).copied().unwrap_or(0);
                let Some([received, dropped, accepted, delivered]) = section.statistics.get(name) else {
                    panic!("no statistics for {name}: {self:?}");
                };
                assert_eq!(*delivered, packets, "{name}: {self:?}");
                assert_eq!(*accepted, delivered + dropped, "{name}: {self:?}");
                assert!(received >= accepted);
            }
        }
    }
}

fn read_bytes(bytes: &[u8]) -> Read {
    let mut read = Read::default();
    if bytes.is_empty() {
        return read;
    }
    let mut reader = PcapNGReader::new(1 << 20, bytes).unwrap();
    loop {
        let (used, block) = match reader.next() {
            Ok(found) => found,
            Err(pcap_parser::PcapError::Eof) => return read,
            Err(pcap_parser::PcapError::Incomplete(_)) => {
                reader.refill().unwrap();
                continue;
            }
            Err(error) => panic!("{error:?}"),
        };
        let PcapBlockOwned::NG(block) = block else { panic!("not pcapng") };
        match block {
            Block::SectionHeader(_) => read.sections.push(SectionRead::default()),
            Block::InterfaceDescription(block) => {
                let name = block.options.iter().find(|option| option.code.0 == 2).unwrap();
                let name = String::from_utf8_lossy(&name.value[..name.len as usize]).into_owned();
                read.sections.last_mut().unwrap().names.push(name);
            }
            Block::EnhancedPacket(block) => {
                let section = read.sections.last_mut().unwrap();
                let name = section.names[block.if_id as usize].clone();
                *section.packets.entry(name).or_default() += 1;
            }
            Block::InterfaceStatistics(block) => {
                let section = read.sections.last_mut().unwrap();
                let number = |code: u16| {
                    let found = block.options.iter().find(|option| option.code.0 == code).unwrap();
                    u64::from_le_bytes(found.value[..8].try_into().unwrap())
                };
                let name = section.names[block.if_id as usize].clone();
                section.statistics.insert(name, [4, 5, 6, 8].map(number));
            }
            other => panic!("unexpected {other:?}"),
        }
        reader.consume(used);
    }
}

fn read(path: impl AsRef<Path>) -> Read {
    read_bytes(&fs::read(path).unwrap())
}

struct Bench {
    folder: tempfile::TempDir,
    writer: WriterHandle,
    clock: u64,
}

impl Bench {
    fn new() -> Bench {
        Bench::on(tempfile::tempdir().unwrap())
    }

    fn on(folder: tempfile::TempDir) -> Bench {
        let writer = Writer::spawn(Box::new(Folder(folder.path().to_owned()))).unwrap();
        Bench { folder, writer, clock: 0 }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn capture(&self, name: &str, path: &str, rotation: Rotation) -> Producer {
        let (producer, consumer) = ring::channel(ring::DEFAULT_BYTES);
        let target = Target::File { path: path.into(), rotation };
        self.writer
            .add(Spec { name: name.into(), snaplen: 262_144, filter: None, target }, consumer)
            .unwrap();
        producer
    }

    /// Pushes `count` frames of 100 bytes at port `port` and hands them over.
    fn push(&mut self, producer: &mut Producer, port: u32, count: u64) {
        let frame = Frame::from_bytes(&[7; 100]).unwrap();
        for _ in 0..count {
            let meta =
                Meta { interface: port, outgoing: port % 2 == 1, timestamp: 1_700_000_000_000_000_000 };
            producer.push(meta, &frame, &NoTails, 262_144, false);
        }
        self.hand_over(producer);
    }

    fn hand_over(&mut self, producer: &mut Producer) {
        self.clock += 2_000_000_000;
        producer.flush(self.clock);
        producer.flush(self.clock + 2_000_000_000);
    }

    /// Waits until the status says so.
    fn until(&self, name: &str, what: impl Fn(&Status) -> bool) -> Status {
        let start = Instant::now();
        loop {
            let status = self.writer.status(name).unwrap();
            if what(&status) {
                return status;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "{status:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn frames_arrive_with_exact_statistics_and_remove_closes_the_file() {
    let mut bench = Bench::new();
    let mut producer = bench.capture("m", "deep/er/lab.pcapng", Rotation::default());
    producer.interface(0, "vm1", "tap");
    producer.interface(1, "vm2", "tap");
    bench.push(&mut producer, 0, 10);
    bench.push(&mut producer, 1, 5);
    producer.filtered(1);
    drop(producer);
    let status = bench.writer.remove("m").unwrap();
    let path = bench.at("deep/er/lab.pcapng");
    assert_eq!(status.state, State::Finished);
    assert_eq!(status.file.as_deref(), Some(path.as_path()));
    assert_eq!(status.counters, Counters { seen: 16, filtered: 1, copied: 15, lost: 0, bytes: 1500 });
    assert_eq!((status.last_error, status.files), (None, 1));
    let read = read(path);
    read.assert_exact();
    assert_eq!(read.sections.len(), 1);
    assert_eq!(read.sections[0].statistics["vm1"], [10, 0, 10, 10]);
    assert_eq!(read.sections[0].statistics["vm2"], [6, 0, 5, 5]);
    assert_eq!(bench.writer.remove("m"), Err(WriterError::Unknown("m".into())));
}

#[test]
fn a_restart_appends_a_section() {
    let mut bench = Bench::new();
    for round in 1..=3 {
        let mut producer = bench.capture("m", "lab.pcapng", Rotation::default());
        bench.push(&mut producer, 0, round);
        drop(producer);
        bench.writer.remove("m").unwrap();
    }
    let read = read(bench.at("lab.pcapng"));
    read.assert_exact();
    assert_eq!((read.sections.len(), read.packets()), (3, 6));
    assert_eq!(bench.names(), ["lab.pcapng"]);
}

#[test]
fn a_torn_or_foreign_file_is_left_alone_and_a_numbered_one_is_begun() {
    let mut bench = Bench::new();
    let mut producer = bench.capture("m", "lab.pcapng", Rotation::default());
    bench.push(&mut producer, 0, 3);
    drop(producer);
    bench.writer.remove("m").unwrap();
    let whole = fs::read(bench.at("lab.pcapng")).unwrap();
    let torn = &whole[..whole.len() - 5];
    fs::write(bench.at("lab.pcapng"), torn).unwrap();
    fs::write(bench.at("notes.pcapng"), "dear diary").unwrap();
    for _ in 0..2 {
        for (name, path) in [("m", "lab.pcapng"), ("n", "notes.pcapng")] {
            let mut producer = bench.capture(name, path, Rotation::default());
            bench.push(&mut producer, 0, 4);
            drop(producer);
            bench.writer.remove(name).unwrap();
        }
    }
    assert_eq!(fs::read(bench.at("lab.pcapng")).unwrap(), torn);
    assert_eq!(fs::read(bench.at("notes.pcapng")).unwrap(), b"dear diary");
    assert_eq!(bench.names(), ["lab.00001.pcapng", "lab.pcapng", "notes.00001.pcapng", "notes.pcapng"]);
    let read = read(bench.at("lab.00001.pcapng"));
    read.assert_exact();
    assert_eq!((read.sections.len(), read.packets()), (2, 8), "the numbered file goes on after a restart");
}

#[test]
fn rotation_by_size_keeps_every_packet_and_the_newest_files() {
    let mut bench = Bench::new();
    let rotation = Rotation { size: Some(5_000), time: None, count: None };
    let mut producer = bench.capture("all", "all.pcapng", rotation);
    bench.push(&mut producer, 0, 200);
    drop(producer);
    let status = bench.writer.remove("all").unwrap();
    let names = bench.names();
    assert_eq!(names.len() as u64, status.files);
    assert!(names.len() > 5, "{names:?}");
    let mut packets = 0;
    for name in &names {
        let bytes = fs::read(bench.at(name)).unwrap();
        // The limit is for what packets need; the closing statistics come on top.
        assert!(bytes.len() <= 5_000 + 200, "{name}: {}", bytes.len());
        let read = read_bytes(&bytes);
        read.assert_exact();
        packets += read.packets();
    }
    assert_eq!(packets, 200);

    let rotation = Rotation { count: Some(3), ..rotation };
    let mut producer = bench.capture("few", "few.pcapng", rotation);
    bench.push(&mut producer, 0, 200);
    drop(producer);
    let files = bench.writer.remove("few").unwrap().files;
    let few: Vec<_> = bench.names().into_iter().filter(|name| name.starts_with("few")).collect();
    let expected: Vec<_> = (files - 2..=files).map(|number| format!("few.{number:05}.pcapng")).collect();
    assert_eq!(few, expected);

    // A restart goes on in the newest file while it has room, and with the numbers after it.
    let mut producer = bench.capture("few", "few.pcapng", rotation);
    bench.push(&mut producer, 0, 60);
    drop(producer);
    bench.writer.remove("few").unwrap();
    let few: Vec<_> = bench.names().into_iter().filter(|name| name.starts_with("few")).collect();
    assert_eq!(few.len(), 3);
    assert!(few[2] > expected[2], "{few:?}");
}

#[test]
fn a_packet_larger_than_the_rotation_size_still_gets_a_file() {
    let mut bench = Bench::new();
    let mut producer = bench.capture("m", "m.pcapng", Rotation { size: Some(1), ..Rotation::default() });
    bench.push(&mut producer, 0, 4);
    drop(producer);
    bench.writer.remove("m").unwrap();
    let packets: Vec<_> = bench.names().iter().map(|name| read(bench.at(name)).packets()).collect();
    assert_eq!(packets, [1, 1, 1, 1]);
}

#[test]
fn rotation_by_time_happens_without_traffic_but_not_for_empty_files() {
    let mut bench = Bench::new();
    let rotation = Rotation { time: Some(Duration::from_millis(150)), ..Rotation::default() };
    let mut producer = bench.capture("m", "m.pcapng", rotation);
    bench.push(&mut producer, 0, 2);
    bench.until("m", |status| status.files == 2);
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(bench.writer.status("m").unwrap().files, 2, "the second file holds nothing yet");
    bench.push(&mut producer, 0, 1);
    drop(producer);
    bench.writer.remove("m").unwrap();
    assert_eq!(read(bench.at("m.00001.pcapng")).packets(), 2);
    assert_eq!(read(bench.at("m.00002.pcapng")).packets(), 1);
}

#[test]
fn a_removed_folder_loses_copies_counts_them_and_resumes() {
    let mut bench = Bench::new();
    let mut producer = bench.capture("m", "sub/lab.pcapng", Rotation::default());
    bench.push(&mut producer, 0, 3);
    bench.until("m", |status| status.counters.bytes == 300);
    fs::remove_dir_all(bench.at("sub")).unwrap();
    bench.push(&mut producer, 0, 7);
    let status = bench.until("m", |status| status.state == State::Failing);
    assert_eq!(status.counters.lost, 7);
    assert!(status.last_error.as_ref().unwrap().contains("No such file or directory"), "{status:?}");
    let status = bench.until("m", |status| status.state == State::Running);
    assert!(status.last_error.is_some(), "the last error stays to be seen");
    bench.push(&mut producer, 0, 5);
    drop(producer);
    let status = bench.writer.remove("m").unwrap();
    assert_eq!(status.counters, Counters { seen: 15, filtered: 0, copied: 8, lost: 7, bytes: 800 });
    let read = read(bench.at("sub/lab.pcapng"));
    read.assert_exact();
    assert_eq!((read.packets(), read.dropped()), (5, 7));
}

#[test]
fn a_file_that_cannot_be_opened_is_tried_again() {
    let mut bench = Bench::new();
    fs::write(bench.at("broken"), "").unwrap();
    let (mut producer, consumer) = ring::channel(ring::DEFAULT_BYTES);
    let target = Target::File { path: "m.pcapng".into(), rotation: Rotation::default() };
    let spec = Spec { name: "m".into(), snaplen: 64, filter: None, target };
    let status = bench.writer.add(spec, consumer).unwrap();
    assert_eq!((status.state, status.last_error.as_deref()), (State::Failing, Some("permission denied")));
    bench.push(&mut producer, 0, 4);
    bench.until("m", |status| status.counters.lost == 4);
    fs::remove_file(bench.at("broken")).unwrap();
    bench.until("m", |status| status.state == State::Running);
    bench.push(&mut producer, 0, 2);
    drop(producer);
    bench.writer.remove("m").unwrap();
    let read = read(bench.at("m.pcapng"));
    read.assert_exact();
    assert_eq!((read.packets(), read.dropped()), (2, 4));
}

#[test]
fn names_of_captures_are_unique_and_free_again_after_removal() {
    let bench = Bench::new();
    let producer = bench.capture("m", "a.pcapng", Rotation::default());
    let (_other, consumer) = ring::channel(ring::DEFAULT_BYTES);
    let target = Target::File { path: "b.pcapng".into(), rotation: Rotation::default() };
    let spec = Spec { name: "m".into(), snaplen: 64, filter: None, target };
    assert_eq!(bench.writer.add(spec, consumer), Err(WriterError::Exists("m".into())));
    drop(producer);
    bench.writer.remove("m").unwrap();
    drop(bench.capture("m", "a.pcapng", Rotation::default()));
    assert!(!bench.at("b.pcapng").exists());
}

#[test]
fn a_producer_that_was_not_dropped_does_not_hold_up_the_removal() {
    let mut bench = Bench::new();
    let mut producer = bench.capture("m", "m.pcapng", Rotation::default());
    bench.push(&mut producer, 0, 9);
    let start = Instant::now();
    bench.writer.remove("m").unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    let read = read(bench.at("m.pcapng"));
    read.assert_exact();
    assert_eq!(read.packets(), 9);
}

#[test]
fn stopping_writes_what_the_rings_hold() {
    let mut bench = Bench::new();
    let mut producer = bench.capture("m", "m.pcapng", Rotation::default());
    bench.push(&mut producer, 0, 1000);
    bench.writer.stop();
    let read = read(bench.at("m.pcapng"));
    read.assert_exact();
    assert_eq!(read.packets(), 1000);
    assert!(bench.writer.remove("m").is_err());
}

/// A capture on a folder, without the thread: time passes as told.
struct Alone {
    files: Folder,
    producer: Producer,
    report: Arc<Report>,
    capture: Capture,
    now: Now,
    flushed: u64,
}

impl Alone {
    fn on(folder: &Path, path: &str) -> Alone {
        let mut files = Folder(folder.to_owned());
        let (producer, consumer) = ring::channel(ring::DEFAULT_BYTES);
        let report = Arc::new(Report::new(consumer.watch()));
        let target = Target::File { path: path.into(), rotation: Rotation::default() };
        let spec = Spec { name: "m".into(), snaplen: 64, filter: None, target };
        let now = Now::sample();
        let capture = Capture::new(spec, consumer, Arc::clone(&report), &mut files, now);
        Alone { files, producer, report, capture, now, flushed: 0 }
    }

    fn packet(&mut self) {
        let meta = Meta { interface: 0, outgoing: false, timestamp: self.now.real };
        self.producer.push(meta, &Frame::from_bytes(&[1; 60]).unwrap(), &NoTails, 64, false);
        self.flushed += 1_000_000_000;
        self.producer.flush(self.flushed);
        self.producer.flush(self.flushed + 20_000_000);
        self.capture.work(&mut self.files, self.now);
    }

    fn pass(&mut self, seconds: u64) -> Status {
        self.now.monotonic += Duration::from_secs(seconds);
        self.now.real += seconds * 1_000_000_000;
        self.capture.tick(&mut self.files, self.now);
        self.report.read()
    }
}

#[test]
fn a_file_that_was_renamed_is_noticed_with_the_statistics_and_another_begun() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut alone = Alone::on(folder.path(), "sub/deep/m.pcapng");
    alone.packet();
    assert_eq!(alone.pass(11).state, State::Running);
    alone.packet();
    // Its name cannot be looked at: that tells nothing.
    fs::write(at("broken"), "").unwrap();
    let status = alone.pass(11);
    assert_eq!((status.state, status.last_error), (State::Running, None));
    fs::remove_file(at("broken")).unwrap();

    fs::rename(at("sub"), at("old")).unwrap();
    alone.packet();
    let status = alone.pass(11);
    let told = status.last_error.unwrap();
    assert!(status.state == State::Failing && told.contains("another file has this name now"), "{told}");
    assert!(told.starts_with(at("sub/deep/m.pcapng").to_str().unwrap()), "{told}");
    alone.packet();
    let status = alone.pass(1);
    assert_eq!((status.state, status.counters.lost), (State::Running, 1));
    alone.packet();
    alone.pass(11);
    let (old, new) = (read(at("old/deep/m.pcapng")), read(at("sub/deep/m.pcapng")));
    new.assert_exact();
    assert_eq!((old.packets(), new.packets(), new.dropped()), (3, 1, 1));

    // No folder can be made where a file is.
    fs::rename(at("sub"), at("older")).unwrap();
    fs::write(at("sub"), "in the way").unwrap();
    alone.packet();
    let status = alone.pass(11);
    let told = status.last_error.unwrap();
    assert!(status.state == State::Failing && told.contains("none could be made"), "{told}");
}

#[test]
fn periodic_statistics_come_while_something_changes() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Folder(folder.path().to_owned());
    let (mut producer, consumer) = ring::channel(ring::DEFAULT_BYTES);
    let report = Arc::new(Report::new(consumer.watch()));
    let target = Target::File { path: "m.pcapng".into(), rotation: Rotation::default() };
    let spec = Spec { name: "m".into(), snaplen: 64, filter: None, target };
    let mut now = Now::sample();
    let mut capture = Capture::new(spec, consumer, report, &mut files, now);
    assert_eq!(capture.deadline(now.monotonic), None, "an idle capture needs no clock");
    let len = || fs::metadata(folder.path().join("m.pcapng")).unwrap().len();
    for packets in 1..4 {
        let meta = Meta { interface: 0, outgoing: false, timestamp: now.real };
        producer.push(meta, &Frame::from_bytes(&[1; 60]).unwrap(), &NoTails, 64, false);
        producer.filtered(0);
        producer.flush(packets * 1_000_000_000);
        producer.flush(packets * 1_000_000_000 + 20_000_000);
        capture.work(&mut files, now);
        let before = len();
        now.monotonic += Duration::from_secs(11);
        now.real += 11_000_000_000;
        assert!(capture.deadline(now.monotonic).unwrap() <= now.monotonic);
        capture.tick(&mut files, now);
        assert!(len() > before);
        let read = read(folder.path().join("m.pcapng"));
        read.assert_exact();
        assert_eq!(read.sections[0].statistics["port-0"], [packets * 2, 0, packets, packets]);
        let written = len();
        now.monotonic += Duration::from_secs(11);
        capture.tick(&mut files, now);
        assert_eq!(len(), written, "nothing changed");
        assert_eq!(capture.deadline(now.monotonic), None);
    }
}
