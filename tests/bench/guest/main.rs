//! Two guests' NICs in one thread, for switches with vhost-user sockets: more flows, longer frames and a finer
//! clock than DPDK's testpmd has. The switch listens on both sockets.
//!
//! `load SOCKET0 SOCKET1 KEY=VALUE…` sends as fast as it goes and prints, as one JSON object, what arrived at
//! each side. Keys: `seconds`, `warmup`, `size` (of a frame), `both` (0 or 1), `flows`, `vary` (`ports` or
//! `addresses`), `mss` (superframes, with segments of so many bytes), `touch` (1: every byte of a frame is
//! written before it is sent and read when it came, as programs in guests would), `gateway` (the first guest
//! stands behind a router with this IP or MAC address, the second outside of it), `window` (frames a direction that may be
//! under way), `burst`, `cpu`.
//!
//! `latency SOCKET0 SOCKET1 KEY=VALUE…` sends one frame at a time and measures, with one clock, until it is
//! seen on the other side. Keys: `count`, `gap` (µs of silence before each), `size`, `cpu`.

mod frames;
mod nic;

use anyhow::{Context, Result, bail, ensure};
use frames::{Flows, VARIED, Vary, arp, parse_arp};
use nic::{HEADER, Nic};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use switchd_port::sys::{cycles, pin_to_cpu};
use switchd_wire::MacAddr;

/// Larger than any frame.
const LONGEST: usize = 65_550;
const BROADCAST: MacAddr = MacAddr([0xff; 6]);

struct Options(HashMap<String, String>);

impl Options {
    fn number(&self, key: &str, usual: usize) -> Result<usize> {
        self.0.get(key).map_or(Ok(usual), |text| text.parse().with_context(|| format!("{key}={text}")))
    }

