//! The broker's loop: signals, requests, link and namespace changes, the dataplane's life and death.
//!
//! ```text
//!            ┌──────────── died: at once, or after a pause ────────────┐
//!   start ─► Starting ──Ready──► Serving ──SIGTERM, SIGINT, SIGHUP──► Ending ──► exit 0
//!            └─ died before it ever was ready: exit 1
//! ```
//! While no dataplane runs, grants wait: nothing is asked. Link and namespace changes are read all the same,
//! so that no copy of a descriptor keeps a deleted namespace alive.

use super::captures::Captures;
use super::child::{Backoff, Dataplane};
use super::devices::Devices;
use super::grants::Grants;
use super::host::Host;
use super::kept::Kept;
use super::messages::{Hello, Identity, Notice, Options, SocketAccess};
use super::place::{self, Place};
use crate::args::{Daemon, Surroundings};
use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use sd_notify::NotifyState;
use std::fs::File;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

/// How long the dataplane may take to end in order (captures are written out).
const GRACE: Duration = Duration::from_secs(5);
/// How long it may live on after it closed its request socket: time to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Runs the daemon until it is told to end. The error says why it could not start.
pub fn run(daemon: &Daemon) -> anyhow::Result<ExitCode> {
    let around = Surroundings::look()?;
    let options = daemon.options(&around)?;
    // Before anything is touched, so that a wrong file or name changes nothing.
    let config = match &options.config {
        Some(path) => Some(File::open(path).with_context(|| format!("cannot read --config {path:?}"))?),
        None => None,
    };
    let identity = place::identity(around.rootless, daemon.user.as_deref())?;
    let group = place::socket_group(around.rootless, daemon.socket_group.as_deref())?;
    let signals = block_signals()?;
    if daemon.die_with_parent {
        // As by its hand: in order.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    }
    raise_file_limit();
    let place = Place::prepare(&options, identity, daemon.socket_mode, group)?;
    let grants = Grants {
        devices: Devices::new().context("cannot ask the kernel about interfaces")?,
        captures: Captures::new(options.capture_dir.clone(), group),
        host: Host::new().context("cannot ask the kernel about addresses")?,
        kept: Kept::default(),
    };
    Broker {
        hello: hello(options, identity, around.rootless, place.socket.access),
        config,
        place,
        signals,
        grants,
        dataplane: None,
        backoff: Backoff::default(),
        start_at: Some(Instant::now()),
        ending: None,
        served_once: false,
    }
    .run()
}

fn hello(options: Options, identity: Option<Identity>, rootless: bool, socket: SocketAccess) -> Hello {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Hello {
        options,
        broker_pid: std::process::id(),
        restarts: 0,
        started: since_epoch.as_nanos() as u64,
        rootless,
        identity,
        socket,
    }
}

/// The signals come through a descriptor. A SIGHUP that our starter ignores (nohup) stays ignored.
fn block_signals() -> anyhow::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        set.add(signal);
    }
    if !is_ignored(Signal::SIGHUP) {
        set.add(Signal::SIGHUP);
    }
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << (signal as i32 - 1)) != 0)
}

/// A descriptor a port, a copy here and one there; a descriptor for each flow of a NAT network whose egress
/// is the host: the soft limit of 1024 would end at some hundred of them. The dataplane inherits it.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < FILES) {
        // For root only.
        let most = Rlimit { current: Some(FILES), maximum: Some(FILES) };
        if setrlimit(Resource::Nofile, most).is_ok() {
            return;
        }
    }
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Descriptors that are wanted at least: 4096 ports, and 10,000 flows of networks whose egress is the host.
const FILES: u64 = 65_536;

struct Broker {
    hello: Hello,
    config: Option<File>,
    place: Place,
    signals: SignalFd,
    grants: Grants,
    dataplane: Option<Dataplane>,
    backoff: Backoff,
    start_at: Option<Instant>,
    /// Told to end: what is left by then is killed.
    ending: Option<Instant>,
    served_once: bool,
}

/// What the last wait ended with, beside requests and signals.
#[derive(Clone, Copy, Default)]
struct News {
    links: bool,
    mounts: bool,
    addresses: bool,
    resolv: bool,
}

impl Broker {
    fn run(mut self) -> anyhow::Result<ExitCode> {
        let code = loop {
            let now = Instant::now();
            if self.ending.is_none() && self.start_at.is_some_and(|at| at <= now) {
                self.start(now)?;
            }
            if let (Some(by), Some(dataplane)) = (self.ending, &mut self.dataplane)
                && by <= now
            {
                tracing::warn!("the dataplane did not end within {} s and is killed", GRACE.as_secs());
                dataplane.kill();
                self.ending = Some(now + GRACE);
            }
            if let Some(dataplane) = &mut self.dataplane
                && dataplane.closed.is_some_and(|by| by <= now)
            {
                dataplane.kill();
                dataplane.closed = Some(now + GRACE);
            }
            let news = self.wait(now)?;
            self.read_signals();
            self.serve();
            self.follow(news);
            if let Some(code) = self.bury() {
                break code;
            }
        };
        if code == ExitCode::SUCCESS {
            self.grants.devices.end();
        }
        drop(self.place);
        Ok(code)
    }

