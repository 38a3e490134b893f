//! Random networks, random frames, held against a small switch of our own that knows nothing of tables,
//! bursts or tags in place: what leaves each port must be the same frames in the same order, byte for byte,
//! and every frame that does not leave must be counted under the same reason.

mod common;

use common::{World, mac};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use switchd_dataplane::{NetworkConfig, NetworkId, PortConfig, PortId, VlanMode};
use switchd_wire::MacAddr;

type Drops = BTreeMap<(PortId, &'static str), u64>;

/// The network, the FID, the frame without the tag of a named VLAN, and that tag.
type Entered = (usize, u16, Vec<u8>, [u8; 2]);

/// The model switch. FID 0 is everything outside named VLANs.
#[derive(Default)]
struct Model {
    networks: Vec<Vec<PortId>>,
    home: HashMap<PortId, usize>,
    vlan: HashMap<PortId, VlanMode>,
    /// Administratively up, and with link.
    state: HashMap<PortId, (bool, bool)>,
    limit: HashMap<PortId, usize>,
    network_limit: usize,
    uplink: Option<PortId>,
    /// The VLAN of each network on the uplink (0: untagged).
    outside: HashMap<usize, u16>,
    addresses: HashMap<(usize, u16, [u8; 6]), PortId>,
    fixed: HashMap<(usize, u16, [u8; 6]), PortId>,
    dropped: Drops,
}

fn vid(bytes: &[u8]) -> Option<u16> {
    (bytes[12..14] == [0x81, 0]).then(|| u16::from_be_bytes([bytes[14], bytes[15]]) & 0xfff)
}

fn strip(bytes: &[u8]) -> Vec<u8> {
    [&bytes[..12], &bytes[16..]].concat()
}

impl Model {
    fn named(&self, network: usize) -> Vec<u16> {
        let modes = self.networks[network].iter().filter_map(|port| self.vlan.get(port));
        let vids = |mode: &VlanMode| match mode {
            VlanMode::Transparent => vec![],
            VlanMode::Access(vid) => vec![*vid],
            VlanMode::Trunk { allowed, native } => allowed.iter().chain(*native).collect(),
        };
        modes.flat_map(vids).collect()
    }

    fn member(&self, port: PortId, fid: u16) -> bool {
        match &self.vlan[&port] {
            VlanMode::Transparent => true,
            VlanMode::Access(vid) => fid == *vid,
            VlanMode::Trunk { allowed, native } => {
                fid != 0 && (allowed.contains(fid) || *native == Some(fid))
            }
        }
    }

    fn enter(&self, port: PortId, bytes: &[u8]) -> Result<Entered, &'static str> {
        let whole = |bytes: &[u8]| bytes.len() >= 14 && (bytes[12..14] != [0x81, 0] || bytes.len() >= 18);
        let mut bytes = bytes.to_vec();
        if !whole(&bytes) {
            return Err("runt");
        }
        let network = if Some(port) == self.uplink {
            let outer = vid(&bytes).unwrap_or(0);
            if outer == 4095 {
                return Err("reserved-vid");
            }
            let claims = |wanted: u16| self.outside.iter().find(|(_, vid)| **vid == wanted).map(|(n, _)| *n);
            match claims(outer).filter(|_| outer != 0) {
                Some(network) => {
                    bytes = strip(&bytes);
                    if !whole(&bytes) {
                        return Err("runt");
                    }
                    network
                }
                None => claims(0).ok_or("no-network")?,
            }
        } else {
            self.home[&port]
        };
        let tag = vid(&bytes);
        if tag == Some(4095) {
            return Err("reserved-vid");
        }
        let priority = if tag.is_some() { bytes[14] & 0xf0 } else { 0 };
        let fid = match (&self.vlan[&port], tag.unwrap_or(0)) {
            (VlanMode::Transparent, vid) if vid != 0 && self.named(network).contains(&vid) => vid,
            (VlanMode::Transparent, _) => 0,
            (VlanMode::Access(vid), 0) => *vid,
            (VlanMode::Trunk { native: Some(vid), .. }, 0) => *vid,
            (VlanMode::Trunk { .. }, vid) if vid != 0 && self.member(port, vid) => vid,
            _ => return Err("vlan-not-member"),
        };
        if fid != 0 && tag.is_some() {
            bytes = strip(&bytes);
        }
        let source = &bytes[6..12];
        if source[0] & 1 != 0 || source == [0; 6] {
            return Err("bad-source");
        }
        if bytes[..5] == [1, 0x80, 0xc2, 0, 0] && bytes[5] < 16 {
            return Err("reserved-group");
        }
        Ok((network, fid, bytes, [priority | (fid >> 8) as u8, fid as u8]))
    }

    fn leave(
        &self,
        network: usize,
        fid: u16,
        port: PortId,
        bytes: &[u8],
        tag: [u8; 2],
    ) -> Result<Vec<u8>, &'static str> {
        match self.state[&port] {
            (false, _) => return Err("admin-down"),
            (_, false) => return Err("link-down"),
            _ => {}
        }
        if !self.member(port, fid) {
            return Err("vlan-not-member");
        }
        let put = |bytes: &[u8], tag: [u8; 2]| [&bytes[..12], &[0x81, 0], &tag, &bytes[12..]].concat();
        let frame = match &self.vlan[&port] {
            _ if fid == 0 => bytes.to_vec(),
            VlanMode::Access(_) => bytes.to_vec(),
            VlanMode::Trunk { native, .. } if *native == Some(fid) => {
                if bytes[12..14] == [0x81, 0] {
                    return Err("vlan-not-member");
                }
                bytes.to_vec()
            }
            _ => put(bytes, tag),
        };
        if Some(port) != self.uplink {
            return Ok(frame);
        }
        match self.outside[&network] {
            0 => {
                let mut rest = frame.clone();
                while rest.len() >= 16 && vid(&rest) == Some(0) {
                    rest = strip(&rest);
                }
                let first = if rest.len() >= 16 { vid(&rest).unwrap_or(0) } else { 0 };
                let claimed = first != 0 && self.outside.values().any(|vid| *vid == first);
                if claimed { Err("vlan-claimed") } else { Ok(frame) }
            }
            outer if vid(&frame) == Some(0) => Ok(put(&strip(&frame), [frame[14] & 0xf0, outer as u8])),
            outer => Ok(put(&frame, [0, outer as u8])),
        }
    }

    fn process(&mut self, port: PortId, bytes: &[u8], out: &mut BTreeMap<PortId, Vec<Vec<u8>>>) {
        let drop = |dropped: &mut Drops, port, why| *dropped.entry((port, why)).or_default() += 1;
        let entered = match self.state[&port] {
            (false, _) => Err("admin-down"),
            (_, false) => Err("link-down"),
            _ => self.enter(port, bytes),
        };
        let (network, fid, bytes, tag) = match entered {
            Ok(entered) => entered,
            Err(why) => return drop(&mut self.dropped, port, why),
        };
        let source = (network, fid, bytes[6..12].try_into().unwrap());
        let count = |hit: &dyn Fn(&usize, &PortId) -> bool| {
            self.addresses.iter().filter(|((network, ..), port)| hit(network, port)).count()
        };
        let known = self.addresses.get(&source).copied();
        let full = count(&|_, at| *at == port) >= self.limit[&port] && known != Some(port)
            || known.is_none() && count(&|at, _| *at == network) >= self.network_limit;
        if !full && !self.fixed.contains_key(&source) {
            self.addresses.insert(source, port);
        }
        let destination = (network, fid, bytes[..6].try_into().unwrap());
        let known = self.fixed.get(&destination).or(self.addresses.get(&destination)).copied();
        let up = |port: &&PortId| self.state[port] == (true, true) && self.member(**port, fid);
        let to = match known.filter(|_| bytes[0] & 1 == 0) {
            Some(to) if to == port => return drop(&mut self.dropped, port, "same-port"),
            Some(to) => vec![to],
            None => self.networks[network].iter().filter(up).copied().filter(|to| *to != port).collect(),
        };
        if to.is_empty() {
            return drop(&mut self.dropped, port, "no-receiver");
        }
        for to in to {
            match self.leave(network, fid, to, &bytes, tag) {
                Ok(frame) => out.entry(to).or_default().push(frame),
                Err(why) => drop(&mut self.dropped, to, why),
            }
        }
    }
}

