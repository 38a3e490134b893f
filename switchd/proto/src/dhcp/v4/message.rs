//! The DHCPv4 message (RFC 2131 2): read from any bytes, written within a size.
//!
//! Reading puts options that came in pieces together (RFC 3396), those in overloaded `file` and `sname`
//! fields included (RFC 2131 4.1), and keeps the order of first appearance. Writing keeps the order given,
//! splits long values, and overloads the two fields when the options field has no room left.
//!
//! Left out: BOOTP's vendor area without the cookie, and other hardware types than those with addresses of
//! up to 16 octets.

use super::options::code;
use std::net::Ipv4Addr;
use switchd_wire::MacAddr;

pub const CLIENT_PORT: u16 = 68;
pub const SERVER_PORT: u16 = 67;
pub const BOOTREQUEST: u8 = 1;
pub const BOOTREPLY: u8 = 2;
pub const ETHERNET: u8 = 1;
/// RFC 2131 2: "the client will accept a message of up to 576 octets" with IP and UDP headers.
pub const MINIMUM_MAX: usize = 576 - 28;
/// RFC 951 and 1542 2.1: shorter messages are refused by some relays.
const SHORTEST: usize = 300;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const SNAME: usize = 44;
const FILE: usize = 108;
const FIXED: usize = 236;
const BROADCAST_FLAG: u16 = 0x8000;

/// Option 53.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Decline = 4,
    Ack = 5,
    Nak = 6,
    Release = 7,
    Inform = 8,
}

impl Kind {
    pub fn from_number(number: u8) -> Option<Kind> {
        use Kind::*;
        [Discover, Offer, Request, Decline, Ack, Nak, Release, Inform]
            .into_iter()
            .find(|&kind| kind as u8 == number)
    }
}

/// Why bytes are not a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// Ends within the fixed fields.
    Short,
    /// `op` is neither request nor reply.
    Op(u8),
    /// `hlen` is more than `chaddr` holds.
    HardwareLength(u8),
    /// No magic cookie.
    Cookie,
    /// The option reaches beyond its field.
    Option(u8),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    pub op: u8,
    pub htype: u8,
    pub hlen: u8,
    pub hops: u8,
    pub xid: u32,
    pub secs: u16,
    pub flags: u16,
    pub ciaddr: Ipv4Addr,
    pub yiaddr: Ipv4Addr,
    pub siaddr: Ipv4Addr,
    pub giaddr: Ipv4Addr,
    pub chaddr: [u8; 16],
    /// Empty when the field holds options.
    pub sname: Vec<u8>,
    pub file: Vec<u8>,
    /// In order; each code once.
    pub options: Vec<(u8, Vec<u8>)>,
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("the fixed fields were checked"))
}

/// Up to the first zero.
fn text(field: &[u8]) -> Vec<u8> {
    field.split(|&byte| byte == 0).next().unwrap_or_default().to_vec()
}

fn read_options(mut field: &[u8], into: &mut Vec<(u8, Vec<u8>)>, overloads: bool) -> Result<(), Malformed> {
    while let Some((&option, rest)) = field.split_first() {
        match option {
            code::PAD => field = rest,
            code::END => return Ok(()),
            _ => {
                let (&len, rest) = rest.split_first().ok_or(Malformed::Option(option))?;
                let (value, rest) = rest.split_at_checked(len.into()).ok_or(Malformed::Option(option))?;
                field = rest;
                if option == code::OVERLOAD && !overloads {
                    continue;
                }
                match into.iter_mut().find(|(known, _)| *known == option) {
                    Some((_, known)) => known.extend_from_slice(value),
                    None => into.push((option, value.to_vec())),
                }
            }
        }
    }
    Ok(())
}

impl Message {
    /// A request of a client with an Ethernet address.
    pub fn request(xid: u32, mac: MacAddr) -> Message {
        let mut chaddr = [0; 16];
        chaddr[..6].copy_from_slice(&mac.0);
        Message {
            op: BOOTREQUEST,
            htype: ETHERNET,
            hlen: 6,
            hops: 0,
            xid,
            secs: 0,
            flags: 0,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: Ipv4Addr::UNSPECIFIED,
            chaddr,
            sname: Vec::new(),
            file: Vec::new(),
            options: Vec::new(),
        }
    }

