//! Files: the state folder, and for reading what the C library and libpcap load on demand.
//!
//! Captures need no path: their descriptors come from the broker. Listening on TCP ports, abstract sockets
//! and signals of others are closed off where the kernel knows those rules; connecting is not, as guests
//! whose egress is the host may go anywhere.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::path::Path;

/// The rules that we know; an older kernel takes its share of them.
const KNOWN: ABI = ABI::V6;

/// libpcap.so and its like; names of services and protocols in filters; our own figures.
const READABLE: [&str; 12] = [
    "/usr",
    "/nix/store",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/hosts",
    "/etc/ethers",
    "/proc/self",
    "/dev/urandom",
];

/// False when the kernel has no landlock.
pub fn restrict(state: &Path) -> Result<bool, RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(KNOWN))?
        .create()?;
    if let Ok(folder) = PathFd::new(state) {
        let all = AccessFs::from_all(KNOWN) & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock);
        rules = rules.add_rule(PathBeneath::new(folder, all))?;
    }
    for path in READABLE {
        // What does not exist need not be read.
        let Ok(open) = PathFd::new(path) else { continue };
        let is_folder = std::fs::metadata(path).is_ok_and(|meta| meta.is_dir());
        let access =
            if is_folder { AccessFs::ReadFile | AccessFs::ReadDir } else { AccessFs::ReadFile.into() };
        rules = rules.add_rule(PathBeneath::new(open, access))?;
    }
    Ok(rules.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}