    fn seconds(&self, key: &str, usual: f64) -> Result<Duration> {
        let text =
            self.0.get(key).map_or(Ok(usual), |text| text.parse().with_context(|| format!("{key}={text}")));
        text.map(Duration::from_secs_f64)
    }
}

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [what, one, two, pairs @ ..] = &words[..] else { bail!("load|latency SOCKET0 SOCKET1 KEY=VALUE…") };
    let pair = |word: &String| {
        let (key, value) = word.split_once('=').with_context(|| format!("{word:?} is not KEY=VALUE"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    let options = Options(pairs.iter().map(pair).collect::<Result<_>>()?);
    pin_to_cpu(options.number("cpu", 0)?)?;
    match what.as_str() {
        "load" => load(one, two, &options),
        "latency" => latency(one, two, &options),
        other => bail!("{other}: load or latency"),
    }
}

fn nics(one: &str, two: &str, longest: usize, superframes: bool) -> Result<[Nic; 2]> {
    Ok([Nic::connect(one, longest, superframes)?, Nic::connect(two, longest, superframes)?])
}

/// Each address is heard once on its side, with the frames' beginnings that will be sent.
fn introduce(nics: &mut [Nic; 2], flows: &Flows, beginnings: &[Vec<[u8; VARIED]>; 2]) -> Result<()> {
    let mut head = [0; 64];
    let each = if flows.vary == Vary::Addresses { flows.count } else { 1 };
    let end = Instant::now() + Duration::from_secs(20);
    // Twice: the first round is flooded, the second one is not.
    for round in 0..2 {
        for pair in beginnings[0].iter().zip(&beginnings[1]).take(each) {
            for (side, beginning) in [pair.0, pair.1].into_iter().enumerate() {
                while nics[side].room() == 0 {
                    ensure!(Instant::now() < end, "the switch takes no frames");
                }
                nics[side].send(beginning);
                nics[side].commit();
                drain(nics, &mut head);
            }
        }
        std::thread::sleep(Duration::from_millis(100 * (round + 1)));
        drain(nics, &mut head);
    }
    Ok(())
}

fn drain(nics: &mut [Nic; 2], head: &mut [u8]) {
    for nic in nics {
        while nic.receive(head, false).is_some() {}
        nic.replenish();
    }
}

/// Finds the gateway's MAC address, and answers whoever asks for the second guest's.
fn resolve(nics: &mut [Nic; 2], flows: &mut Flows, gateway: [u8; 4]) -> Result<()> {
    let question = arp(1, (flows.mac(0, 0), flows.ip[0]), (BROADCAST, gateway));
    let mut head = [0; 64];
    for _ in 0..50 {
        say(&mut nics[0], &question);
        let end = Instant::now() + Duration::from_millis(100);
        while Instant::now() < end {
            while let Some(came) = nics[0].receive(&mut head, false) {
                if let Some((2, mac, ip, _)) = parse_arp(&head[..came.head])
                    && ip == gateway
                {
                    flows.gateway = Some(mac);
                    return Ok(());
                }
            }
            nics[0].replenish();
        }
    }
    bail!("nobody answers for the gateway")
}

/// The second guest answers for its address.
fn answer(nic: &mut Nic, flows: &Flows, head: &[u8]) {
    if let Some((1, mac, ip, wanted)) = parse_arp(head)
        && wanted == flows.ip[1]
    {
        say(nic, &arp(2, (flows.mac(1, 0), wanted), (mac, ip)));
    }
}

/// Sends one frame from a NIC that has nothing else to send: its buffers are made over.
fn say(nic: &mut Nic, frame: &[u8]) {
    nic.prepare(&[0; HEADER], frame);
    if nic.room() > 0 {
        nic.send(&frame[..VARIED]);
        nic.commit();
    }
}

#[derive(Default, Clone, Copy)]
struct Side {
    sent: u64,
    frames: u64,
    bytes: u64,
}

struct Load {
    nics: [Nic; 2],
    flows: Flows,
    size: usize,
    touch: bool,
    routed: bool,
    burst: usize,
    /// Frames a direction that may be under way.
    window: u64,
    beginnings: [Vec<[u8; VARIED]>; 2],
    contents: [Vec<u8>; 2],
    /// What each NIC has sent and received, and the flow that it sends next.
    sides: [Side; 2],
    next: [usize; 2],
    /// Frames that were given up, and when one last came, a direction by its sender.
    lost: [u64; 2],
    came: [Instant; 2],
    head: Vec<u8>,
}

/// Frames that have not come for so long are lost.
const GIVEN_UP: Duration = Duration::from_millis(20);

impl Load {
    fn new(one: &str, two: &str, options: &Options) -> Result<Load> {
        let size = options.number("size", 64)?.clamp(60, 65_549);
        let mss = options.number("mss", 0)? as u16;
        let touch = options.number("touch", 0)? == 1;
        let vary = match options.0.get("vary").map(String::as_str) {
            None | Some("ports") => Vary::Ports,
            Some("addresses") => Vary::Addresses,
            Some(other) => bail!("vary={other}"),
        };
        let count = options.number("flows", 1)?.max(1);
        let mut flows = Flows { count, vary, gateway: None, ip: [[10, 7, 0, 20], [10, 7, 0, 21]] };
        let mut nics = nics(one, two, size, mss > 0)?;
        let routed = options.0.get("gateway");
        if let Some(gateway) = routed {
            flows.ip[1] = [192, 0, 2, 1];
            match gateway.parse::<std::net::Ipv4Addr>() {
                Ok(ip) => resolve(&mut nics, &mut flows, ip.octets())?,
                Err(_) => flows.gateway = Some(gateway.parse()?),
            }
        }
        let content = |side: usize, flow: usize| match mss {
            0 => ([0; HEADER], flows.frame(side, flow, size)),
            mss => flows.superframe(side, size, mss),
        };
        let beginnings = [0, 1].map(|side| {
            let begins = |flow| content(side, flow).1[..VARIED].try_into().expect("no frame is shorter");
            (0..count).map(begins).collect()
        });
        let contents = [0, 1].map(|side| {
            let (header, frame) = content(side, 0);
            nics[side].prepare(&header, &frame);
            frame
        });
        if routed.is_none() {
            introduce(&mut nics, &flows, &beginnings)?;
        } else {
            // A switch that has forgotten the second guest would flood what is for it.
            say(&mut nics[1], &arp(2, (flows.mac(1, 0), flows.ip[1]), (BROADCAST, flows.ip[1])));
        }
        Ok(Load {
            nics,
            flows,
            size,
            touch,
            routed: routed.is_some(),
            burst: options.number("burst", 32)?,
            window: options.number("window", 256)? as u64,
            beginnings,
            contents,
            sides: [Side::default(); 2],
            next: [0; 2],
            lost: [0; 2],
            came: [Instant::now(); 2],
            head: vec![0; if touch { LONGEST } else { 64 }],
        })
    }

    fn receive(&mut self, side: usize) -> usize {
        let nic = &mut self.nics[side];
        let mut did = 0;
        while did < self.burst {
            let Some(came) = nic.receive(&mut self.head, self.touch) else { break };
            did += 1;
            // Nobody but the other guest sends frames of this length.
            if came.len == self.size {
                self.sides[side].frames += 1;
                self.sides[side].bytes += came.len as u64;
            } else if self.routed && side == 1 {
                answer(nic, &self.flows, &self.head[..came.head.min(64)]);
            }
        }
        if did > 0 {
            nic.replenish();
        }
        did
    }

    fn send(&mut self, side: usize, now: Instant, before: u64) -> usize {
        let arrived = self.sides[1 - side].frames;
        if arrived > before {
            self.came[side] = now;
        }
        let mut under_way = self.sides[side].sent.saturating_sub(arrived + self.lost[side]);
        if under_way > 0 && now - self.came[side] > GIVEN_UP {
            self.lost[side] += under_way;
            (under_way, self.came[side]) = (0, now);
        }
        let nic = &mut self.nics[side];
        let room = u64::from(nic.room()).min(self.window.saturating_sub(under_way));
        let count = self.burst.min(room as usize);
        for _ in 0..count {
            let flow = self.next[side];
            self.next[side] = if flow + 1 == self.flows.count { 0 } else { flow + 1 };
            let beginning = &self.beginnings[side][flow];
            if self.touch {
                self.contents[side][..VARIED].copy_from_slice(beginning);
                nic.send(&self.contents[side]);
            } else {
                nic.send(beginning);
            }
        }
        if count > 0 {
            self.sides[side].sent += count as u64;
            nic.commit();
        }
        count
    }

    /// Lets frames go for a time. Returns how long it was, and the cycles in which there was something to do.
    fn run(&mut self, senders: &[usize], time: Duration) -> (Duration, u64) {
        let (begun, mut busy) = (Instant::now(), 0);
        loop {
            let now = Instant::now();
            if now - begun >= time {
                return (now - begun, busy);
            }
            let cycle = cycles();
            let before = [self.sides[1].frames, self.sides[0].frames];
            let mut did = self.receive(0) + self.receive(1);
            for &side in senders {
                did += self.send(side, now, before[side]);
            }
            if did > 0 {
                busy += cycles().wrapping_sub(cycle);
            }
        }
    }
}

fn load(one: &str, two: &str, options: &Options) -> Result<()> {
    let both = options.number("both", 0)? == 1;
    let (warmup, time) = (options.seconds("warmup", 0.3)?, options.seconds("seconds", 1.0)?);
    let senders: &[usize] = if both { &[0, 1] } else { &[0] };
    let mut load = Load::new(one, two, options)?;
    ensure!(!(both && load.routed), "a guest outside of a router only receives");
    load.run(senders, warmup);
    let (before, lost) = (load.sides, load.lost);
    // Whoever watches begins to count.
    println!("warm");
    let (spent, busy) = load.run(senders, time);
    let frames = [0, 1].map(|side| load.sides[side].frames - before[side].frames);
    let bytes: u64 = (0..2).map(|side| load.sides[side].bytes - before[side].bytes).sum();
    let lost: u64 = (0..2).map(|side| load.lost[side] - lost[side]).sum();
    let own = busy as f64 / (frames[0] + frames[1]).max(1) as f64;
    println!(
        "{{\"seconds\": {}, \"frames\": {frames:?}, \"bytes\": {bytes}, \"lost\": {lost}, \"cycles\": {own:.1}}}",
        spent.as_secs_f64()
    );
    Ok(())
}

fn latency(one: &str, two: &str, options: &Options) -> Result<()> {
    let size = options.number("size", 64)?.clamp(60, 1514);
    let count = options.number("count", 10_000)?;
    let gap = Duration::from_micros(options.number("gap", 0)? as u64);
    let flows = Flows { count: 1, vary: Vary::Ports, gateway: None, ip: [[10, 7, 0, 20], [10, 7, 0, 21]] };
    let mut nics = nics(one, two, size, false)?;
    let mut beginnings = [Vec::new(), Vec::new()];
    for side in 0..2 {
        let frame = flows.frame(side, 0, size);
        nics[side].prepare(&[0; HEADER], &frame);
        beginnings[side].push(frame[..VARIED].try_into()?);
    }
    introduce(&mut nics, &flows, &beginnings)?;
    let mut head = [0; 64];
    let (mut times, mut lost) = (Vec::with_capacity(count), 0);
    for number in 0..count {
        // To and fro, as a question and its answer.
        let side = number % 2;
        let quiet = Instant::now();
        while quiet.elapsed() < gap {}
        let sent = Instant::now();
        nics[side].room();
        nics[side].send(&beginnings[side][0]);
        nics[side].commit();
        let came = loop {
            match nics[1 - side].receive(&mut head, true) {
                Some(came) if came.len == size => break Some(sent.elapsed()),
                _ if sent.elapsed() > Duration::from_millis(500) => break None,
                _ => {}
            }
        };
        nics[1 - side].replenish();
        match came {
            Some(time) => times.push(time),
            None => lost += 1,
        }
    }
    times.sort_unstable();
    let at =
        |share: usize| times.get(times.len() * share / 1000).map_or(0.0, |time| time.as_nanos() as f64 / 1e3);
    println!(
        "{{\"p50\": {:.2}, \"p99\": {:.2}, \"p999\": {:.2}, \"lost\": {lost}}}",
        at(500),
        at(990),
        at(999)
    );
    Ok(())
}