    /// A reply with the fields that RFC 2131 table 3 takes from the request.
    pub fn reply_to(request: &Message) -> Message {
        Message {
            op: BOOTREPLY,
            hops: 0,
            secs: 0,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            sname: Vec::new(),
            file: Vec::new(),
            options: Vec::new(),
            ..request.clone()
        }
    }

    pub fn parse(bytes: &[u8]) -> Result<Message, Malformed> {
        let fixed = bytes.get(..FIXED).ok_or(Malformed::Short)?;
        let [op, htype, hlen, hops] = number(fixed, 0).to_be_bytes();
        if ![BOOTREQUEST, BOOTREPLY].contains(&op) {
            return Err(Malformed::Op(op));
        }
        if hlen > 16 {
            return Err(Malformed::HardwareLength(hlen));
        }
        let field = bytes[FIXED..].strip_prefix(&COOKIE).ok_or(Malformed::Cookie)?;
        let mut options = Vec::new();
        read_options(field, &mut options, true)?;
        let (sname, file) = (&fixed[SNAME..FILE], &fixed[FILE..FIXED]);
        // RFC 2131 4.1: first the options field, then `file`, then `sname`.
        let overload = options.iter().find(|(option, _)| *option == code::OVERLOAD);
        let overload = overload.and_then(|(_, value)| value.first().copied()).unwrap_or(0) & 3;
        if overload & 1 != 0 {
            read_options(file, &mut options, false)?;
        }
        if overload & 2 != 0 {
            read_options(sname, &mut options, false)?;
        }
        options.retain(|(option, _)| *option != code::OVERLOAD);
        let short = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        Ok(Message {
            op,
            htype,
            hlen,
            hops,
            xid: number(fixed, 4),
            secs: short(8),
            flags: short(10),
            ciaddr: number(fixed, 12).into(),
            yiaddr: number(fixed, 16).into(),
            siaddr: number(fixed, 20).into(),
            giaddr: number(fixed, 24).into(),
            chaddr: fixed[28..44].try_into().expect("sixteen octets"),
            sname: if overload & 2 == 0 { text(sname) } else { Vec::new() },
            file: if overload & 1 == 0 { text(file) } else { Vec::new() },
            options,
        })
    }

    /// The message in at most `limit` bytes, which is at least [`MINIMUM_MAX`], and the options that found no
    /// room. Options come in their order: the first ones are the most important.
    pub fn encode(&self, limit: usize) -> (Vec<u8>, Vec<u8>) {
        let limit = limit.max(MINIMUM_MAX);
        let mut bytes = vec![self.op, self.htype, self.hlen, self.hops];
        bytes.extend_from_slice(&self.xid.to_be_bytes());
        bytes.extend_from_slice(&self.secs.to_be_bytes());
        bytes.extend_from_slice(&self.flags.to_be_bytes());
        for address in [self.ciaddr, self.yiaddr, self.siaddr, self.giaddr] {
            bytes.extend_from_slice(&address.octets());
        }
        bytes.extend_from_slice(&self.chaddr);
        let fit = |field: &[u8], size: usize| {
            let mut field = field[..field.len().min(size - 1)].to_vec();
            field.resize(size, 0);
            field
        };
        let mut sname = fit(&self.sname, FILE - SNAME);
        let mut file = fit(&self.file, FIXED - FILE);
        let mut main = Area::new(limit - FIXED - COOKIE.len());
        let needs_more = self.options.iter().map(|(_, value)| size(value)).sum::<usize>() > main.room();
        let mut extra = [(1, Area::new(file.len())), (2, Area::new(sname.len()))];
        let usable = [self.file.is_empty(), self.sname.is_empty()];
        if needs_more {
            main.limit -= 3;
        }
        let mut left_out = Vec::new();
        for (option, value) in &self.options {
            let fields = extra.iter_mut().zip(usable).filter(|(_, usable)| needs_more && *usable);
            let mut areas = std::iter::once(&mut main).chain(fields.map(|((_, area), _)| area));
            if !areas.any(|area| area.push(*option, value)) {
                left_out.push(*option);
            }
        }
        let overload: u8 = extra.iter().filter(|(_, area)| !area.bytes.is_empty()).map(|(bit, _)| bit).sum();
        if overload != 0 {
            main.limit += 3;
            main.push(code::OVERLOAD, &[overload]);
        }
        let [(_, in_file), (_, in_sname)] = extra;
        for (field, area) in [(&mut file, in_file), (&mut sname, in_sname)] {
            if !area.bytes.is_empty() {
                let size = field.len();
                *field = area.end();
                field.resize(size, code::PAD);
            }
        }
        bytes.extend_from_slice(&sname);
        bytes.extend_from_slice(&file);
        bytes.extend_from_slice(&COOKIE);
        bytes.extend_from_slice(&main.end());
        if bytes.len() < SHORTEST {
            bytes.resize(SHORTEST, code::PAD);
        }
        (bytes, left_out)
    }

