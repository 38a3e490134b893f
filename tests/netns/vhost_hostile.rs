//! A monitor that means harm: each message that breaks a rule of vhost-user costs it its connection, and
//! nobody else anything.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use switchd_tests::vhost::driver::{GUEST, INDIRECT, PLAIN, USER};
use switchd_tests::vhost::message::{
    Message, event, flagged, memory, message, put, ring, table, with, words,
};
use switchd_tests::vhost::{Driver, Shape};
use switchd_tests::{Daemon, Lab, eventually};

/// Ports that take turns: after a broken rule one rests for a second.
const PORTS: usize = 8;
const SIZE: u64 = 1 << 20;

fn file(path: &str) -> OwnedFd {
    File::open(path).expect("it is there").into()
}

const REGION: [u64; 4] = [0, SIZE, 0x7f00_0000_0000, 0];

fn share() -> Message {
    table(&[REGION], vec![memory(SIZE)])
}

fn addresses(flags: u32, descriptors: u64) -> Message {
    message(9, &[u64::from(flags) << 32, descriptors, REGION[2] + 0x2000, REGION[2] + 0x1000, 0])
}

fn kick() -> Message {
    with(message(12, &[0]), vec![event()])
}

/// After a protocol feature was agreed on.
fn agreed(protocol: u64, crime: Message) -> Vec<Message> {
    vec![message(3, &[]), message(16, &[1 | protocol]), message(2, &[PLAIN]), crime]
}

/// With packed rings agreed on, started and enabled.
fn packed(mut crime: Vec<Message>) -> Vec<Message> {
    let mut all = vec![message(3, &[]), message(16, &[1]), message(2, &[PLAIN | 1 << 34])];
    all.append(&mut crime);
    all.push(ring(18, 0, 1));
    all
}

/// SET_INFLIGHT_FD.
fn inflight(len: u64, queues: u16, size: u16, fds: Vec<OwnedFd>) -> Message {
    let shape = u64::from(queues) | u64::from(size) << 16;
    let mut body = words(&[len, 0, shape]);
    body.truncate(20);
    with(flagged(32, 1, body), fds)
}

