//! The loop of a worker.

use super::command::Notice;
use super::dispatch::Services;
use super::links::LinkMachines;
use super::pace::Pace;
use super::rim::{Finisher, WorkerRim, settle};
use super::table::Table;
use super::{Envelope, Options, WAKE};
use crossbeam_channel::{Receiver, TryRecvError};
use mio::{Events, Poll};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use switchd_dataplane::{Dataplane, PortId};
use switchd_port::{Arena, Received};
use switchd_wire::Frame;
use switchd_wire::frame::BURST;

/// Between two rounds of ageing.
const EXPIRE_EVERY: u64 = 1_000_000_000;
/// A part-filled capture buffer is handed over after this time.
const CAPTURE_DELAY: u64 = 10_000_000;
/// Between two looks at a port that has no descriptor.
const LOOK_EVERY: u64 = 500_000;
/// Turns with frames between two looks at descriptors, commands and timers.
const LOOK_TURNS: u32 = 16;
/// A ring without frames for so long is to tell of the next ones by itself.
const QUIET: u64 = 1_000_000;

static EPOCH: OnceLock<Instant> = OnceLock::new();

pub struct Worker {
    pub(super) options: Options,
    pub(super) poll: Poll,
    inbox: Receiver<Envelope>,
    pub(super) notices: Box<dyn Fn(Notice) + Send>,
    pub(super) services: Services,
    pub(super) links: LinkMachines,
    pub(super) dataplane: Dataplane,
    pub(super) table: Table,
    pub(super) frames: Box<[Frame]>,
    pub(super) arena: Arena,
    pub(super) finisher: Finisher,
    /// Ports with frames to give, and the list of the next pass.
    pub(super) ready: Vec<PortId>,
    next: Vec<PortId>,
    /// Ports without a descriptor to watch (in memory): looked at every [`LOOK_EVERY`].
    pub(super) unwatched: Vec<PortId>,
    /// Ports whose rings are looked at in each turn, because they had frames of late and tell of nothing.
    pub(super) polled: Vec<PortId>,
    /// The last turn had frames, and so many turns have only looked at them.
    busy: bool,
    turns: u32,
    pace: Pace,
    started: Instant,
    expire_at: u64,
    capture_flush_at: Option<u64>,
    pub(super) stopping: bool,
    pub(super) frames_seen: u64,
    pub(super) busy_cycles: u64,
    pub(super) bursts: u64,
    pub(super) sleeps: u64,
    pub(super) busy_ns: u64,
    /// Frames that the services had no room for.
    pub(super) service_frames_lost: u64,
}

impl Worker {
    pub(super) fn new(
        options: Options,
        poll: Poll,
        inbox: Receiver<Envelope>,
        notices: Box<dyn Fn(Notice) + Send>,
        services: Services,
    ) -> Worker {
        Worker {
            options,
            poll,
            inbox,
            notices,
            services,
            links: LinkMachines::default(),
            dataplane: Dataplane::new(random_seed()),
            table: Table::default(),
            frames: (0..BURST).map(|_| Frame::default()).collect(),
            arena: Arena::new(),
            finisher: Finisher::new(),
            ready: Vec::new(),
            next: Vec::new(),
            unwatched: Vec::new(),
            polled: Vec::new(),
            busy: false,
            turns: 0,
            pace: Pace::new(options.busy_poll),
            started: *EPOCH.get_or_init(Instant::now),
            expire_at: 0,
            capture_flush_at: None,
            stopping: false,
            frames_seen: 0,
            busy_cycles: 0,
            bursts: 0,
            sleeps: 0,
            busy_ns: 0,
            service_frames_lost: 0,
        }
    }

