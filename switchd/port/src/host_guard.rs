//! Keeps the host's own stack off an interface that is a port.
//!
//! The host would otherwise read what guests send: an address on the device would answer, IPv6 would make
//! itself an address, and an isolated network would leak into the host. So a classic BPF program on the ingress
//! hook drops every frame there; AF_PACKET sockets stand in front of that hook and see them all. IPv6 is
//! switched off on the device, so that the host sends no router solicitations and reports into the network.
//!
//! The guard is a kernel object with a fixed priority and one of two handles. It outlives its maker: after a
//! crash the device stays guarded, [`install`] finds the old guard, [`release`] takes it away. What is to be
//! restored is told by the handle, so that no second crash can lose it.
//!
//! Left out: frames that the host itself sends by the device (an address configured on it makes it send
//! ARP requests). Switching IPv6 off deletes the device's IPv6 addresses; switching it on again brings back
//! the link-local one only.

use crate::netlink::tc::{Filter, drop_all};
use crate::netlink::{Link, Netlink};
use std::io;

/// "sd", and low enough to come before what others may have put there.
const PRIORITY: u16 = 1;
const HANDLE: u32 = 0x7364;
/// The handle where IPv6 had been off before.
const HANDLE_IPV6_OFF: u32 = 0x7365;

/// Says that an interface is guarded. Dropping it leaves the guard in place: give it to [`release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the interface stays guarded until it is released"]
pub struct HostGuard {
    pub index: u32,
    pub name: String,
}

/// Guards the interface `name` of the calling thread's namespace; once more is no error.
/// ENODEV when there is none, EPERM without CAP_NET_ADMIN.
pub fn install(netlink: &mut Netlink, name: &str) -> io::Result<HostGuard> {
    let Some(Link { index, .. }) = netlink.link(name)? else {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    };
    let ipv6_was_off = match installed(netlink, index)? {
        Some(saved) => saved,
        None => ipv6_is_off(name),
    };
    netlink.add_clsact(index)?;
    netlink.drop_all_on_ingress(index, PRIORITY, handle(ipv6_was_off))?;
    if let Err(error) = switch_ipv6(name, true) {
        release(netlink, name)?;
        return Err(error);
    }
    Ok(HostGuard { index, name: name.to_owned() })
}

/// Takes the guard off and restores what was there before. False when the interface is gone or had none.
pub fn release(netlink: &mut Netlink, name: &str) -> io::Result<bool> {
    let Some(Link { index, .. }) = netlink.link(name)? else { return Ok(false) };
    let Some(ipv6_was_off) = installed(netlink, index)? else { return Ok(false) };
    netlink.delete_ingress_filter(index, PRIORITY, handle(ipv6_was_off))?;
    if netlink.filters(index)?.is_empty() {
        // Ours, or one that did nothing.
        let _ = netlink.delete_clsact(index);
    }
    if !ipv6_was_off {
        switch_ipv6(name, false)?;
    }
    Ok(true)
}

/// The interfaces of this namespace that carry a guard, whoever installed it.
pub fn guarded(netlink: &mut Netlink) -> io::Result<Vec<HostGuard>> {
    let mut guards = Vec::new();
    for Link { index, name, .. } in netlink.links()? {
        if installed(netlink, index)?.is_some() {
            guards.push(HostGuard { index, name });
        }
    }
    Ok(guards)
}

/// Whether the guard is there, and if so, whether IPv6 had been off before it.
fn installed(netlink: &mut Netlink, index: u32) -> io::Result<Option<bool>> {
    let filters = netlink.ingress_filters(index)?;
    let ours = |filter: &&Filter| filter.priority == PRIORITY && filter.program == drop_all();
    let mut states = filters.iter().filter(ours).filter_map(|filter| match filter.handle {
        HANDLE => Some(false),
        HANDLE_IPV6_OFF => Some(true),
        _ => None,
    });
    Ok(states.next())
}

fn handle(ipv6_was_off: bool) -> u32 {
    if ipv6_was_off { HANDLE_IPV6_OFF } else { HANDLE }
}

fn ipv6_switch(name: &str) -> String {
    format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
}

/// A kernel without IPv6 has it off.
fn ipv6_is_off(name: &str) -> bool {
    std::fs::read_to_string(ipv6_switch(name)).map_or(true, |text| text.trim() != "0")
}

fn switch_ipv6(name: &str, off: bool) -> io::Result<()> {
    match std::fs::write(ipv6_switch(name), if off { "1" } else { "0" }) {
        // No IPv6 in this kernel, or an MTU below its minimum, which switches it off too.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
