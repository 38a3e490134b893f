//! Interfaces that the dataplane asks for: taps, which we make, and netdevs, which we open.
//!
//! Of every grant a copy of the descriptor stays here, so that the next dataplane gets the same queue. A
//! copy is given out again only when its interface still stands: a tap says so itself, a netdev by its
//! index. What the dataplane does not name in its `Retain` after a restart is released.

use super::carriers::Carriers;
use super::messages::*;
use super::netns::{self, Change, Id, Watch};
use super::vhost::VhostSockets;
use super::{links::Links, names};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;
use switchd_port::netlink::{Link, Netlink};
use switchd_port::sys::ethtool::Speed;
use switchd_port::tap::{TapError, TapFactory, TapSpec};
use switchd_port::{host_guard, netdev, sys};
use switchd_wire::MacAddr;

/// Most interfaces held. The grants are few and long-lived; this keeps a mad dataplane from filling the
/// host with interfaces.
pub(super) const HELD_MAX: usize = 4096;
/// Bytes behind the Ethernet header: the smallest that IPv4 knows (RFC 791), the largest that we carry.
const MTU: std::ops::RangeInclusive<u32> = 68..=9216;

type TapKey = (String, Option<String>);

struct HeldTap {
    fd: OwnedFd,
    index: u32,
    netns: Option<Id>,
}

struct HeldNetdev {
    fd: OwnedFd,
    index: u32,
    role: Role,
    /// Start of the dataplane that asked for it.
    generation: u32,
    /// We brought it up, and take it down again.
    raised: bool,
}

/// What a request gets: the reply and, beside it, at most one descriptor.
pub type Granted = Result<(Reply, Option<OwnedFd>), Refused>;

pub struct Devices {
    netlink: Netlink,
    factory: TapFactory,
    taps: BTreeMap<TapKey, HeldTap>,
    netdevs: BTreeMap<String, HeldNetdev>,
    pub links: Links,
    pub namespaces: Watch,
    pub vhost: VhostSockets,
    retained: (Vec<TapKey>, Vec<String>),
    carriers: Carriers,
}

impl Devices {
    /// For the calling thread's namespace.
    pub fn new() -> io::Result<Devices> {
        Ok(Devices {
            links: Links::new()?,
            netlink: Netlink::new()?,
            factory: TapFactory::new()?,
            taps: BTreeMap::new(),
            netdevs: BTreeMap::new(),
            namespaces: Watch::new()?,
            vhost: VhostSockets::default(),
            retained: Default::default(),
            carriers: Carriers::new(Instant::now())?,
        })
    }

    fn room(&self) -> Result<(), Refused> {
        if self.taps.len() + self.netdevs.len() < HELD_MAX {
            return Ok(());
        }
        Err(Refused::rule(format!("{HELD_MAX} interfaces are held, which is the most: detach some first")))
    }

    /// Grants a tap. Why it is safe: the name is a plain one; the interface is new or a tap already (any
    /// other kind is left alone), and held by nobody else; the namespace is one that root has named.
    pub fn open_tap(&mut self, request: &TapRequest) -> Granted {
        names::interface(&request.name)?;
        check_mtu(&format!("tap {}", request.name), request.mtu)?;
        let mac = MacAddr(request.mac);
        if mac.is_group() || mac.is_zero() {
            return Err(Refused::rule(format!("tap {}: {mac} is no address of a station", request.name)));
        }
        if let Some(netns) = &request.netns {
            names::netns(netns)?;
            // Before it is opened: a name that appears later is told too.
            self.namespaces.add(netns);
        } else {
            self.links.want(&request.name, &mut self.netlink);
        }
        let key = (request.name.clone(), request.netns.clone());
        let named = request.netns.as_deref().map(netns::open_named).transpose();
        let named = match named {
            Ok(named) => named,
            Err(refused) => {
                // A copy would keep a namespace without a name alive.
                self.taps.remove(&key);
                return Err(refused);
            }
        };
        let id = named.as_ref().map(|(_, id)| *id);
        if let Some(held) = self.taps.get(&key)
            && held.netns == id
            && sys::tun::name(&held.fd).is_ok()
        {
            let fd = copy(&held.fd)?;
            return Ok((Reply::Tap { reattached: true, index: held.index }, Some(fd)));
        }
        self.taps.remove(&key);
        self.room()?;
        let space = named.as_ref().map(|(fd, _)| fd.as_fd());
        let spec = TapSpec { name: &request.name, netns: space, mac, mtu: request.mtu };
        let tap = self.factory.open(&spec).map_err(refused)?;
        let index = self.factory.find(&request.name, space).ok().flatten().map_or(0, |link| link.index);
        let fd = copy(&tap.fd)?;
        self.taps.insert(key, HeldTap { fd: tap.fd, index, netns: id });
        Ok((Reply::Tap { reattached: tap.reattached, index }, Some(fd)))
    }

