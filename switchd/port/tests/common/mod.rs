//! Namespaces and interfaces for tests, deleted whatever happens.
#![allow(dead_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use switchd_port::netlink::{Change, Netlink};
use switchd_port::{Arena, Port, Sent, netns};
use switchd_wire::frame::BURST;
use switchd_wire::{Frame, MacAddr};

/// Whether the test can run; says so when it cannot.
pub fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: needs root");
    }
    root
}

/// A named namespace without IPv6, deleted at the end.
pub struct Netns {
    pub name: String,
    fd: OwnedFd,
}

impl Netns {
    pub fn new() -> Netns {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("po-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name]);
        let fd = netns::open(&name).unwrap();
        let netns = Netns { name, fd };
        netns.run(|| {
            for which in ["all", "default"] {
                let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1");
            }
        });
        netns.link("lo", |netlink, index| netlink.set_up(index, true));
        netns
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::in_netns(self.fd(), work).unwrap()
    }

    /// Does something with an interface of the namespace.
    pub fn link(&self, name: &str, work: impl FnOnce(&mut Netlink, u32) -> std::io::Result<()> + Send) {
        Netlink::in_netns(self.fd(), |netlink| {
            let index = netlink.link(name)?.expect("the interface is there").index;
            work(netlink, index)
        })
        .unwrap();
    }

    pub fn index(&self, name: &str) -> u32 {
        Netlink::in_netns(self.fd(), |netlink| netlink.link(name))
            .unwrap()
            .expect("the interface is there")
            .index
    }

    /// Address, and for `neighbour` (address, MAC) a fixed entry, so that nothing needs ARP.
    pub fn address(&self, name: &str, address: &str, neighbour: Option<(&str, MacAddr)>) {
        self.link(name, |netlink, index| netlink.add_address(index, address.parse().unwrap(), 24));
        if let Some((address, mac)) = neighbour {
            ip(&["-n", &self.name, "neigh", "add", address, "lladdr", &mac.to_string(), "dev", name]);
        }
    }

    /// Deletes the name, and with it the namespace if no descriptor holds it.
    pub fn delete(self) {}
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

pub fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments:?}");
}

/// A veth pair, both ends up: `near` in `here`, `far` in `there`.
pub fn veth(here: &Netns, near: &str, there: &Netns, far: &str) {
    Netlink::in_netns(here.fd(), |netlink| {
        netlink.create_veth(near, far, Some(there.fd()))?;
        let index = netlink.link(near)?.expect("just made").index;
        netlink.change(index, &Change { up: Some(true), ..Change::default() })
    })
    .unwrap();
    there.link(far, |netlink, index| netlink.set_up(index, true));
}

pub fn mac(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, last])
}

pub fn burst() -> (Vec<Frame>, Arena) {
    ((0..BURST).map(|_| Frame::default()).collect(), Arena::new())
}

/// The whole frame.
pub fn bytes(frame: &Frame, arena: &Arena) -> Vec<u8> {
    let mut bytes = vec![0; frame.len()];
    frame.copy_out(arena, 0, &mut bytes).unwrap();
    bytes
}

/// Sends one frame and flushes: what became of it.
pub fn send(port: &mut impl Port, frame: &mut Frame, arena: &Arena) -> Sent {
    match port.send(frame, arena) {
        Sent::Queued => {
            let flushed = port.flush(arena);
            assert_eq!(flushed.accepted + flushed.full + flushed.refused, 1, "{flushed:?}");
            assert_eq!(flushed.bytes, flushed.accepted * frame.len() as u64);
            match (flushed.accepted, flushed.full) {
                (1, _) => Sent::Accepted,
                (_, 1) => Sent::Full,
                _ => Sent::Refused,
            }
        }
        outcome => outcome,
    }
}

/// Waits until the port has something to say, and receives once. Panics after two seconds.
pub fn receive(port: &mut impl Port, frames: &mut [Frame], arena: &mut Arena) -> switchd_port::Received {
    let end = Instant::now() + Duration::from_secs(2);
    loop {
        arena.begin();
        let received = port.receive(frames, arena);
        if received.frames > 0 || received.unreadable > 0 || received.dead.is_some() {
            return received;
        }
        assert!(Instant::now() < end, "nothing came");
        wait(port, Duration::from_millis(100));
    }
}

/// Receives for `time` and expects nothing.
pub fn expect_silence(port: &mut impl Port, time: Duration) {
    let (mut frames, mut arena) = burst();
    let end = Instant::now() + time;
    while Instant::now() < end {
        arena.begin();
        let received = port.receive(&mut frames, &mut arena);
        assert!(received.dead.is_none(), "{received:?}");
        let seen: Vec<_> = frames[..received.frames].iter().map(|frame| bytes(frame, &arena)).collect();
        assert_eq!(seen, [] as [Vec<u8>; 0]);
        wait(port, Duration::from_millis(20));
    }
}

pub fn wait(port: &impl Port, time: Duration) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec { tv_sec: time.as_secs() as _, tv_nsec: i64::from(time.subsec_nanos()) as _ };
    let fd = port.descriptor().expect("a port with a descriptor");
    let _ = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout));
}

/// What a [`Wire`] saw.
#[derive(Debug, Default, Clone, Copy)]
pub struct Seen {
    pub frames: u64,
    pub superframes: u64,
    pub longest: usize,
    pub lost: u64,
}

/// Joins two ports by a thread until it is dropped or stopped: what one receives, the other sends.
pub struct Wire {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<Seen>>,
}

impl Wire {
    pub fn join(mut a: impl Port + 'static, mut b: impl Port + 'static) -> Wire {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut frames, mut arena) = burst();
            let mut seen = Seen::default();
            while !stopped.load(Ordering::Relaxed) {
                let there = pass(&mut a, &mut b, &mut frames, &mut arena, &mut seen);
                let back = pass(&mut b, &mut a, &mut frames, &mut arena, &mut seen);
                if !there && !back {
                    wait(&a, Duration::from_micros(200));
                }
            }
            seen
        });
        Wire { stop, thread: Some(thread) }
    }

    pub fn stop(mut self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn pass(
    from: &mut impl Port,
    to: &mut impl Port,
    frames: &mut [Frame],
    arena: &mut Arena,
    seen: &mut Seen,
) -> bool {
    arena.begin();
    let received = from.receive(frames, arena);
    for frame in &mut frames[..received.frames] {
        seen.frames += 1;
        seen.superframes += u64::from(frame.vnet.is_gso());
        seen.longest = seen.longest.max(frame.len());
        match to.send(frame, arena) {
            Sent::Accepted | Sent::Queued => {}
            Sent::Full | Sent::Refused | Sent::Down => seen.lost += 1,
        }
    }
    let flushed = to.flush(arena);
    seen.lost += flushed.full + flushed.refused;
    received.frames > 0
}

/// Sends `len` bytes by TCP from one namespace to `address` in another and checks that they arrive whole.
pub fn tcp_transfer(client: &Netns, server: &Netns, address: &str, len: usize) {
    use std::io::{Read, Write};
    let listener = server.run(|| std::net::TcpListener::bind(address).unwrap());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut seen = Vec::new();
            stream.read_to_end(&mut seen).unwrap();
            seen
        });
        let data: Vec<u8> = (0..len).map(|at| (at / 7 % 251) as u8).collect();
        let address = address.parse().unwrap();
        let mut stream =
            client.run(|| std::net::TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap());
        stream.write_all(&data).unwrap();
        drop(stream);
        assert!(reader.join().unwrap() == data, "the bytes arrived damaged");
    });
}