    fn start(&mut self, now: Instant) -> anyhow::Result<()> {
        self.start_at = None;
        if let Some(config) = &mut self.config {
            // The offset is shared with the copies that earlier dataplanes read from.
            std::io::Seek::rewind(config)?;
        }
        let mut fds = vec![self.place.socket.listener.as_fd()];
        fds.extend(self.config.as_ref().map(AsFd::as_fd));
        match Dataplane::start(&self.hello, &fds, now) {
            Ok(dataplane) => {
                tracing::debug!(pid = dataplane.pid(), restarts = self.hello.restarts, "dataplane started");
                self.dataplane = Some(dataplane);
                Ok(())
            }
            Err(error) if self.served_once => {
                tracing::error!("the dataplane cannot be started: {error}");
                self.start_at = Some(now + self.backoff.pause(Duration::ZERO));
                Ok(())
            }
            Err(error) => Err(error).context("the dataplane process cannot be started"),
        }
    }

    /// Sleeps until there is something to do.
    fn wait(&self, now: Instant) -> anyhow::Result<News> {
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::from_borrowed_fd(self.grants.devices.links.descriptor(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.grants.devices.namespaces.descriptor(), PollFlags::PRI),
        ];
        let optional = [self.grants.host.monitor(), self.grants.host.resolv_watch()];
        let [addresses, resolv] = optional.map(|fd| {
            let place = fds.len();
            fds.push(PollFd::from_borrowed_fd(fd?, PollFlags::IN));
            Some(place)
        });
        if let Some(dataplane) = &self.dataplane {
            if dataplane.closed.is_none() {
                fds.push(PollFd::new(&dataplane.requests, PollFlags::IN));
            }
            if dataplane.is_behind() {
                fds.push(PollFd::from_borrowed_fd(dataplane.notices(), PollFlags::OUT));
            }
        }
        let closed = self.dataplane.as_ref().and_then(|dataplane| dataplane.closed);
        let until =
            [self.start_at, self.ending, closed, self.grants.host.due(), self.grants.devices.carriers_due()]
                .into_iter()
                .flatten()
                .min();
        let timeout = until.map(|until| {
            let left = until.saturating_duration_since(now);
            // Rounded up: a timeout of zero would spin for the last nanoseconds.
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {
                let is_ready = |place: usize| !fds[place].revents().is_empty();
                Ok(News {
                    links: is_ready(1),
                    mounts: is_ready(2),
                    addresses: addresses.is_some_and(is_ready),
                    resolv: resolv.is_some_and(is_ready),
                })
            }
            Err(rustix::io::Errno::INTR) => Ok(News::default()),
            Err(error) => Err(std::io::Error::from(error)).context("poll"),
        }
    }

    fn read_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if signal.ssi_signo == Signal::SIGCHLD as u32 || self.ending.is_some() {
                continue;
            }
            tracing::info!("told to end by pid {}", signal.ssi_pid);
            let _ = sd_notify::notify(&[NotifyState::Stopping]);
            self.ending = Some(Instant::now() + GRACE);
            if let Some(dataplane) = &mut self.dataplane {
                dataplane.tell(Notice::End);
            }
        }
    }

    fn serve(&mut self) {
        let Some(dataplane) = &mut self.dataplane else { return };
        dataplane.flush();
        if dataplane.closed.is_some() {
            return;
        }
        let served = self.grants.serve(&dataplane.requests, self.hello.restarts);
        if served.ready && !dataplane.ready {
            dataplane.ready = true;
            if !self.served_once {
                self.served_once = true;
                let _ = sd_notify::notify(&[NotifyState::Ready]);
            }
        }
        if served.ended && dataplane.closed.is_none() {
            dataplane.closed =
                Some(Instant::now() + LAST_WORDS.max(GRACE * u32::from(self.ending.is_some())));
        }
        if served.mad {
            dataplane.kill();
        }
    }

    fn follow(&mut self, news: News) {
        let mut notices = Vec::new();
        // Mount changes are told once a poll, so they are looked at now; each look costs a few calls a name.
        if news.mounts {
            notices = self.grants.devices.namespace_changes();
        }
        if news.links {
            match self.grants.devices.link_changes() {
                Ok(links) => notices.extend(links),
                Err(error) => tracing::warn!("link notices: {error}"),
            }
        }
        let now = Instant::now();
        if self.grants.devices.carriers_due().is_some_and(|due| due <= now) {
            notices.extend(self.grants.devices.ask_carriers(now));
        }
        if news.addresses || self.grants.host.due().is_some_and(|due| due <= now) {
            notices.extend(self.grants.host.changes(now));
        }
        if news.resolv {
            notices.extend(self.grants.host.resolv_change());
        }
        if let Some(dataplane) = &mut self.dataplane {
            for notice in notices {
                dataplane.tell(notice);
            }
        }
    }

    /// Looks whether the dataplane has ended. Returns the exit code when that is the end of all.
    fn bury(&mut self) -> Option<ExitCode> {
        if self.dataplane.is_none() && self.ending.is_some() {
            return Some(ExitCode::SUCCESS);
        }
        let dataplane = self.dataplane.as_mut()?;
        let status = dataplane.ended()?;
        let lived = dataplane.started.elapsed();
        let was_ready = dataplane.ready;
        self.dataplane = None;
        if self.ending.is_some() {
            return Some(ExitCode::SUCCESS);
        }
        if !self.served_once && !was_ready {
            // It has said why.
            return Some(ExitCode::FAILURE);
        }
        let pause = self.backoff.pause(lived);
        tracing::error!("the dataplane ended ({status}) and is started again in {} ms", pause.as_millis());
        self.hello.restarts = self.hello.restarts.saturating_add(1);
        self.start_at = Some(Instant::now() + pause);
        None
    }
}
