//! The socket's side of a connection: its events, and what goes to the guest next.

use super::{ACK, Conn, Emit, End, FIN, PAYLOAD_MAX, PSH, SHIFT, SYN, State, Tally, Verdict, before};
use crate::sys::socket;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What the machine asks of a socket. Tests have one without a kernel.
pub trait Stream {
    fn write(&mut self, parts: [&[u8]; 2]) -> io::Result<usize>;
    /// Copies what lies `offset` bytes behind the first unread one. 0 is the end of the stream.
    fn peek(&mut self, offset: u32, buffer: &mut [u8]) -> io::Result<usize>;
    /// The largest offset that [`Stream::peek`] can reach.
    fn reach(&self) -> u32;
    /// Takes bytes out for good.
    fn discard(&mut self, bytes: u32) -> io::Result<()>;
    /// Ends our direction.
    fn finish(&mut self) -> io::Result<()>;
    /// Used and bound of the send buffer.
    fn memory(&mut self) -> io::Result<(u32, u32)>;
    /// If false, the socket's EPOLLOUT will come.
    fn has_room(&mut self) -> bool;
    fn keep_alive(&mut self);
}

/// Where the kernel's peek offset stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Peek {
    /// Not in use: a peek begins at the first unread byte.
    Off,
    At(u32),
    /// This kernel has none for TCP.
    Skip,
}

pub struct Socket {
    fd: OwnedFd,
    peek: Peek,
}

impl Socket {
    pub fn new(fd: OwnedFd) -> Socket {
        Socket { fd, peek: Peek::Off }
    }

