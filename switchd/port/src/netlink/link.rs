//! Links: list, make, change, delete.

use super::{Netlink, attributes, malformed, stats, text_of, u32_of};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use switchd_wire::MacAddr;

/// struct ifinfomsg.
const HEADER: usize = 16;
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 1 << 16;
const ARPHRD_ETHER: u16 = 1;
pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;

// linux/if_link.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_STATS64: u16 = 23;
const IFLA_PERM_ADDRESS: u16 = 54;
const IFLA_INFO_KIND: u16 = 1;

/// An interface as the kernel shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Its address; `None` for an interface that is not Ethernet.
    pub mac: Option<MacAddr>,
    /// The address burnt into the NIC, where there is one.
    pub permanent: Option<MacAddr>,
    /// Bytes behind the Ethernet header.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// The lower layer has a link (IFF_LOWER_UP). A down interface has none.
    pub carrier: bool,
    /// RFC 2863 operational state: 6 is up, 2 down, 0 unknown, 3 lower layer down.
    pub operstate: u8,
    /// `veth`, `tun`, `bridge`, …; `None` for hardware.
    pub kind: Option<String>,
    /// The bridge or bond that the interface is a member of.
    pub master: Option<u32>,
    pub ethernet: bool,
    /// What its maker or its user has written on it.
    pub alias: Option<String>,
}

impl Link {
    /// Reads an RTM_NEWLINK or RTM_DELLINK.
    pub(super) fn parse(body: &[u8]) -> Option<Link> {
        let hardware = u16::from_ne_bytes(*body.get(2..)?.first_chunk()?);
        let index = u32_of(body.get(4..)?)?;
        let flags = u32_of(body.get(8..)?)?;
        let ethernet = hardware == ARPHRD_ETHER;
        let mac = |value: &[u8]| value.try_into().ok().filter(|_| ethernet).map(MacAddr);
        let mut link = Link {
            index,
            up: flags & IFF_UP != 0,
            carrier: flags & IFF_LOWER_UP != 0,
            ethernet,
            ..Link::default()
        };
        for (kind, value) in attributes(body, HEADER) {
            match kind {
                IFLA_ADDRESS => link.mac = mac(value),
                IFLA_PERM_ADDRESS => link.permanent = mac(value),
                IFLA_IFNAME => link.name = text_of(value),
                IFLA_MTU => link.mtu = u32_of(value)?,
                IFLA_MASTER => link.master = u32_of(value),
                IFLA_OPERSTATE => link.operstate = *value.first()?,
                IFLA_IFALIAS => link.alias = Some(text_of(value)),
                IFLA_LINKINFO => {
                    link.kind = attributes(value, 0)
                        .find(|&(kind, _)| kind == IFLA_INFO_KIND)
                        .map(|(_, text)| text_of(text));
                }
                _ => {}
            }
        }
        Some(link)
    }

    /// The addresses that are the interface's own.
    pub fn own_macs(&self) -> Vec<MacAddr> {
        let mut own: Vec<MacAddr> =
            self.mac.into_iter().chain(self.permanent).filter(|mac| !mac.is_zero()).collect();
        own.dedup();
        own
    }

    pub fn is_tap(&self) -> bool {
        self.ethernet && self.kind.as_deref() == Some("tun")
    }
}

/// What is to become of an interface, in one request. The kernel moves it first and applies the rest
/// there, in the order of the fields: what fails there (a name that is taken, an MTU out of range) leaves
/// it moved.
#[derive(Clone, Default)]
pub struct Change<'a> {
    /// Another namespace to move to.
    pub netns: Option<BorrowedFd<'a>>,
    pub name: Option<&'a str>,
    pub mac: Option<MacAddr>,
    pub mtu: Option<u32>,
    pub alias: Option<&'a str>,
    pub up: Option<bool>,
}

