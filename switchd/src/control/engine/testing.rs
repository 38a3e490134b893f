//! A world in memory for tests: interfaces, namespaces, workers, services, files, a disk and a clock.
//!
//! Fake workers hold the real ones' rules about names, so that a plan in the wrong order fails here too.
//! Any call that may fail can be made to fail once, by its number.

use super::means::*;
use super::target::{Served, Tape, TapeFile};
use super::{Engine, Process, Seed, Shared, Start};
mod workers;

pub use workers::{FakeBond, FakeGate, FakePort, FakeWorker};

use crate::broker::{HostAddress, HostRoute, LinkInfo, ListenRequest, Prefix, Protocol, Refused, Role};
use crate::config::VhostUser;
use crate::services::{LeaseRow, ServiceCounters};
use crate::worker::command::BondSnapshot;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use switchd_api::model::Desired;
use switchd_capture::filter::Instruction;
use switchd_capture::{Program, ring};
use switchd_port::host_egress::{Forward, Proto};
use switchd_port::memory::MemoryPort;
use switchd_wire::MacAddr;
use tokio::sync::mpsc;

/// An empty engine with one worker.
pub fn engine() -> Shared {
    Arc::new(tokio::sync::Mutex::new(World::new(1).start(None)))
}

#[derive(Clone)]
pub struct World(Arc<Mutex<Inner>>);

pub struct Inner {
    pub now: Instant,
    /// The call that fails next, counted from 0.
    pub fail_at: Option<usize>,
    pub calls: usize,
    pub disk_full: bool,
    pub state: State,
    pub saved: Option<Desired>,
    pub failing_files: BTreeSet<String>,
    live: BTreeMap<String, mpsc::Sender<Vec<u8>>>,
    consumers: BTreeMap<String, ring::Consumer>,
    addresses: BTreeMap<String, MacAddr>,
    pub tap_opens: usize,
    /// Commands that workers were given.
    pub worker_calls: usize,
    /// Ports of the host that others hold.
    pub taken: BTreeSet<u16>,
    pub listened: Vec<ListenRequest>,
    pub host_addresses: Vec<HostAddress>,
    pub host_routes: Vec<HostRoute>,
    pub resolv: String,
    pub resolvers: Option<Vec<IpAddr>>,
    /// What was left for the next dataplane.
    pub kept: BTreeMap<String, Vec<u8>>,
    pub leases: Vec<LeaseRow>,
    /// Networks whose leases were forgotten.
    pub forgotten: Vec<String>,
    /// Carrier of outsides, as the services were told.
    pub outside_links: Vec<(String, bool)>,
    /// What workers say of bonds.
    pub bond_rows: Vec<BondSnapshot>,
    /// What drivers say, Mbit/s.
    pub speed: u32,
}

/// What a change that failed must leave as it was.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct State {
    /// Of the host: MTU.
    pub interfaces: BTreeMap<String, u32>,
    pub namespaces: BTreeSet<String>,
    /// MTU and address.
    pub taps: BTreeMap<(String, Option<String>), (u16, MacAddr)>,
    pub netdevs: BTreeMap<String, &'static str>,
    pub workers: Vec<FakeWorker>,
    /// With the worker that frames leave by.
    pub served: BTreeMap<String, (usize, Served)>,
    pub files: BTreeSet<String>,
}

impl World {
    pub fn new(workers: usize) -> World {
        let state = State {
            interfaces: [
                ("eth0", 1500),
                ("eth1", 9000),
                ("eth2", 1500),
                ("veth0", 1500),
                ("dummy0", 1500),
                ("dummy1", 1500),
            ]
            .into_iter()
            .map(|(name, mtu)| (name.to_owned(), mtu))
            .collect(),
            namespaces: BTreeSet::from(["blue".to_owned()]),
            workers: vec![FakeWorker::default(); workers],
            ..State::default()
        };
        World(Arc::new(Mutex::new(Inner {
            now: Instant::now(),
            fail_at: None,
            calls: 0,
            disk_full: false,
            state,
            saved: None,
            failing_files: BTreeSet::new(),
            live: BTreeMap::new(),
            consumers: BTreeMap::new(),
            addresses: BTreeMap::new(),
            tap_opens: 0,
            worker_calls: 0,
            taken: BTreeSet::new(),
            listened: Vec::new(),
            host_addresses: Vec::new(),
            host_routes: Vec::new(),
            resolv: String::new(),
            resolvers: None,
            kept: BTreeMap::new(),
            leases: Vec::new(),
            forgotten: Vec::new(),
            outside_links: Vec::new(),
            bond_rows: Vec::new(),
            speed: 10_000,
        })))
    }