    /// As on a kernel without SO_PEEK_OFF.
    #[cfg(test)]
    pub fn without_offset(fd: OwnedFd) -> Socket {
        Socket { fd, peek: Peek::Skip }
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Stream for Socket {
    fn write(&mut self, parts: [&[u8]; 2]) -> io::Result<usize> {
        socket::write(&self.fd, parts)
    }

    fn peek(&mut self, offset: u32, buffer: &mut [u8]) -> io::Result<usize> {
        let set = match self.peek {
            Peek::Off => offset != 0,
            Peek::At(at) => offset != at,
            Peek::Skip => false,
        };
        if set {
            let option = socket::set(&self.fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, offset as i32);
            self.peek = if option.is_ok() { Peek::At(offset) } else { Peek::Skip };
        }
        if self.peek == Peek::Skip {
            return socket::peek_skipping(&self.fd, offset as usize, buffer, &mut Vec::new());
        }
        let got = socket::peek(&self.fd, buffer)?;
        if let Peek::At(at) = self.peek {
            self.peek = Peek::At(at + got as u32);
        }
        Ok(got)
    }

    fn reach(&self) -> u32 {
        if self.peek == Peek::Skip { socket::SKIP_MAX as u32 } else { i32::MAX as u32 }
    }

    fn discard(&mut self, bytes: u32) -> io::Result<()> {
        let mut left = bytes as usize;
        while left > 0 {
            match socket::discard(&self.fd, left) {
                Ok(0) => break,
                Ok(taken) => left -= taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if let Peek::At(at) = self.peek {
            self.peek = Peek::At(at.saturating_sub(bytes));
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Write)?)
    }

    fn memory(&mut self) -> io::Result<(u32, u32)> {
        socket::send_memory(&self.fd)
    }

    fn has_room(&mut self) -> bool {
        socket::has_room(&self.fd)
    }

    fn keep_alive(&mut self) {
        // The kernel's own times; without them the connection lasts as long as the guest wants it.
        let _ = socket::set(&self.fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
        let _ = socket::set(&self.fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 60);
        let _ = socket::set(&self.fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 30);
    }
}

/// What epoll says of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ready {
    pub readable: bool,
    pub writable: bool,
    /// The remote end has closed its direction.
    pub hung_up: bool,
    pub error: bool,
}

/// Bytes written after which the send memory is asked for again.
const ASK_EVERY: u32 = 16 * 1024;

impl Conn {
    /// Takes an event of the socket; `error` asks it for its pending error.
    pub fn ready(&mut self, now: u64, ready: Ready, error: impl FnOnce() -> Option<io::Error>) -> Verdict {
        let failed = if ready.error { error() } else { None };
        if self.state == State::Connecting {
            if ready.error {
                let errno = failed.and_then(|error| error.raw_os_error());
                return Verdict::End(End::Failed(errno.unwrap_or(libc::ECONNREFUSED)));
            }
            if ready.writable {
                self.connected(now);
            }
            self.hung_up |= ready.hung_up;
            return Verdict::Keep;
        }
        if failed.is_some() {
            return Verdict::End(End::ResetByRemote);
        }
        self.readable |= ready.readable || ready.hung_up;
        self.hung_up |= ready.hung_up;
        if ready.writable && self.blocked {
            self.blocked = false;
            self.since = u32::MAX;
            self.ack_due = true;
            if self.cut {
                // What the socket did not take is lost on the way to us. The guest shall not wait for its
                // timer: three duplicates follow the acknowledgement with the new window (RFC 5681 3.2).
                self.cut = false;
                self.dup_due = 4;
            }
        }
        Verdict::Keep
    }

    /// Whether [`Conn::next`] may have something to do. What is acknowledged leaves the socket at once, however
    /// little: the kernel frees a whole superframe with its last byte, and keeps the remote end's window shut
    /// until then.
    pub fn wants_turn(&self) -> bool {
        self.ack_due
            || self.dup_due > 0
            || self.syn_due
            || self.probe_due
            || self.readable
            || self.unread > 0
            || self.snd_nxt != self.snd_max
            || self.fin == Some(self.snd_nxt)
    }

    /// Takes what the guest has acknowledged out of the socket. Before a close, or the remote end would be
    /// reset.
    pub fn settle(&mut self, stream: &mut impl Stream) -> io::Result<()> {
        let unread = std::mem::take(&mut self.unread);
        if unread > 0 { stream.discard(unread) } else { Ok(()) }
    }

    /// The next segment for the guest, its payload peeked into `buffer`. `None` when there is nothing to say
    /// or the guest's window is closed.
    pub fn next(
        &mut self,
        now: u64,
        stream: Option<&mut impl Stream>,
        buffer: &mut [u8],
        tally: &mut Tally,
    ) -> Result<Option<Emit>, End> {
        match (self.state, stream) {
            (State::SynSent | State::SynReceived, _) => Ok(self.next_syn()),
            (State::Open, Some(stream)) => self.next_open(now, stream, buffer, tally),
            (State::TimeWait { .. }, _) if std::mem::take(&mut self.ack_due) => {
                Ok(Some(self.emit(self.snd_max, ACK, 0, 0)))
            }
            _ => Ok(None),
        }
    }

    fn emit(&self, seq: u32, flags: u8, payload: usize, window: u16) -> Emit {
        Emit { seq, ack: self.rcv_nxt, flags, window, payload, options: None }
    }

    fn next_syn(&mut self) -> Option<Emit> {
        if !std::mem::take(&mut self.syn_due) {
            return None;
        }
        // Scale is offered in a SYN of ours, and agreed to in a SYN-ACK (RFC 7323 1.3).
        let (flags, shift) = match self.state {
            State::SynSent => (SYN, Some(SHIFT)),
            _ => (SYN | ACK, self.guest_shift.map(|_| SHIFT)),
        };
        let window = self.room.min(u32::from(u16::MAX)) as u16;
        let mut emit = self.emit(self.iss, flags, 0, window);
        if flags & ACK == 0 {
            emit.ack = 0;
        }
        emit.options = Some((self.our_mss, shift));
        Some(emit)
    }

    fn next_open(
        &mut self,
        now: u64,
        stream: &mut impl Stream,
        buffer: &mut [u8],
        tally: &mut Tally,
    ) -> Result<Option<Emit>, End> {
        if self.settle(stream).is_err() {
            return Err(End::ResetByRemote);
        }
        if let Some(payload) = self.peek_next(now, stream, buffer)? {
            let seq = self.snd_nxt;
            self.snd_nxt = seq.wrapping_add(payload as u32);
            self.sent(now, tally);
            let window = self.window(stream);
            let push = if self.readable { 0 } else { PSH };
            self.ack_due = false;
            return Ok(Some(self.emit(seq, ACK | push, payload, window)));
        }
        if self.fin == Some(self.snd_nxt) {
            let seq = self.snd_nxt;
            self.snd_nxt = seq.wrapping_add(1);
            self.sent(now, tally);
            let window = self.window(stream);
            self.ack_due = false;
            return Ok(Some(self.emit(seq, ACK | FIN, 0, window)));
        }
        if self.ack_due || self.dup_due > 0 {
            let window = self.window(stream);
            self.ack_due = false;
            self.dup_due = self.dup_due.saturating_sub(1);
            return Ok(Some(self.emit(self.snd_nxt, ACK, 0, window)));
        }
        if std::mem::take(&mut self.probe_due) {
            let window = self.window(stream);
            // An old number, which the guest must answer (RFC 9293 3.8.4 and 3.10.7.4).
            return Ok(Some(self.emit(self.snd_una.wrapping_sub(1), ACK, 0, window)));
        }
        Ok(None)
    }

    /// Peeks as much as may be sent now.
    fn peek_next(
        &mut self,
        now: u64,
        stream: &mut impl Stream,
        buffer: &mut [u8],
    ) -> Result<Option<usize>, End> {
        let again = before(self.snd_nxt, self.fin.unwrap_or(self.snd_max));
        if !again && (self.fin.is_some() || !self.readable) {
            return Ok(None);
        }
        let flight = self.flight();
        let allowed = self.snd_wnd.min(self.cwnd).min(stream.reach());
        let Some(allowed) = allowed.checked_sub(flight).filter(|&allowed| allowed > 0) else {
            if self.snd_una == self.snd_max && self.resend_at.is_none() {
                // The window is closed and nothing is under way that could open it.
                self.resend_at = Some(now + self.rto);
            }
            return Ok(None);
        };
        let mss = usize::from(self.mss);
        let mut want = (allowed as usize).min(buffer.len()).min(PAYLOAD_MAX);
        if want > mss {
            want -= want % mss;
        } else if want < mss && flight > 0 {
            // A small gap at the end of the window: it is not worth a segment (RFC 9293 3.8.6.2.1). What is
            // under way will be acknowledged.
            return Ok(None);
        }
        if self.fin.is_some() {
            want = want.min(self.fin.unwrap_or(self.snd_nxt).wrapping_sub(self.snd_nxt) as usize);
        }
        match stream.peek(flight, &mut buffer[..want]) {
            // What was sent once is in the socket still, unless the connection is gone.
            Ok(0) if again => Err(End::ResetByRemote),
            Ok(0) => Ok(self.end_of_stream()),
            Ok(got) => {
                if got < want && !self.hung_up {
                    // The queue is empty: the next byte brings the next event.
                    self.readable = false;
                }
                Ok(Some(got))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                // Without a peek offset in the kernel the end shows itself like this.
                Ok(if self.hung_up && !again { self.end_of_stream() } else { None })
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(_) => Err(End::ResetByRemote),
        }
    }

    /// All has been peeked: our FIN comes next.
    fn end_of_stream(&mut self) -> Option<usize> {
        self.readable = false;
        self.fin = Some(self.snd_nxt);
        None
    }

    /// `snd_nxt` has moved on.
    fn sent(&mut self, now: u64, tally: &mut Tally) {
        if before(self.snd_max, self.snd_nxt) {
            if self.timed.is_none() {
                self.timed = Some((self.snd_nxt, now));
            }
            self.snd_max = self.snd_nxt;
        } else if self.recover.is_some() {
            tally.retransmits += 1;
        }
        if self.resend_at.is_none() {
            self.resend_at = Some(now + self.rto);
        }
    }

    /// The window for the guest: what the socket's buffer still takes. It never shrinks from the right
    /// (RFC 9293 3.8.6), and it opens by steps that are worth it (RFC 9293 3.8.6.2.2).
    fn window(&mut self, stream: &mut impl Stream) -> u16 {
        if self.fin_in {
            return 0;
        }
        if self.since >= ASK_EVERY || (self.room < 2 * u32::from(self.our_mss) && self.since > 0) {
            self.ask(stream);
        }
        let edge = self.rcv_nxt.wrapping_add(self.room);
        if before(self.rcv_adv, edge) {
            self.rcv_adv = edge;
        }
        let shift = if self.guest_shift.is_some() { SHIFT } else { 0 };
        let window = self.rcv_adv.wrapping_sub(self.rcv_nxt).min(u32::from(u16::MAX) << shift);
        (window >> shift) as u16
    }

    fn ask(&mut self, stream: &mut impl Stream) {
        self.since = 0;
        let Ok((used, bound)) = stream.memory() else { return };
        let free = bound.saturating_sub(used);
        // A buffer is accounted with the kernel's overhead: little with superframes, as much again with
        // single segments.
        let room = if self.bulk { free - free / 8 } else { free / 2 };
        self.room = if room < u32::from(self.our_mss).min(bound / 8) { 0 } else { room };
        if !self.blocked && used > bound / 3 * 2 {
            self.blocked = !stream.has_room();
            if !self.blocked && self.room == 0 {
                // It has drained since we asked.
                self.room = bound / 8;
            }
        }
    }
}
