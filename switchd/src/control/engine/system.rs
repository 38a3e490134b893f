//! The real means: the broker process, worker threads, the capture writer's thread, the services' thread,
//! the state directory.

use super::means::{Broker, Captures, Disk, Facts, Live, Opened, Services, TapeStatus, Workers};
use super::target::{Served, Tape, TapeFile};
use crate::broker::{
    BrokerClient, HostAddress, HostRoute, LinkInfo, ListenRequest, NetdevRequest, Prefix, Refused, Role,
    TapRequest, VhostListenRequest,
};
use crate::config::VhostUser;
use crate::services::{self, LeaseRow, NetworkServices, ServiceCounters};
use crate::worker::Handle;
use crate::worker::command::{
    BondSnapshot, Command, CommandError, FdbRow, FlowRow, Key, NeighborRow, Outcome, Snapshot,
};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use switchd_api::model::Desired;
use switchd_api::reply::MirrorCounters;
use switchd_capture::ring;
use switchd_capture::writer::{
    Accept, Files, Opened as OpenedFile, Rotation, Spec, State, Target, WriterHandle,
};
use switchd_capture::{Producer, Program};
use switchd_port::Port;
use switchd_port::netdev::NetdevPort;
use switchd_port::tap::TapPort;
use switchd_port::vhost_user::{Peer, VhostUserPort};
use switchd_store::Store;
use switchd_wire::MacAddr;
use tokio::sync::mpsc::{self, WeakSender, error::TrySendError};

/// Pieces of a live capture that wait for its reader, of at most 256 KiB each.
const PIECES: usize = 32;

fn device<P: Port + 'static>(what: &str, made: io::Result<P>) -> Result<Box<dyn Port>, Refused> {
    match made {
        Ok(port) => Ok(Box::new(port)),
        Err(error) => Err(Refused::io(format_args!("{what}: the descriptor cannot be used"), &error)),
    }
}

impl Broker for BrokerClient {
    fn open_tap(&self, name: &str, netns: Option<&str>, mtu: u16, mac: MacAddr) -> Result<Opened, Refused> {
        let request = TapRequest {
            name: name.to_owned(),
            netns: netns.map(str::to_owned),
            mtu: u32::from(mtu),
            mac: mac.0,
        };
        let grant = BrokerClient::open_tap(self, request)?;
        let facts = Facts { index: grant.index, mtu: u32::from(mtu), carrier: true, ..Facts::default() };
        Ok(Opened { device: device(&format!("tap {name}"), TapPort::from_fd(grant.fd))?, facts })
    }

    fn close_tap(&self, name: &str, netns: Option<&str>) -> Result<(), Refused> {
        BrokerClient::close_tap(self, name, netns)
    }

    fn set_tap_mtu(&self, name: &str, netns: Option<&str>, mtu: u16) -> Result<(), Refused> {
        BrokerClient::set_tap_mtu(self, name, netns, u32::from(mtu))
    }

    fn open_netdev(&self, name: &str, role: Role, mtu: u16) -> Result<Opened, Refused> {
        let request = NetdevRequest { name: name.to_owned(), role, mtu: u32::from(mtu) };
        let grant = BrokerClient::open_netdev(self, request)?;
        let facts = Facts {
            index: grant.index,
            macs: grant.macs.into_iter().map(MacAddr).collect(),
            mtu: grant.mtu,
            carrier: grant.carrier,
            speed: grant.speed,
            full_duplex: grant.full_duplex,
        };
        Ok(Opened { device: device(&format!("interface {name}"), NetdevPort::from_fd(grant.fd))?, facts })
    }

    fn close_netdev(&self, name: &str) -> Result<(), Refused> {
        BrokerClient::close_netdev(self, name)
    }

    fn open_vhost_user(&self, socket: &VhostUser, mtu: u16) -> Result<Opened, Refused> {
        let path = socket.socket.clone();
        let peer = if socket.server {
            let request =
                VhostListenRequest { path: path.clone(), mode: socket.mode, owner: socket.owner.clone() };
            Peer::Listen(BrokerClient::listen_vhost(self, request)?)
        } else {
            let (client, path) = (self.clone(), path.clone());
            Peer::Connect(Box::new(move || {
                client.connect_vhost(&path).map_err(|refused| io::Error::other(refused.message))
            }))
        };
        let made = VhostUserPort::start(peer, usize::from(socket.queues), mtu);
        // Whether there is a guest, the port itself tells the worker.
        let facts = Facts { mtu: u32::from(mtu), carrier: true, ..Facts::default() };
        Ok(Opened { device: device(&format!("socket {path}"), made)?, facts })
    }

    fn close_vhost_user(&self, socket: &str) -> Result<(), Refused> {
        BrokerClient::close_vhost(self, socket)
    }

