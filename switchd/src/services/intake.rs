//! Frames on their way from the workers to the services: a bounded channel that ports share.
//!
//! The thread takes frames in the order in which they come. A guest that sends more than it can answer would
//! fill the channel for everybody, so each port has a share of the places ([`Shares`]).

use super::shares::Shares;
use crate::worker::command::ServiceFrame;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Frames that may wait for the services.
pub const INTAKE: usize = 1024;

struct State {
    /// Held for a few instructions at a time.
    shares: Mutex<Shares>,
    full: AtomicU64,
}

impl State {
    fn shares(&self) -> MutexGuard<'_, Shares> {
        // Its numbers are right also where somebody panicked.
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The workers' end.
#[derive(Clone)]
pub struct Intake {
    frames: mpsc::Sender<ServiceFrame>,
    state: Arc<State>,
}

/// The services' end.
pub struct Frames {
    frames: mpsc::Receiver<ServiceFrame>,
    state: Arc<State>,
}

pub fn channel() -> (Intake, Frames) {
    let (sender, receiver) = mpsc::channel(INTAKE);
    let shares = Mutex::new(Shares::new(INTAKE));
    let state = Arc::new(State { shares, full: AtomicU64::new(0) });
    (Intake { frames: sender, state: state.clone() }, Frames { frames: receiver, state })
}

impl Intake {
    /// Never waits; what does not fit is dropped and counted.
    pub fn offer(&self, frame: ServiceFrame) -> bool {
        let port = frame.port.clone();
        let mut fits = self.state.shares().take(&port);
        if fits && self.frames.try_send(frame).is_err() {
            self.state.shares().give_back(&port);
            fits = false;
        }
        if !fits {
            self.state.full.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    /// Frames that did not fit.
    pub fn full(&self) -> u64 {
        self.state.full.load(Ordering::Relaxed)
    }
}

impl Frames {
    /// As [`mpsc::Receiver::recv_many`].
    pub async fn recv_many(&mut self, into: &mut Vec<ServiceFrame>, limit: usize) -> usize {
        let count = self.frames.recv_many(into, limit).await;
        let mut shares = self.state.shares();
        into[into.len() - count..].iter().for_each(|frame| shares.give_back(&frame.port));
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchd_dataplane::TrapKind;

    fn frame(port: &str) -> ServiceFrame {
        ServiceFrame { kind: TrapKind::Dns, network: "lab".into(), port: port.into(), bytes: Vec::new() }
    }

    #[tokio::test]
    async fn a_port_that_floods_leaves_room_for_the_others() {
        let (intake, mut frames) = channel();
        let offered = |port: &str, count: usize| (0..count).filter(|_| intake.offer(frame(port))).count();
        assert_eq!(offered("greedy", 5000), INTAKE / 2);
        assert_eq!(offered("vm2", 100), 100);
        assert_eq!(intake.full(), 5000 - INTAKE as u64 / 2);
        let mut taken = Vec::new();
        while !frames.frames.is_empty() {
            frames.recv_many(&mut taken, 64).await;
        }
        assert_eq!(taken.len(), INTAKE / 2 + 100);
        assert_eq!(offered("vm3", 5000), INTAKE / 2, "all places are free again");
        drop(frames);
        assert!(!intake.offer(frame("vm4")), "the services are gone");
    }
}