fn crimes() -> Vec<Vec<Message>> {
    let one = |message| vec![message];
    let raw = |bytes: &[u8]| vec![Message { bytes: bytes.to_vec(), fds: Vec::new() }];
    let single = |region: [u64; 4]| message(37, &[0, region[0], region[1], region[2], region[3]]);
    vec![
        raw(b"GET / HTTP/1.1\r\n\r\n"),
        raw(&[0; 64]),
        raw(&[0xff; 64]),
        one(flagged(1, 0, Vec::new())),
        one(flagged(1, 2, Vec::new())),
        one(flagged(1, 1 | 4, Vec::new())),
        one(flagged(1, 1, vec![0; 8])),
        one(Message {
            bytes: [1u32, 1, u32::MAX].iter().flat_map(|w| w.to_le_bytes()).collect(),
            fds: vec![],
        }),
        one(message(0, &[])),
        one(message(200, &[])),
        one(message(2, &[u64::MAX])),
        one(message(2, &[1 << 33])),
        one(flagged(2, 1, vec![0; 4])),
        one(message(16, &[u64::MAX])),
        one(message(5, &[0])),
        one(message(5, &[33])),
        one(message(5, &[1, 0, SIZE])),
        one(table(&[REGION], vec![])),
        one(table(&[REGION], vec![memory(SIZE), memory(SIZE), memory(SIZE)])),
        one(table(&[REGION], vec![file("/dev/null")])),
        one(table(&[REGION], vec![file("/etc/passwd")])),
        one(table(&[REGION], vec![event()])),
        one(table(&[REGION], vec![memory(SIZE - 1)])),
        one(table(&[[0, SIZE, REGION[2], 1]], vec![memory(SIZE)])),
        one(table(&[[0, SIZE, REGION[2], u64::MAX - 4096]], vec![memory(SIZE)])),
        one(table(&[[0, 0, REGION[2], 0]], vec![memory(SIZE)])),
        one(table(&[[u64::MAX - 8, SIZE, REGION[2], 0]], vec![memory(SIZE)])),
        one(table(&[REGION, REGION], vec![memory(SIZE), memory(SIZE)])),
        one(table(&[REGION, [4096, SIZE, 0, 0]], vec![memory(SIZE), memory(SIZE)])),
        one(ring(8, 99, 256)),
        one(ring(8, 2, 256)),
        one(ring(8, 0, 3)),
        one(ring(8, 0, 0)),
        one(ring(8, 0, 65536)),
        one(ring(10, 2, 0)),
        one(ring(10, 0, 65536)),
        one(ring(11, 77, 0)),
        one(message(12, &[0x100])),
        one(with(message(12, &[0]), vec![memory(SIZE)])),
        one(with(message(12, &[200]), vec![event()])),
        one(with(message(12, &[0]), vec![event(), event()])),
        one(with(message(13, &[9]), vec![event()])),
        one(ring(18, 0, 2)),
        one(ring(18, 77, 1)),
        vec![ring(8, 0, 256), kick()],
        vec![ring(8, 0, 256), addresses(0, 0), kick()],
        vec![share(), ring(8, 0, 256), addresses(1, REGION[2]), kick()],
        vec![share(), ring(8, 0, 256), addresses(0, REGION[2] + 8), kick()],
        vec![share(), ring(8, 0, 256), addresses(0, REGION[2] + SIZE - 16), kick()],
        vec![share(), ring(8, 0, 256), addresses(0, 0), kick()],
        vec![share(), ring(8, 0, 256), addresses(0, REGION[2]), kick(), ring(8, 0, 128)],
        vec![share(), addresses(0, REGION[2]), kick()],
        one(message(24, &[0, 0])),
        one(message(31, &[0, 0, 0])),
        one(with(message(32, &[4096, 0, 0]), vec![memory(4096)])),
        one(with(message(6, &[4096, 0]), vec![memory(4096)])),
        one(message(19, &[0])),
        one(message(20, &[1500])),
        one(message(22, &[0; 4])),
        one(message(28, &[])),
        one(with(single(REGION), vec![memory(SIZE)])),
        one(single(REGION)),
        // The inflight file: too short for what it is said to be, without a descriptor, of no queues.
        agreed(1 << 12, inflight(4096, 1, 256, vec![memory(100)])),
        agreed(1 << 12, inflight(4096, 1, 256, vec![])),
        agreed(1 << 12, inflight(64, 1, 256, vec![memory(4096)])),
        agreed(1 << 12, inflight(4096, 99, 256, vec![memory(4096)])),
        // The dirty log: shorter than it is said to be, no file, not there.
        agreed(1 << 1, with(message(6, &[4096, 0]), vec![memory(100)])),
        agreed(1 << 1, with(message(6, &[4096, 0]), vec![event()])),
        agreed(1 << 1, with(message(6, &[4096, u64::MAX - 8]), vec![memory(4096)])),
        // A packed ring whose size or place cannot be.
        packed(vec![share(), ring(8, 0, 256), addresses(0, REGION[2] + 8), kick()]),
        packed(vec![share(), ring(8, 0, 256), addresses(0, REGION[2] + SIZE - 16), kick()]),
    ]
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

#[test]
fn a_monitor_that_breaks_the_rules_is_cut_off_and_nobody_else_notices() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (host, one, two) = (lab.space("host"), lab.space("one"), lab.space("two"));
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create lab --kind isolated");
    switch.guest("lab", "one", &one, "10.1.0.1/24");
    switch.guest("lab", "two", &two, "10.1.0.2/24");
    one.reaches("10.1.0.2");
    let socket = |number: usize| lab.folder().join(format!("vh{number}"));
    for number in 0..PORTS {
        let path = socket(number);
        switch.do_(&format!("port attach lab bad{number} --vhost-user {} --server", path.display()));
    }
    let pids = (switch.pid(), switch.dataplane_pid());
    let before = (descriptors(pids.0), descriptors(pids.1));
    let crimes = crimes();
    assert!(crimes.len() >= 70);
    std::thread::scope(|scope| {
        let neighbours = scope.spawn(|| one.pings("10.1.0.2", 400, "0.02").lost());
        for (number, crime) in crimes.iter().enumerate() {
            let stream = connect(&socket(number % PORTS));
            crime.iter().for_each(|message| put(&stream, message));
            cut_off(stream, number);
        }
        // Half a message, and then nothing: it holds up nobody but itself.
        let silent = connect(&socket(0));
        put(&silent, &Message { bytes: vec![1, 0, 0, 0, 1], fds: Vec::new() });
        assert_eq!(neighbours.join().expect("it pings"), 0, "frames that neighbours lost");
        drop(silent);
    });
    let last = (crimes.len() - 1) % PORTS;
    let reason = switch.port(&format!("bad{last}"))["reason"].to_string();
    assert!(reason.contains("cut off"), "{reason}");
    assert_eq!((switch.pid(), switch.dataplane_pid()), pids);
    // Fewer, where a connection of the control plane was open when they were counted first.
    eventually(Duration::from_secs(20), || match (descriptors(pids.0), descriptors(pids.1)) {
        now if now.0 <= before.0 && now.1 <= before.1 => Ok(()),
        now => Err(format!("{before:?} descriptors have become {now:?}")),
    });
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("somebody listens");
    stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a plain socket");
    stream
}

