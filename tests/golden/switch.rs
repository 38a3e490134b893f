//! A worker with ports in memory that a test feeds one packet at a time.

use crate::pcapng::Packet;
use rustix::event::{EventfdFlags, eventfd};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use switchd::worker::command::{Command, Key, LinkFacts, Notice};
use switchd::worker::{Handle, Options, spawn};
use switchd_dataplane::{NetworkConfig, PortConfig, VlanMode};
use switchd_port::memory::MemoryPort;
use switchd_port::{Arena, Flushed, Offloads, Port, Received, Sent};
use switchd_wire::{Frame, MacAddr, VnetHeader};

/// A port in memory that wakes its worker.
#[derive(Clone)]
struct Awake {
    port: MemoryPort,
    bell: Arc<OwnedFd>,
}

impl Awake {
    fn new(offloads: Offloads) -> Awake {
        let bell = eventfd(0, EventfdFlags::NONBLOCK).expect("a descriptor");
        Awake { port: MemoryPort::new(offloads), bell: Arc::new(bell) }
    }

    fn inject(&self, packet: &Packet) {
        assert!(self.port.inject(&packet.bytes, packet.vnet), "the port is full");
        rustix::io::write(&self.bell, &1u64.to_ne_bytes()).expect("the bell rings");
    }
}

impl Port for Awake {
    fn receive(&mut self, frames: &mut [Frame], arena: &mut Arena) -> Received {
        self.port.receive(frames, arena)
    }

    fn send(&mut self, frame: &mut Frame, arena: &Arena) -> Sent {
        self.port.send(frame, arena)
    }

    fn flush(&mut self, arena: &Arena) -> Flushed {
        self.port.flush(arena)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.as_fd())
    }

    fn offloads(&self) -> Offloads {
        self.port.offloads()
    }
}

pub struct Switch {
    worker: Handle,
    ports: BTreeMap<String, Awake>,
}

fn notice(notice: Notice) {
    assert!(matches!(notice, Notice::Moved { .. }), "{notice:?}");
}

impl Switch {
    pub fn new(networks: &[&str]) -> Switch {
        let (worker, _) = spawn(Options::default(), Box::new(notice)).expect("a worker");
        for &name in networks {
            let config = NetworkConfig::default();
            worker.run(Command::AddNetwork { name: name.into(), config }).expect("a new network");
        }
        Switch { worker, ports: BTreeMap::new() }
    }

    pub fn port(&mut self, network: &str, name: &str, vlan: VlanMode, offloads: Offloads) {
        let port = Awake::new(offloads);
        self.ports.insert(name.to_owned(), port.clone());
        // Guards shut ports for what some captures hold on purpose; they have tests of their own.
        let config = PortConfig { vlan, bpdu_guard: false, loop_guard: false, ..PortConfig::default() };
        let device: Option<Box<dyn Port>> = Some(Box::new(port));
        let command = Command::AddPort { name: name.into(), network: network.into(), config, device };
        self.worker.run(command).expect("a new port");
    }

    pub fn uplink(&mut self, name: &str, own: [u8; 6], networks: &[(&str, Option<u16>)]) {
        let port = Awake::new(Offloads::default());
        self.ports.insert(name.to_owned(), port.clone());
        let uplink: Key = name.into();
        let device: Option<Box<dyn Port>> = Some(Box::new(port));
        let own = vec![MacAddr(own)];
        let facts = LinkFacts::default();
        self.worker.run(Command::AddUplink { name: uplink.clone(), own, facts, device }).expect("an uplink");
        for &(network, vid) in networks {
            let command = Command::JoinUplink { network: network.into(), uplink: uplink.clone(), vid };
            self.worker.run(command).expect("a free VLAN");
        }
    }

    /// Lets a packet in and waits until the worker has carried it out.
    pub fn enter(&self, packet: &Packet) {
        self.ports[&packet.port].inject(packet);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while self.ports[&packet.port].port.waiting() > 0 {
            assert!(std::time::Instant::now() < end, "the worker does not take the packet");
            std::thread::yield_now();
        }
        // Commands run between bursts: the burst is over when this one is answered.
        self.worker.snapshot().expect("the worker lives");
    }

    pub fn names(&self) -> Vec<String> {
        self.ports.keys().cloned().collect()
    }

    /// What left by a port but for our own LLDP; header lengths are a hint that the switch may correct.
    pub fn left(&self, name: &str) -> Vec<Packet> {
        let is_lldp = |bytes: &[u8]| bytes.get(12..14) == Some(&[0x88, 0xcc]);
        let packets = self.ports[name].port.taken().into_iter().filter(|(_, bytes)| !is_lldp(bytes));
        let plain = |vnet: VnetHeader| VnetHeader { hdr_len: 0, data_valid: false, ..vnet };
        packets.map(|(vnet, bytes)| Packet { port: name.to_owned(), bytes, vnet: plain(vnet) }).collect()
    }

    pub fn counters_add_up(&self, entered: u64) {
        let snapshot = self.worker.snapshot().expect("the worker lives");
        let mut received = 0;
        for port in &snapshot.ports {
            let c = &port.counters;
            assert_eq!(
                c.rx_frames,
                c.forwarded + c.flooded + c.trapped + c.dropped_in.total(),
                "{}",
                port.name
            );
            assert_eq!(c.offered, c.tx_frames + c.dropped_out.total(), "{}", port.name);
            received += c.rx_frames;
        }
        assert_eq!(received, entered, "packets that entered");
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.worker.run(Command::Stop);
    }
}
