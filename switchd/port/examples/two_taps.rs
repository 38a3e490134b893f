//! A wire between two taps: what a worker does without its dataplane, for measuring the rim alone.
//!
//! `two_taps NAME:NETNS NAME:NETNS [--burst N] [--spin]`, as root. The taps are made (addresses
//! 02:00:00:00:00:01 and …02), and deleted at the end of standard input.

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use switchd_port::tap::{TapFactory, TapSpec};
use switchd_port::{Arena, Port, TapPort, netns};
use switchd_wire::frame::BURST;
use switchd_wire::{Frame, MacAddr};

static STOP: AtomicBool = AtomicBool::new(false);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1));
    let burst = value("--burst").map_or(Ok(BURST), |text| text.parse())?.clamp(1, BURST);
    let spin = arguments.iter().any(|a| a == "--spin");
    let mut factory = TapFactory::new()?;
    let mut places = Vec::new();
    let mut ports = Vec::new();
    for (number, place) in arguments.iter().take(2).enumerate() {
        let (name, netns) = place.split_once(':').ok_or("NAME:NETNS expected")?;
        let netns = netns::open(netns)?;
        let mac = MacAddr([2, 0, 0, 0, 0, number as u8 + 1]);
        let tap = factory.open(&TapSpec { name, netns: Some(netns.as_fd()), mac, mtu: 1500 })?;
        ports.push(TapPort::from_fd(tap.fd)?);
        places.push((name.to_owned(), netns));
    }
    std::thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        STOP.store(true, Ordering::Relaxed);
    });
    run(&mut ports, burst, spin)?;
    for (name, netns) in places {
        factory.delete(&name, Some(netns.as_fd()))?;
    }
    Ok(())
}

fn run(ports: &mut [TapPort], burst: usize, spin: bool) -> io::Result<()> {
    let mut poll = Poll::new()?;
    for (number, port) in ports.iter().enumerate() {
        let fd = port.descriptor().expect("a tap has one").as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), Token(number), Interest::READABLE)?;
    }
    let mut frames: Vec<Frame> = (0..burst).map(|_| Frame::default()).collect();
    let mut arena = Arena::new();
    let mut events = Events::with_capacity(8);
    let mut ready = [true; 2];
    let (mut count, mut bytes, mut bursts, mut full) = (0u64, 0u64, 0u64, 0u64);
    while !STOP.load(Ordering::Relaxed) {
        let wait = if ready.contains(&true) || spin { Duration::ZERO } else { Duration::from_millis(100) };
        poll.poll(&mut events, Some(wait))?;
        for event in &events {
            ready[event.token().0] = true;
        }
        for from in 0..2 {
            if !std::mem::take(&mut ready[from]) {
                continue;
            }
            arena.begin();
            let received = ports[from].receive(&mut frames, &mut arena);
            if let Some(error) = received.dead {
                return Err(error);
            }
            let to = &mut ports[1 - from];
            for frame in &mut frames[..received.frames] {
                bytes += frame.len() as u64;
                full += u64::from(to.send(frame, &arena) != switchd_port::Sent::Accepted);
            }
            to.flush(&arena);
            count += received.frames as u64;
            bursts += u64::from(received.frames > 0);
            ready[from] = received.more;
        }
    }
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD)?;
    let cpu = [usage.user_time(), usage.system_time()]
        .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6);
    eprintln!(
        "frames {count} bytes {bytes} bursts {bursts} not accepted {full} cpu {:.3} + {:.3} s, {:.0} ns a frame, {:.3} s a GB",
        cpu[0],
        cpu[1],
        (cpu[0] + cpu[1]) * 1e9 / count.max(1) as f64,
        (cpu[0] + cpu[1]) * 1e9 / bytes.max(1) as f64,
    );
    Ok(())
}
