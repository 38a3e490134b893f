//! Namespaces, guests and the daemon: made here, and gone with the process.

use super::api::Api;
use anyhow::{Context, Result, bail};
use crossbeam_channel::{Receiver, Sender, bounded};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getgid, getuid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use switchd_port::netlink::Netlink;
use switchd_wire::MacAddr;

/// What has to be cleaned up, also from the thread that waits for signals.
#[derive(Default)]
struct Remains {
    folder: Option<PathBuf>,
    daemons: Vec<Child>,
    /// Cleared: nothing may be made any more.
    over: bool,
}

impl Remains {
    fn clear(&mut self) {
        self.over = true;
        for daemon in &self.daemons {
            let _ = kill(Pid::from_raw(daemon.id() as i32), Signal::SIGTERM);
        }
        for mut daemon in self.daemons.drain(..) {
            let deadline = Instant::now() + Duration::from_secs(3);
            while matches!(daemon.try_wait(), Ok(None)) {
                if Instant::now() > deadline {
                    let _ = daemon.kill();
                    let _ = daemon.wait();
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if let Some(folder) = self.folder.take() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

pub struct Stage {
    folder: PathBuf,
    remains: Arc<Mutex<Remains>>,
    signalled: crossbeam_channel::Receiver<()>,
}

impl Stage {
    /// Moves this process into namespaces of its own. Must run before any thread is started.
    pub fn enter() -> Result<Stage> {
        let (uid, gid) = (getuid(), getgid());
        let apart = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
        if !uid.is_root() || unshare(apart).is_err() {
            unshare(apart | CloneFlags::CLONE_NEWUSER).context(
                "this machine allows no user namespaces to ordinary users: run `sudo switchd demo`, or set \
                 the sysctl kernel.unprivileged_userns_clone (Debian) or \
                 kernel.apparmor_restrict_unprivileged_userns (Ubuntu)",
            )?;
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
            fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
        }
        let nowhere = None::<&str>;
        mount(nowhere, "/", nowhere, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nowhere)?;
        mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
            .context("cannot mount a private /run")?;
        fs::create_dir("/run/netns")?;
        let folder = std::env::temp_dir().join(format!("switchd-demo-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        use std::os::unix::fs::PermissionsExt;
        // The dataplane runs as another user and must reach what lies inside.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let remains = Arc::new(Mutex::new(Remains { folder: Some(folder.clone()), ..Remains::default() }));
        let (tell, signalled) = bounded(1);
        let shared = Arc::clone(&remains);
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        std::thread::spawn(move || {
            if signals.forever().next().is_some() {
                shared.lock().unwrap_or_else(PoisonError::into_inner).clear();
                let _ = tell.try_send(());
                // Whoever waits has a moment to end by itself; a step that is under way is cut short.
                std::thread::sleep(Duration::from_millis(200));
                std::process::exit(130);
            }
        });
        up("lo")?;
        Ok(Stage { folder, remains, signalled })
    }

    fn remains(&self) -> std::sync::MutexGuard<'_, Remains> {
        self.remains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a daemon, within a guest's namespace or in our own.
    pub fn start_daemon(&self, name: &str, within: Option<&Guest>) -> Result<Api> {
        let log = self.folder.join(format!("{name}.log"));
        let socket = self.folder.join(format!("{name}.sock"));
        // Under the lock: a signal comes before the daemon is there, or finds it.
        let mut remains = self.remains();
        if remains.over {
            bail!("interrupted");
        }
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("--die-with-parent")
            .arg("--state-dir")
            .arg(self.folder.join(format!("{name}-state")))
            .arg("--capture-dir")
            .arg(self.folder.join(format!("{name}-captures")))
            .arg("--socket")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?);
        let daemon = match within {
            // A child begins in the namespace of the thread that starts it, and ends with it.
            Some(guest) => guest.run(move || command.spawn())?,
            None => command.spawn(),
        };
        let daemon = daemon.context("cannot start the daemon")?;
        let pid = daemon.id();
        remains.daemons.push(daemon);
        drop(remains);
        let alive = || {
            let mut remains = self.remains();
            let daemon = remains.daemons.iter_mut().find(|daemon| daemon.id() == pid);
            daemon.is_some_and(|daemon| matches!(daemon.try_wait(), Ok(None)))
        };
        Api::connect(socket, alive).map_err(|error| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            error.context(format!("the daemon said:\n{said}"))
        })
    }

    /// Moves a file out of the folder that is going to be removed.
    pub fn keep_file(&self, file: &Path) -> Result<PathBuf> {
        let to = std::env::temp_dir().join(format!("switchd-demo-{}.pcapng", std::process::id()));
        fs::copy(file, &to).with_context(|| format!("cannot copy the capture to {}", to.display()))?;
        Ok(to)
    }

    pub fn print_commands(&self) {
        let socket = self.folder.join("switchd.sock");
        let pid = std::process::id();
        let user = if getuid().is_root() && fs::read_to_string("/proc/self/uid_map").is_ok_and(whole) {
            "sudo nsenter"
        } else {
            "nsenter -U --preserve-credentials"
        };
        println!(
            "\nit goes on until Ctrl-C. In another terminal:\n\
             \n  export SWITCHD_SOCKET={}\n  switchctl status\n  switchctl port list -o wide\n  \
             switchctl fdb office\n  switchctl bond show bond0\n  switchctl lease list\n  \
             switchctl flow list\n  switchctl top\n  switchctl topology\n  \
             switchctl capture network:office -w - | tshark -r -\n  \
             {user} -t {pid} -n -m ip netns exec office1 ping {}",
            socket.display(),
            super::LAN
        );
    }

    /// After a signal whatever went wrong went wrong because of it: the process ends in a moment.
    pub fn end_if_signalled(&self) {
        if self.signalled.try_recv().is_ok() || self.remains().over {
            loop {
                std::thread::park();
            }
        }
    }

    /// Until a signal comes.
    pub fn wait(&self) {
        let _ = self.signalled.recv();
    }

    pub fn leave(&self) {
        self.remains().clear();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The identity mapping of the initial user namespace.
fn whole(map: String) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

fn up(name: &str) -> Result<()> {
    let mut netlink = Netlink::new()?;
    let link = netlink.link(name)?.with_context(|| format!("no interface {name}"))?;
    netlink.set_up(link.index, true)?;
    Ok(())
}

/// Cuts an interface of this namespace off its link, or joins it again.
pub fn set_link(name: &str, up: bool) -> Result<()> {
    let mut netlink = Netlink::new()?;
    let link = netlink.link(name)?.with_context(|| format!("no interface {name}"))?;
    Ok(netlink.set_up(link.index, up)?)
}

/// A route of this thread's namespace.
pub fn route(to: Ipv4Addr, prefix: u8, gateway: Ipv4Addr) -> Result<()> {
    Ok(Netlink::new()?.add_route(IpAddr::V4(to), prefix, IpAddr::V4(gateway))?)
}

/// Brings an interface of this thread's namespace up, with an address (/24) or without.
pub fn configure(interface: &str, address: Option<Ipv4Addr>) -> Result<()> {
    let mut netlink = Netlink::new()?;
    let link = netlink.link(interface)?.with_context(|| format!("no interface {interface}"))?;
    if let Some(address) = address {
        netlink.add_address(link.index, IpAddr::V4(address), 24)?;
    }
    netlink.set_up(link.index, true)?;
    let deadline = Instant::now() + Duration::from_secs(2);
    while !netlink.link(interface)?.is_some_and(|link| link.carrier) {
        if Instant::now() > deadline {
            bail!("{interface} has no carrier");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A pair of interfaces: `near` here, `far` in the guest.
pub fn veth(near: &str, far: &str, guest: &'static str) -> Result<()> {
    let netns = switchd_port::netns::open(guest)?;
    Netlink::new()?
        .create_veth(near, far, Some(netns.as_fd()))
        .with_context(|| format!("cannot make the veth {near}"))?;
    up(near)
}

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace with a thread in it.
pub struct Guest {
    pub name: &'static str,
    jobs: Sender<Job>,
}

impl Guest {
    pub fn new(name: &'static str) -> Result<Guest> {
        let (jobs, inbox) = bounded::<Job>(4);
        let (ready, made) = bounded(1);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let place = || -> Result<()> {
                unshare(CloneFlags::CLONE_NEWNET)?;
                let path = Path::new("/run/netns").join(name);
                fs::File::create(&path)?;
                let nowhere = None::<&str>;
                mount(Some("/proc/thread-self/ns/net"), &path, nowhere, MsFlags::MS_BIND, nowhere)?;
                up("lo")
            };
            let _ = ready.send(place());
            for job in inbox {
                job();
            }
        })?;
        made.recv()?.with_context(|| format!("cannot make the namespace {name}"))?;
        Ok(Guest { name, jobs })
    }

    /// Runs `work` inside and returns what it returns.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        self.finish(self.begin(work)?)
    }

    /// Begins `work` inside, while we go on.
    pub fn begin<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<Receiver<T>> {
        let (done, result) = bounded(1);
        self.jobs.send(Box::new(move || drop(done.send(work())))).ok().context("the guest has ended")?;
        Ok(result)
    }

    pub fn finish<T>(&self, work: Receiver<T>) -> Result<T> {
        work.recv().with_context(|| format!("the guest {} failed", self.name))
    }

    /// A route by `gateway`; to everywhere with a prefix of 0.
    pub fn route(&self, to: Ipv4Addr, prefix: u8, gateway: Ipv4Addr) -> Result<()> {
        self.run(move || route(to, prefix, gateway))?
    }

    /// An address of the loopback interface.
    pub fn own(&self, address: Ipv4Addr) -> Result<()> {
        self.run(move || -> Result<()> {
            let mut netlink = Netlink::new()?;
            let link = netlink.link("lo")?.context("no loopback interface")?;
            Ok(netlink.add_address(link.index, IpAddr::V4(address), 32)?)
        })?
    }

    /// Gives an interface its address (/24) and brings it up.
    pub fn configure(&self, interface: &'static str, address: Ipv4Addr) -> Result<()> {
        self.run(move || configure(interface, Some(address)))?
    }

    pub fn mac(&self, interface: &'static str) -> Result<MacAddr> {
        self.run(move || {
            let link =
                Netlink::new()?.link(interface)?.with_context(|| format!("no interface {interface}"))?;
            link.mac.with_context(|| format!("{interface} has no MAC address"))
        })?
    }
}