    pub fn get(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub fn pass(&self, time: Duration) -> Instant {
        let mut world = self.get();
        world.now += time;
        world.now
    }

    pub fn state(&self) -> State {
        self.get().state.clone()
    }

    /// An engine in a new process, on what this world's disk holds.
    pub fn start(&self, seed: Option<&str>) -> Engine {
        self.try_start(seed).unwrap()
    }

    pub fn try_start(&self, seed: Option<&str>) -> Result<Engine, switchd_api::reply::ErrorBody> {
        {
            // A new process: the broker's things stand, workers and files are new.
            let mut world = self.get();
            world.state.workers.fill_with(FakeWorker::default);
            world.state.files.clear();
            world.state.served.clear();
        }
        let clock = self.clone();
        let means = Means {
            broker: Box::new(self.clone()),
            workers: Box::new(self.clone()),
            captures: Box::new(self.clone()),
            services: Box::new(self.clone()),
            disk: Box::new(self.clone()),
            clock: Box::new(move || clock.get().now),
        };
        let process = Process {
            broker_pid: 1,
            restarts: 0,
            started: 0,
            began: self.get().now,
            rootless: false,
            state_dir: PathBuf::from("/state"),
            capture_dir: PathBuf::from("/state/captures"),
            sandbox: Vec::new(),
        };
        let saved = self.get().saved.clone();
        let seed = seed.map(|text| Seed { name: "seed.toml".to_owned(), text: text.to_owned() });
        Engine::start(Start { means, process, saved, warnings: Vec::new(), seed })
    }
}

impl Inner {
    /// Counts a call that may fail.
    fn may_fail(&mut self) -> Result<(), String> {
        let number = self.calls;
        self.calls += 1;
        match self.fail_at {
            Some(at) if at == number => Err(format!("call {number} fails")),
            _ => Ok(()),
        }
    }

    fn refuse(&mut self) -> Result<(), Refused> {
        self.may_fail().map_err(Refused::rule)
    }
}

fn errno(number: i32, what: &str) -> Refused {
    Refused::io(what, &std::io::Error::from_raw_os_error(number))
}

fn own_address(interface: &str) -> MacAddr {
    MacAddr([2, 0xaa, 0, 0, 0, interface.len() as u8])
}

fn device() -> Box<dyn switchd_port::Port> {
    Box::new(MemoryPort::new(switchd_port::Offloads::default()))
}

impl Broker for World {
    fn open_tap(&self, name: &str, netns: Option<&str>, mtu: u16, mac: MacAddr) -> Result<Opened, Refused> {
        let mut world = self.get();
        world.refuse()?;
        world.tap_opens += 1;
        if netns.is_some_and(|netns| !world.state.namespaces.contains(netns)) {
            return Err(errno(2, &format!("tap {name}")));
        }
        world.state.taps.insert((name.to_owned(), netns.map(str::to_owned)), (mtu, mac));
        let facts = Facts { index: 7, mtu: u32::from(mtu), carrier: true, ..Facts::default() };
        Ok(Opened { device: device(), facts })
    }

    fn close_tap(&self, name: &str, netns: Option<&str>) -> Result<(), Refused> {
        let mut world = self.get();
        world.state.taps.remove(&(name.to_owned(), netns.map(str::to_owned)));
        Ok(())
    }

    fn set_tap_mtu(&self, name: &str, netns: Option<&str>, mtu: u16) -> Result<(), Refused> {
        let mut world = self.get();
        world.refuse()?;
        match world.state.taps.get_mut(&(name.to_owned(), netns.map(str::to_owned))) {
            Some(tap) => tap.0 = mtu,
            None => return Err(errno(19, &format!("tap {name}"))),
        }
        Ok(())
    }