    fn retain(&self, taps: &[(String, Option<String>)], netdevs: &[String]) -> Result<(), Refused> {
        BrokerClient::retain(self, taps, netdevs)
    }

    fn link(&self, name: &str) -> Result<LinkInfo, Refused> {
        BrokerClient::link(self, name)
    }

    fn kernel_counters(&self, name: &str, netns: Option<&str>) -> Result<BTreeMap<String, u64>, Refused> {
        BrokerClient::kernel_counters(self, name, netns)
    }

    fn ping_socket(&self, v6: bool) -> Result<OwnedFd, Refused> {
        BrokerClient::ping_socket(self, v6)
    }

    fn listen(&self, request: ListenRequest) -> Result<OwnedFd, Refused> {
        BrokerClient::listen(self, request)
    }

    fn host_net(&self, prefixes: &[Prefix]) -> Result<(Vec<HostAddress>, Vec<HostRoute>), Refused> {
        BrokerClient::host_net(self, prefixes)
    }

    fn resolv(&self) -> Result<String, Refused> {
        BrokerClient::resolv(self)
    }

    fn keep(&self, key: &str, bytes: &[u8]) -> Result<(), Refused> {
        BrokerClient::keep(self, key, bytes)
    }

    fn kept(&self, key: &str) -> Result<Option<Vec<u8>>, Refused> {
        BrokerClient::kept(self, key)
    }
}

impl Workers for Vec<Handle> {
    fn count(&self) -> usize {
        self.len()
    }

    fn run(&self, worker: usize, command: Command) -> Outcome {
        self.get(worker).ok_or(CommandError::Gone)?.run(command)
    }

    fn hand_over(&self, networks: Vec<Key>, from: usize, to: usize) -> Outcome {
        let (from, to) = (self.get(from).ok_or(CommandError::Gone)?, self.get(to).ok_or(CommandError::Gone)?);
        from.hand_over(networks, to)
    }

    fn snapshot(&self, worker: usize) -> Option<Snapshot> {
        self.get(worker)?.snapshot()
    }

    fn fdb(&self, worker: usize, network: &str) -> Result<Vec<FdbRow<Key>>, CommandError> {
        self.get(worker).ok_or(CommandError::Gone)?.fdb(network)
    }

    fn flows(&self, worker: usize, network: &str, limit: usize) -> Result<Vec<FlowRow>, CommandError> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        self.run(worker, Command::Flows { network: network.into(), limit, reply })?;
        answer.recv().map_err(|_| CommandError::Gone)
    }

    fn bonds(&self, worker: usize) -> Vec<BondSnapshot> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        let asked = self.run(worker, Command::Bonds { reply });
        asked.ok().and_then(|()| answer.recv().ok()).unwrap_or_default()
    }

    fn neighbors(&self, worker: usize) -> Vec<NeighborRow> {
        let (reply, answer) = crossbeam_channel::bounded(1);
        let asked = self.run(worker, Command::Neighbors { reply });
        asked.ok().and_then(|()| answer.recv().ok()).unwrap_or_default()
    }
}

/// The services' thread, and the workers that their frames leave by.
pub struct Desk {
    pub services: services::Services,
    pub workers: Vec<Handle>,
}

impl Services for Desk {
    fn set_network(&self, network: &str, worker: usize, served: &Served) -> Result<(), String> {
        let handle = self.workers.get(worker).ok_or_else(|| CommandError::Gone.to_string())?;
        let Served { gateway_mac, v4, v6, mtu, domain, ports, dhcp, dhcp6, outside, excluded, resolvers } =
            served.clone();
        let told = self.services.set_network(NetworkServices {
            network: network.into(),
            exit: Arc::new(handle.clone()),
            gateway_mac,
            v4,
            v6,
            mtu,
            domain,
            ports,
            dhcp,
            dhcp6,
            outside,
            excluded,
            resolvers,
        });
        told.map_err(|error| error.to_string())
    }

    fn remove_network(&self, network: &str) -> Result<(), String> {
        self.services.remove_network(network).map_err(|error| error.to_string())
    }

    fn forget(&self, network: &str) -> Result<(), String> {
        self.services.forget(network).map_err(|error| error.to_string())
    }

    fn set_resolvers(&self, resolvers: Vec<IpAddr>) {
        if let Err(error) = self.services.set_resolvers(resolvers) {
            tracing::error!("name servers: {error}");
        }
    }

    fn outside_link(&self, network: &str, up: bool) {
        if let Err(error) = self.services.outside_link(network, up) {
            tracing::error!("network {network}: {error}");
        }
    }

    fn leases(&self, network: Option<&str>) -> Vec<LeaseRow> {
        self.services.leases(network)
    }

    fn counters(&self) -> ServiceCounters {
        self.services.counters()
    }
}

/// The capture writer, and the readers of live captures.
pub struct Tapes {
    writer: WriterHandle,
    live: Mutex<BTreeMap<String, WeakSender<Vec<u8>>>>,
}

