//! User, groups, capabilities, and the bond to the broker.

use crate::broker::messages::Identity;
use anyhow::{Context, bail};
use caps::CapSet;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// Becomes `identity` (if there is one) and drops every capability for good. Returns whether the user
/// changed. An error means that privileges are left: do not go on.
pub fn give_up(identity: Option<Identity>) -> anyhow::Result<bool> {
    let held = |set| caps::read(None, set).context("cannot read the capabilities");
    // The bounding set first: later nothing may change it. Without CAP_SETPCAP there is nothing to gain
    // from it either, as no_new_privs keeps exec from granting anything.
    if held(CapSet::Effective)?.contains(&caps::Capability::CAP_SETPCAP) {
        caps::clear(None, CapSet::Bounding).context("cannot clear the bounding set")?;
    }
    let _ = caps::clear(None, CapSet::Ambient);
    if let Some(Identity { uid, gid }) = identity {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        setgroups(&[]).context("cannot drop the groups")?;
        setresgid(gid, gid, gid).with_context(|| format!("cannot become group {gid}"))?;
        setresuid(uid, uid, uid).with_context(|| format!("cannot become user {uid}"))?;
    }
    for set in [CapSet::Effective, CapSet::Inheritable, CapSet::Permitted] {
        caps::clear(None, set).context("cannot drop the capabilities")?;
    }
    rustix::thread::set_no_new_privs(true).context("cannot set no_new_privs")?;
    for set in [CapSet::Effective, CapSet::Inheritable, CapSet::Permitted, CapSet::Ambient] {
        if !held(set)?.is_empty() {
            bail!("capabilities are left in the {set:?} set: {:?}", held(set)?);
        }
    }
    if identity.is_some() && setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok() {
        bail!("the way back to root is open");
    }
    Ok(identity.is_some())
}

/// Without a broker nobody could end, restart or supply us.
pub fn die_with(broker: u32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot follow the broker")?;
    match getppid() {
        Some(parent) if parent.as_raw_nonzero().get() as u32 == broker => Ok(()),
        _ => bail!("the broker (pid {broker}) has ended already"),
    }
}
