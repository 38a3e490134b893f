//! One port's conversation with whoever holds its guest: connect or accept, answer, begin again, for ever.
//!
//! ```text
//!   Away ──connected──► Talking ──closed──► Away (100 ms)
//!    ▲ └─ refused: 100 ms, doubled up to 1 s ─┘ └──rule broken──► Away (1 s), the reason kept
//! ```
//! A thread of its own, so a monitor that stops in the middle of a message holds up nobody but itself.

use super::device::Device;
use super::handshake::Handler;
use parking_lot::{ArcMutexGuard, RawMutex};
use rustix::event::{EventfdFlags, PollFd, PollFlags, epoll, eventfd, poll};
use rustix::time::Timespec;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use vhost::vhost_user::{BackendReqHandler, Error};

/// Pauses before the next attempt: the first one, and the longest, which a broken rule gets at once.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(1);

/// Looks at a busy lock, some tens of microseconds altogether.
const TRIES: usize = 64;

/// How the connection comes about.
pub enum Peer {
    /// The monitor listens; the call connects.
    Connect(Box<dyn FnMut() -> io::Result<OwnedFd> + Send>),
    /// We listen, with this socket; one connection at a time.
    Listen(OwnedFd),
}

/// The device, held by a worker for a burst: a guard that can lie in the port. Its mutex is a fair one, so a
/// session gets its turn between two bursts of a worker that never rests.
pub(super) type Held = ArcMutexGuard<RawMutex, Device>;

pub(super) struct Shared {
    device: Arc<parking_lot::Mutex<Device>>,
    pub pairs: usize,
    /// The largest packet of the port's network.
    pub mtu: u16,
    /// What the worker watches: the kicks, and our own bell.
    pub epoll: OwnedFd,
    bell: OwnedFd,
    /// Wakes the session: the port was closed, or a burst found a fault.
    wake: OwnedFd,
    stopped: AtomicBool,
    /// To be shut down when the port is closed.
    stream: Mutex<Option<UnixStream>>,
    condition: Mutex<Option<String>>,
}

impl Shared {
    pub fn new(pairs: usize, mtu: u16) -> io::Result<Shared> {
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let (epoll, bell) = (epoll::create(epoll::CreateFlags::CLOEXEC)?, event()?);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &bell, epoll::EventData::new_u64(u64::MAX), flags)?;
        Ok(Shared {
            device: Arc::new(parking_lot::Mutex::new(Device::new(pairs))),
            pairs,
            mtu,
            epoll,
            bell,
            wake: event()?,
            stopped: AtomicBool::new(false),
            stream: Mutex::default(),
            condition: Mutex::default(),
        })
    }

    /// For the session, which waits for a burst that is under way.
    pub fn device(&self) -> parking_lot::MutexGuard<'_, Device> {
        self.device.lock()
    }

    /// For a worker, which does not wait.
    #[inline]
    pub fn hold(&self) -> Option<Held> {
        self.device.try_lock_arc()
    }

    /// For a worker with frames in its hand. The session holds the lock for parts of a message, microseconds
    /// each; a session that was interrupted there is waited for no longer than [`TRIES`].
    #[inline]
    pub fn hold_soon(&self) -> Option<Held> {
        for attempt in 0..TRIES {
            let device = self.hold();
            if device.is_some() {
                return device;
            }
            if attempt < TRIES / 2 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        None
    }

    pub fn ring_worker(&self) {
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    pub fn wake_session(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// How the guest broke the rules, if it did: its monitor is told.
    fn fault(&self) -> Option<String> {
        let device = self.device();
        let fault = device.fault.clone()?;
        for error in device.rings.iter().filter_map(|ring| ring.error.as_ref()) {
            let _ = rustix::io::write(error, &1u64.to_ne_bytes());
        }
        Some(fault)
    }

    pub fn condition(&self) -> Option<String> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A burst found it out; the session will end the connection.
    pub fn cut_off(&self, fault: &str) {
        self.set_condition(Some(format!("the guest was cut off: {fault}")));
        self.wake_session();
    }

    fn set_condition(&self, condition: Option<String>) {
        *self.condition.lock().unwrap_or_else(PoisonError::into_inner) = condition;
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.wake_session();
        // Wakes a read in the middle of a message, too.
        self.hang_up();
    }

    fn hang_up(&self) {
        if let Some(stream) = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Waits until the session is woken, or `other` can be read, or the time is over. True: `other` can.
    fn wait(&self, other: Option<&dyn AsFdRef>, time: Option<Duration>) -> bool {
        let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
        if let Some(other) = other {
            fds.push(PollFd::from_borrowed_fd(other.fd(), PollFlags::IN));
        }
        let time = time
            .map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) });
        let _ = poll(&mut fds, time.as_ref());
        let woken = !fds[0].revents().is_empty();
        let readable = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        if woken {
            let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
        }
        readable
    }
}