#[derive(Clone, Debug)]
struct PortPlan {
    network: usize,
    vlan: VlanMode,
    limit: Option<u32>,
}

#[derive(Clone, Debug)]
enum Step {
    Burst(usize, Vec<Vec<u8>>),
    Link(usize, bool),
    Admin(usize, bool),
    /// All learned addresses grow old.
    Silence,
}

fn vlan() -> impl Strategy<Value = VlanMode> {
    prop_oneof![
        3 => Just(VlanMode::Transparent),
        2 => prop_oneof![Just(10u16), Just(20)].prop_map(VlanMode::Access),
        2 => (prop::collection::vec(prop_oneof![Just(10u16), Just(20), Just(30)], 0..3), prop::option::of(prop_oneof![Just(1u16), Just(10)]))
            .prop_map(|(vids, native)| common::trunk(&vids, native)),
    ]
}

fn address() -> impl Strategy<Value = MacAddr> {
    prop_oneof![
        12 => (1u8..7).prop_map(mac),
        1 => Just(MacAddr::BROADCAST),
        1 => Just(MacAddr::ZERO),
        1 => (0x0eu8..0x12).prop_map(|last| MacAddr([1, 0x80, 0xc2, 0, 0, last])),
        1 => Just(mac(0xee)),
    ]
}

