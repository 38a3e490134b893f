//! The states of a TCP connection as a translator sees them (RFC 5382 5, RFC 6146 3.5.2.2, RFC 7857 2).
//!
//! ```text
//!   SYN out          SYN in (forward)        another segment, out or in (forward)
//!      │                  │                        │
//!   SynOut            SynIn                     Picked, PickedIn
//!      │ SYN in           │ SYN out                │ segment from the other side
//!      └────► Handshake ◄─┘                        │
//!                 │ ACK without SYN                │
//!                 └────────► Established ◄─────────┘
//!                 FIN out ┌──────┴──────┐ FIN in
//!                      FinOut         FinIn          (half closed: as long as Established)
//!                  FIN in └──► Closing ◄┘ FIN out
//!   any ── RST ──► Reset ── segment out ──► Established, if it was that
//!   Closing, Reset ── SYN out ──► SynOut (the port is used again)
//! ```
//!
//! An RST does not end a flow at once (RFC 7857 2.2): the peer may never have received it, or it may be
//! forged; the flow then has the transitory time, and goes on when its guest does. Sequence numbers are
//! not followed: that would cost a second cache line a segment, and the ends check them (RFC 5961).

use crate::state::State;
use crate::verdict::Side;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// The state of a connection that begins with this segment; `None` for one that begins nothing.
pub(crate) fn first(side: Side, flags: u8) -> Option<State> {
    match (side, flags & (SYN | RST | ACK)) {
        (_, flags) if flags & RST != 0 => None,
        (Side::Inside, SYN) => Some(State::SynOut),
        (Side::Outside, SYN) => Some(State::SynIn),
        // The answer to a SYN that came in through a mapping (endpoint-independent filtering, hairpin).
        (Side::Inside, flags) if flags & SYN != 0 => Some(State::Handshake),
        (Side::Inside, _) => Some(State::Picked),
        (Side::Outside, _) => Some(State::PickedIn),
    }
}

pub(crate) fn step(state: State, side: Side, flags: u8) -> State {
    use State::{
        Closing, Established, FinIn, FinOut, Handshake, Picked, PickedIn, Reset, ResetHalf, SynIn, SynOut,
    };
    let (fin, syn, rst) = (flags & FIN != 0, flags & SYN != 0, flags & RST != 0);
    let out = side == Side::Inside;
    match state {
        Established | FinOut | FinIn if rst => Reset,
        Reset | ResetHalf if rst => state,
        _ if rst => ResetHalf,
        SynOut if !out && syn => Handshake,
        SynIn if out && syn => Handshake,
        Handshake if !syn && flags & ACK != 0 => Established,
        Picked if !out && !syn => Established,
        PickedIn if out && !syn => Established,
        Established if fin => {
            if out {
                FinOut
            } else {
                FinIn
            }
        }
        FinOut if fin && !out => Closing,
        FinIn if fin && out => Closing,
        Closing | Reset | ResetHalf if out && syn && flags & ACK == 0 => SynOut,
        Reset if out && !syn => Established,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Side::{Inside as Out, Outside as In};
    use State::*;

    fn run(start: State, segments: &[(Side, u8)]) -> State {
        segments.iter().fold(start, |state, &(side, flags)| step(state, side, flags))
    }

    #[test]
    fn rfc5382_req1_a_connection_opened_from_inside_is_followed_to_its_end() {
        assert_eq!(first(Out, SYN), Some(SynOut));
        assert_eq!(run(SynOut, &[(In, SYN | ACK)]), Handshake);
        assert_eq!(run(SynOut, &[(In, SYN | ACK), (Out, ACK)]), Established);
        assert_eq!(run(Established, &[(Out, ACK), (In, ACK), (Out, FIN | ACK)]), FinOut);
        assert_eq!(run(FinOut, &[(In, ACK), (Out, ACK), (In, FIN | ACK)]), Closing);
        assert_eq!(run(Closing, &[(Out, ACK), (In, ACK)]), Closing);
        assert_eq!(run(Closing, &[(Out, SYN)]), SynOut);
    }

    #[test]
    fn rfc5382_req2_simultaneous_open_reaches_established() {
        assert_eq!(run(SynOut, &[(In, SYN)]), Handshake);
        assert_eq!(run(SynOut, &[(In, SYN), (Out, SYN | ACK), (In, SYN | ACK), (Out, ACK)]), Established);
    }

    #[test]
    fn a_connection_opened_from_outside_through_a_forward_is_followed() {
        assert_eq!(first(In, SYN), Some(SynIn));
        assert_eq!(run(SynIn, &[(In, SYN), (In, ACK)]), SynIn);
        assert_eq!(run(SynIn, &[(Out, SYN | ACK), (In, ACK), (In, FIN | ACK)]), FinIn);
    }

    #[test]
    fn rfc7857_2_2_a_reset_holds_the_flow_and_its_guest_can_go_on() {
        assert_eq!(run(Established, &[(In, RST)]), Reset);
        assert_eq!(run(Established, &[(In, RST), (In, ACK)]), Reset);
        assert_eq!(run(Established, &[(In, RST), (Out, ACK)]), Established);
        assert_eq!(run(SynOut, &[(In, RST | ACK), (Out, ACK)]), ResetHalf);
        assert_eq!(run(SynOut, &[(In, RST | ACK), (Out, SYN)]), SynOut);
    }

    #[test]
    fn a_segment_from_the_middle_is_established_only_when_it_is_answered() {
        assert_eq!(first(Out, ACK), Some(Picked));
        assert_eq!(first(Out, RST | ACK), None);
        assert_eq!(run(Picked, &[(Out, ACK)]), Picked);
        assert_eq!(run(Picked, &[(In, ACK)]), Established);
        assert_eq!(run(Picked, &[(In, RST)]), ResetHalf);
        // Nobody outside opens a connection by two forged segments.
        assert_eq!(first(In, ACK), Some(PickedIn));
        assert_eq!(run(PickedIn, &[(In, ACK), (In, ACK)]), PickedIn);
        assert_eq!(run(PickedIn, &[(In, ACK), (Out, ACK)]), Established);
    }

    #[test]
    fn every_state_takes_every_segment_and_only_a_handshake_opens() {
        let states = [
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
        ];
        for state in states {
            for flags in 0..32 {
                for side in [Out, In] {
                    let next = step(state, side, flags);
                    if next == Established && state != Established {
                        assert!(
                            matches!(state, Handshake | Picked | PickedIn | Reset),
                            "{state:?} {flags:#x}"
                        );
                    }
                    if flags & RST != 0 {
                        assert!(matches!(next, Reset | ResetHalf), "{state:?} {flags:#x}");
                    }
                }
            }
        }
    }
}