impl Netlink {
    /// All interfaces of the namespace.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let replies = self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        let links = replies.iter().filter(|reply| reply.kind == RTM_NEWLINK);
        links.map(|reply| Link::parse(&reply.body).ok_or_else(|| malformed("link"))).collect()
    }

    /// The interface of that name, if there is one.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        self.raw_link(name)?.map(|body| Link::parse(&body).ok_or_else(|| malformed("link"))).transpose()
    }

    pub fn link_by_index(&mut self, index: u32) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.one(message)?.map(|body| Link::parse(&body).ok_or_else(|| malformed("link"))).transpose()
    }

    /// As [`Netlink::link_by_index`], for those that ask often.
    pub fn link_without_counters(&mut self, index: u32) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        self.one(message)?.map(|body| Link::parse(&body).ok_or_else(|| malformed("link"))).transpose()
    }

    /// The counters of the interface of that name, by the names of struct rtnl_link_stats64.
    pub fn counters(&mut self, name: &str) -> io::Result<Option<BTreeMap<&'static str, u64>>> {
        let Some(body) = self.raw_link(name)? else { return Ok(None) };
        let raw = attributes(&body, HEADER).find(|&(kind, _)| kind == IFLA_STATS64).map(|(_, raw)| raw);
        Ok(Some(stats::parse(raw.unwrap_or_default())))
    }

    fn raw_link(&mut self, name: &str) -> io::Result<Option<Vec<u8>>> {
        // The kernel answers a name that cannot be one with ERANGE or EINVAL.
        if crate::sys::interface_name(name).is_err() {
            return Ok(None);
        }
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.one(message)
    }

    fn one(&mut self, message: LinkMessage) -> io::Result<Option<Vec<u8>>> {
        match self.get(RouteNetlinkMessage::GetLink(message)) {
            Ok(replies) => {
                Ok(replies.into_iter().find(|reply| reply.kind == RTM_NEWLINK).map(|reply| reply.body))
            }
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a pair of veths: `name` here and `peer` in `netns` (or here too). EEXIST when one is taken.
    pub fn create_veth(&mut self, name: &str, peer: &str, netns: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut far = LinkMessage::default();
        far.attributes.push(LinkAttribute::IfName(peer.to_owned()));
        far.attributes.extend(netns.map(|fd| LinkAttribute::NetNsFd(fd.as_raw_fd())));
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
        ]));
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Deletes an interface. ENODEV when there is none, EOPNOTSUPP for hardware.
    pub fn delete(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.request(RouteNetlinkMessage::DelLink(message), 0)
    }

    /// Changes an interface in one request, which is not all or nothing: see [`Change`].
    pub fn change(&mut self, index: u32, change: &Change<'_>) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        if let Some(up) = change.up {
            message.header.change_mask = LinkFlags::Up;
            message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        }
        let attributes = &mut message.attributes;
        attributes.extend(change.netns.map(|fd| LinkAttribute::NetNsFd(fd.as_raw_fd())));
        attributes.extend(change.name.map(|name| LinkAttribute::IfName(name.to_owned())));
        attributes.extend(change.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
        attributes.extend(change.mtu.map(LinkAttribute::Mtu));
        attributes.extend(change.alias.map(|alias| LinkAttribute::IfAlias(alias.to_owned())));
        self.request(RouteNetlinkMessage::SetLink(message), 0)
    }

    pub fn set_up(&mut self, index: u32, up: bool) -> io::Result<()> {
        self.change(index, &Change { up: Some(up), ..Change::default() })
    }

    /// Sets the MTU in bytes. EINVAL outside of what the driver takes.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        self.change(index, &Change { mtu: Some(mtu), ..Change::default() })
    }

    pub fn set_mac(&mut self, index: u32, mac: MacAddr) -> io::Result<()> {
        self.change(index, &Change { mac: Some(mac), ..Change::default() })
    }

    pub fn rename(&mut self, index: u32, name: &str) -> io::Result<()> {
        self.change(index, &Change { name: Some(name), ..Change::default() })
    }

    /// Moves an interface to another namespace, under `name` there if given. EEXIST when that is taken
    /// there: then it has moved under its old name.
    pub fn move_to(&mut self, index: u32, netns: BorrowedFd<'_>, name: Option<&str>) -> io::Result<()> {
        self.change(index, &Change { netns: Some(netns), name, ..Change::default() })
    }

    /// Adds an address with its on-link prefix. EEXIST when the interface has it.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.prefix_len = prefix;
        message.header.index = index;
        message.attributes.push(AddressAttribute::Local(address));
        message.attributes.push(AddressAttribute::Address(address));
        self.request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Adds a route by `gateway`, which must be on a link. EEXIST when there is one to the same prefix.
    pub fn add_route(&mut self, to: IpAddr, prefix: u8, gateway: IpAddr) -> io::Result<()> {
        let mut message = RouteMessage::default();
        let address = |address: IpAddr| match address {
            IpAddr::V4(v4) => RouteAddress::Inet(v4),
            IpAddr::V6(v6) => RouteAddress::Inet6(v6),
        };
        message.header.address_family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.destination_prefix_length = prefix;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        if prefix > 0 {
            message.attributes.push(RouteAttribute::Destination(address(to)));
        }
        message.attributes.push(RouteAttribute::Gateway(address(gateway)));
        self.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
    }
}