fn tci() -> impl Strategy<Value = u16> {
    let vid = prop_oneof![Just(0u16), Just(1), Just(10), Just(20), Just(30), Just(77), Just(200), Just(4095)];
    (vid, prop_oneof![Just(0u16), Just(0xb000)]).prop_map(|(vid, priority)| vid | priority)
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let tags = prop_oneof![4 => prop::collection::vec(tci(), 0..2), 1 => prop::collection::vec(tci(), 2..4)];
    (address(), address(), tags, any::<u8>(), prop_oneof![9 => Just(80usize), 1 => 0usize..30]).prop_map(
        |(source, destination, tags, mark, cut)| {
            let mut bytes = [destination.0, source.0].concat();
            for tci in tags {
                bytes.extend([0x81, 0, (tci >> 8) as u8, tci as u8]);
            }
            bytes.extend([0x88, 0xb5]);
            bytes.extend([mark; 20]);
            bytes.truncate(cut);
            bytes
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0usize..8, prop::collection::vec(bytes(), 1..70)).prop_map(|(port, burst)| Step::Burst(port, burst)),
        1 => (0usize..8, any::<bool>()).prop_map(|(port, up)| Step::Link(port, up)),
        1 => (0usize..8, any::<bool>()).prop_map(|(port, up)| Step::Admin(port, up)),
        1 => Just(Step::Silence),
    ]
}

fn port() -> impl Strategy<Value = PortPlan> {
    (0usize..3, vlan(), prop::option::weighted(0.2, 1u32..4)).prop_map(|(network, vlan, limit)| PortPlan {
        network,
        vlan,
        limit,
    })
}

/// The uplink's networks: VLAN of each, or not joined.
fn joins() -> impl Strategy<Value = Vec<Option<u16>>> {
    prop_oneof![
        Just(vec![None, None, None]),
        Just(vec![Some(0), Some(77), Some(200)]),
        Just(vec![Some(77), Some(200), None]),
        Just(vec![None, Some(0), Some(10)]),
    ]
}