    /// Deletes a tap that we hold. Nothing else is ever deleted.
    pub fn close_tap(&mut self, name: &str, netns: Option<&str>) -> Granted {
        let key = (name.to_owned(), netns.map(str::to_owned));
        if let Some(held) = self.taps.remove(&key) {
            self.delete_tap(&key, held)?;
        }
        // Ports that wait for their namespace hold nothing: the other names stay watched.
        if let Some(netns) = netns
            && !self.taps.keys().any(|(_, other)| other.as_deref() == Some(netns))
        {
            self.namespaces.retain(|name| name != netns);
        }
        Ok((Reply::Done, None))
    }

    fn delete_tap(&mut self, key: &TapKey, held: HeldTap) -> Result<(), Refused> {
        // Gone already, or the namespace is: both are what was asked for.
        if sys::tun::name(&held.fd).is_err() {
            return Ok(());
        }
        // It goes with its last descriptor, wherever it was moved and however it is called now …
        let _ = sys::tun::set_persistent(&held.fd, false);
        drop(held.fd);
        // … and at once, if the dataplane still has one.
        let space = match key.1.as_deref().map(netns::open_named).transpose() {
            Ok(space) => space,
            Err(_) => return Ok(()),
        };
        match self.factory.delete(&key.0, space.as_ref().map(|(fd, _)| fd.as_fd())) {
            Ok(_) | Err(TapError::NotATap { .. }) => Ok(()),
            Err(error) => Err(refused(error)),
        }
    }

    /// Sets the MTU of a tap that we hold.
    pub fn set_tap_mtu(&mut self, name: &str, netns: Option<&str>, mtu: u32) -> Granted {
        check_mtu(&format!("tap {name}"), mtu)?;
        if !self.taps.contains_key(&(name.to_owned(), netns.map(str::to_owned))) {
            return Err(Refused::rule(format!("tap {}: not held", names::shown(name))));
        }
        let space = netns.map(netns::open_named).transpose()?;
        self.factory.set_mtu(name, space.as_ref().map(|(fd, _)| fd.as_fd()), mtu).map_err(refused)?;
        Ok((Reply::Done, None))
    }

