//! Real traffic between the guests, and the watch for what must not be there.

use super::stage::Guest;
use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use switchd_port::netdev::{self, NetdevPort};
use switchd_port::netlink::Netlink;
use switchd_port::{Arena, Port};
use switchd_wire::checksum::Sum;
use switchd_wire::{Frame, MacAddr};

pub struct Pings {
    pub sent: u32,
    pub answered: u32,
    pub median: Duration,
    pub slowest: Duration,
}

/// ICMP echo (RFC 792), one after the other. The first one also resolves the address and is not counted.
pub fn ping(target: Ipv4Addr, count: u32) -> Result<Pings> {
    echo(target, count, Duration::from_millis(1), Duration::from_millis(500), true)
}

/// Where no answer is expected.
pub fn ping_unanswered(target: Ipv4Addr) -> Result<Pings> {
    echo(target, 5, Duration::from_millis(1), Duration::from_millis(40), false)
}

fn echo(target: Ipv4Addr, count: u32, gap: Duration, patience: Duration, warm: bool) -> Result<Pings> {
    let icmp = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp)
        .context("cannot open an ICMP socket")?;
    setsockopt(&icmp, sockopt::ReceiveTimeout, &TimeVal::new(0, patience.subsec_micros().into()))?;
    let to = SockaddrIn::from(std::net::SocketAddrV4::new(target, 0));
    let ident = (std::process::id() as u16) ^ u16::from(target.octets()[3]) << 8;
    let mut times = Vec::new();
    for sequence in 0..count + u32::from(warm) {
        let mut packet = [0u8; 64];
        packet[0] = 8;
        packet[4..6].copy_from_slice(&ident.to_be_bytes());
        packet[6..8].copy_from_slice(&(sequence as u16).to_be_bytes());
        let sum = Sum::new().over(&packet).checksum();
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
        let sent = Instant::now();
        // Unreachable while the address does not resolve: then there is no answer to count.
        if sendto(icmp.as_raw_fd(), &packet, &to, MsgFlags::empty()).is_ok()
            && await_reply(&icmp, ident, sequence as u16, sent + patience)
            && (sequence > 0 || !warm)
        {
            times.push(sent.elapsed());
        }
        std::thread::sleep(gap);
    }
    times.sort_unstable();
    Ok(Pings {
        sent: count,
        answered: times.len() as u32,
        median: times.get(times.len() / 2).copied().unwrap_or_default(),
        slowest: times.last().copied().unwrap_or_default(),
    })
}

fn await_reply(icmp: &OwnedFd, ident: u16, sequence: u16, deadline: Instant) -> bool {
    let mut packet = [0u8; 512];
    while Instant::now() < deadline {
        let Ok(len) = recv(icmp.as_raw_fd(), &mut packet, MsgFlags::empty()) else { return false };
        let header = usize::from(packet[0] & 15) * 4;
        let Some(reply) = packet[..len].get(header..header + 8) else { continue };
        if reply[0] == 0 && reply[4..6] == ident.to_be_bytes() && reply[6..8] == sequence.to_be_bytes() {
            return true;
        }
    }
    false
}

/// A TCP server that throws away what it gets.
pub struct Sink {
    thread: JoinHandle<()>,
}

pub fn sink() -> Result<(Sink, u16)> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let port = listener.local_addr()?.port();
    let thread = std::thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else { return };
        let mut buffer = vec![0; 256 * 1024];
        while matches!(stream.read(&mut buffer), Ok(1..)) {}
    });
    Ok((Sink { thread }, port))
}

impl Sink {
    pub fn stop(self) {
        let _ = self.thread.join();
    }
}

/// Sends for `time` and returns Gbit/s.
pub fn transfer(target: Ipv4Addr, port: u16, time: Duration) -> Result<f64> {
    let address = std::net::SocketAddr::from((target, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    let buffer = vec![0x5a; 256 * 1024];
    let (begun, mut bytes) = (Instant::now(), 0u64);
    while begun.elapsed() < time {
        bytes += stream.write(&buffer)? as u64;
    }
    Ok(bytes as f64 * 8.0 / begun.elapsed().as_secs_f64() / 1e9)
}

/// A broadcast that would reach every host of a network that is not isolated.
pub fn broadcast() -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_broadcast(true)?;
    for _ in 0..5 {
        socket.send_to(b"is anybody out there?", ("192.0.2.255", 4000))?;
    }
    Ok(())
}

/// Looks at every frame that reaches a guest's interface, and counts those from addresses that must not.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, u64)>,
}

impl Watch {
    pub fn start(guest: &Guest, forbidden: Vec<MacAddr>) -> Result<Watch> {
        let fd = guest.run(|| -> Result<OwnedFd> {
            let link = Netlink::new()?.link("eth0")?.context("no eth0")?;
            Ok(netdev::open(link.index, &netdev::Options::default())?)
        })??;
        let mut port = NetdevPort::from_fd(fd)?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut arena = Arena::new();
            let mut frames: Vec<Frame> = (0..64).map(|_| Frame::default()).collect();
            let (mut seen, mut found) = (0, 0);
            loop {
                // Read before the flag is looked at: what was there at the end is still counted.
                let last = flag.load(Relaxed);
                arena.begin();
                let received = port.receive(&mut frames, &mut arena);
                for frame in &frames[..received.frames] {
                    seen += 1;
                    found += u64::from(forbidden.contains(&frame.source()));
                }
                if received.frames == 0 {
                    if last {
                        return (seen, found);
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        });
        Ok(Watch { stop, thread })
    }

    /// How many frames were seen, and how many of them must not have been there.
    pub fn stop(self) -> Result<(u64, u64)> {
        self.stop.store(true, Relaxed);
        self.thread.join().ok().context("the watch failed")
    }
}

/// A TCP server that sends for some time to whoever comes first.
pub struct Source {
    thread: JoinHandle<Option<Ipv4Addr>>,
}

pub fn source(time: Duration) -> Result<(Source, u16)> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let port = listener.local_addr()?.port();
    let thread = std::thread::spawn(move || {
        let (mut stream, client) = listener.accept().ok()?;
        stream.set_write_timeout(Some(Duration::from_secs(2))).ok()?;
        let buffer = vec![0xa5; 256 * 1024];
        let begun = Instant::now();
        while begun.elapsed() < time && stream.write(&buffer).is_ok() {}
        match client.ip() {
            std::net::IpAddr::V4(address) => Some(address),
            std::net::IpAddr::V6(_) => None,
        }
    });
    Ok((Source { thread }, port))
}

impl Source {
    /// As whom the client was seen.
    pub fn client(self) -> Result<Ipv4Addr> {
        self.thread.join().ok().flatten().context("nobody came to download")
    }
}

/// Reads to the end and returns Gbit/s.
pub fn download(server: Ipv4Addr, port: u16) -> Result<f64> {
    let address = std::net::SocketAddr::from((server, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut buffer = vec![0; 256 * 1024];
    let (begun, mut bytes) = (Instant::now(), 0u64);
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(bytes as f64 * 8.0 / begun.elapsed().as_secs_f64() / 1e9),
            read => bytes += read as u64,
        }
    }
}
