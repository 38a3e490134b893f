//! A guest's TCP connection, spliced to a socket of the host.
//!
//! We are the far end of the guest's connection (RFC 9293), and the host's stack is the near end of the real
//! one. Nothing is stored in between:
//!
//! * **From the guest**: what is acknowledged is what the socket took. A segment that the socket takes in
//!   part is acknowledged in part. The window that we offer is what its send buffer still holds; when that
//!   closes, the kernel is asked to tell when it opens, and may enlarge the buffer by its own rules then.
//! * **To the guest**: data is peeked out of the socket's receive queue and taken out of it when the guest
//!   has acknowledged it. A retransmission peeks again. So a slow guest closes the kernel's window to the
//!   remote end, and costs no more memory than the kernel gives the socket.
//!
//! A guest's SYN is answered when the host's connect() has succeeded, so a refusal reaches the guest as one.
//!
//! ```text
//! guest's SYN ──► Connecting ──connected──► SynReceived ──ACK──► Open ──both FINs──► TimeWait or gone
//! forward ──────► SynSent ──SYN-ACK──────────────────────────►  Open
//!                    └──────SYN (simultaneous open)──► SynReceived
//! ```
//!
//! `Open` holds RFC 9293's ESTABLISHED to LAST-ACK: which FINs were seen, sent and acknowledged is in the
//! sequence numbers, and each direction closes by itself. TIME-WAIT is kept where we closed first.
//!
//! Left out on purpose: congestion control (the link to a guest is memory; after a loss the flight is
//! halved), SACK and timestamps (not offered), a queue for segments out of order (a guest's frames do not
//! overtake each other; what was lost comes again), urgent data (it stays in line).
//!
//! The clock is an argument: nanoseconds that never go back.

mod guest;
mod socket;
#[cfg(test)]
mod tests;
mod timers;

pub use guest::Segment;
pub use socket::{Ready, Socket, Stream};

use std::os::fd::OwnedFd;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

/// Window scale that we offer (RFC 7323 2): windows of up to 16 MiB.
pub const SHIFT: u8 = 8;
/// RFC 7323 2.3.
const SHIFT_MAX: u8 = 14;
/// The window of a young connection, before the socket's memory was asked for. Less than the kernel's
/// smallest send buffer of a connected socket (ten segments, twice).
const FIRST_WINDOW: u32 = 32 * 1024;
/// RFC 9293 3.7.1, where no option says otherwise.
const MSS_DEFAULT_V4: u16 = 536;
const MSS_DEFAULT_V6: u16 = 1220;
/// Below this a guest's MSS option is not believed: headers would outweigh the data.
const MSS_MIN: u16 = 88;
/// Most payload of one frame to a guest: an IP packet of 64 KiB less the largest headers.
pub const PAYLOAD_MAX: usize = 65_535 - 80;

pub struct TcpFlow {
    pub conn: Conn,
    /// Absent in TIME-WAIT.
    pub socket: Option<Socket>,
    /// Came through a forward.
    pub forwarded: bool,
}

impl TcpFlow {
    pub fn new(conn: Conn, fd: OwnedFd, forwarded: bool) -> TcpFlow {
        TcpFlow { conn, socket: Some(Socket::new(fd)), forwarded }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// The host's connect() is under way; nothing was said to the guest.
    Connecting,
    SynReceived,
    SynSent,
    Open,
    TimeWait {
        until: u64,
    },
}

/// How a connection ends, and what both sides are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Both directions have ended: the socket is closed.
    Done,
    /// RST to the remote end.
    ResetByGuest,
    /// RST to the guest.
    ResetByRemote,
    /// The guest does not answer any more: RST to both.
    Silent,
    /// connect() failed with this errno: RST or an ICMP error to the guest.
    Failed(i32),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Verdict {
    Keep,
    /// The socket is given back; the flow stays to answer late segments.
    Wait,
    End(End),
    /// A new connection of the same addresses: end this one, and take the segment again.
    Restart,
    /// RST with this sequence number, for a segment that belongs to no connection of ours.
    Reject {
        seq: u32,
    },
}

/// A segment to the guest; its payload was put into the caller's buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Emit {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub payload: usize,
    /// MSS and window scale of a SYN.
    pub options: Option<(u16, Option<u8>)>,
}

