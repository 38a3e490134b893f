//! A worker with bonds: members in memory, a wire of our own between two of them.

use super::command::{
    Bond, BondSettings, BondSnapshot, Command, Key, LinkFacts, Member, NetworkConfig, Notice, PortConfig,
    Snapshot,
};
use super::{Handle, Options, spawn};
use crossbeam_channel::{Receiver, bounded, unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use switchd_dataplane::{BondConfig, BondMode, DropReason, Hash};
use switchd_port::memory::MemoryPort;
use switchd_port::{Offloads, Port};
use switchd_wire::{MacAddr, VnetHeader};

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

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.worker.run(Command::Stop);
    }
}

fn settings(mode: BondMode, system: u8) -> BondSettings {
    BondSettings {
        config: BondConfig { mode, hash: Hash::Layer34 },
        active: true,
        fast: true,
        system: MacAddr([2, 0xaa, 0, 0, 0, system]),
        system_priority: 32768,
        key: Some(7),
        min_links: 1,
        prefer: None,
        fallback: false,
        half: None,
    }
}

fn member(interface: &str, number: u16, device: Option<&MemoryPort>) -> Member {
    Member {
        interface: interface.into(),
        number,
        own: vec![MacAddr([2, 0xbb, 0, 0, 0, number as u8])],
        facts: LinkFacts { speed: 1000, ..LinkFacts::default() },
        carrier: true,
        device: device.map(|device| Box::new(device.clone()) as Box<dyn Port>),
    }
}

impl Bench {
    fn run(&self, command: Command) {
        self.worker.run(command).unwrap();
    }

    fn network(&self, name: &str) {
        self.run(Command::AddNetwork { name: name.into(), config: NetworkConfig::default() });
    }

    fn guest(&self, network: &str, name: &str) -> MemoryPort {
        let port = MemoryPort::new(ALL);
        let device: Option<Box<dyn Port>> = Some(Box::new(port.clone()));
        let config = PortConfig { loop_guard: false, ..PortConfig::default() };
        self.run(Command::AddPort { name: name.into(), network: network.into(), config, device });
        port
    }

    /// `bond0` with these settings and two members, the uplink of network `office`.
    fn bond(&self, settings: BondSettings) -> [MemoryPort; 2] {
        let devices = [MemoryPort::new(ALL), MemoryPort::new(ALL)];
        let members = vec![member("e1", 1, Some(&devices[0])), member("e2", 2, Some(&devices[1]))];
        let bond = Bond { settings, members, peer: None, kept: None };
        self.run(Command::AddBond { name: "bond0".into(), bond: Box::new(bond) });
        self.network("office");
        self.run(Command::JoinUplink { network: "office".into(), uplink: "uplink:bond0".into(), vid: None });
        devices
    }

    fn bonds(&self) -> Vec<BondSnapshot> {
        let (reply, answer) = bounded(1);
        self.run(Command::Bonds { reply });
        answer.recv().unwrap()
    }

    fn up(&self) -> bool {
        self.bonds()[0].up
    }

    fn snapshot(&self) -> Snapshot {
        self.worker.snapshot().unwrap()
    }

    fn carrier(&self, interface: &str, carrier: bool) {
        self.run(Command::SetCarrier { port: format!("member:{interface}").into(), carrier });
    }
}

#[track_caller]
fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn frame(to: u8, from: u8) -> Vec<u8> {
    let mut bytes = vec![0x5a; 60];
    bytes[..12].copy_from_slice(&[2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from]);
    bytes[12..14].copy_from_slice(&[0x88, 0xb7]);
    bytes
}

/// Frames of guests: none of a link's own protocols.
fn traffic(port: &MemoryPort) -> Vec<Vec<u8>> {
    let taken = port.taken().into_iter().map(|(_, bytes)| bytes);
    taken.filter(|bytes| bytes[..5] != [1, 0x80, 0xc2, 0, 0]).collect()
}

#[track_caller]
fn arrives(port: &MemoryPort, bytes: &[u8]) {
    let mut seen = Vec::new();
    wait("the frame arrives", || {
        seen.extend(traffic(port));
        seen.iter().any(|frame| frame == bytes)
    });
}