fn run(ports: Vec<PortPlan>, joins: Vec<Option<u16>>, fixed: Vec<(u8, usize)>, limit: u32, steps: Vec<Step>) {
    let own = mac(0xee);
    let mut world = World::new();
    let mut model = Model { network_limit: limit as usize, ..Model::default() };
    let ageing = Duration::from_secs(300);
    let networks: Vec<NetworkId> = (0..3)
        .map(|_| world.network(NetworkConfig { mac_limit: limit, ageing, mtu: 1500, rstp: false }))
        .collect();
    model.networks = vec![vec![]; 3];
    let mut configs = HashMap::new();
    for plan in &ports {
        let config = PortConfig {
            vlan: plan.vlan.clone(),
            mac_limit: plan.limit,
            admin_up: true,
            // The model knows nothing of guards.
            storm_limit: None,
            bpdu_guard: false,
            loop_guard: false,
        };
        let port = world.port_with(networks[plan.network], config.clone());
        configs.insert(port, config);
        model.networks[plan.network].push(port);
        model.home.insert(port, plan.network);
        model.vlan.insert(port, plan.vlan.clone());
        model.limit.insert(port, plan.limit.map_or(usize::MAX, |limit| limit as usize));
        model.state.insert(port, (true, true));
    }
    let uplink = world.uplink(&[own]);
    model.uplink = Some(uplink);
    model.vlan.insert(uplink, VlanMode::Transparent);
    model.limit.insert(uplink, usize::MAX);
    model.state.insert(uplink, (true, true));
    for (network, join) in joins.iter().enumerate() {
        let Some(vid) = *join else { continue };
        world.dataplane.join_uplink(networks[network], uplink, Some(vid).filter(|&vid| vid != 0)).unwrap();
        model.networks[network].push(uplink);
        model.outside.insert(network, vid);
        for fid in model.named(network).into_iter().chain([0]) {
            model.fixed.insert((network, fid, own.0), uplink);
        }
    }
    for (address, port) in fixed {
        let port = world.ports[port % ports.len()];
        let network = model.home[&port];
        if world.dataplane.fdb_add(networks[network], mac(address), None, port).is_ok() {
            let fid = match &model.vlan[&port] {
                VlanMode::Transparent => 0,
                VlanMode::Access(vid) => *vid,
                VlanMode::Trunk { native, .. } => native.expect("refused otherwise"),
            };
            model.fixed.insert((network, fid, mac(address).0), port);
        }
    }
    for step in steps {
        let at = |index: usize, world: &World| world.ports[index % world.ports.len()];
        match step {
            Step::Burst(port, burst) => {
                let port = at(port, &world);
                let mut sent: BTreeMap<PortId, Vec<Vec<u8>>> = BTreeMap::new();
                for (port, bytes) in world.burst(port, &burst) {
                    sent.entry(port).or_default().push(bytes);
                }
                let mut expected = BTreeMap::new();
                burst.iter().for_each(|bytes| model.process(port, bytes, &mut expected));
                assert_eq!(sent, expected);
            }
            Step::Link(port, up) => {
                let port = at(port, &world);
                world.dataplane.set_link(port, up);
                if !up && model.state[&port].1 {
                    model.addresses.retain(|_, place| *place != port);
                }
                model.state.get_mut(&port).unwrap().1 = up;
            }
            Step::Admin(port, up) => {
                let port = at(port, &world);
                let Some(config) = configs.get(&port) else { continue };
                world.dataplane.set_port(port, PortConfig { admin_up: up, ..config.clone() });
                model.state.get_mut(&port).unwrap().0 = up;
            }
            Step::Silence => {
                world.pass(1000);
                world.dataplane.expire(world.now);
                model.addresses.clear();
            }
        }
        let mut dropped: Drops = BTreeMap::new();
        for &port in &world.ports {
            let counters = world.dataplane.port_counters(port);
            for (reason, frames) in counters.dropped_in.nonzero().chain(counters.dropped_out.nonzero()) {
                *dropped.entry((port, reason.name())).or_default() += frames;
            }
        }
        assert_eq!(dropped, model.dropped);
    }
    let learned: usize = networks.iter().map(|&n| world.rows(n).iter().filter(|row| !row.3).count()).sum();
    assert_eq!(learned, model.addresses.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_road_is_the_model_switch(
        ports in prop::collection::vec(port(), 1..8),
        joins in joins(),
        fixed in prop::collection::vec((1u8..7, 0usize..8), 0..3),
        limit in prop_oneof![Just(1000u32), 2u32..6],
        steps in prop::collection::vec(step(), 1..12),
    ) {
        run(ports, joins, fixed, limit, steps);
    }
}
