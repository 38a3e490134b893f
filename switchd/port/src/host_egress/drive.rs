//! The engine as a port: a burst's turns, the kernel's events, the timer.

use super::table::Body;
use super::{Filled, HostEgress, Item, Taken};
use crate::{Arena, Flushed, Offloads, Port, Received, Sent};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use switchd_wire::Frame;

/// Events taken from the kernel in one call.
const EVENTS: usize = 256;

impl HostEgress {
    pub(super) fn serve(
        &mut self,
        item: Item,
        frames: &mut [Frame],
        arena: &mut Arena,
        filled: &mut Filled,
    ) -> bool {
        match item {
            Item::Flow(id) => {
                let Some(flow) = self.table.get_mut(id) else { return false };
                flow.queued = false;
                let more = match flow.body {
                    Body::Tcp(_) => self.serve_tcp(id, frames, arena, filled),
                    Body::Udp(_) => self.serve_udp(id, frames, arena, filled),
                    Body::Icmp(_) => false,
                };
                if more {
                    self.wake(id);
                }
                false
            }
            Item::Forward(index) => self.serve_forward(index, frames, arena, filled),
            Item::Echo(v6) => self.serve_echo(v6),
        }
    }

    pub(super) fn timers(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.expire(self.now, &mut due);
        if !due.is_empty() && std::mem::take(&mut self.starved) {
            (0..self.forwards.len() as u32).for_each(|index| self.forward_ready(index));
        }
        for index in due.drain(..) {
            let Some(id) = self.table.id_at(index) else { continue };
            match self.table.get(id).map(|flow| &flow.body) {
                Some(Body::Tcp(_)) => self.tcp_timer(id),
                Some(Body::Udp(_)) => self.udp_timer(id),
                Some(Body::Icmp(_)) => self.icmp_timer(id),
                None => {}
            }
        }
        self.due = due;
        let patience = self.config.limits.fragments.as_nanos() as u64;
        if self.fragments.oldest().is_some_and(|oldest| self.now >= oldest + patience) {
            self.fragments.expire(self.now - patience);
        }
    }

    /// Sets the timer, if it would ring too late.
    pub(super) fn arm(&mut self) {
        let patience = self.config.limits.fragments.as_nanos() as u64;
        let fragments = self.fragments.oldest().map(|oldest| oldest + patience);
        let Some(next) = self.wheel.next().into_iter().chain(fragments).min() else { return };
        if self.armed.is_some_and(|armed| armed <= next && armed > self.now) {
            return;
        }
        let wait = next.saturating_sub(self.now).max(1);
        let spec = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: (wait / 1_000_000_000) as i64,
                tv_nsec: (wait % 1_000_000_000) as _,
            },
        };
        if timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec).is_ok() {
            self.armed = Some(next);
        }
    }

    /// Takes the kernel's events into the list. True when there are more than one call brings.
    pub(super) fn poll(&mut self) -> bool {
        let mut space = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let Ok((events, left)) = epoll::wait(&self.epoll, &mut space, Some(&now)) else { return true };
        for event in events.iter() {
            self.event(event.data.u64(), event.flags);
        }
        left.is_empty()
    }

    /// Registers a socket, edge-triggered, for as long as it lives.
    pub(super) fn watch(&self, fd: &OwnedFd, data: u64, stream: bool) -> std::io::Result<()> {
        let mut flags = EventFlags::IN | EventFlags::ET;
        if stream {
            flags |= EventFlags::OUT | EventFlags::RDHUP;
        }
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(data), flags)?)
    }
}

impl Port for HostEgress {
    fn receive(&mut self, frames: &mut [Frame], arena: &mut Arena) -> Received {
        self.awake = false;
        self.wake_clock();
        let unasked = self.poll();
        self.timers();
        let mut filled = Filled::default();
        let mut turns = self.ready.len();
        while !filled.is_full(frames) {
            if let Some(len) = self.answers.take(&mut frames[filled.frames], arena, filled.frames) {
                filled.add(len);
                continue;
            }
            // Each has one turn; those with more come again in the next burst.
            if turns == 0 {
                break;
            }
            let Some(item) = self.ready.pop_front() else { break };
            turns -= 1;
            if self.serve(item, frames, arena, &mut filled) {
                self.ready.push_back(item);
            }
        }
        self.arm();
        self.awake = false;
        Received { frames: filled.frames, more: unasked || self.pending(), ..Received::default() }
    }

    fn send(&mut self, frame: &mut Frame, arena: &Arena) -> Sent {
        self.wake_clock();
        if arena.bytes(frame.tail).is_err() {
            return Sent::Refused;
        }
        match self.take(frame, arena) {
            Taken::Accepted => {
                self.flushed.accepted += 1;
                self.flushed.bytes += frame.len() as u64;
            }
            Taken::Held => {}
            Taken::Full => self.flushed.full += 1,
            Taken::Declined(why) => self.flushed.declined.count(why),
            Taken::Refused => self.flushed.refused += 1,
        }
        // Its outcome is told with the burst's, after which the worker asks for our answers.
        Sent::Queued
    }

    fn flush(&mut self, _: &Arena) -> Flushed {
        self.send_batch();
        self.arm();
        self.awake = false;
        std::mem::take(&mut self.flushed)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.epoll.as_fd())
    }

    fn offloads(&self) -> Offloads {
        Offloads { csum: true, tso4: true, tso6: true, uso: true }
    }

    fn pending(&self) -> bool {
        !self.ready.is_empty() || !self.answers.is_empty()
    }

    fn as_host_egress(&mut self) -> Option<&mut HostEgress> {
        Some(self)
    }
}
