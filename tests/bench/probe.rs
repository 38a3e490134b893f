//! The benchmark's generator and stopwatch, the same for every switch that is measured.
//!
//! `flood IF SECONDS SOURCE DESTINATION LENGTH` sends equal frames by AF_PACKET as fast as it can and prints
//! how many the kernel took. `echo ADDRESS:PORT` answers datagrams. `rtt ADDRESS:PORT COUNT GAP_US` sends one
//! datagram at a time and prints the round-trip times' median and 99th percentile in microseconds, and how
//! many were lost.
//!
//! `accept ADDRESS:PORT` reads a byte from each TCP connection, answers it and closes; `connect ADDRESS:PORT
//! SECONDS N` opens such connections, N at a time, and prints how many a second were finished, and failed.
//!
//! `flows IF SECONDS SOURCE DESTINATION SOURCE_IP DESTINATION_IP PORTS REMOTES RATE` sends 64-byte UDP frames
//! (the frame check sequence counted) by AF_PACKET, of PORTS × REMOTES flows: source ports from 20000,
//! destination ports from 10000. With SECONDS 0 each flow gets one frame, RATE a second; else a flow at
//! random gets each frame, as fast as it goes.
//!
//! `pulse ADDRESS:PORT COUNT GAP_US` sends numbered datagrams at a steady rate, `count ADDRESS:PORT COUNT` receives
//! them and prints how many were lost, came twice, came late.

use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use switchd_port::netdev::{self, NetdevPort};
use switchd_port::netlink::Netlink;
use switchd_port::{Arena, Port};
use switchd_wire::frame::HEAD_MAX;
use switchd_wire::{Frame, MacAddr, Tail, VnetHeader};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["flood", interface, seconds, source, destination, length] => {
            flood(interface, seconds.parse()?, source.parse()?, destination.parse()?, length.parse()?)
        }
        ["echo", address] => echo(address),
        ["rtt", address, count, gap] => rtt(address, count.parse()?, Duration::from_micros(gap.parse()?)),
        ["accept", address] => accept(address),
        ["connect", address, seconds, at_once] => connect(address, seconds.parse()?, at_once.parse()?),
        ["flows", interface, seconds, source, destination, from, to, ports, remotes, rate] => {
            let flows = Flows {
                ports: ports.parse()?,
                remotes: remotes.parse()?,
                from: from.parse()?,
                to: to.parse()?,
            };
            flows.send(interface, seconds.parse()?, (source.parse()?, destination.parse()?), rate.parse()?)
        }
        ["pulse", address, count, gap] => pulse(address, count.parse()?, Duration::from_micros(gap.parse()?)),
        ["count", address, expected] => count(address, expected.parse()?),
        _ => bail!(
            "flood IF SECONDS SOURCE DESTINATION LENGTH | echo ADDRESS | rtt ADDRESS COUNT GAP_US | …: see the source"
        ),
    }
}

fn flood(interface: &str, seconds: f64, source: MacAddr, destination: MacAddr, length: usize) -> Result<()> {
    let link = Netlink::new()?.link(interface)?.with_context(|| format!("no interface {interface}"))?;
    let mut port = NetdevPort::from_fd(netdev::open(link.index, &netdev::Options::default())?)?;
    let length = length.clamp(15, HEAD_MAX);
    let mut bytes = vec![0u8; length];
    bytes[..6].copy_from_slice(&destination.0);
    bytes[6..12].copy_from_slice(&source.0);
    // Local experimental EtherType 1 (IEEE 802): nobody's stack takes it.
    bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
    let mut frame = Frame::default();
    let arena = Arena::new();
    let (begun, mut taken, mut offered) = (Instant::now(), 0u64, 0u64);
    let time = Duration::from_secs_f64(seconds);
    while begun.elapsed() < time {
        for _ in 0..64 {
            frame.receive_area()[..length].copy_from_slice(&bytes);
            frame.arrived(length, Tail::default(), VnetHeader::default());
            port.send(&mut frame, &arena);
        }
        taken += port.flush(&arena).accepted;
        offered += 64;
    }
    println!("{taken} {offered} {}", begun.elapsed().as_secs_f64());
    Ok(())
}

fn echo(address: &str) -> Result<()> {
    let socket = UdpSocket::bind(address)?;
    let mut buffer = [0; 2048];
    loop {
        let (len, from) = socket.recv_from(&mut buffer)?;
        // Whoever asked may be gone by now.
        let _ = socket.send_to(&buffer[..len], from);
    }
}

fn rtt(address: &str, count: u32, gap: Duration) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut times = Vec::new();
    let mut buffer = [0; 64];
    for number in 0..count {
        let sent = Instant::now();
        if socket.send(&number.to_be_bytes()).is_ok() {
            while let Ok(len) = socket.recv(&mut buffer) {
                if buffer[..len] == number.to_be_bytes() {
                    times.push(sent.elapsed());
                    break;
                }
            }
        }
        std::thread::sleep(gap.saturating_sub(sent.elapsed()));
    }
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).map_or(0.0, |t| t.as_nanos() as f64 / 1e3);
    println!("{:.1} {:.1} {}", at(50), at(99), count as usize - times.len());
    Ok(())
}

/// Threads that answer connections: more than a client opens at once.
const ACCEPTORS: usize = 32;

