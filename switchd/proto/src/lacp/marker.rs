//! Marker responder (6.5.4.2): every Marker is answered at once, by the port that it came in by.
//!
//! There is no generator: when flows move between members the distributor drains by itself (`docs/LINKS.md`),
//! as partners that answer no Marker are common.

use super::port::Port;
use switchd_wire::slow::Marker;

/// The answer to a Marker PDU, if it is one to be answered.
pub(super) fn respond(port: &mut Port, marker: &Marker) -> Option<Vec<u8>> {
    if marker.response {
        port.counters.marker_response_rx += 1;
        return None;
    }
    port.counters.marker_rx += 1;
    port.counters.marker_response_tx += 1;
    Some(Marker { response: true, ..*marker }.to_frame(port.config.mac))
}