/// Reads to the end: an answer may come before it.
fn cut_off(mut stream: UnixStream, number: usize) {
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "crime {number} is not punished");
    }
}

/// What a guest does in its rings, after all was set up as it should be, and what is said of it.
type Crime = (&'static str, fn(&mut Driver));

const CRIMES: &[Crime] = &[
    ("index jumped", |card| {
        card.poke(Driver::available_at(1), &900u16.to_le_bytes());
        card.kick(1);
    }),
    ("made available", |card| card.offer(1, 256)),
    ("leads to descriptor", |card| chain(card, GUEST, 100, 1, 999)),
    ("longer than its queue", |card| chain(card, GUEST, 100, 1, 0)),
    ("wrong direction", |card| chain(card, GUEST, 100, 2, 0)),
    ("not in the guest's memory", |card| chain(card, 0, 100, 0, 0)),
    ("not in the guest's memory", |card| chain(card, USER, 100, 0, 0)),
    ("not in the guest's memory", |card| chain(card, u64::MAX - 50, 100, 0, 0)),
    ("not in the guest's memory", |card| chain(card, GUEST, u32::MAX, 0, 0)),
    ("indirect table of 24 bytes", |card| chain(card, GUEST, 24, 4, 0)),
    ("within an indirect table", |card| {
        card.describe(0, 0, GUEST, 16, 4, 0);
        chain(card, GUEST, 16, 4, 0);
    }),
    ("has shrunk", |card| {
        nix::unistd::ftruncate(card.file(), 0).expect("our file");
        card.kick(1);
    }),
];

fn chain(card: &mut Driver, address: u64, len: u32, flags: u16, next: u16) {
    card.describe(1, 0, address, len, flags, next);
    card.offer(1, 0);
}

#[test]
fn a_guest_that_breaks_its_rings_loses_its_port_with_the_reason_and_nobody_else_notices() {
    let Some(lab) = Lab::open(&[]) else { return };
    let (host, one, two) = (lab.space("host"), lab.space("one"), lab.space("two"));
    let switch = Daemon::start(&lab, &host);
    switch.do_("network create lab --kind isolated");
    switch.guest("lab", "one", &one, "10.1.0.1/24");
    switch.guest("lab", "two", &two, "10.1.0.2/24");
    one.reaches("10.1.0.2");
    let socket = |number: usize| lab.folder().join(format!("vh{number}"));
    for number in 0..CRIMES.len() {
        let path = socket(number);
        switch.do_(&format!("port attach lab bad{number} --vhost-user {} --server", path.display()));
    }
    let pids = (switch.pid(), switch.dataplane_pid());
    let before = (descriptors(pids.0), descriptors(pids.1));
    std::thread::scope(|scope| {
        let neighbours = scope.spawn(|| one.pings("10.1.0.2", 200, "0.02").lost());
        for (number, (reason, crime)) in CRIMES.iter().enumerate() {
            let shape = Shape { features: PLAIN | INDIRECT, ..Shape::bare() };
            let mut card = Driver::connect(&socket(number), shape);
            switch.wait_port(&format!("bad{number}"), "up");
            crime(&mut card);
            eventually(Duration::from_secs(5), || match card.cut_off() {
                true => Ok(()),
                false => Err(format!("case {number} ({reason}) is not cut off")),
            });
            eventually(Duration::from_secs(5), || {
                let port = switch.port(&format!("bad{number}"));
                match port["reason"].as_str().is_some_and(|text| text.contains(reason)) {
                    true => Ok(()),
                    false => Err(format!("case {number}: {port} does not say {reason:?}")),
                }
            });
        }
        assert_eq!(neighbours.join().expect("it pings"), 0, "frames that neighbours lost");
    });
    assert_eq!((switch.pid(), switch.dataplane_pid()), pids);
    eventually(Duration::from_secs(5), || match (descriptors(pids.0), descriptors(pids.1)) {
        now if now.0 <= before.0 && now.1 <= before.1 => Ok(()),
        now => Err(format!("{before:?} descriptors have become {now:?}")),
    });
}