/// What happened in a call, for the engine's counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    pub retransmits: u64,
    pub fast_retransmits: u64,
    pub window_probes: u64,
    pub out_of_order: u64,
    pub short_writes: u64,
    pub bytes_out: u64,
    pub bytes_in: u64,
}

/// Durations that the machine goes by, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    pub established: u64,
    pub transitory: u64,
}

/// Names of RFC 9293 3.3.1 where it has them.
pub struct Conn {
    pub state: State,
    times: Times,
    /// What we can receive in one segment, told to the guest.
    our_mss: u16,

    // To the guest.
    iss: u32,
    snd_una: u32,
    snd_nxt: u32,
    /// Highest sequence number sent: beyond `snd_nxt` after a step back.
    snd_max: u32,
    snd_wnd: u32,
    snd_wl1: u32,
    snd_wl2: u32,
    mss: u16,
    /// Of the guest; present when both ends scale.
    guest_shift: Option<u8>,
    /// Bound of the flight after a loss.
    cwnd: u32,
    dup_acks: u8,
    /// A fast retransmission goes on until this is acknowledged.
    recover: Option<u32>,
    /// Acknowledged by the guest and still in the socket.
    unread: u32,
    /// The socket may hold data that was not peeked yet.
    readable: bool,
    /// The remote end has closed its direction: only an end proves the end.
    hung_up: bool,
    /// Sequence number of our FIN, once the end of the stream was seen.
    fin: Option<u32>,

    // From the guest.
    irs: u32,
    rcv_nxt: u32,
    /// Right edge of the window that was offered.
    rcv_adv: u32,
    /// The guest's FIN was taken.
    fin_in: bool,
    /// Our FIN was sent before that: TIME-WAIT is ours (RFC 9293 3.6).
    closed_first: bool,
    /// What the socket should still take.
    room: u32,
    /// Bytes written since its memory was asked for.
    since: u32,
    /// The guest sends superframes: the kernel's overhead is small.
    bulk: bool,
    /// The socket's EPOLLOUT will come.
    blocked: bool,
    /// The socket did not take all: the guest has to send the rest again.
    cut: bool,
    /// A keepalive of the guest was seen.
    kept_alive: bool,

    // What to send at the next occasion.
    ack_due: bool,
    dup_due: u8,
    syn_due: bool,
    probe_due: bool,

    // Timers.
    heard: u64,
    rto: u64,
    srtt: u64,
    rttvar: u64,
    /// A sequence number whose acknowledgement is timed (Karn: never one sent twice).
    timed: Option<(u32, u64)>,
    resend_at: Option<u64>,
    tries: u8,
    keepalives: u8,
}

fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

fn at_most(a: u32, b: u32) -> bool {
    !before(b, a)
}

impl Conn {
    /// For a guest's SYN, while the host connects. `iss` as RFC 6528 wants it: not to be guessed.
    pub fn from_guest(now: u64, syn: &Segment, iss: u32, our_mss: u16, v6: bool, times: Times) -> Conn {
        let mut conn = Conn::new(State::Connecting, now, iss, our_mss, v6, times);
        conn.take_syn(syn);
        conn
    }

    /// For a connection that came in through a forward. The SYN to the guest is due.
    pub fn to_guest(now: u64, iss: u32, our_mss: u16, v6: bool, times: Times) -> Conn {
        let mut conn = Conn::new(State::SynSent, now, iss, our_mss, v6, times);
        conn.readable = true;
        conn.send_syn(now);
        conn
    }

