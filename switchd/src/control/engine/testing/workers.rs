//! Workers that hold the real ones' rules about names, and no frames.

use super::World;
use crate::control::engine::means::Workers;
use crate::worker::command::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use switchd_port::host_egress::{Forward, HostEgressChange};
use switchd_wire::MacAddr;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FakeWorker {
    pub networks: BTreeMap<String, NetworkConfig>,
    pub ports: BTreeMap<String, FakePort>,
    /// Sources and target.
    pub mirrors: BTreeMap<String, BTreeSet<String>>,
    pub fdb: BTreeMap<(String, MacAddr, Option<u16>), String>,
    /// By NAT network.
    pub gates: BTreeMap<String, FakeGate>,
    pub bonds: BTreeMap<String, FakeBond>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FakeGate {
    pub gateway: Gateway,
    /// Set, and these are the ports listened on.
    pub host: Option<BTreeSet<Forward>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FakeBond {
    pub settings: BondSettings,
    /// With their numbers.
    pub members: BTreeMap<String, u16>,
    pub peer: Option<String>,
    pub kept: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FakePort {
    /// With VLANs for an uplink.
    pub networks: BTreeMap<String, Option<u16>>,
    pub config: Option<PortConfig>,
    pub device: bool,
    pub carrier: bool,
    pub own: Vec<MacAddr>,
    pub facts: LinkFacts,
}

impl FakeWorker {
    fn port(&mut self, name: &Key) -> Result<&mut FakePort, CommandError> {
        self.ports.get_mut(&**name).ok_or_else(|| CommandError::Unknown(name.clone()))
    }

    fn has_network(&self, name: &Key) -> Outcome {
        match self.networks.contains_key(&**name) {
            true => Ok(()),
            false => Err(CommandError::Unknown(name.clone())),
        }
    }

    fn add_port(&mut self, name: Key, port: FakePort) -> Outcome {
        for network in port.networks.keys() {
            self.has_network(&network.as_str().into())?;
        }
        match self.ports.insert(name.to_string(), port) {
            None => Ok(()),
            Some(_) => Err(CommandError::Exists(name)),
        }
    }

    fn add_member(&mut self, member: Member) -> Outcome {
        let port = FakePort {
            networks: BTreeMap::new(),
            config: None,
            device: member.device.is_some(),
            carrier: member.carrier,
            own: member.own,
            facts: member.facts,
        };
        self.add_port(format!("member:{}", member.interface).as_str().into(), port)
    }

    fn execute(&mut self, command: Command) -> Outcome {
        match command {
            Command::AddNetwork { name, config } => match self.networks.insert(name.to_string(), config) {
                None => Ok(()),
                Some(_) => Err(CommandError::Exists(name)),
            },
            Command::SetNetwork { name, config } => {
                self.has_network(&name)?;
                self.networks.insert(name.to_string(), config);
                Ok(())
            }
            Command::RemoveNetwork { name } => {
                self.has_network(&name)?;
                if self.ports.values().any(|port| port.networks.contains_key(&*name)) {
                    return Err(CommandError::Refused(format!("network {name} still has ports")));
                }
                let stands = |gate: &FakeGate| gate.gateway.segment.as_deref() == Some(&*name);
                if self.gates.contains_key(&*name) || self.gates.values().any(stands) {
                    return Err(CommandError::Refused(format!("network {name} still has a gateway")));
                }
                self.networks.remove(&*name);
                Ok(())
            }
            Command::AddPort { name, network, config, device } => {
                let networks = BTreeMap::from([(network.to_string(), None)]);
                let (device, config) = (device.is_some(), Some(config));
                let (own, facts) = (Vec::new(), LinkFacts::default());
                self.add_port(name, FakePort { networks, config, device, carrier: true, own, facts })
            }
            Command::AddUplink { name, own, facts, device } => {
                let (networks, device) = (BTreeMap::new(), device.is_some());
                self.add_port(name, FakePort { networks, config: None, device, carrier: true, own, facts })
            }
            Command::SetPort { name, config } => {
                self.port(&name)?.config = Some(config);
                Ok(())
            }
            Command::RemovePort { name } | Command::RemoveUplink { name } => {
                self.port(&name)?;
                if self.mirrors.values().any(|names| names.contains(&*name)) {
                    return Err(CommandError::Refused(format!("port {name} is mirrored")));
                }
                let port = self.ports.remove(&*name);
                self.fdb.retain(|_, port| **port != *name);
                if let Some(bond) = name.strip_prefix("uplink:")
                    && let Some(bond) = self.bonds.remove(bond)
                {
                    assert!(port.is_some_and(|port| port.networks.is_empty()), "{name} is joined");
                    for member in bond.members.keys().chain(&bond.peer) {
                        self.ports.remove(&format!("member:{member}"));
                    }
                }
                Ok(())
            }
            Command::JoinUplink { network, uplink, vid } => {
                self.has_network(&network)?;
                let port = self.port(&uplink)?;
                if port.networks.values().any(|&taken| taken == vid) {
                    return Err(CommandError::Refused(format!("VLAN {vid:?} is taken")));
                }
                port.networks.insert(network.to_string(), vid);
                Ok(())
            }
            Command::LeaveUplink { network, uplink } => {
                self.port(&uplink)?.networks.remove(&*network);
                self.fdb.retain(|(home, ..), port| **home != *network || **port != *uplink);
                Ok(())
            }
            Command::SetDevice { port, device } => {
                self.port(&port)?.device = device.is_some();
                Ok(())
            }
            Command::SetCarrier { port, carrier } => {
                self.port(&port)?.carrier = carrier;
                Ok(())
            }
            Command::SetOwn { uplink, own } => {
                self.port(&uplink)?.own = own;
                Ok(())
            }
            Command::SetFacts { port, facts } => {
                self.port(&port)?.facts = facts;
                Ok(())
            }
            Command::AddMirror { name, mirror } => {
                let mut names = BTreeSet::new();
                for (network, _) in &mirror.networks {
                    self.has_network(network)?;
                }
                for (port, _) in &mirror.ports {
                    self.port(port)?;
                    names.insert(port.to_string());
                }
                if let Sink::Port(port) = &mirror.to {
                    self.port(port)?;
                    names.insert(port.to_string());
                }
                match self.mirrors.insert(name.to_string(), names) {
                    None => Ok(()),
                    Some(_) => Err(CommandError::Exists(name)),
                }
            }
            Command::RemoveMirror { name } => match self.mirrors.remove(&*name) {
                Some(_) => Ok(()),
                None => Err(CommandError::Unknown(name)),
            },
            Command::FdbAdd { network, mac, vid, port } => {
                self.has_network(&network)?;
                let on = self.port(&port)?.networks.contains_key(&*network);
                if !on || self.fdb.insert((network.to_string(), mac, vid), port.to_string()).is_some() {
                    return Err(CommandError::Refused(format!("static entry {mac}")));
                }
                Ok(())
            }
            Command::FdbDelete { network, mac, vid } => {
                let before = self.fdb.len();
                self.fdb.retain(|entry, _| {
                    entry.0 != *network || entry.1 != mac || vid.is_some_and(|vid| entry.2 != Some(vid))
                });
                match self.fdb.len() < before {
                    true => Ok(()),
                    false => Err(CommandError::Unknown(mac.to_string().into())),
                }
            }
            Command::SetGateway { network, gateway } => {
                self.has_network(&network)?;
                let Some(gateway) = gateway else {
                    return match self.gates.remove(&*network) {
                        Some(_) => Ok(()),
                        None => Err(CommandError::Unknown(network)),
                    };
                };
                if let Some(segment) = &gateway.segment {
                    self.has_network(segment)?;
                    let switchd_dataplane::Egress::Outside(outside) = &gateway.config.egress else {
                        panic!("a segment and no outside end")
                    };
                    let on = |port: &&FakePort| port.networks.contains_key(&**segment);
                    if self.ports.values().filter(on).any(|port| port.own.contains(&outside.mac)) {
                        return Err(CommandError::Refused(format!("{} has a static entry", outside.mac)));
                    }
                }
                let host = self.gates.remove(&*network).and_then(|gate| gate.host);
                let is_host = gateway.config.egress == switchd_dataplane::Egress::Host;
                let gate = FakeGate { gateway: *gateway, host: host.filter(|_| is_host) };
                self.gates.insert(network.to_string(), gate);
                Ok(())
            }
            Command::SetHostEgress { network, device } => {
                let gate =
                    self.gates.get_mut(&*network).ok_or_else(|| CommandError::Unknown(network.clone()))?;
                let mut device = device.expect("it goes with its gateway");
                gate.host = Some(device.as_host_egress().unwrap().forwards().copied().collect());
                Ok(())
            }
            Command::ChangeHostEgress { network, change } => {
                let gate = self.gates.get_mut(&*network).and_then(|gate| gate.host.as_mut());
                let forwards = gate.ok_or_else(|| CommandError::Unknown(network.clone()))?;
                match *change {
                    HostEgressChange::AddForward(forward, _) => assert!(forwards.insert(forward)),
                    HostEgressChange::RemoveForward(forward) => assert!(forwards.remove(&forward)),
                    HostEgressChange::Configure(_) | HostEgressChange::SetIcmp { .. } => {}
                }
                Ok(())
            }
            Command::AddBond { name, bond } => {
                let uplink = format!("uplink:{name}");
                let port = FakePort {
                    networks: BTreeMap::new(),
                    config: None,
                    device: false,
                    carrier: true,
                    own: Vec::new(),
                    facts: LinkFacts::default(),
                };
                self.add_port(uplink.as_str().into(), port)?;
                let Bond { settings, members, peer, kept } = *bond;
                let mut fake = FakeBond { settings, members: BTreeMap::new(), peer: None, kept };
                fake.peer = peer.as_ref().map(|peer| peer.interface.to_string());
                fake.members =
                    members.iter().map(|member| (member.interface.to_string(), member.number)).collect();
                for member in members.into_iter().chain(peer) {
                    self.add_member(member)?;
                }
                self.bonds.insert(name.to_string(), fake);
                Ok(())
            }
            Command::SetBond { name, config } => {
                let bond = self.bonds.get_mut(&*name).ok_or_else(|| CommandError::Unknown(name.clone()))?;
                bond.settings = config;
                Ok(())
            }
            Command::AddMember { bond, member } => {
                let fake = self.bonds.get_mut(&*bond).ok_or_else(|| CommandError::Unknown(bond.clone()))?;
                assert!(!fake.members.values().any(|&number| number == member.number), "its number is taken");
                fake.members.insert(member.interface.to_string(), member.number);
                self.add_member(*member)
            }
            Command::RemoveMember { bond, member } => {
                let fake = self.bonds.get_mut(&*bond).ok_or_else(|| CommandError::Unknown(bond.clone()))?;
                fake.members.remove(&*member).ok_or_else(|| CommandError::Unknown(member.clone()))?;
                self.ports.remove(&format!("member:{member}"));
                Ok(())
            }
            other => panic!("not asked of a fake worker: {}", std::mem::discriminant(&other).kind()),
        }
    }
}

/// Something to print for a command, which has no `Debug`.
trait Shown {
    fn kind(&self) -> String;
}

impl Shown for std::mem::Discriminant<Command> {
    fn kind(&self) -> String {
        format!("{self:?}")
    }
}

impl Workers for World {
    fn count(&self) -> usize {
        self.get().state.workers.len()
    }

    fn run(&self, worker: usize, command: Command) -> Outcome {
        let mut world = self.get();
        world.worker_calls += 1;
        world.may_fail().map_err(CommandError::Refused)?;
        world.state.workers[worker].execute(command)
    }

    fn hand_over(&self, networks: Vec<Key>, from: usize, to: usize) -> Outcome {
        let mut world = self.get();
        world.may_fail().map_err(CommandError::Refused)?;
        let here = |name: &str| networks.iter().any(|network| **network == *name);
        let source = &mut world.state.workers[from];
        let mut moved = FakeWorker::default();
        let ports: Vec<String> = source
            .ports
            .iter()
            .filter(|(_, port)| port.networks.keys().any(|name| here(name)))
            .map(|(name, _)| name.clone())
            .collect();
        for network in &networks {
            let Some(gate) = source.gates.remove(&**network) else { continue };
            let segment = gate.gateway.segment.clone();
            assert!(segment.is_none_or(|segment| networks.contains(&segment)), "{network} is torn from it");
            moved.gates.insert(network.to_string(), gate);
        }
        let torn =
            |gate: &FakeGate| gate.gateway.segment.as_ref().is_some_and(|name| networks.contains(name));
        assert!(!source.gates.values().any(torn), "a segment goes without its gateway");
        for name in ports {
            let port = source.ports.remove(&name).unwrap();
            let bond = name.strip_prefix("uplink:").unwrap_or_default();
            assert!(!source.bonds.contains_key(bond), "a bond does not move");
            assert!(port.networks.keys().all(|name| here(name)), "{name} is torn apart");
            moved.ports.insert(name, port);
        }
        for network in &networks {
            let config = source.networks.remove(&**network).expect("it is on this worker");
            moved.networks.insert(network.to_string(), config);
        }
        let mirrors: Vec<String> = source
            .mirrors
            .iter()
            .filter(|(_, names)| names.iter().any(|name| moved.ports.contains_key(name)))
            .map(|(name, _)| name.clone())
            .collect();
        for name in mirrors {
            moved.mirrors.insert(name.clone(), source.mirrors.remove(&name).unwrap());
        }
        moved.fdb = source.fdb.extract_if(.., |(network, ..), _| here(network)).collect();
        let target = &mut world.state.workers[to];
        target.networks.extend(moved.networks);
        target.ports.extend(moved.ports);
        target.mirrors.extend(moved.mirrors);
        target.fdb.extend(moved.fdb);
        target.gates.extend(moved.gates);
        Ok(())
    }

    fn snapshot(&self, worker: usize) -> Option<Snapshot> {
        let world = self.get();
        let ports = world.state.workers[worker].ports.iter().map(|(name, port)| PortSnapshot {
            name: name.as_str().into(),
            link: port.device && port.carrier,
            addresses: 0,
            counters: Default::default(),
            kernel_drops: 0,
            unreadable: 0,
            condition: None,
        });
        Some(Snapshot { worker, ports: ports.collect(), ..Snapshot::default() })
    }

    fn fdb(&self, worker: usize, network: &str) -> Result<Vec<FdbRow<Key>>, CommandError> {
        let world = self.get();
        let rows = world.state.workers[worker].fdb.iter().filter(|((home, ..), _)| home == network);
        let row = |(&(_, mac, vid), port): (&(String, MacAddr, Option<u16>), &String)| FdbRow {
            mac,
            vid,
            port: port.as_str().into(),
            is_static: true,
            age: Duration::ZERO,
        };
        Ok(rows.map(row).collect())
    }

    fn flows(&self, _: usize, _: &str, limit: usize) -> Result<Vec<FlowRow>, CommandError> {
        let flow = FlowRow {
            protocol: "tcp",
            inside: "10.7.0.9:1000".to_owned(),
            outside: "192.0.2.9:2000".to_owned(),
            remote: "198.51.100.1:80".to_owned(),
            state: "established",
            port: Some("vm".into()),
            idle: Duration::from_millis(2500),
            expires: Duration::from_secs(7437),
            packets: 5,
            bytes: 500,
        };
        Ok(vec![flow; limit.min(3)])
    }

    fn bonds(&self, _: usize) -> Vec<BondSnapshot> {
        self.get().bond_rows.clone()
    }

    fn neighbors(&self, _: usize) -> Vec<NeighborRow> {
        Vec::new()
    }
}