#[test]
fn an_active_backup_bond_uses_one_member_and_the_other_when_it_fails() {
    let bench = bench();
    let [first, second] = bench.bond(settings(BondMode::ActiveBackup, 1));
    let guest = bench.guest("office", "vm1");
    wait("the bond is up", || bench.up());
    assert!(first.inject(&frame(1, 9), VnetHeader::default()));
    arrives(&guest, &frame(1, 9));
    assert!(guest.inject(&frame(9, 1), VnetHeader::default()));
    arrives(&first, &frame(9, 1));
    assert!(traffic(&second).is_empty());
    // What comes by the one that stands by is dropped and counted.
    assert!(second.inject(&frame(1, 8), VnetHeader::default()));
    let dropped = |bench: &Bench| {
        let snapshot = bench.snapshot();
        let port = snapshot.ports.iter().find(|port| &*port.name == "member:e2").unwrap();
        port.counters.dropped_in.get(DropReason::NotCollecting)
    };
    wait("the frame is dropped", || dropped(&bench) == 1);

    bench.carrier("e1", false);
    // Upstream learns at once where the guest is.
    let mut said = Vec::new();
    wait("the guest's address is announced", || {
        said.extend(traffic(&second));
        said.iter().any(|frame| frame[6..12] == [2, 0, 0, 0, 0, 1] && frame[12..14] == [0x80, 0x35])
    });
    let moves = |bench: &Bench| bench.snapshot().networks[0].counters.moves;
    assert_eq!(bench.worker.fdb("office").unwrap().len(), 2 + 2, "nothing was forgotten");
    assert_eq!(moves(&bench), 0);
    assert!(guest.inject(&frame(9, 1), VnetHeader::default()));
    arrives(&second, &frame(9, 1));
    assert!(traffic(&first).is_empty());
    assert!(bench.up());
    bench.carrier("e2", false);
    assert!(!bench.up());
    wait("what was behind it is forgotten", || bench.worker.fdb("office").unwrap().len() == 1 + 2);
}

#[test]
fn members_come_and_go_and_the_bond_with_its_settings_stays() {
    let bench = bench();
    let [first, second] = bench.bond(settings(BondMode::ActiveBackup, 1));
    let guest = bench.guest("office", "vm1");
    wait("the bond is up", || bench.up());
    bench.run(Command::RemoveMember { bond: "bond0".into(), member: "e1".into() });
    assert!(guest.inject(&frame(9, 1), VnetHeader::default()));
    arrives(&second, &frame(9, 1));
    let third = MemoryPort::new(ALL);
    let add = |member| Command::AddMember { bond: "bond0".into(), member: Box::new(member) };
    bench.run(add(member("e3", 3, Some(&third))));
    assert!(bench.worker.run(add(member("e3", 4, None))).is_err(), "a member twice");
    let prefer = BondSettings { prefer: Some("e3".into()), ..settings(BondMode::ActiveBackup, 1) };
    bench.run(Command::SetBond { name: "bond0".into(), config: prefer });
    assert!(guest.inject(&frame(9, 1), VnetHeader::default()));
    arrives(&third, &frame(9, 1));
    // A device that is lost and found.
    bench.run(Command::SetDevice { port: "member:e3".into(), device: None });
    assert!(guest.inject(&frame(8, 1), VnetHeader::default()));
    arrives(&second, &frame(8, 1));
    bench.run(Command::SetDevice { port: "member:e3".into(), device: Some(Box::new(third.clone())) });
    assert!(guest.inject(&frame(7, 1), VnetHeader::default()));
    arrives(&third, &frame(7, 1));
    bench.run(Command::LeaveUplink { network: "office".into(), uplink: "uplink:bond0".into() });
    bench.run(Command::RemoveUplink { name: "uplink:bond0".into() });
    assert!(bench.bonds().is_empty());
    assert_eq!(bench.snapshot().ports.len(), 1);
    // The same names can be used again.
    let settings = settings(BondMode::Lacp, 1);
    let members = vec![member("e1", 1, Some(&first))];
    let bond = Bond { settings, members, peer: None, kept: None };
    bench.run(Command::AddBond { name: "bond0".into(), bond: Box::new(bond) });
}

#[test]
fn a_bond_moves_to_another_worker_with_its_members_and_counters() {
    let (here, there) = (bench(), bench());
    let [first, second] = here.bond(settings(BondMode::ActiveBackup, 1));
    let guest = here.guest("office", "vm1");
    wait("the bond is up", || here.up());
    assert!(guest.inject(&frame(9, 1), VnetHeader::default()));
    arrives(&first, &frame(9, 1));
    here.worker.hand_over(vec!["office".into()], &there.worker).unwrap();
    assert!(here.snapshot().ports.is_empty() && here.bonds().is_empty());
    wait("the bond is up", || there.up());
    assert!(guest.inject(&frame(9, 1), VnetHeader::default()));
    arrives(&first, &frame(9, 1));
    there.carrier("e1", false);
    assert!(guest.inject(&frame(9, 1), VnetHeader::default()));
    arrives(&second, &frame(9, 1));
    let snapshot = there.snapshot();
    let of = |name: &str| snapshot.ports.iter().find(|port| &*port.name == name).unwrap().counters.clone();
    assert!(of("uplink:bond0").tx_frames >= 3);
    assert!(of("member:e1").tx_frames >= 2);
}

/// Carries frames between pairs of ports until it is dropped.
struct Wire {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    cut: Arc<[AtomicBool; 2]>,
    carried: Arc<AtomicUsize>,
}