    pub fn option(&self, option: u8) -> Option<&[u8]> {
        self.options.iter().find(|(known, _)| *known == option).map(|(_, value)| value.as_slice())
    }

    pub fn address_option(&self, option: u8) -> Option<Ipv4Addr> {
        let octets: [u8; 4] = self.option(option)?.try_into().ok()?;
        Some(octets.into())
    }

    pub fn seconds_option(&self, option: u8) -> Option<u32> {
        Some(u32::from_be_bytes(self.option(option)?.try_into().ok()?))
    }

    /// Option 53; `None` for BOOTP and for numbers that we do not know.
    pub fn kind(&self) -> Option<Kind> {
        match self.option(code::MESSAGE_TYPE)? {
            [kind] => Kind::from_number(*kind),
            _ => None,
        }
    }

    /// Bytes that the client takes (option 57), without IP and UDP headers.
    pub fn size_limit(&self) -> usize {
        let told = self.option(code::MAX_MESSAGE_SIZE).and_then(|value| value.try_into().ok());
        told.map_or(MINIMUM_MAX, |told| usize::from(u16::from_be_bytes(told)).max(576) - 28)
    }

    pub fn wants_broadcast(&self) -> bool {
        self.flags & BROADCAST_FLAG != 0
    }

    pub fn set_broadcast(&mut self) {
        self.flags |= BROADCAST_FLAG;
    }

    /// The hardware address, as long as `hlen` says.
    pub fn hardware(&self) -> &[u8] {
        &self.chaddr[..usize::from(self.hlen).min(16)]
    }

    /// The hardware address of an Ethernet station.
    pub fn mac(&self) -> Option<MacAddr> {
        let octets = self.chaddr[..6].try_into().expect("six of sixteen");
        (self.htype == ETHERNET && self.hlen == 6).then_some(MacAddr(octets))
    }
}

/// Bytes of an option with its headers (RFC 3396: 255 octets a piece).
fn size(value: &[u8]) -> usize {
    value.len() + 2 * value.len().div_ceil(255).max(1)
}

/// A field that options are written into.
struct Area {
    bytes: Vec<u8>,
    limit: usize,
}

impl Area {
    fn new(limit: usize) -> Area {
        Area { bytes: Vec::new(), limit }
    }

    /// One byte is the end's.
    fn room(&self) -> usize {
        self.limit - 1 - self.bytes.len()
    }

    fn push(&mut self, option: u8, value: &[u8]) -> bool {
        let fits = size(value) <= self.room();
        if fits {
            let pieces: &mut dyn Iterator<Item = &[u8]> =
                if value.is_empty() { &mut std::iter::once(value) } else { &mut value.chunks(255) };
            for piece in pieces {
                self.bytes.extend_from_slice(&[option, piece.len() as u8]);
                self.bytes.extend_from_slice(piece);
            }
        }
        fits
    }

    fn end(mut self) -> Vec<u8> {
        self.bytes.push(code::END);
        self.bytes
    }
}