    fn open_netdev(&self, name: &str, role: Role, mtu: u16) -> Result<Opened, Refused> {
        let mut world = self.get();
        world.refuse()?;
        let Some(&own) = world.state.interfaces.get(name) else {
            return Err(errno(19, &format!("interface {name}")));
        };
        if own < u32::from(mtu) {
            return Err(Refused::rule(format!("interface {name} has an MTU of {own}, below {mtu}")));
        }
        let role = match role {
            Role::Uplink => "uplink",
            Role::Member => "member",
            Role::Port => "port",
        };
        if world.state.netdevs.insert(name.to_owned(), role).is_some_and(|held| held != role) {
            return Err(Refused::rule(format!("interface {name} is held in another role")));
        }
        let macs = vec![own_address(name)];
        let speed = world.speed;
        let facts = Facts { index: 3, macs, mtu: own, carrier: true, speed, full_duplex: true };
        Ok(Opened { device: device(), facts })
    }

    fn close_netdev(&self, name: &str) -> Result<(), Refused> {
        self.get().state.netdevs.remove(name);
        Ok(())
    }

    fn open_vhost_user(&self, socket: &VhostUser, mtu: u16) -> Result<Opened, Refused> {
        let mut world = self.get();
        world.refuse()?;
        world.state.netdevs.insert(socket.socket.clone(), "socket");
        let facts = Facts { mtu: u32::from(mtu), carrier: true, ..Facts::default() };
        Ok(Opened { device: device(), facts })
    }

    fn close_vhost_user(&self, socket: &str) -> Result<(), Refused> {
        self.get().state.netdevs.remove(socket);
        Ok(())
    }

    fn retain(&self, taps: &[(String, Option<String>)], netdevs: &[String]) -> Result<(), Refused> {
        let mut world = self.get();
        world.state.taps.retain(|tap, _| taps.contains(tap));
        world.state.netdevs.retain(|name, _| netdevs.contains(name));
        Ok(())
    }

    fn link(&self, name: &str) -> Result<LinkInfo, Refused> {
        let world = self.get();
        match world.state.interfaces.get(name) {
            Some(&mtu) => {
                let (name, mac) = (name.to_owned(), Some(own_address(name).0));
                let (speed, full_duplex) = (world.speed, true);
                Ok(LinkInfo { name, index: 3, up: true, carrier: true, mac, mtu, speed, full_duplex })
            }
            None => Err(errno(19, &format!("interface {name}"))),
        }
    }

    fn kernel_counters(&self, _: &str, _: Option<&str>) -> Result<BTreeMap<String, u64>, Refused> {
        Ok(BTreeMap::from([("rx_packets".to_owned(), 5)]))
    }

    fn ping_socket(&self, _: bool) -> Result<OwnedFd, Refused> {
        Ok(descriptor())
    }

    fn listen(&self, request: ListenRequest) -> Result<OwnedFd, Refused> {
        let mut world = self.get();
        world.refuse()?;
        let gates = world.state.workers.iter().flat_map(|worker| worker.gates.values());
        let mut ours = gates.filter_map(|gate| gate.host.as_ref()).flatten();
        let same = |forward: &Forward| {
            let protocol = if forward.proto == Proto::Tcp { Protocol::Tcp } else { Protocol::Udp };
            (protocol, forward.listen.port()) == (request.protocol, request.port)
        };
        if ours.any(same) {
            return Err(errno(98, &format!("tcp/{}: the port is taken by switchd (pid 8)", request.port)));
        }
        if world.taken.contains(&request.port) {
            return Err(errno(98, &format!("tcp/{}: the port is taken by nginx (pid 7)", request.port)));
        }
        world.listened.push(request);
        Ok(descriptor())
    }

    fn host_net(&self, prefixes: &[Prefix]) -> Result<(Vec<HostAddress>, Vec<HostRoute>), Refused> {
        let world = self.get();
        let overlaps = |route: &&HostRoute| prefixes.iter().any(|prefix| prefix.overlaps(&route.prefix));
        Ok((world.host_addresses.clone(), world.host_routes.iter().filter(overlaps).cloned().collect()))
    }

    fn resolv(&self) -> Result<String, Refused> {
        Ok(self.get().resolv.clone())
    }

    fn keep(&self, key: &str, bytes: &[u8]) -> Result<(), Refused> {
        let mut world = self.get();
        match bytes.is_empty() {
            true => drop(world.kept.remove(key)),
            false => drop(world.kept.insert(key.to_owned(), bytes.to_vec())),
        }
        Ok(())
    }

