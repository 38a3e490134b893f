//! The DHCPv6 message (RFC 8415 8, 21): read from any bytes, written in order.
//!
//! Left out: relay messages (an L2 network has its server on the link), authentication.

use std::net::Ipv6Addr;

pub const CLIENT_PORT: u16 = 546;
pub const SERVER_PORT: u16 = 547;
/// All_DHCP_Relay_Agents_and_Servers (7.1).
pub const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// A DUID is no longer (11.1), without its type: 128 octets.
pub const DUID_MAX: usize = 130;

/// Option numbers (21).
pub mod code {
    pub const CLIENT_ID: u16 = 1;
    pub const SERVER_ID: u16 = 2;
    pub const IA_NA: u16 = 3;
    pub const IA_TA: u16 = 4;
    pub const IA_ADDRESS: u16 = 5;
    pub const OPTION_REQUEST: u16 = 6;
    pub const STATUS: u16 = 13;
    pub const RAPID_COMMIT: u16 = 14;
    /// RFC 3646.
    pub const DNS: u16 = 23;
    /// RFC 3646.
    pub const DOMAIN_LIST: u16 = 24;
    pub const IA_PD: u16 = 25;
    pub const REFRESH_TIME: u16 = 32;
    /// RFC 4704.
    pub const FQDN: u16 = 39;
    pub const SOL_MAX_RT: u16 = 82;
}

/// Status codes (21.13).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    Success = 0,
    NoAddrsAvail = 2,
    NoBinding = 3,
    NotOnLink = 4,
    UseMulticast = 5,
    NoPrefixAvail = 6,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Solicit = 1,
    Advertise = 2,
    Request = 3,
    Confirm = 4,
    Renew = 5,
    Rebind = 6,
    Reply = 7,
    Release = 8,
    Decline = 9,
    InformationRequest = 11,
}

impl Kind {
    pub fn from_number(number: u8) -> Option<Kind> {
        use Kind::*;
        [Solicit, Advertise, Request, Confirm, Renew, Rebind, Reply, Release, Decline, InformationRequest]
            .into_iter()
            .find(|&kind| kind as u8 == number)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    pub kind: u8,
    /// 24 bits.
    pub transaction: [u8; 3],
    pub options: Options,
}

/// In order; a code may come again.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options(pub Vec<(u16, Vec<u8>)>);

/// An identity association: IA_NA, or IA_PD, which has the same form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Association {
    pub id: [u8; 4],
    pub addresses: Vec<Ipv6Addr>,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

impl Options {
    /// `None`: an option reaches beyond the end.
    pub fn parse(mut bytes: &[u8]) -> Option<Options> {
        let mut options = Vec::new();
        while !bytes.is_empty() {
            let (code, len) = (word(bytes, 0)?, usize::from(word(bytes, 2)?));
            options.push((code, bytes.get(4..4 + len)?.to_vec()));
            bytes = &bytes[4 + len..];
        }
        Some(Options(options))
    }

    pub fn get(&self, code: u16) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| *known == code).map(|(_, value)| value.as_slice())
    }

    pub fn has(&self, code: u16) -> bool {
        self.get(code).is_some()
    }

    pub fn push(&mut self, code: u16, value: impl Into<Vec<u8>>) {
        self.0.push((code, value.into()));
    }

    pub fn push_status(&mut self, status: Status, text: &str) {
        let mut value = (status as u16).to_be_bytes().to_vec();
        value.extend_from_slice(text.as_bytes());
        self.push(code::STATUS, value);
    }

    /// Options whose values do not fit 16 bits of length are left out.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (code, value) in &self.0 {
            if let Ok(len) = u16::try_from(value.len()) {
                bytes.extend_from_slice(&code.to_be_bytes());
                bytes.extend_from_slice(&len.to_be_bytes());
                bytes.extend_from_slice(value);
            }
        }
        bytes
    }

    /// The codes that the client asks for; `None`: it asks for nothing in particular.
    pub fn requested(&self) -> Option<Vec<u16>> {
        let list = self.get(code::OPTION_REQUEST)?;
        Some(list.as_chunks::<2>().0.iter().map(|&pair| u16::from_be_bytes(pair)).collect())
    }

    /// The associations of a kind, as far as they can be read.
    pub fn associations(&self, kind: u16) -> impl Iterator<Item = Association> {
        self.0.iter().filter(move |(code, _)| *code == kind).filter_map(|(_, value)| {
            let (id, rest) = value.split_first_chunk::<4>()?;
            let inner = Options::parse(rest.get(8..)?)?;
            let addresses = inner.0.iter().filter(|(code, _)| *code == code::IA_ADDRESS);
            let addresses = addresses.filter_map(|(_, value)| value.first_chunk::<16>());
            Some(Association { id: *id, addresses: addresses.map(|&octets| octets.into()).collect() })
        })
    }
}

impl Message {
    /// `None`: cut short. Relay messages come out with their number as kind.
    pub fn parse(bytes: &[u8]) -> Option<Message> {
        let (&[kind, a, b, c], rest) = bytes.split_first_chunk::<4>()?;
        // Relay messages have other fixed fields, and nobody here reads them.
        let options =
            if Kind::from_number(kind).is_some() { Options::parse(rest)? } else { Options::default() };
        Some(Message { kind, transaction: [a, b, c], options })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind];
        bytes.extend_from_slice(&self.transaction);
        bytes.extend_from_slice(&self.options.to_bytes());
        bytes
    }

    /// A DUID of a length that RFC 8415 11.1 allows.
    pub fn client_id(&self) -> Option<&[u8]> {
        self.options.get(code::CLIENT_ID).filter(|duid| (3..=DUID_MAX).contains(&duid.len()))
    }
}

/// An IA_NA with what stands in it (21.4).
pub fn association(id: [u8; 4], t1: u32, t2: u32, inner: &Options) -> Vec<u8> {
    let mut value = id.to_vec();
    value.extend_from_slice(&t1.to_be_bytes());
    value.extend_from_slice(&t2.to_be_bytes());
    value.extend_from_slice(&inner.to_bytes());
    value
}

/// An IA Address option (21.6).
pub fn address(address: Ipv6Addr, preferred: u32, valid: u32) -> Vec<u8> {
    let mut value = address.octets().to_vec();
    value.extend_from_slice(&preferred.to_be_bytes());
    value.extend_from_slice(&valid.to_be_bytes());
    value
}
