//! The states of flows, what they are called, and how long each may be silent.

use crate::config::Timeouts;
use crate::timers::ticks;

/// What is not TCP is `New` until it was answered and `Open` from then on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum State {
    UdpNew,
    UdpOpen,
    IcmpNew,
    IcmpOpen,
    OtherNew,
    OtherOpen,
    SynOut,
    SynIn,
    Handshake,
    Established,
    FinOut,
    FinIn,
    Closing,
    Reset,
    ResetHalf,
    Picked,
    PickedIn,
}

const COUNT: usize = State::PickedIn as usize + 1;

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::UdpNew | State::IcmpNew | State::OtherNew => "new",
            State::UdpOpen | State::IcmpOpen | State::OtherOpen => "open",
            State::SynOut => "syn-sent",
            State::SynIn => "syn-received",
            State::Handshake => "handshake",
            State::Established => "established",
            State::FinOut => "fin-sent",
            State::FinIn => "fin-received",
            State::Closing => "closing",
            State::Reset | State::ResetHalf => "reset",
            State::Picked | State::PickedIn => "picked-up",
        }
    }

    /// May make room for another flow: nothing is lost that was going on.
    pub fn is_transitory(self) -> bool {
        !matches!(
            self,
            State::UdpOpen
                | State::IcmpOpen
                | State::OtherOpen
                | State::Established
                | State::FinOut
                | State::FinIn
        )
    }

    /// What an answer makes of a flow that is not TCP.
    #[inline]
    pub fn answered(self) -> State {
        match self {
            State::UdpNew => State::UdpOpen,
            State::IcmpNew => State::IcmpOpen,
            State::OtherNew => State::OtherOpen,
            other => other,
        }
    }
}

/// Ticks that a flow may be silent, by state.
#[derive(Clone, Copy)]
pub(crate) struct Silences([u32; COUNT]);

impl Silences {
    pub fn new(timeouts: &Timeouts) -> Silences {
        let mut silences = [ticks(timeouts.tcp_transitory); COUNT];
        for (state, time) in [
            (State::UdpNew, timeouts.udp),
            (State::UdpOpen, timeouts.udp),
            (State::IcmpNew, timeouts.icmp),
            (State::IcmpOpen, timeouts.icmp),
            (State::OtherNew, timeouts.other),
            (State::OtherOpen, timeouts.other),
            (State::Established, timeouts.tcp_established),
            (State::FinOut, timeouts.tcp_established),
            (State::FinIn, timeouts.tcp_established),
        ] {
            silences[state as usize] = ticks(time);
        }
        Silences(silences)
    }

    #[inline]
    pub fn of(&self, state: State) -> u32 {
        self.0[state as usize]
    }
}