    /// Grants a raw socket on an interface. Why it is safe: the socket is bound to this one interface; the
    /// interface is Ethernet, so never the loopback; it is none of our taps (their frames come from us);
    /// and it has one role at a time. The dataplane cannot bind it to another one (its seccomp filter has
    /// no bind).
    pub fn open_netdev(&mut self, request: &NetdevRequest, generation: u32) -> Granted {
        let name = &request.name;
        names::interface(name)?;
        check_mtu(&format!("interface {name}"), request.mtu)?;
        if self.taps.contains_key(&(name.clone(), None)) {
            return Err(Refused::rule(format!(
                "interface {name}: is a tap that switchd made; attach it with --tap, or choose another"
            )));
        }
        self.links.want(name, &mut self.netlink);
        let link = self.find(name)?;
        if !link.ethernet {
            return Err(Refused::rule(format!("interface {name}: not Ethernet")));
        }
        if link.mtu < request.mtu {
            return Err(Refused::rule(format!(
                "interface {name}: its MTU {} is below the network's {}: raise it (`ip link set {name} mtu {}`) or \
                 lower the network's",
                link.mtu, request.mtu, request.mtu
            )));
        }
        let mut raised = false;
        if let Some(held) = self.netdevs.get(name) {
            if held.index == link.index && held.role == request.role {
                let fd = copy(&held.fd)?;
                self.netdevs.entry(name.clone()).and_modify(|held| held.generation = generation);
                return Ok((granted(&link), Some(fd)));
            }
            if held.index == link.index && held.generation == generation {
                return Err(Refused::rule(format!("interface {name}: in use already, in another role")));
            }
            raised = held.index == link.index && held.raised;
            self.netdevs.remove(name);
        }
        self.room()?;
        match request.role {
            // The guard first: no frame of a guest's may reach the host's stack.
            Role::Port => {
                let _guard = host_guard::install(&mut self.netlink, name).map_err(|error| {
                    Refused::io(format_args!("interface {name}: cannot keep the host off it"), &error)
                })?;
            }
            Role::Uplink | Role::Member => {
                host_guard::release(&mut self.netlink, name).map_err(|error| {
                    Refused::io(format_args!("interface {name}: cannot give it to the host"), &error)
                })?;
            }
        }
        let opened = netdev::open(link.index, &netdev::Options::default());
        let fd = match opened {
            Ok(fd) => fd,
            Err(error) => {
                if request.role == Role::Port {
                    let _ = host_guard::release(&mut self.netlink, name);
                }
                return Err(Refused::io(format_args!("interface {name}: cannot open it"), &error));
            }
        };
        // A port's interface is there for us alone: up, or nothing can pass. An uplink is the host's.
        if request.role == Role::Port && !link.up {
            raised = self.netlink.set_up(link.index, true).is_ok();
        }
        let link = self.find(name).unwrap_or(link);
        let given = copy(&fd)?;
        self.netdevs.insert(
            name.clone(),
            HeldNetdev { fd, index: link.index, role: request.role, generation, raised },
        );
        Ok((granted(&link), Some(given)))
    }

    /// Lets go of an interface and restores the host's stack on it.
    pub fn close_netdev(&mut self, name: &str) -> Granted {
        if let Some(held) = self.netdevs.remove(name) {
            self.release_netdev(name, held)?;
        }
        Ok((Reply::Done, None))
    }

    fn release_netdev(&mut self, name: &str, held: HeldNetdev) -> Result<(), Refused> {
        drop(held.fd);
        match self.netlink.link(name) {
            // Another interface of that name has nothing of ours.
            Ok(Some(link)) if link.index == held.index => {}
            _ => return Ok(()),
        }
        if held.raised {
            let _ = self.netlink.set_up(held.index, false);
        }
        if held.role == Role::Port {
            host_guard::release(&mut self.netlink, name).map_err(|error| {
                Refused::io(format_args!("interface {name}: cannot give it back"), &error)
            })?;
        }
        Ok(())
    }

    /// Releases all that a started dataplane does not know any more.
    pub fn retain(&mut self, taps: Vec<TapKey>, netdevs: Vec<String>, more: bool) -> Granted {
        self.retained.0.extend(taps);
        self.retained.1.extend(netdevs);
        if more {
            return Ok((Reply::Done, None));
        }
        let (taps, netdevs) = std::mem::take(&mut self.retained);
        self.vhost.retain(&netdevs);
        let old: Vec<TapKey> = self.taps.keys().filter(|key| !taps.contains(key)).cloned().collect();
        for key in old {
            if let Some(held) = self.taps.remove(&key)
                && let Err(error) = self.delete_tap(&key, held)
            {
                tracing::warn!("{error}");
            }
        }
        let old: Vec<String> = self.netdevs.keys().filter(|name| !netdevs.contains(name)).cloned().collect();
        for name in old {
            if let Some(held) = self.netdevs.remove(&name)
                && let Err(error) = self.release_netdev(&name, held)
            {
                tracing::warn!("{error}");
            }
        }
        self.namespaces.retain(|name| taps.iter().any(|(_, netns)| netns.as_deref() == Some(name)));
        Ok((Reply::Done, None))
    }

    /// At the orderly end: interfaces go back to the host, sockets are removed, taps stay.
    pub fn end(&mut self) {
        self.vhost.end();
        for (name, held) in std::mem::take(&mut self.netdevs) {
            if let Err(error) = self.release_netdev(&name, held) {
                tracing::warn!("{error}");
            }
        }
    }