fn accept(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address)?;
    std::thread::scope(|scope| {
        for _ in 0..ACCEPTORS {
            scope.spawn(|| {
                while let Ok((mut stream, _)) = listener.accept() {
                    // A client that is gone does not end the server.
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
                    let mut byte = [0];
                    if stream.read_exact(&mut byte).is_ok() {
                        let _ = stream.write_all(&byte);
                    }
                }
            });
        }
    });
    Ok(())
}

fn connect(address: &str, seconds: f64, at_once: usize) -> Result<()> {
    let address: SocketAddr = address.parse()?;
    let once = || -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"?")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        if answer == b"?" { Ok(()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
    };
    let (begun, time) = (Instant::now(), Duration::from_secs_f64(seconds));
    let mut totals = (0u64, 0u64);
    std::thread::scope(|scope| {
        let client = || {
            let mut seen = (0u64, 0u64);
            while begun.elapsed() < time {
                if once().is_ok() {
                    seen.0 += 1;
                } else {
                    seen.1 += 1;
                }
            }
            seen
        };
        let clients: Vec<_> = (0..at_once).map(|_| scope.spawn(client)).collect();
        for each in clients {
            let (finished, failed) = each.join().expect("a client does not panic");
            totals = (totals.0 + finished, totals.1 + failed);
        }
    });
    println!("{:.1} {}", totals.0 as f64 / begun.elapsed().as_secs_f64(), totals.1);
    Ok(())
}

/// UDP flows between two addresses.
struct Flows {
    ports: u16,
    remotes: u16,
    from: Ipv4Addr,
    to: Ipv4Addr,
}

/// Without the frame check sequence.
const SHORT: usize = 60;

impl Flows {
    fn frame(&self, macs: (MacAddr, MacAddr)) -> [u8; SHORT] {
        let mut bytes = [0u8; SHORT];
        bytes[..6].copy_from_slice(&macs.1.0);
        bytes[6..12].copy_from_slice(&macs.0.0);
        bytes[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0]);
        bytes[16..18].copy_from_slice(&(SHORT as u16 - 14).to_be_bytes());
        bytes[22..24].copy_from_slice(&[64, 17]);
        bytes[26..30].copy_from_slice(&self.from.octets());
        bytes[30..34].copy_from_slice(&self.to.octets());
        let words =
            bytes[14..34].chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        let sum: u32 = words.sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        bytes[24..26].copy_from_slice(&(!(folded as u16)).to_be_bytes());
        // The UDP checksum stays zero: none (RFC 768).
        bytes[38..40].copy_from_slice(&(SHORT as u16 - 34).to_be_bytes());
        bytes
    }

    fn send(&self, interface: &str, seconds: f64, macs: (MacAddr, MacAddr), rate: f64) -> Result<()> {
        let link = Netlink::new()?.link(interface)?.with_context(|| format!("no interface {interface}"))?;
        let mut port = NetdevPort::from_fd(netdev::open(link.index, &netdev::Options::default())?)?;
        let mut bytes = self.frame(macs);
        let (mut frame, arena) = (Frame::default(), Arena::new());
        let flows = u64::from(self.ports) * u64::from(self.remotes);
        let (begun, mut taken, mut offered) = (Instant::now(), 0u64, 0u64);
        let (once, time) = (seconds == 0.0, Duration::from_secs_f64(seconds));
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        while if once { offered < flows } else { begun.elapsed() < time } {
            for _ in 0..64 {
                let flow = if once {
                    offered % flows
                } else {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random % flows
                };
                let port_out = 20_000 + (flow % u64::from(self.ports)) as u16;
                let remote = 10_000 + (flow / u64::from(self.ports)) as u16;
                bytes[34..36].copy_from_slice(&port_out.to_be_bytes());
                bytes[36..38].copy_from_slice(&remote.to_be_bytes());
                frame.receive_area()[..SHORT].copy_from_slice(&bytes);
                frame.arrived(SHORT, Tail::default(), VnetHeader::default());
                port.send(&mut frame, &arena);
                offered += 1;
            }
            taken += port.flush(&arena).accepted;
            if once {
                let due = Duration::from_secs_f64(offered as f64 / rate);
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
            }
        }
        println!("{taken} {offered} {}", begun.elapsed().as_secs_f64());
        Ok(())
    }
}

fn pulse(address: &str, count: u32, gap: Duration) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(address)?;
    let begun = Instant::now();
    for number in 0..count {
        // A probe that the own stack refuses is a lost one.
        let _ = socket.send(&number.to_be_bytes());
        std::thread::sleep((gap * (number + 1)).saturating_sub(begun.elapsed()));
    }
    Ok(())
}

fn count(address: &str, expected: u32) -> Result<()> {
    let socket = UdpSocket::bind(address)?;
    // The first may be awaited longer than the ones after it.
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut seen = vec![false; expected as usize];
    let (mut twice, mut late, mut highest) = (0, 0, None);
    let mut buffer = [0; 64];
    while let Ok(len) = socket.recv(&mut buffer) {
        socket.set_read_timeout(Some(Duration::from_millis(800)))?;
        let Ok(bytes) = <[u8; 4]>::try_from(&buffer[..len]) else { continue };
        let number = u32::from_be_bytes(bytes);
        let Some(slot) = seen.get_mut(number as usize) else { continue };
        if std::mem::replace(slot, true) {
            twice += 1;
        } else if highest.is_some_and(|highest| number < highest) {
            late += 1;
        }
        highest = highest.max(Some(number));
    }
    println!("{} {twice} {late}", seen.iter().filter(|seen| !**seen).count());
    Ok(())
}
