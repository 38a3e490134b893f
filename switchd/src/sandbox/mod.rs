//! The dataplane process gives up everything that it does not need, before it starts its first thread.
//!
//! In this order: landlock (opened while the folders can still be reached), user, groups and capabilities,
//! the wish to die with the broker (a change of user clears it), seccomp. Each part is tried on its own; a
//! kernel without one of them leaves the others, and [`enter`] says which parts hold. Giving up the
//! privileges is the exception: a dataplane that would keep them does not start.
//!
//! Not here: namespaces of the dataplane's own. It opens no path outside of landlock's, sees no interface
//! but through descriptors it was given, and cannot signal or trace anybody.

mod landlock;
mod privileges;
mod seccomp;

use crate::broker::messages::Identity;
use std::path::Path;

/// Applies all parts to the calling thread, from which later ones inherit them. `state` is written to.
/// Returns the parts that hold, by the names that `status` shows.
pub fn enter(state: &Path, identity: Option<Identity>, broker: u32) -> anyhow::Result<Vec<String>> {
    let mut parts = Vec::new();
    let landlock = landlock::restrict(state);
    if privileges::give_up(identity)? {
        parts.push("uid".to_owned());
    }
    parts.push("capabilities".to_owned());
    privileges::die_with(broker)?;
    match landlock {
        Ok(true) => parts.push("landlock".to_owned()),
        Ok(false) => {
            tracing::warn!("this kernel has no landlock: the dataplane's files are held by its user only")
        }
        Err(error) => tracing::warn!("landlock does not hold: {error}"),
    }
    match seccomp::restrict() {
        Ok(()) => parts.push("seccomp".to_owned()),
        Err(error) => tracing::warn!("seccomp does not hold: {error}"),
    }
    Ok(parts)
}