    /// Reading is harmless: what is shown is shown to every user of the host.
    pub fn link(&mut self, name: &str) -> Granted {
        names::interface(name)?;
        self.links.want(name, &mut self.netlink);
        let link = self.find(name)?;
        let speed = speed(name);
        Ok((
            Reply::Link(LinkInfo {
                index: link.index,
                up: link.up,
                carrier: link.carrier,
                mac: link.mac.map(|mac| mac.0),
                mtu: link.mtu,
                name: link.name,
                speed: speed.mbits,
                full_duplex: speed.full_duplex,
            }),
            None,
        ))
    }

    pub fn counters(&mut self, name: &str, netns: Option<&str>) -> Granted {
        names::interface(name)?;
        let counters = match netns {
            Some(netns) => {
                let (space, _) = netns::open_named(netns)?;
                Netlink::in_netns(space.as_fd(), |netlink| netlink.counters(name))
            }
            None => self.netlink.counters(name),
        };
        match counters {
            Ok(Some(counters)) => Ok((
                Reply::Counters(counters.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()),
                None,
            )),
            Ok(None) => Err(missing(name)),
            Err(error) => Err(Refused::io(format_args!("interface {name}"), &error)),
        }
    }

    /// What has changed among the names under /run/netns. Copies that lead into one that is gone are
    /// closed here; the dataplane closes its own at the notice.
    pub fn namespace_changes(&mut self) -> Vec<Notice> {
        let changes = self.namespaces.changes();
        for change in &changes {
            if let Change::Gone(name) = change {
                self.taps.retain(|(_, netns), _| netns.as_deref() != Some(name));
            }
        }
        changes
            .into_iter()
            .map(|change| match change {
                Change::Gone(name) => Notice::NetnsGone(name),
                Change::Appeared(name) => Notice::NetnsAppeared(name),
            })
            .collect()
    }

    pub fn link_changes(&mut self) -> io::Result<Vec<Notice>> {
        let notices = self.links.changes()?;
        for notice in &notices {
            if let Notice::Link { name, gone: true, .. } = notice {
                self.netdevs.remove(name);
            }
        }
        Ok(notices)
    }

    /// When [`Devices::ask_carriers`] is due: never while there is no bond.
    pub fn carriers_due(&self) -> Option<Instant> {
        let bonds = self.netdevs.values().any(|held| held.role == Role::Member);
        bonds.then(|| self.carriers.due())
    }

    /// Asks for the carrier of every bond member.
    pub fn ask_carriers(&mut self, now: Instant) -> Vec<Notice> {
        let members = self.netdevs.iter().filter(|(_, held)| held.role == Role::Member);
        let members = members.map(|(name, held)| (name.as_str(), held.index));
        self.carriers.ask(now, members, &mut self.links, &mut self.netlink)
    }

    fn find(&mut self, name: &str) -> Result<Link, Refused> {
        match self.netlink.link(name) {
            Ok(Some(link)) => Ok(link),
            Ok(None) => Err(missing(name)),
            Err(error) => Err(Refused::io(format_args!("interface {name}"), &error)),
        }
    }
}

fn granted(link: &Link) -> Reply {
    let speed = speed(&link.name);
    Reply::Netdev {
        index: link.index,
        macs: link.own_macs().into_iter().map(|mac| mac.0).collect(),
        mtu: link.mtu,
        carrier: link.carrier,
        speed: speed.mbits,
        full_duplex: speed.full_duplex,
    }
}

/// Of an interface in our own namespace; not known where the driver does not say.
fn speed(name: &str) -> Speed {
    sys::ethtool::speed(name).unwrap_or_default()
}

fn missing(name: &str) -> Refused {
    Refused {
        errno: Some(rustix::io::Errno::NODEV.raw_os_error()),
        message: format!("interface {name}: there is none of that name here; see `ip link`"),
    }
}

fn check_mtu(what: &str, mtu: u32) -> Result<(), Refused> {
    if MTU.contains(&mtu) {
        return Ok(());
    }
    Err(Refused::rule(format!("{what}: MTU {mtu} is not from {} to {}", MTU.start(), MTU.end())))
}

fn copy(fd: &OwnedFd) -> Result<OwnedFd, Refused> {
    fd.try_clone().map_err(|error| Refused::io("cannot copy a descriptor", &error))
}

fn refused(error: TapError) -> Refused {
    Refused { errno: error.errno(), message: error.to_string() }
}
