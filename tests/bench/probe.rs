//! The benchmark's generator and stopwatch, the same for every switch that is measured.
//!
//! `flood IF SECONDS SOURCE DESTINATION LENGTH` sends equal frames by AF_PACKET as fast as it can and prints
//! how many the kernel took. `echo ADDRESS:PORT` answers datagrams. `rtt ADDRESS:PORT COUNT GAP_US` sends one
//! datagram at a time and prints the round-trip times' median and 99th percentile in microseconds, and how
//! many were lost.

use anyhow::{Context, Result, bail};
use std::net::UdpSocket;
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
        _ => bail!("flood IF SECONDS SOURCE DESTINATION LENGTH | echo ADDRESS | rtt ADDRESS COUNT GAP_US"),
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
