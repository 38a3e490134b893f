//! Forwards, floating addresses, leases and flows.

use super::{grid, or_dash, state};
use switchd_api::reply::{FloatingRow, FlowRow, ForwardRow, LeaseRow};

pub fn forwards(list: &[ForwardRow], _: bool) -> String {
    let rows = list.iter().map(|row| {
        let state = state(row.state, row.reason.as_deref());
        vec![row.network.to_string(), row.key.clone(), row.to.clone(), state]
    });
    grid(&["NETWORK", "FORWARD", "TO", "STATE"], rows)
}

pub fn floatings(list: &[FloatingRow], _: bool) -> String {
    let rows = list.iter().map(|row| {
        vec![row.outside.clone(), row.network.to_string(), row.port.to_string(), row.inside.clone()]
    });
    grid(&["OUTSIDE", "NETWORK", "PORT", "INSIDE"], rows)
}

pub fn leases(list: &[LeaseRow], wide: bool) -> String {
    let mut header = vec!["NETWORK", "ADDRESS", "STATE", "MAC", "PORT", "HOSTNAME", "EXPIRES"];
    if wide {
        header.extend(["RESERVED", "CLIENT"]);
    }
    let rows = list.iter().map(|row| {
        let mut cells = vec![
            row.network.to_string(),
            row.address.clone(),
            row.state.clone(),
            or_dash(row.mac.as_ref()),
            or_dash(row.port.as_ref()),
            or_dash(row.host_name.as_ref()),
            or_dash(row.expires),
        ];
        if wide {
            cells.push(if row.reserved { "yes" } else { "no" }.to_owned());
            cells.push(or_dash(row.client_id.as_ref()));
        }
        cells
    });
    grid(&header, rows)
}

pub fn flows(list: &[FlowRow], wide: bool) -> String {
    let mut header =
        vec!["NETWORK", "PROTO", "INSIDE", "OUTSIDE", "REMOTE", "STATE", "PORT", "IDLE", "EXPIRES"];
    if wide {
        header.extend(["PACKETS", "BYTES"]);
    }
    let rows = list.iter().map(|row| {
        let mut cells = vec![
            row.network.to_string(),
            row.protocol.clone(),
            row.inside.clone(),
            row.outside.clone(),
            row.remote.clone(),
            row.state.clone(),
            or_dash(row.port.as_ref()),
            row.idle.to_string(),
            row.expires.to_string(),
        ];
        if wide {
            cells.extend([row.packets, row.bytes].map(|count| count.to_string()));
        }
        cells
    });
    grid(&header, rows)
}
