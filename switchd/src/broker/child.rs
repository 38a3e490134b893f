//! One life of the dataplane process: started, spoken to, ended.

use super::channel::{self, ChannelError};
use super::messages::{Hello, Notice};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// Notices that wait for a dataplane that does not read. Beyond it the oldest go, and it is told how many.
const NOTICES_MAX: usize = 4096;

pub struct Dataplane {
    child: Child,
    pub requests: OwnedFd,
    notices: OwnedFd,
    waiting: VecDeque<Notice>,
    lost: u64,
    pub started: Instant,
    pub ready: bool,
    /// Its end of the request socket is closed: it ends by itself, or is killed at this time.
    pub closed: Option<Instant>,
}

impl Dataplane {
    /// Starts this same program as the dataplane. It gets one end of the request socket as its standard
    /// input, and through that all else.
    pub fn start(hello: &Hello, fds: &[BorrowedFd<'_>], now: Instant) -> io::Result<Dataplane> {
        let (requests, far_requests) = channel::pair()?;
        let (notices, far_notices) = channel::pair()?;
        let mut all = vec![far_notices.as_fd()];
        all.extend_from_slice(fds);
        channel::send(&requests, hello, &all, false).map_err(io::Error::other)?;
        // /proc/self/exe is the program that runs, also when the file was replaced by an upgrade.
        let child =
            Command::new("/proc/self/exe").arg0("switchd").arg("dataplane").stdin(far_requests).spawn()?;
        Ok(Dataplane {
            child,
            requests,
            notices,
            waiting: VecDeque::new(),
            lost: 0,
            started: now,
            ready: false,
            closed: None,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn notices(&self) -> BorrowedFd<'_> {
        self.notices.as_fd()
    }

    pub fn tell(&mut self, notice: Notice) {
        if self.waiting.len() >= NOTICES_MAX {
            self.waiting.pop_front();
            self.lost += 1;
        }
        self.waiting.push_back(notice);
        self.flush();
    }

    /// Whether notices wait for room.
    pub fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends what there is room for. Errors need no action: a dead dataplane is seen by its end.
    pub fn flush(&mut self) {
        if self.lost > 0 {
            match channel::send(&self.notices, &Notice::Lost(self.lost), &[], false) {
                Ok(()) => self.lost = 0,
                Err(_) => return,
            }
        }
        while let Some(notice) = self.waiting.front() {
            match channel::send(&self.notices, notice, &[], false) {
                Ok(()) => self.waiting.pop_front(),
                Err(ChannelError::WouldBlock) => return,
                Err(_) => {
                    self.waiting.clear();
                    return;
                }
            };
        }
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
    }
}

/// When to start again: at once, but with growing pauses when it dies within a second again and again.
#[derive(Debug, Default)]
pub struct Backoff {
    quick: u32,
}

impl Backoff {
    const QUICK: Duration = Duration::from_secs(1);
    /// Quick deaths in a row that cost no pause.
    const FREE: u32 = 3;
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(5);

    /// The pause after a life of this length.
    pub fn pause(&mut self, lived: Duration) -> Duration {
        if lived >= Self::QUICK {
            self.quick = 0;
            return Duration::ZERO;
        }
        self.quick += 1;
        match self.quick.checked_sub(Self::FREE + 1) {
            None => Duration::ZERO,
            Some(more) => Self::FIRST.saturating_mul(1 << more.min(10)).min(Self::LONGEST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_deaths_cost_no_pause_and_repeated_ones_do() {
        let mut backoff = Backoff::default();
        let quick = Duration::from_millis(10);
        assert_eq!(backoff.pause(Duration::from_secs(100)), Duration::ZERO);
        let pauses: Vec<u64> = (0..12).map(|_| backoff.pause(quick).as_millis() as u64).collect();
        assert_eq!(pauses, [0, 0, 0, 50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.pause(Duration::from_secs(2)), Duration::ZERO);
        assert_eq!(backoff.pause(quick), Duration::ZERO);
    }
}
