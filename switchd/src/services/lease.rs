//! Leases between the servers, the store and the eyes of the user.

use super::clock::Now;
use super::notice::{LeaseRow, LeaseState};
use crate::worker::command::Key;
use std::net::IpAddr;
use std::time::Duration;
use switchd_proto::dhcp::table::{Lease, State};
use switchd_proto::dhcp::{MARGIN, SECOND};
use switchd_store::leases::{LeaseBody, LeaseRecord, RecordState};
use switchd_wire::MacAddr;

/// Written leases are at most this long, in seconds; longer ones are damage.
const LONGEST: u64 = 10 * 365 * 86_400;

pub fn record<A: Copy + Into<IpAddr>>(network: &Key, lease: &Lease<A>, now: Now) -> LeaseRecord {
    LeaseRecord {
        network: network.to_string(),
        address: lease.address.into(),
        body: LeaseBody {
            client: lease.client.clone(),
            has_client_id: lease.has_client_id,
            mac: lease.mac.map(|mac| mac.0),
            port: lease.port.to_string(),
            hostname: lease.hostname.clone(),
            state: match lease.state {
                State::Offered | State::Bound => RecordState::Bound,
                State::Over => RecordState::Over,
                State::Declined => RecordState::Declined,
            },
            expires: now.to_real(lease.expires),
            length: lease.expires.saturating_sub(now.mono).div_ceil(SECOND),
        },
    }
}

/// A record as a server's lease; one whose time is over is remembered only.
pub fn lease<A>(record: LeaseRecord, address: A, now: Now) -> Lease<A> {
    let LeaseBody { client, has_client_id, mac, port, hostname, state, expires, length } = record.body;
    let expires = now.to_mono(expires, length.min(LONGEST));
    let live = expires > now.mono;
    let state = match state {
        RecordState::Bound if live => State::Bound,
        RecordState::Declined if live => State::Declined,
        _ => State::Over,
    };
    Lease {
        address,
        client,
        has_client_id,
        mac: mac.map(MacAddr),
        port: port.into(),
        hostname,
        durable: (state == State::Bound).then_some(expires),
        // What is over has been so for some time.
        expires: if state == State::Over { expires.min(now.mono) } else { expires },
        state,
    }
}

fn hex(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(":")
}

/// `id` is the part of what the client is known by that the client chose.
pub fn row<A: Copy + Into<IpAddr>>(
    network: &Key,
    lease: &Lease<A>,
    id: &[u8],
    reserved: bool,
    now: u64,
) -> LeaseRow {
    let state = match lease.state {
        State::Offered | State::Bound => LeaseState::Bound,
        State::Over => LeaseState::Expired,
        State::Declined => LeaseState::Declined,
    };
    let ends = if state == LeaseState::Expired { now } else { lease.durable.unwrap_or(lease.expires) };
    let margin = if state == LeaseState::Bound { MARGIN } else { 0 };
    LeaseRow {
        network: network.clone(),
        address: lease.address.into(),
        mac: lease.mac,
        client_id: (lease.has_client_id && !id.is_empty()).then(|| hex(id)),
        hostname: lease.hostname.clone(),
        port: lease.port.clone(),
        state,
        // As the client was told.
        remaining: Duration::from_nanos(ends.saturating_sub(margin).saturating_sub(now)),
        reserved,
    }
}