    fn kept(&self, key: &str) -> Result<Option<Vec<u8>>, Refused> {
        Ok(self.get().kept.get(key).cloned())
    }
}

/// Of no use but to be held.
fn descriptor() -> OwnedFd {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into()
}

impl Services for World {
    fn set_network(&self, network: &str, worker: usize, served: &Served) -> Result<(), String> {
        let mut world = self.get();
        world.may_fail()?;
        world.state.served.insert(network.to_owned(), (worker, served.clone()));
        Ok(())
    }

    fn remove_network(&self, network: &str) -> Result<(), String> {
        let mut world = self.get();
        world.may_fail()?;
        assert!(
            world.state.workers.iter().any(|worker| worker.gates.contains_key(network)),
            "the gateway of {network} is gone before its services"
        );
        world.state.served.remove(network);
        Ok(())
    }

    fn forget(&self, network: &str) -> Result<(), String> {
        self.get().forgotten.push(network.to_owned());
        Ok(())
    }

    fn set_resolvers(&self, resolvers: Vec<IpAddr>) {
        self.get().resolvers = Some(resolvers);
    }

    fn outside_link(&self, network: &str, up: bool) {
        self.get().outside_links.push((network.to_owned(), up));
    }

    fn leases(&self, network: Option<&str>) -> Vec<LeaseRow> {
        let world = self.get();
        let wanted = |row: &&LeaseRow| network.is_none_or(|network| *row.network == *network);
        world.leases.iter().filter(wanted).cloned().collect()
    }

    fn counters(&self) -> ServiceCounters {
        ServiceCounters::default()
    }
}

impl Captures for World {
    fn compile(&self, expression: &str, _: u32) -> Result<Program, String> {
        match expression {
            "bad" => Err("syntax error".to_owned()),
            // ret #65535
            _ => Program::new(vec![Instruction { code: 0x06, jt: 0, jf: 0, k: 65535 }])
                .map_err(|error| error.to_string()),
        }
    }

    fn open(
        &self,
        name: &str,
        _: &Tape,
        file: &TapeFile,
    ) -> Result<(ring::Producer, Option<String>), String> {
        let mut world = self.get();
        world.may_fail()?;
        let (producer, consumer) = ring::channel(0);
        world.consumers.insert(name.to_owned(), consumer);
        world.state.files.insert(name.to_owned());
        let failing = world.failing_files.contains(&file.path).then(|| "No space left on device".to_owned());
        Ok((producer, failing))
    }

    fn close(&self, name: &str) {
        let mut world = self.get();
        world.live.remove(name);
        world.consumers.remove(name);
        world.state.files.remove(name);
    }

    fn open_live(&self, name: &str, _: &Tape, _: Option<u64>) -> Result<Live, String> {
        let mut world = self.get();
        world.may_fail()?;
        let (sender, bytes) = mpsc::channel(1);
        let (ring, consumer) = ring::channel(0);
        world.live.insert(name.to_owned(), sender);
        world.consumers.insert(name.to_owned(), consumer);
        Ok(Live { ring, bytes })
    }

    fn finished(&self) -> Vec<String> {
        let world = self.get();
        world.live.iter().filter(|(_, sender)| sender.is_closed()).map(|(name, _)| name.clone()).collect()
    }

    fn status(&self, name: &str) -> Option<TapeStatus> {
        let world = self.get();
        let failing = world.failing_files.contains(name).then(|| "No space left on device".to_owned());
        world.state.files.contains(name).then(|| TapeStatus { failing, ..TapeStatus::default() })
    }
}

impl Disk for World {
    fn save(&mut self, desired: &Desired) -> Result<(), String> {
        let mut world = self.get();
        world.may_fail()?;
        if world.disk_full {
            return Err("No space left on device".to_owned());
        }
        world.saved = Some(desired.clone());
        Ok(())
    }

    fn address(&mut self, key: &str, in_use: &dyn Fn(MacAddr) -> bool) -> Result<MacAddr, String> {
        let mut world = self.get();
        let next = world.addresses.len() as u8;
        let mac = *world.addresses.entry(key.to_owned()).or_insert(MacAddr([2, 0, 0, 0, 1, next]));
        assert!(!in_use(mac));
        Ok(mac)
    }
}

impl World {
    /// The addresses that another world has chosen.
    pub fn copy_addresses(&self, other: &World) {
        let addresses = other.get().addresses.clone();
        self.get().addresses = addresses;
    }
}