    fn new(state: State, now: u64, iss: u32, our_mss: u16, v6: bool, times: Times) -> Conn {
        Conn {
            state,
            times,
            our_mss,
            iss,
            snd_una: iss,
            snd_nxt: iss.wrapping_add(1),
            snd_max: iss.wrapping_add(1),
            snd_wnd: 0,
            snd_wl1: 0,
            snd_wl2: iss,
            mss: our_mss.min(if v6 { MSS_DEFAULT_V6 } else { MSS_DEFAULT_V4 }),
            guest_shift: None,
            cwnd: u32::MAX,
            dup_acks: 0,
            recover: None,
            unread: 0,
            readable: false,
            hung_up: false,
            fin: None,
            irs: 0,
            rcv_nxt: 0,
            rcv_adv: 0,
            fin_in: false,
            closed_first: false,
            room: FIRST_WINDOW,
            since: 0,
            bulk: false,
            blocked: false,
            cut: false,
            kept_alive: false,
            ack_due: false,
            dup_due: 0,
            syn_due: false,
            probe_due: false,
            heard: now,
            rto: timers::RTO_FIRST,
            srtt: 0,
            rttvar: 0,
            timed: None,
            resend_at: None,
            tries: 0,
            keepalives: 0,
        }
    }

    fn send_syn(&mut self, now: u64) {
        self.syn_due = true;
        self.resend_at = Some(now + self.rto);
    }

    /// The host's connect() succeeded.
    fn connected(&mut self, now: u64) {
        self.state = State::SynReceived;
        self.heard = now;
        // Data may have come with the news.
        self.readable = true;
        self.send_syn(now);
    }

    /// RFC 9293 3.10.7.2 and 3.10.7.3.
    fn take_syn(&mut self, syn: &Segment) {
        self.irs = syn.seq;
        self.rcv_nxt = syn.seq.wrapping_add(1);
        self.rcv_adv = self.rcv_nxt.wrapping_add(FIRST_WINDOW);
        self.snd_wl1 = syn.seq;
        // The window of a SYN is never scaled (RFC 7323 2.2).
        self.snd_wnd = u32::from(syn.window);
        self.guest_shift = syn.shift.map(|shift| shift.min(SHIFT_MAX));
        if let Some(mss) = syn.mss {
            self.mss = mss.clamp(MSS_MIN, self.our_mss.max(MSS_MIN));
        }
    }

    pub fn mss(&self) -> u16 {
        self.mss
    }

    /// Sent and not acknowledged.
    fn flight(&self) -> u32 {
        self.snd_nxt.wrapping_sub(self.snd_una)
    }

    /// Our FIN was sent and acknowledged.
    fn fin_acked(&self) -> bool {
        self.fin.is_some_and(|fin| before(fin, self.snd_una))
    }

    /// The sequence number of the guest's SYN.
    pub fn first_number(&self) -> u32 {
        self.irs
    }

    /// As `flow list` shows it: RFC 9293's name, seen from the guest.
    pub fn state_name(&self) -> &'static str {
        match (self.state, self.fin_in, self.fin.is_some(), self.fin_acked()) {
            (State::Connecting, ..) => "connecting",
            (State::SynReceived, ..) => "syn-sent",
            (State::SynSent, ..) => "syn-received",
            (State::Open, false, false, _) => "established",
            (State::Open, true, false, _) => "fin-wait",
            (State::Open, false, true, _) => "close-wait",
            (State::Open, true, true, _) => "closing",
            (State::TimeWait { .. }, ..) => "time-wait",
        }
    }

    /// An RST that the guest will believe (RFC 5961 3.2).
    pub fn reset(&self) -> Emit {
        let (seq, flags) = match self.state {
            // Nothing was said yet: the guest takes an RST that acknowledges its SYN.
            State::Connecting => (0, RST | ACK),
            _ => (self.snd_max, RST | ACK),
        };
        Emit { seq, ack: self.rcv_nxt, flags, window: 0, payload: 0, options: None }
    }
}
