//! What the dataplane must know of the host: its addresses and routes, and its name servers.
//!
//! Both are read at a request; from the first request on a change is told. Addresses and routes: at most
//! one notice in [`LEAST`], whatever the routing daemon does. Name servers: /etc/resolv.conf, which is often
//! a link to a file that is replaced, so the folders of both are watched and the text is compared; and the
//! file itself, which in a container is written by another name, in a folder that is not seen there.

use super::devices::Granted;
use super::messages::{HostAddress, HostRoute, Notice, Prefix, Refused, Reply};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use switchd_port::netlink::{HostMonitor, Netlink};
use switchd_wire::prefix::{mask4, mask6};

/// Between two notices of changed addresses and routes.
pub const LEAST: Duration = Duration::from_secs(1);
/// Rows of an answer; further ones are left out.
const ADDRESSES_MAX: usize = 1024;
const ROUTES_MAX: usize = 256;
/// Bytes of a resolv.conf that are looked at.
const RESOLV_MAX: u64 = 16 * 1024;
pub const RESOLV: &str = "/etc/resolv.conf";

pub struct Host {
    netlink: Netlink,
    monitor: Option<HostMonitor>,
    told: Option<Instant>,
    /// Something has changed and was not told yet.
    pending: bool,
    resolv: Option<Resolv>,
}

struct Resolv {
    path: PathBuf,
    watch: Inotify,
    text: String,
}

impl Host {
    pub fn new() -> io::Result<Host> {
        Ok(Host { netlink: Netlink::new()?, monitor: None, told: None, pending: false, resolv: None })
    }

    /// The host's addresses, and those of its routes that overlap with one of `prefixes`. Reading is
    /// harmless: every user of the host sees them.
    pub fn net(&mut self, prefixes: &[Prefix]) -> Granted {
        self.read_net(prefixes)
            .map(|reply| (reply, None))
            .map_err(|error| Refused::io("the host's addresses and routes", &error))
    }

    fn read_net(&mut self, prefixes: &[Prefix]) -> io::Result<Reply> {
        if self.monitor.is_none() {
            self.monitor = Some(HostMonitor::new()?);
        }
        let names: BTreeMap<u32, String> =
            self.netlink.links()?.into_iter().map(|link| (link.index, link.name)).collect();
        let addresses = self.netlink.addresses()?.into_iter().filter_map(|row| {
            let interface = names.get(&row.index)?.clone();
            Some(HostAddress { interface, prefix: Prefix { address: row.address, len: row.prefix } })
        });
        let addresses = addresses.take(ADDRESSES_MAX).collect();
        let routes = self.netlink.routes()?.into_iter().filter_map(|row| {
            let prefix = Prefix { address: row.destination, len: row.prefix };
            let interface = row.index.and_then(|index| names.get(&index)).cloned();
            prefixes.iter().any(|wanted| wanted.overlaps(&prefix)).then_some(HostRoute { prefix, interface })
        });
        Ok(Reply::HostNet { addresses, routes: routes.take(ROUTES_MAX).collect() })
    }

    /// Readable when addresses or routes have changed; none while a notice has to wait anyway.
    pub fn monitor(&self) -> Option<BorrowedFd<'_>> {
        self.monitor.as_ref().filter(|_| !self.pending).map(HostMonitor::descriptor)
    }

    /// When a notice that has waited may be told.
    pub fn due(&self) -> Option<Instant> {
        self.pending.then(|| self.told.map(|told| told + LEAST)).flatten()
    }

    /// What is to be told now.
    pub fn changes(&mut self, now: Instant) -> Option<Notice> {
        match self.monitor.as_mut()?.changed() {
            Ok(changed) => self.pending |= changed,
            Err(error) => {
                tracing::warn!("notices of addresses and routes: {error}");
                self.monitor = None;
                return None;
            }
        }
        if !self.pending || self.told.is_some_and(|told| now < told + LEAST) {
            return None;
        }
        self.pending = false;
        self.told = Some(now);
        Some(Notice::HostChanged)
    }

    /// Text of resolv.conf; empty when there is none. Why it is safe: every user of the host may read it.
    pub fn resolv(&mut self, path: &Path) -> Granted {
        let made = || -> io::Result<Resolv> {
            let watch = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
            Ok(Resolv { path: path.to_owned(), watch, text: String::new() })
        };
        if self.resolv.is_none() {
            self.resolv = Some(made().map_err(|error| Refused::io(path.display(), &error))?);
        }
        let Some(resolv) = &mut self.resolv else { return Ok((Reply::Resolv(String::new()), None)) };
        resolv.watch_all();
        resolv.text = read(&resolv.path);
        Ok((Reply::Resolv(resolv.text.clone()), None))
    }

    pub fn resolv_watch(&self) -> Option<BorrowedFd<'_>> {
        self.resolv.as_ref().map(|resolv| resolv.watch.as_fd())
    }

    /// The new text, when it has changed.
    pub fn resolv_change(&mut self) -> Option<Notice> {
        let resolv = self.resolv.as_mut()?;
        // What has happened in the folders does not matter, only what the file is now.
        while resolv.watch.read_events().is_ok_and(|events| !events.is_empty()) {}
        resolv.watch_all();
        let text = read(&resolv.path);
        if text == resolv.text {
            return None;
        }
        resolv.text.clone_from(&text);
        Some(Notice::Resolv(text))
    }
}