    /// Nanoseconds on the clock that all workers share: what moves to another one keeps its times.
    pub(super) fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(256);
        while !self.stopping {
            if let Err(error) = self.turn(&mut events) {
                tracing::error!(worker = self.options.index, %error, "the poll loop failed");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Gives every ready port one burst, and now and then looks for readiness, timers and commands: in each
    /// turn, unless the one before had frames.
    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let mut now = self.now();
        if self.busy && self.turns < LOOK_TURNS {
            self.turns += 1;
            self.pass(now);
            return Ok(());
        }
        self.turns = 0;
        let may_spin = self.pace.may_spin(now);
        if !may_spin && self.ready.is_empty() {
            self.arm_polled();
        }
        let spin = may_spin || !self.ready.is_empty();
        let timeout = if spin { Some(Duration::ZERO) } else { self.time_to_timer(now) };
        if !spin {
            self.sleeps += 1;
        }
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        if !spin {
            now = self.now();
        }
        for index in 0..self.unwatched.len() {
            self.mark_ready(self.unwatched[index]);
        }
        let mut commands = false;
        for event in events.iter() {
            if event.token() == WAKE {
                commands = true;
            } else {
                self.mark_ready(PortId(event.token().0 as u32));
            }
        }
        self.pass(now);
        if !self.busy && spin && !commands {
            let before = self.now();
            std::thread::yield_now();
            let after = self.now();
            self.pace.yielded(before, after);
        }
        if commands {
            self.drain_commands();
        }
        self.timers();
        Ok(())
    }

    /// Before the worker sleeps: what tells of nothing is asked to.
    fn arm_polled(&mut self) {
        while let Some(&id) = self.polled.last() {
            self.arm(id);
        }
    }

    /// A port is no longer looked at, unless it has something after all.
    fn arm(&mut self, id: PortId) {
        self.polled.retain(|&polled| polled != id);
        let Some(slot) = self.table.port_mut(id) else { return };
        slot.polled = false;
        if slot.device.as_mut().is_some_and(|device| device.arm()) {
            self.mark_ready(id);
        }
    }

    /// A port has nothing at the moment, and will not tell.
    fn poll_port(&mut self, now: u64, id: PortId) {
        let Some(slot) = self.table.port_mut(id) else { return };
        if !std::mem::replace(&mut slot.polled, true) {
            slot.quiet_at = now + QUIET;
            self.polled.push(id);
        } else if now >= slot.quiet_at {
            self.arm(id);
        }
    }

    pub(super) fn mark_ready(&mut self, id: PortId) {
        if let Some(slot) = self.table.port_mut(id)
            && !slot.ready
        {
            slot.ready = true;
            self.ready.push(id);
        }
    }

    /// One burst of each port that is ready or polled. A port with more to give comes up again in the next
    /// pass.
    fn pass(&mut self, now: u64) {
        for index in 0..self.polled.len() {
            self.mark_ready(self.polled[index]);
        }
        self.busy = false;
        if self.ready.is_empty() {
            return;
        }
        let cycles = switchd_port::sys::cycles();
        let mut frames = 0;
        let mut list = std::mem::replace(&mut self.ready, std::mem::take(&mut self.next));
        for id in list.drain(..) {
            if let Some(slot) = self.table.port_mut(id) {
                slot.ready = false;
                frames += self.burst(now, id);
            }
        }
        self.next = list;
        if frames > 0 {
            self.busy = true;
            self.busy_cycles += switchd_port::sys::cycles().wrapping_sub(cycles);
            self.frames_seen += frames as u64;
            let after = self.now();
            self.busy_ns += after - now;
            self.pace.worked(after);
            self.flush_captures(after);
        }
    }

    /// Receives a burst and sends it down the road. Returns how many frames there were.
    fn burst(&mut self, now: u64, id: PortId) -> usize {
        let Some(device) = self.table.port_mut(id).and_then(|slot| slot.device.as_mut()) else {
            return 0;
        };
        self.arena.begin();
        let received = catch_unwind(AssertUnwindSafe(|| device.receive(&mut self.frames, &mut self.arena)));
        let received = match received {
            Ok(received) => received,
            Err(panic) => {
                self.panicked(id, panic);
                return 0;
            }
        };
        let Received { frames, more, unreadable, dead, changed, polls } = received;
        if let Some(slot) = self.table.port_mut(id) {
            slot.unreadable += unreadable;
            if frames > 0 {
                slot.quiet_at = now + QUIET;
            }
        }
        if changed {
            self.device_changed(id);
        }
        if frames > 0 {
            self.bursts += 1;
            self.forward(now, id, frames);
        }
        if let Some(error) = dead {
            self.device_lost(id, error);
        } else if more {
            self.mark_ready(id);
        } else if polls {
            self.poll_port(now, id);
        }
        frames
    }

    fn forward(&mut self, now: u64, id: PortId, count: usize) {
        self.stamp(count);
        let mut rim = WorkerRim {
            ports: &mut self.table.ports,
            mirrors: &mut self.table.mirrors,
            arena: &self.arena,
            finisher: &mut self.finisher,
        };
        let frames = &mut self.frames[..count];
        let dataplane = &mut self.dataplane;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            dataplane.process(now, id, frames, &self.arena, &mut rim);
        }));
        self.flush();
        // Run to completion: what was lent goes back before anything else is sent.
        self.arena.end();
        if let Some(device) = self.table.port_mut(id).and_then(|slot| slot.device.as_mut()) {
            device.burst_done();
        }
        if let Err(panic) = outcome {
            self.panicked(id, panic);
        }
        self.dispatch(now);
        self.tell_notices();
    }

    /// Captures want to know when a frame came.
    pub(super) fn stamp(&mut self, count: usize) {
        if self.table.mirror_names.is_empty() {
            return;
        }
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64);
        for frame in &mut self.frames[..count] {
            frame.timestamp = timestamp;
        }
    }

    /// Lets the devices send what they queued, and books the outcome.
    pub(super) fn flush(&mut self) {
        for (port, flushed) in self.finisher.early.drain(..) {
            settle(&mut self.dataplane, port, &flushed);
        }
        for index in 0..self.finisher.queued.len() {
            let port = self.finisher.queued[index];
            let Some(Some(slot)) = self.table.ports.get_mut(port.0 as usize) else { continue };
            slot.queued = false;
            let Some(device) = slot.device.as_mut() else { continue };
            let flushed = device.flush(&self.arena);
            let pending = device.pending();
            settle(&mut self.dataplane, port, &flushed);
            if pending {
                self.mark_ready(port);
            }
        }
        self.finisher.queued.clear();
    }

    fn panicked(&mut self, id: PortId, panic: Box<dyn std::any::Any + Send>) {
        let message = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        self.close_device(id);
        let port = self.table.port_name(id);
        tracing::error!(%port, message, "a burst panicked; the port is closed");
        (self.notices)(Notice::Panicked { port, message });
    }

    fn device_lost(&mut self, id: PortId, error: io::Error) {
        self.close_device(id);
        (self.notices)(Notice::DeviceLost { port: self.table.port_name(id), error });
    }

    fn drain_commands(&mut self) {
        loop {
            match self.inbox.try_recv() {
                Ok(Envelope { command, done }) => {
                    let outcome = self.execute(command);
                    // Control may have given up on the answer; the command is carried out all the same.
                    let _ = done.send(outcome);
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.stopping = true;
                    return;
                }
            }
        }
    }

    fn time_to_timer(&self, now: u64) -> Option<Duration> {
        if self.dataplane.has_born() {
            // More rounds of answers than one turn has.
            return Some(Duration::ZERO);
        }
        let expire = self.dataplane.has_dynamic_addresses().then_some(self.expire_at);
        let look = (!self.unwatched.is_empty()).then_some(now + LOOK_EVERY);
        let next = [expire, look, self.capture_flush_at, self.next_link_timer(), self.dataplane.next_timer()]
            .into_iter()
            .flatten()
            .min()?;
        Some(Duration::from_nanos(next.saturating_sub(now)))
    }

    fn timers(&mut self) {
        let now = self.now();
        if now >= self.expire_at {
            self.dataplane.expire(now);
            self.tell_notices();
            self.tell_host_egress();
            self.expire_at = now + EXPIRE_EVERY;
        }
        self.link_timers(now);
        if self.dataplane.next_timer().is_some_and(|at| now >= at) {
            self.dataplane.gateway_timers(now);
            self.tell_notices();
        }
        if self.dataplane.has_born() {
            self.dispatch(now);
        }
        if self.capture_flush_at.is_some_and(|at| now >= at) {
            self.flush_captures(now);
        }
    }

    fn flush_captures(&mut self, now: u64) {
        let mut pending = false;
        for mirror in self.table.mirrors.iter_mut().flatten() {
            if let super::table::Target::Capture { ring, .. } = &mut mirror.target {
                pending |= ring.flush(now);
            }
        }
        self.capture_flush_at = pending.then_some(now + CAPTURE_DELAY);
    }

    pub(super) fn tell_notices(&mut self) {
        use switchd_dataplane::{DataplaneNotice, Shut};
        for notice in self.dataplane.take_notices() {
            let network = |id| self.table.network_names.get(&id).cloned().unwrap_or_else(|| "?".into());
            (self.notices)(match notice {
                DataplaneNotice::Moved { network: id, mac, from, to } => Notice::Moved {
                    network: network(id),
                    mac,
                    from: self.table.port_name(from),
                    to: self.table.port_name(to),
                },
                DataplaneNotice::Storm { port, limit } => Notice::Event {
                    kind: "port.storm",
                    object: format!("port {}", self.table.port_name(port)),
                    detail: format!("floods more than {limit} frames a second; the rest is dropped"),
                },
                DataplaneNotice::Shut { port, why } => Notice::Shut {
                    port: self.table.port_name(port),
                    reason: match why {
                        Shut::Bpdu => "a BPDU came from the guest".to_owned(),
                        Shut::Loop { from } if from == port => {
                            "loop: what it sends comes back to it".to_owned()
                        }
                        Shut::Loop { from } => format!("loop with port {}", self.table.port_name(from)),
                    },
                },
                DataplaneNotice::Peer { bond, alive } => Notice::Event {
                    kind: if alive { "bond.peer-up" } else { "bond.peer-down" },
                    object: format!("bond {}", self.table.port_name(bond)),
                    detail: match alive {
                        true => "the other half of the pair is heard".to_owned(),
                        false => "nothing is heard of the other half of the pair".to_owned(),
                    },
                },
                DataplaneNotice::Conflict { network: id, address, mac } => Notice::Event {
                    kind: "nat.conflict",
                    object: format!("network {}", network(id)),
                    detail: format!("{mac} also uses the gateway's address {address}"),
                },
                DataplaneNotice::Nat { network: id, port, notice } => super::gateway::nat_event(
                    &network(id),
                    port.map(|port| self.table.port_name(port)),
                    notice,
                ),
                DataplaneNotice::Full { network: id, port } => {
                    Notice::Full { network: network(id), port: port.map(|port| self.table.port_name(port)) }
                }
            });
        }
    }
}

/// Guests choose the keys of our tables, so the hash must not be known to them.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
