//! Making, finding again and deleting taps.
//!
//! A descriptor opened inside a namespace keeps that namespace alive, one opened outside does not: so a new
//! tap is made here, under a passing name, and moved to its namespace and name in one netlink request. When
//! the namespace is deleted, the tap goes with it and the descriptor says EBADFD.
//!
//! A tap is persistent: it outlives us with its addresses, without carrier, and [`TapFactory::open`] takes
//! it again. That can only be done from inside; a helper thread does it, and this descriptor does keep the
//! namespace alive: whoever holds it must close it when the namespace's name goes.
//!
//! A tap of ours carries a mark, the interface alias `switchd`. One without it is somebody else's and is left
//! alone, unless its address is the one that is wanted: then the user has written another alias on ours.
//!
//! A tap becomes persistent only once it is in its place: a crash half-way, or a step that fails there (the
//! name was taken meanwhile, the MTU is out of range), leaves nothing behind.

use crate::netlink::{Change, Link, Netlink};
use crate::{netns, sys};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use switchd_wire::MacAddr;
use switchd_wire::vnet::VNET_LEN;

/// The passing name; the kernel puts a free number in.
const PASSING_NAME: &str = "swtap%d";
/// The alias of every tap that was made here.
const MARK: &str = "switchd";

/// The tap that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct TapSpec<'a> {
    pub name: &'a str,
    /// Where it is to stand; `None` is the calling thread's namespace.
    pub netns: Option<BorrowedFd<'a>>,
    pub mac: MacAddr,
    /// Bytes behind the Ethernet header.
    pub mtu: u32,
}

/// A tap that we hold. The descriptor does not wait, and its frames stand behind a virtio header.
#[derive(Debug)]
pub struct Tap {
    pub fd: OwnedFd,
    /// It stood there already. Then the descriptor keeps its namespace alive.
    pub reattached: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum TapError {
    #[error(
        "tap {name}: an interface of this name exists and is of kind {kind}: delete it or choose another name"
    )]
    NotATap { name: String, kind: String },
    #[error(
        "tap {name}: a tap of this name exists that switchd did not make: delete it (`ip link delete {name}`, in its \
         namespace), attach it with --netdev if a virtual machine uses it, or choose another name"
    )]
    Foreign { name: String },
    #[error("tap {name}: another program holds it: end that program or choose another name")]
    Busy { name: String },
    #[error("tap {name}: cannot {step}: {source}")]
    System { name: String, step: &'static str, source: io::Error },
}

impl TapError {
    /// The kernel's reason, as an errno.
    pub fn errno(&self) -> Option<i32> {
        match self {
            TapError::NotATap { .. } | TapError::Foreign { .. } => Some(libc::EEXIST),
            TapError::Busy { .. } => Some(libc::EBUSY),
            TapError::System { source, .. } => source.raw_os_error(),
        }
    }
}

/// Makes taps from the namespace in which it was made. Needs CAP_NET_ADMIN, and CAP_SYS_ADMIN to enter
/// other namespaces.
pub struct TapFactory {
    netlink: Netlink,
}

/// Names the tap and the step in an error.
fn at<'a>(name: &'a str, step: &'static str) -> impl Fn(io::Error) -> TapError + 'a {
    move |source| TapError::System { name: name.to_owned(), step, source }
}

impl TapFactory {
    pub fn new() -> io::Result<TapFactory> {
        Ok(TapFactory { netlink: Netlink::new()? })
    }

    /// Makes the tap, or takes the persistent one of ours that stands there. A new one is brought up; one that
    /// stood there is left up or down as it was, and gets the wanted address and MTU.
    pub fn open(&mut self, spec: &TapSpec<'_>) -> Result<Tap, TapError> {
        sys::interface_name(spec.name).map_err(at(spec.name, "use the name"))?;
        match self.find(spec.name, spec.netns)? {
            Some(link) if link.is_tap() && is_ours(&link, spec) => self.reattach(spec, &link),
            Some(link) if link.is_tap() => Err(TapError::Foreign { name: spec.name.to_owned() }),
            Some(link) => Err(TapError::NotATap {
                name: spec.name.to_owned(),
                kind: link.kind.unwrap_or_else(|| "hardware".to_owned()),
            }),
            None => self.create(spec),
        }
    }