impl Resolv {
    /// The folder of the name, the file that it leads to now, and that one's folder. A watch that stands is
    /// kept by the kernel; one of what is gone goes by itself.
    fn watch_all(&self) {
        let events = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ONLYDIR;
        let target = fs::canonicalize(&self.path).ok();
        for folder in [self.path.parent(), target.as_deref().and_then(Path::parent)].into_iter().flatten() {
            if let Err(error) = self.watch.add_watch(folder, events) {
                tracing::warn!("{} is not watched: {error}", folder.display());
            }
        }
        if let Some(file) = target {
            // One that is gone by now is seen by its folder's watch.
            let _ = self.watch.add_watch(&file, AddWatchFlags::IN_CLOSE_WRITE);
        }
    }
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = fs::File::open(path)
        && file.metadata().is_ok_and(|meta| meta.is_file())
    {
        // As much as could be read is better than nothing.
        let _ = file.take(RESOLV_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Prefix {
    pub fn overlaps(&self, other: &Prefix) -> bool {
        let len = self.len.min(other.len);
        match (self.address, other.address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let mask = mask4(len);
                a.to_bits() & mask == b.to_bits() & mask
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let mask = mask6(len);
                a.to_bits() & mask == b.to_bits() & mask
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, len) = text.split_once('/').unwrap();
        Prefix { address: address.parse().unwrap(), len: len.parse().unwrap() }
    }

    #[test]
    fn prefixes_overlap_when_the_shorter_one_holds_the_other() {
        for (a, b, wanted) in [
            ("10.7.0.0/24", "10.7.0.128/25", true),
            ("10.7.0.0/24", "10.0.0.0/8", true),
            ("10.7.0.0/24", "10.7.1.0/24", false),
            ("10.7.0.0/24", "10.7.0.9/32", true),
            ("0.0.0.0/0", "192.0.2.1/32", true),
            ("fd00:7::/64", "fd00::/8", true),
            ("fd00:7::/64", "fd00:8::/64", false),
            ("fd00:7::/64", "10.0.0.0/8", false),
            ("::/0", "0.0.0.0/0", false),
        ] {
            assert_eq!(prefix(a).overlaps(&prefix(b)), wanted, "{a} {b}");
            assert_eq!(prefix(b).overlaps(&prefix(a)), wanted, "{b} {a}");
        }
    }

    #[test]
    fn a_resolv_conf_that_is_replaced_through_its_link_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let (etc, run) = (folder.path().join("etc"), folder.path().join("run"));
        fs::create_dir(&etc).unwrap();
        fs::create_dir(&run).unwrap();
        let path = etc.join("resolv.conf");
        fs::write(run.join("stub"), "nameserver 192.0.2.1\n").unwrap();
        std::os::unix::fs::symlink("../run/stub", &path).unwrap();
        let mut host = Host::new().unwrap();
        let (reply, _) = host.resolv(&path).unwrap();
        assert_eq!(reply, Reply::Resolv("nameserver 192.0.2.1\n".to_owned()));
        assert_eq!(host.resolv_change(), None);
        fs::write(run.join("new"), "nameserver 192.0.2.2\n").unwrap();
        fs::rename(run.join("new"), run.join("stub")).unwrap();
        assert_eq!(host.resolv_change(), Some(Notice::Resolv("nameserver 192.0.2.2\n".to_owned())));
        assert_eq!(host.resolv_change(), None);
        // The link becomes a file, and goes.
        fs::remove_file(&path).unwrap();
        assert_eq!(host.resolv_change(), Some(Notice::Resolv(String::new())));
        fs::write(&path, "nameserver ::1\n").unwrap();
        assert_eq!(host.resolv_change(), Some(Notice::Resolv("nameserver ::1\n".to_owned())));
    }

    #[test]
    fn a_resolv_conf_that_is_written_by_another_name_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (etc, elsewhere) = (folder.path().join("etc"), folder.path().join("elsewhere"));
        fs::create_dir(&etc).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        // One file with two names, as where a container's is a mount of a file outside.
        let path = etc.join("resolv.conf");
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        fs::hard_link(&path, elsewhere.join("resolv.conf")).unwrap();
        let mut host = Host::new().unwrap();
        host.resolv(&path).unwrap();
        let told = |host: &Host| {
            use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
            let mut wait = [PollFd::new(host.resolv_watch().unwrap(), PollFlags::POLLIN)];
            poll(&mut wait, PollTimeout::ZERO).unwrap() > 0
        };
        assert!(!told(&host));
        fs::write(elsewhere.join("resolv.conf"), "nameserver 192.0.2.2\n").unwrap();
        assert!(told(&host), "its own events wake us");
        assert_eq!(host.resolv_change(), Some(Notice::Resolv("nameserver 192.0.2.2\n".to_owned())));
        assert!(!told(&host));
    }
}
