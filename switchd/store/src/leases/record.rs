//! A lease as it is written: postcard behind a byte that says which form. Other forms are not read.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv6Addr};

const FORM: u8 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RecordState {
    Bound,
    /// Released; an expired lease stays `Bound` with its time over.
    Over,
    Declined,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseRecord {
    pub network: String,
    pub address: IpAddr,
    pub body: LeaseBody,
}

/// What is written of a lease, its key apart.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseBody {
    /// What the server knows the client by.
    pub client: Vec<u8>,
    pub has_client_id: bool,
    pub mac: Option<[u8; 6]>,
    pub port: String,
    pub hostname: Option<String>,
    pub state: RecordState,
    /// Seconds of the real-time clock.
    pub expires: u64,
    /// Seconds from the writing to `expires`: a clock that was put back does not make a lease longer.
    pub length: u64,
}

impl LeaseRecord {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        postcard::to_extend(&self.body, vec![FORM]).expect("a record has nothing that cannot be written")
    }

    pub(super) fn from_bytes(network: &str, address: u128, bytes: &[u8]) -> Option<LeaseRecord> {
        let body = postcard::from_bytes(bytes.strip_prefix(&[FORM])?).ok()?;
        let address = Ipv6Addr::from_bits(address);
        let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
        Some(LeaseRecord { network: network.to_owned(), address, body })
    }
}
