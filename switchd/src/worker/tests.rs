//! A worker with ports in memory: frames go in, frames come out, commands change the way.

use super::command::{Command, Key, Mirror, NetworkConfig, Notice, PortConfig, Sink, VlanMode, Wanted};
use super::{Handle, Options, spawn};
use crossbeam_channel::{Receiver, unbounded};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};
use switchd_dataplane::DropReason;
use switchd_port::memory::MemoryPort;
use switchd_port::{Arena, Flushed, Offloads, Port, Received, Sent};
use switchd_wire::{Frame, Gso, VnetHeader};

const ALL: Offloads = Offloads { csum: true, tso4: true, tso6: true, uso: true };

struct Bench {
    worker: Handle,
    notices: Receiver<Notice>,
}

fn bench() -> Bench {
    let (tell, notices) = unbounded();
    let (worker, _) = spawn(Options::default(), Box::new(move |notice| drop(tell.send(notice)))).unwrap();
    Bench { worker, notices }
}

impl Bench {
    fn network(&self, name: &str) {
        let config =
            NetworkConfig { mtu: 1500, ageing: Duration::from_secs(300), mac_limit: 100, rstp: false };
        self.worker.run(Command::AddNetwork { name: name.into(), config }).unwrap();
    }

    fn device(&self, network: &str, name: &str, device: Box<dyn Port>) {
        let config = PortConfig { vlan: VlanMode::Transparent, ..PortConfig::default() };
        let (name, network) = (Key::from(name), Key::from(network));
        self.worker.run(Command::AddPort { name, network, config, device: Some(device) }).unwrap();
    }

    fn port(&self, network: &str, name: &str, offloads: Offloads) -> MemoryPort {
        let port = MemoryPort::new(offloads);
        self.device(network, name, Box::new(port.clone()));
        port
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.worker.run(Command::Stop);
    }
}

fn frame(to: u8, from: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0x5a; len];
    bytes[..12].copy_from_slice(&[2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from]);
    bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
    bytes
}

/// What arrived at the port within a second, at least `count` frames.
fn arrivals(port: &MemoryPort, count: usize) -> Vec<Vec<u8>> {
    let deadline = Instant::now() + Duration::from_secs(1);
    let mut taken = Vec::new();
    while taken.len() < count && Instant::now() < deadline {
        taken.extend(port.taken().into_iter().map(|(_, bytes)| bytes));
        std::thread::sleep(Duration::from_millis(1));
    }
    taken
}

#[test]
fn a_learned_address_gets_its_frames_alone() {
    let bench = bench();
    bench.network("lab");
    let ports = ["a", "b", "c"].map(|name| bench.port("lab", name, ALL));
    assert!(ports[0].inject(&frame(2, 1, 60), VnetHeader::default()));
    assert_eq!(arrivals(&ports[1], 1), [frame(2, 1, 60)]);
    assert_eq!(arrivals(&ports[2], 1), [frame(2, 1, 60)]);
    assert!(ports[1].inject(&frame(1, 2, 1400), VnetHeader::default()));
    assert_eq!(arrivals(&ports[0], 1), [frame(1, 2, 1400)]);
    assert!(ports[2].taken().is_empty());
    let snapshot = bench.worker.snapshot().unwrap();
    let a = snapshot.ports.iter().find(|port| &*port.name == "a").unwrap();
    assert_eq!((a.counters.rx_frames, a.counters.flooded, a.counters.tx_frames), (1, 1, 1));
    assert_eq!(snapshot.frames, 2);
    assert_eq!(bench.worker.fdb("lab").unwrap().len(), 2);
}

