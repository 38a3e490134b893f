//! Why a port is out, in words.

use super::SECOND;
use super::mux;
use super::port::Port;
use std::fmt;
use switchd_wire::MacAddr;

/// Selection's verdict on a port that it left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Out {
    LinkDown,
    /// Nothing was ever heard on this link.
    NoPartner,
    /// The partner stopped speaking at this time.
    Silent(u64),
    LoopedBack,
    HalfDuplex,
    /// The partner says that its link must stand alone.
    PartnerIndividual,
    /// The others' partner is another system.
    PartnerSystem(MacAddr, MacAddr),
    PartnerKey(u16, u16),
    /// Mbit/s, its own and the others'.
    Speed(u32, u32),
    OwnKey(u16, u16),
    /// The partner took in links of another group.
    Refused,
    /// Enough others are used.
    Standby,
    /// Usable links, and what is asked for.
    MinLinks(u32, u32),
    /// Without a partner another port carries the bond.
    FallbackElsewhere,
}

/// A reason at a time: silence grows.
pub(super) struct At(pub Out, pub u64);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Out::LinkDown => f.write_str("link down"),
            Out::NoPartner => f.write_str("no LACPDU received"),
            Out::Silent(since) => {
                let tenths = self.1.saturating_sub(since) / (SECOND / 10);
                write!(f, "no LACPDU for {}.{} s", tenths / 10, tenths % 10)
            }
            Out::LoopedBack => f.write_str("looped back: the partner is this system itself"),
            Out::HalfDuplex => f.write_str("half duplex: cannot be aggregated"),
            Out::PartnerIndividual => f.write_str("the partner does not aggregate this link"),
            Out::PartnerSystem(own, others) => write!(f, "partner system {own} ≠ {others}"),
            Out::PartnerKey(own, others) => write!(f, "partner key {own} ≠ {others}"),
            Out::Speed(own, others) => write!(f, "speed differs: {own} ≠ {others} Mbit/s"),
            Out::OwnKey(own, others) => write!(f, "own key {own} ≠ {others}"),
            Out::Refused => {
                f.write_str("the partner uses other links, which cannot be aggregated with this one")
            }
            Out::Standby => f.write_str("standby: enough other members are used"),
            Out::MinLinks(have, want) => write!(f, "{have} of at least {want} links are usable"),
            Out::FallbackElsewhere => f.write_str("no LACP partner: another member carries the bond"),
        }
    }
}

/// Of a port that does not distribute.
pub(super) fn of(port: &Port, now: u64) -> Option<String> {
    if port.distributing() {
        return None;
    }
    if !port.link.up {
        return Some(At(Out::LinkDown, now).to_string());
    }
    if let (true, Some(since)) = (port.expired(), port.last_rx) {
        return Some(At(Out::Silent(since), now).to_string());
    }
    if let Some(out) = port.out {
        return Some(At(out, now).to_string());
    }
    let text = match port.mux {
        mux::State::Detached => "no place in the aggregate yet",
        mux::State::Waiting => "waiting for the aggregate",
        mux::State::Attached if port.heard_expired => "the partner does not hear us",
        mux::State::Attached if !port.heard_sync => "the partner is not synchronised",
        mux::State::Attached if !port.heard_match => "the partner has not taken up our parameters",
        mux::State::Attached => "not synchronised",
        mux::State::Collecting => "the partner does not collect",
        mux::State::Distributing => return None,
    };
    Some(text.to_owned())
}