impl Tapes {
    pub fn new(writer: WriterHandle) -> Tapes {
        Tapes { writer, live: Mutex::default() }
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<String, WeakSender<Vec<u8>>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, name: &str, tape: &Tape, target: Target) -> Result<(Producer, Option<String>), String> {
        let (producer, consumer) = ring::channel(ring::DEFAULT_BYTES);
        let spec = Spec { name: name.to_owned(), snaplen: tape.snaplen, filter: tape.filter.clone(), target };
        let status = self.writer.add(spec, consumer).map_err(|error| error.to_string())?;
        let failing = match status.state {
            State::Failing => Some(status.last_error.unwrap_or_else(|| "it cannot be opened".to_owned())),
            State::Waiting | State::Running | State::Finished => None,
        };
        Ok((producer, failing))
    }
}

impl Captures for Tapes {
    fn compile(&self, expression: &str, snaplen: u32) -> Result<Program, String> {
        use switchd_port::libpcap::{FilterError, compile};
        let instructions = compile(expression, snaplen).map_err(|error| match error {
            FilterError::Syntax { message, .. } => message,
            other => other.to_string(),
        })?;
        Program::new(instructions).map_err(|error| error.to_string())
    }

    fn open(&self, name: &str, tape: &Tape, file: &TapeFile) -> Result<(Producer, Option<String>), String> {
        let rotation = Rotation { size: file.rotate_size, time: file.rotate_time, count: file.rotate_count };
        self.add(name, tape, Target::File { path: file.path.clone(), rotation })
    }

    fn close(&self, name: &str) {
        if self.live().remove(name).is_some() {
            // Its reader may take a while for the end of the stream.
            return self.writer.release(name);
        }
        if let Err(error) = self.writer.remove(name) {
            tracing::warn!(capture = name, %error, "the capture could not be closed in order");
        }
    }

    fn open_live(&self, name: &str, tape: &Tape, count: Option<u64>) -> Result<Live, String> {
        let (sender, bytes) = mpsc::channel(PIECES);
        let reader = sender.downgrade();
        let deliver = Box::new(move |piece| match sender.try_send(piece) {
            Ok(()) => Accept::Taken,
            Err(TrySendError::Full(_)) => Accept::Full,
            Err(TrySendError::Closed(_)) => Accept::Closed,
        });
        let (ring, _) = self.add(name, tape, Target::Live { deliver, count })?;
        self.live().insert(name.to_owned(), reader);
        Ok(Live { ring, bytes })
    }

    fn finished(&self) -> Vec<String> {
        let live = self.live();
        // The writer lets go of its end when the count is reached.
        let over = |reader: &WeakSender<Vec<u8>>| reader.upgrade().is_none_or(|sender| sender.is_closed());
        live.iter().filter(|(_, reader)| over(reader)).map(|(name, _)| name.clone()).collect()
    }

    fn status(&self, name: &str) -> Option<TapeStatus> {
        let status = self.writer.status(name)?;
        let counters = MirrorCounters {
            seen: status.counters.seen,
            filtered: status.counters.filtered,
            copied: status.counters.copied,
            lost: status.counters.lost,
            bytes: status.counters.bytes,
            files: status.files,
        };
        let failing = (status.state == State::Failing)
            .then(|| status.last_error.clone().unwrap_or_else(|| "it cannot be written".to_owned()));
        let file = status.file.map(|path| path.display().to_string());
        Some(TapeStatus { counters, failing, last_error: status.last_error, file })
    }
}

/// Capture files, which only the broker may open.
pub struct BrokerFiles(pub BrokerClient);

fn refused(refused: Refused) -> io::Error {
    match refused.errno {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(refused.message),
    }
}

impl Files for BrokerFiles {
    fn open(&mut self, path: &str) -> io::Result<OpenedFile> {
        let grant = self.0.open_capture(path).map_err(refused)?;
        Ok(OpenedFile { file: grant.fd.into(), path: grant.path })
    }

    fn numbers(&mut self, path: &str) -> io::Result<Vec<u32>> {
        self.0.capture_numbers(path).map_err(refused)
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        self.0.remove_capture(path).map_err(refused)
    }
}

impl Disk for Store {
    fn save(&mut self, desired: &Desired) -> Result<(), String> {
        self.save_desired(desired).map_err(|error| error.to_string())
    }

    fn address(&mut self, key: &str, in_use: &dyn Fn(MacAddr) -> bool) -> Result<MacAddr, String> {
        // Keyed from the system's randomness, and another key with every call.
        let random = || {
            let [bytes @ .., _, _] = RandomState::new().build_hasher().finish().to_be_bytes();
            bytes
        };
        let mac = self.assign(key, |mac| in_use(MacAddr(mac)), random);
        mac.map(MacAddr).map_err(|error| error.to_string())
    }
}