impl Wire {
    fn new(pairs: [(MemoryPort, MemoryPort); 2]) -> Wire {
        let stop = Arc::new(AtomicBool::new(false));
        let cut: Arc<[AtomicBool; 2]> = Arc::default();
        let carried = Arc::new(AtomicUsize::new(0));
        let (stopped, cuts, count) = (Arc::clone(&stop), Arc::clone(&cut), Arc::clone(&carried));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for ((a, b), cut) in pairs.iter().zip(cuts.iter()) {
                    for (from, to) in [(a, b), (b, a)] {
                        for (vnet, bytes) in from.taken() {
                            if !cut.load(Ordering::Relaxed) {
                                to.inject(&bytes, vnet);
                                count.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        Wire { stop, thread: Some(thread), cut, carried }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn two_switches_aggregate_and_a_silent_link_is_out_within_four_seconds() {
    let (a, b) = (bench(), bench());
    let [a1, a2] = a.bond(settings(BondMode::Lacp, 1));
    let [b1, b2] = b.bond(settings(BondMode::Lacp, 2));
    let (left, right) = (a.guest("office", "vm1"), b.guest("office", "vm2"));
    let wire = Wire::new([(a1, b1), (a2, b2)]);
    let distributing = |bench: &Bench| {
        bench.bonds()[0].members.iter().filter(|member| member.distributing && member.collecting).count()
    };
    let start = Instant::now();
    wait("both members distribute on both ends", || distributing(&a) == 2 && distributing(&b) == 2);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(left.inject(&frame(2, 1), VnetHeader::default()));
    arrives(&right, &frame(2, 1));
    assert!(right.inject(&frame(1, 2), VnetHeader::default()));
    arrives(&left, &frame(1, 2));
    assert!(traffic(&right).is_empty(), "once");
    // Silence on one link, with carrier on both ends.
    wire.cut[0].store(true, Ordering::Relaxed);
    let cut = Instant::now();
    wait("the silent member is out on both ends", || distributing(&a) == 1 && distributing(&b) == 1);
    assert!(cut.elapsed() < Duration::from_millis(4500), "{:?}", cut.elapsed());
    for number in 10..30 {
        assert!(left.inject(&frame(2, number), VnetHeader::default()));
        arrives(&right, &frame(2, number));
    }
    assert!(a.up() && b.up());
    assert!(wire.carried.load(Ordering::Relaxed) > 20);
    let told: Vec<String> = a
        .notices
        .try_iter()
        .filter_map(|notice| match notice {
            Notice::Event { kind, .. } => Some(kind.to_owned()),
            _ => None,
        })
        .collect();
    assert!(told.iter().any(|kind| kind == "bond.member-down"), "{told:?}");
}

#[test]
fn the_two_halves_of_a_pair_hear_each_other_and_hand_over_frames() {
    let (a, b) = (bench(), bench());
    // The pair's bonds are made with their peer link.
    let link = |bench: &Bench, number: u8| {
        let device = MemoryPort::new(ALL);
        let uplink = MemoryPort::new(ALL);
        let bond = Bond {
            settings: BondSettings { half: Some(number), ..settings(BondMode::ActiveBackup, 1) },
            members: vec![member("e1", 1, Some(&uplink))],
            peer: Some(member("p1", 0, Some(&device))),
            kept: None,
        };
        bench.run(Command::AddBond { name: "bond0".into(), bond: Box::new(bond) });
        bench.network("office");
        let join =
            Command::JoinUplink { network: "office".into(), uplink: "uplink:bond0".into(), vid: Some(20) };
        bench.run(join);
        (uplink, device)
    };
    let (a1, ap) = link(&a, 1);
    let (b1, bp) = link(&b, 2);
    let (left, right) = (a.guest("office", "vm1"), b.guest("office", "vm2"));
    let _wire = Wire::new([(ap, bp), (MemoryPort::new(ALL), MemoryPort::new(ALL))]);
    let alive =
        |bench: &Bench| bench.bonds()[0].peer.as_deref() == Some("alive, 1 of its members distributes");
    wait("the halves hear each other", || alive(&a) && alive(&b));
    assert!(left.inject(&frame(2, 1), VnetHeader::default()));
    arrives(&right, &frame(2, 1));
    // Without members of its own a half sends by the other one.
    a.carrier("e1", false);
    wait("the far half knows", || {
        b.bonds()[0].peer.as_deref() == Some("alive, none of its members distributes")
    });
    assert!(a.up(), "by the other half");
    let (_, _) = (traffic(&a1), traffic(&b1));
    assert!(left.inject(&frame(9, 1), VnetHeader::default()));
    let mut tagged = frame(9, 1);
    tagged.splice(12..12, [0x81, 0, 0, 20]);
    arrives(&b1, &tagged);
    assert!(traffic(&a1).is_empty());
    // The peer link is a port like the members, and can be lost.
    let name: Key = "member:p1".into();
    a.run(Command::SetDevice { port: name, device: None });
    wait("a is alone", || a.bonds()[0].peer.as_deref() == Some("the peer link is down"));
    assert!(!a.up());
}