trait AsFdRef {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_>;
}

impl<T: AsFd> AsFdRef for T {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.as_fd()
    }
}

/// Starts the thread. It ends soon after [`Shared::stop`].
pub(super) fn start(shared: Arc<Shared>, peer: Peer) -> io::Result<()> {
    std::thread::Builder::new().name("vhost-user".to_owned()).spawn(move || run(&shared, peer)).map(drop)
}

fn run(shared: &Arc<Shared>, mut peer: Peer) {
    let mut pause = FIRST;
    let mut fault: Option<String> = None;
    while !shared.is_stopped() {
        let what = match &peer {
            Peer::Connect(_) => "not connected",
            Peer::Listen(_) => "nobody has connected",
        };
        let connected = match &mut peer {
            Peer::Connect(connect) => connect().map(Some),
            Peer::Listen(listener) => {
                shared.set_condition(Some(condition(what.to_owned(), fault.as_deref())));
                accept(shared, listener)
            }
        };
        let stream = match connected {
            Ok(Some(stream)) => UnixStream::from(stream),
            Ok(None) => continue,
            Err(error) => {
                shared.set_condition(Some(condition(format!("{what}: {error}"), fault.as_deref())));
                shared.wait(None, Some(pause));
                pause = (pause * 2).min(LONGEST);
                continue;
            }
        };
        pause = FIRST;
        let outcome = converse(shared, stream, fault.take());
        shared.hang_up();
        fault = outcome.err();
        // Before the worker sees that the guest is gone, and asks why.
        shared.set_condition(Some(condition(what.to_owned(), fault.as_deref())));
        // Unmapped without the lock.
        let old = shared.reset();
        shared.ring_worker();
        drop(old);
        rest(shared, if fault.is_some() { LONGEST } else { FIRST });
    }
}

fn rest(shared: &Shared, time: Duration) {
    if !shared.is_stopped() {
        shared.wait(None, Some(time));
    }
}

fn condition(what: String, fault: Option<&str>) -> String {
    match fault {
        Some(fault) => format!("{what}; the last guest was cut off: {fault}"),
        None => what,
    }
}

fn accept(shared: &Shared, listener: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    if !shared.wait(Some(listener), None) {
        return Ok(None);
    }
    match rustix::net::accept_with(listener, rustix::net::SocketFlags::CLOEXEC) {
        Ok(stream) => Ok(Some(stream)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Until the connection ends. The error says which rule was broken.
fn converse(shared: &Arc<Shared>, stream: UnixStream, before: Option<String>) -> Result<(), String> {
    let copy = stream.try_clone().and_then(|copy| copy.set_nonblocking(false).map(|()| copy));
    let watched = copy.and_then(|copy| copy.try_clone().map(|watched| (copy, watched)));
    let Ok((copy, watched)) = watched else { return Ok(()) };
    *shared.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(copy);
    if shared.is_stopped() {
        return Ok(());
    }
    shared.set_condition(Some(condition(
        "connected, the guest has no driver running".to_owned(),
        before.as_deref(),
    )));
    let backend = Arc::new(Handler::new(Arc::clone(shared)));
    let mut handler = BackendReqHandler::from_stream(stream, Arc::clone(&backend));
    loop {
        let readable = shared.wait(Some(&watched), None);
        if shared.is_stopped() {
            return Ok(());
        }
        if let Some(fault) = shared.fault() {
            return Err(fault);
        }
        if !readable {
            continue;
        }
        let outcome = match backend.aside(&watched) {
            Ok(true) => Ok(()),
            Ok(false) => handler.handle_request(),
            Err(_) => return Ok(()),
        };
        if let Some(fault) = shared.fault() {
            return Err(fault);
        }
        match outcome {
            Ok(()) => {}
            Err(Error::Disconnected | Error::SocketBroken(_) | Error::PartialMessage) => return Ok(()),
            Err(Error::SocketRetry(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}