    /// Deletes the tap, whoever holds it. False when there is none. An interface of that name that is no
    /// tap is left alone and an error.
    pub fn delete(&mut self, name: &str, netns: Option<BorrowedFd<'_>>) -> Result<bool, TapError> {
        match self.find(name, netns)? {
            None => Ok(false),
            Some(link) if !link.is_tap() => Err(TapError::NotATap {
                name: name.to_owned(),
                kind: link.kind.unwrap_or_else(|| "hardware".to_owned()),
            }),
            Some(link) => match self.inside(netns, |netlink| netlink.delete(link.index)) {
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
                other => other.map(|()| true).map_err(at(name, "delete it")),
            },
        }
    }

    /// Sets the MTU, in bytes behind the Ethernet header.
    pub fn set_mtu(&mut self, name: &str, netns: Option<BorrowedFd<'_>>, mtu: u32) -> Result<(), TapError> {
        let step = "set its MTU";
        let link = self
            .find(name, netns)?
            .ok_or_else(|| at(name, step)(io::Error::from_raw_os_error(libc::ENODEV)))?;
        self.inside(netns, |netlink| netlink.set_mtu(link.index, mtu)).map_err(at(name, step))
    }

    /// The interface of that name, of whatever kind.
    pub fn find(&mut self, name: &str, netns: Option<BorrowedFd<'_>>) -> Result<Option<Link>, TapError> {
        self.inside(netns, |netlink| netlink.link(name)).map_err(at(name, "look for it"))
    }

    fn inside<T: Send>(
        &mut self,
        netns: Option<BorrowedFd<'_>>,
        work: impl FnOnce(&mut Netlink) -> io::Result<T> + Send,
    ) -> io::Result<T> {
        match netns {
            Some(netns) => Netlink::in_netns(netns, work),
            None => work(&mut self.netlink),
        }
    }

    fn create(&mut self, spec: &TapSpec<'_>) -> Result<Tap, TapError> {
        let name = spec.name;
        let fd = sys::tun::open_control().map_err(at(name, "open /dev/net/tun"))?;
        let first_name = if spec.netns.is_some() { PASSING_NAME } else { name };
        let present = attach(&fd, name, first_name)?;
        let link = self.netlink.link(&present).map_err(at(name, "find what was made"))?;
        let index = link
            .ok_or_else(|| at(name, "find what was made")(io::Error::from_raw_os_error(libc::ENODEV)))?
            .index;
        let change = Change {
            netns: spec.netns,
            name: spec.netns.map(|_| name),
            mac: Some(spec.mac),
            mtu: Some(spec.mtu),
            alias: Some(MARK),
            up: Some(true),
        };
        self.netlink.change(index, &change).map_err(at(name, "put it in its place"))?;
        sys::tun::set_persistent(&fd, true).map_err(at(name, "make it persistent"))?;
        Ok(Tap { fd, reattached: false })
    }

    fn reattach(&mut self, spec: &TapSpec<'_>, link: &Link) -> Result<Tap, TapError> {
        let name = spec.name;
        let fd = netns::within(spec.netns, || {
            let fd = sys::tun::open_control().map_err(at(name, "open /dev/net/tun"))?;
            attach(&fd, name, name)?;
            Ok(fd)
        })
        .map_err(at(name, "enter its namespace"))??;
        sys::tun::set_persistent(&fd, true).map_err(at(name, "make it persistent"))?;
        let change = Change {
            mac: Some(spec.mac).filter(|&mac| link.mac != Some(mac)),
            mtu: Some(spec.mtu).filter(|&mtu| link.mtu != mtu),
            ..Change::default()
        };
        if change.mac.is_some() || change.mtu.is_some() {
            self.inside(spec.netns, |netlink| netlink.change(link.index, &change))
                .map_err(at(name, "set its address and MTU"))?;
        }
        Ok(Tap { fd, reattached: true })
    }
}

fn is_ours(link: &Link, spec: &TapSpec<'_>) -> bool {
    link.alias.as_deref() == Some(MARK) || link.mac == Some(spec.mac)
}

/// Attaches and sets what is the device's, not the descriptor's. Returns the present name.
fn attach(fd: impl AsFd, name: &str, present: &str) -> Result<String, TapError> {
    let present = sys::tun::attach(fd.as_fd(), present).map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) => TapError::Busy { name: name.to_owned() },
        _ => at(name, "attach to it")(error),
    })?;
    sys::tun::set_header_len(fd.as_fd(), VNET_LEN).map_err(at(name, "set its header"))?;
    sys::tun::set_offloads(fd.as_fd()).map_err(at(name, "set its offloads"))?;
    Ok(present)
}
