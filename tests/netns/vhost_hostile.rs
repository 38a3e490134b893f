//! A monitor that means harm: each message that breaks a rule of vhost-user costs it its connection, and
//! nobody else anything.

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use switchd_tests::{Daemon, Lab, eventually};

/// Ports that take turns: after a broken rule one rests for a second.
const PORTS: usize = 8;
const SIZE: u64 = 1 << 20;

struct Message {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn flagged(request: u32, flags: u32, body: Vec<u8>) -> Message {
    let header = [request, flags, body.len() as u32];
    let header: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    Message { bytes: [header, body].concat(), fds: Vec::new() }
}

fn message(request: u32, body: &[u64]) -> Message {
    flagged(request, 1, words(body))
}

/// Index and value, as most messages about rings have them.
fn ring(request: u32, index: u32, value: u32) -> Message {
    message(request, &[u64::from(index) | u64::from(value) << 32])
}

fn with(mut message: Message, fds: Vec<OwnedFd>) -> Message {
    message.fds = fds;
    message
}

fn memory(len: u64) -> OwnedFd {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let file = memfd_create("guest", MFdFlags::MFD_CLOEXEC).expect("a memfd");
    nix::unistd::ftruncate(&file, len as i64).expect("its length");
    file
}

fn file(path: &str) -> OwnedFd {
    std::fs::File::open(path).expect("it is there").into()
}

fn event() -> OwnedFd {
    nix::sys::eventfd::EventFd::new().expect("an eventfd").into()
}

/// Regions of (guest address, size, address of the monitor, offset in the file).
fn table(regions: &[[u64; 4]], fds: Vec<OwnedFd>) -> Message {
    let mut body = vec![regions.len() as u64];
    body.extend(regions.iter().flatten());
    with(message(5, &body), fds)
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
    ]
}

fn put(stream: &UnixStream, message: &Message) {
    let fds: Vec<RawFd> = message.fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    // Refused when the other end has closed already.
    let _ = sendmsg::<()>(
        stream.as_raw_fd(),
        &[IoSlice::new(&message.bytes)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    );
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
    assert!(crimes.len() >= 40);
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
    eventually(Duration::from_secs(5), || match (descriptors(pids.0), descriptors(pids.1)) {
        now if now == before => Ok(()),
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