fn superframe() -> (Vec<u8>, VnetHeader) {
    let mut bytes = frame(2, 1, 14 + 20 + 20 + 4000);
    bytes[12..14].copy_from_slice(&[8, 0]);
    bytes[14] = 0x45;
    bytes[16..18].copy_from_slice(&(4040u16).to_be_bytes());
    bytes[20..22].copy_from_slice(&[0x40, 0]);
    bytes[22..24].copy_from_slice(&[64, 6]);
    bytes[46] = 0x50;
    let vnet = VnetHeader {
        needs_csum: true,
        gso: Gso::TcpV4,
        gso_size: 1000,
        hdr_len: 54,
        csum_start: 34,
        csum_offset: 16,
        ..VnetHeader::default()
    };
    (bytes, vnet)
}

#[test]
fn a_superframe_is_cut_for_a_port_that_cannot_take_it() {
    let bench = bench();
    bench.network("lab");
    let sender = bench.port("lab", "a", ALL);
    let receiver = bench.port("lab", "b", Offloads::default());
    let (bytes, vnet) = superframe();
    assert!(sender.inject(&bytes, vnet));
    let segments = arrivals(&receiver, 4);
    assert_eq!(segments.iter().map(Vec::len).collect::<Vec<_>>(), [1054; 4]);
    let payload: Vec<u8> = segments.iter().flat_map(|segment| segment[54..].to_vec()).collect();
    assert_eq!(payload, bytes[54..]);
    let snapshot = bench.worker.snapshot().unwrap();
    let b = snapshot.ports.iter().find(|port| &*port.name == "b").unwrap();
    assert_eq!((b.counters.tx_frames, b.counters.tx_segments), (1, 4));
}

/// Panics when it is asked to receive, as a bug in a backend would.
struct Bomb;

impl Port for Bomb {
    fn receive(&mut self, _: &mut [Frame], _: &mut Arena) -> Received {
        panic!("a bug")
    }
    fn send(&mut self, _: &mut Frame, _: &Arena) -> Sent {
        Sent::Accepted
    }
    fn flush(&mut self, _: &Arena) -> Flushed {
        Flushed::default()
    }
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn offloads(&self) -> Offloads {
        ALL
    }
}

#[test]
fn a_panic_costs_its_port_and_no_other() {
    let bench = bench();
    bench.network("lab");
    let ports = ["a", "b"].map(|name| bench.port("lab", name, ALL));
    bench.device("lab", "bomb", Box::new(Bomb));
    let notice = bench.notices.recv_timeout(Duration::from_secs(1)).unwrap();
    assert!(
        matches!(notice, Notice::Panicked { ref port, ref message } if &**port == "bomb" && message == "a bug")
    );
    assert!(ports[0].inject(&frame(2, 1, 60), VnetHeader::default()));
    assert_eq!(arrivals(&ports[1], 1).len(), 1);
    let snapshot = bench.worker.snapshot().unwrap();
    assert!(snapshot.ports.iter().any(|port| &*port.name == "bomb" && !port.link));
}

/// A device whose descriptor has died.
struct Dead;

impl Port for Dead {
    fn receive(&mut self, _: &mut [Frame], _: &mut Arena) -> Received {
        Received { dead: Some(io::ErrorKind::NotFound.into()), ..Received::default() }
    }
    fn send(&mut self, _: &mut Frame, _: &Arena) -> Sent {
        Sent::Refused
    }
    fn flush(&mut self, _: &Arena) -> Flushed {
        Flushed::default()
    }
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn offloads(&self) -> Offloads {
        ALL
    }
}

/// A device that has a link, and nobody at its other end.
struct Deserted;

impl Port for Deserted {
    fn receive(&mut self, _: &mut [Frame], _: &mut Arena) -> Received {
        Received::default()
    }
    fn send(&mut self, _: &mut Frame, _: &Arena) -> Sent {
        Sent::Down
    }
    fn flush(&mut self, _: &Arena) -> Flushed {
        Flushed::default()
    }
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn offloads(&self) -> Offloads {
        Offloads::default()
    }
}

#[test]
fn what_meets_nobody_is_counted_as_link_down() {
    let bench = bench();
    bench.network("lab");
    let ports = ["a", "b"].map(|name| bench.port("lab", name, ALL));
    bench.device("lab", "c", Box::new(Deserted));
    // Flooded, whole and in segments.
    assert!(ports[0].inject(&frame(0xff, 1, 60), VnetHeader::default()));
    let (bytes, vnet) = superframe();
    assert!(ports[0].inject(&bytes, vnet));
    assert_eq!(arrivals(&ports[1], 2).len(), 2);
    let snapshot = bench.worker.snapshot().unwrap();
    let c = snapshot.ports.iter().find(|port| &*port.name == "c").unwrap();
    assert_eq!(c.counters.dropped_out.get(DropReason::LinkDown), 2);
    assert_eq!(c.counters.dropped_out.total(), 2);
}

#[test]
fn a_dead_device_is_told_once_and_can_be_replaced() {
    let bench = bench();
    bench.network("lab");
    bench.device("lab", "a", Box::new(Dead));
    let peer = bench.port("lab", "b", ALL);
    let notice = bench.notices.recv_timeout(Duration::from_secs(1)).unwrap();
    assert!(matches!(notice, Notice::DeviceLost { ref port, .. } if &**port == "a"));
    let again = MemoryPort::new(ALL);
    let device: Option<Box<dyn Port>> = Some(Box::new(again.clone()));
    bench.worker.run(Command::SetDevice { port: "a".into(), device }).unwrap();
    assert!(again.inject(&frame(2, 1, 60), VnetHeader::default()));
    assert_eq!(arrivals(&peer, 1).len(), 1);
    assert!(bench.notices.try_recv().is_err());
}

#[test]
fn a_network_moves_to_another_worker_with_all_it_has() {
    let (here, there) = (bench(), bench());
    here.network("lab");
    let ports = ["a", "b", "c"].map(|name| here.port("lab", name, ALL));
    let mirror = Mirror {
        ports: vec![],
        networks: vec![("lab".into(), Wanted { rx: true, tx: false })],
        filter: None,
        to: Sink::Port("c".into()),
    };
    here.worker.run(Command::AddMirror { name: "watch".into(), mirror: Box::new(mirror) }).unwrap();
    assert!(ports[0].inject(&frame(2, 1, 60), VnetHeader::default()));
    assert_eq!(arrivals(&ports[1], 1).len(), 1);
    assert_eq!(arrivals(&ports[2], 1).len(), 1);

    here.worker.hand_over(vec!["lab".into()], &there.worker).unwrap();
    assert!(here.worker.snapshot().unwrap().ports.is_empty());
    assert!(ports[1].inject(&frame(1, 2, 60), VnetHeader::default()));
    assert_eq!(arrivals(&ports[0], 1).len(), 1);
    assert_eq!(arrivals(&ports[2], 1).len(), 1);
    let snapshot = there.worker.snapshot().unwrap();
    let a = snapshot.ports.iter().find(|port| &*port.name == "a").unwrap();
    assert_eq!((a.counters.rx_frames, a.counters.tx_frames), (1, 1));
    let network = &snapshot.networks[0].counters;
    assert_eq!((network.offered, network.forwarded + network.fanout), (2, 2));
}

#[test]
fn a_refused_command_changes_nothing() {
    let bench = bench();
    bench.network("lab");
    let config = PortConfig { vlan: VlanMode::Transparent, ..PortConfig::default() };
    let command = Command::AddPort { name: "a".into(), network: "nowhere".into(), config, device: None };
    assert!(bench.worker.run(command).is_err());
    let port = bench.port("lab", "a", ALL);
    assert!(bench.worker.run(Command::RemoveNetwork { name: "lab".into() }).is_err());
    drop(port);
    bench.worker.run(Command::RemovePort { name: "a".into() }).unwrap();
    bench.worker.run(Command::RemoveNetwork { name: "lab".into() }).unwrap();
    assert!(bench.worker.snapshot().unwrap().networks.is_empty());
}
