//! Ingress: what is this frame, to which network and VLAN does it belong, and may it enter?
//!
//! Only [`admit`] and [`admit_from_uplink`] make an [`Admitted`]; the later stages take nothing else. The
//! frame's bytes are only read here: tags are changed after the mirrors have seen it.
//!
//! The rules, in this order (802.1Q-2022 6.9 and 8.6, and what the design decided):
//! 1. shorter than its headers: `runt`;
//! 2. VID 4095: `reserved-vid`; on an uplink a VID that nobody claims while there is no untagged network:
//!    `no-network`; not a member of the VLAN: `vlan-not-member`;
//! 3. source address a group or zero: `bad-source`;
//! 4. destination 01-80-C2-00-00-00…0F: `reserved-group`;
//! 5. an offload header that does not fit the frame: `bad-offload`;
//! 6. longer than the network's MTU, after segmentation: `too-long`. Up to two tags are free.

use crate::drops::DropReason;
use crate::fdb;
use crate::table::{Mode, Network, Port, Uplink};
use switchd_wire::offload::packet_len;
use switchd_wire::{Frame, parse as parse_layers, validate_offload};

const TPID: u16 = 0x8100;
const TPID_OUTER: u16 = 0x88a8;
const VID: u16 = 0xfff;

/// How the frame bears its VLAN while it is on the road.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Carry {
    /// Frames of no named VLAN: the bytes are left alone.
    AsIs = 0,
    Untagged = 1,
    Tagged = 2,
    /// A priority tag (VID 0), to become the VLAN's tag.
    Priority = 3,
}

/// The frame's VLAN, in one word: TCI (16 bits), FID (12), [`Carry`] (2), and whether the outer tag is the
/// uplink's and goes before anything else. Zero is the common class with nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Class(u32);

const POP: u32 = 1 << 30;

impl Class {
    pub const COMMON: Class = Class(0);

    fn new(fid: u16, tci: u16, carry: Carry) -> Class {
        Class(u32::from(tci) | u32::from(fid & VID) << 16 | (carry as u32) << 28)
    }

    fn popping(self) -> Class {
        Class(self.0 | POP)
    }

    /// The tag with which the frame leaves, where it leaves tagged: the VID, and the priority it came with.
    #[inline]
    pub fn tci(self) -> u16 {
        self.0 as u16
    }

    /// The VLAN that learns on its own; 0: the common table.
    #[inline]
    pub fn fid(self) -> u16 {
        (self.0 >> 16) as u16 & VID
    }

    #[inline]
    pub fn carry(self) -> Carry {
        match self.0 >> 28 & 3 {
            0 => Carry::AsIs,
            1 => Carry::Untagged,
            2 => Carry::Tagged,
            _ => Carry::Priority,
        }
    }

    /// The same VLAN in another form, the uplink's tag gone.
    pub fn carried(self, carry: Carry) -> Class {
        Class(self.0 & !(POP | 3 << 28) | (carry as u32) << 28)
    }

    pub fn pops(self) -> bool {
        self.0 & POP != 0
    }

    /// No named VLAN and no tag to be changed: the bytes stay as they are.
    #[inline]
    pub fn is_plain(self) -> bool {
        self.0 == 0
    }
}

/// A frame that passed ingress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admitted {
    pub source: u64,
    /// Zero: a group address.
    pub destination: u64,
    pub source_hash: u32,
    pub destination_hash: u32,
    pub class: Class,
    _sealed: (),
}

/// The addresses, each at the low end of a word, and the type behind the source.
struct Words {
    destination: u64,
    source: u64,
}

impl Words {
    #[inline(always)]
    fn is_tagged(&self) -> bool {
        self.source >> 48 == u64::from(TPID.swap_bytes())
    }

    /// The source without the type.
    #[inline(always)]
    fn source_is_zero(&self) -> bool {
        self.source << 16 == 0
    }
}

#[inline(always)]
fn parse(head: &[u8]) -> Result<Words, DropReason> {
    let addresses = head.first_chunk::<14>().ok_or(DropReason::Runt)?;
    match (addresses.first_chunk(), addresses.last_chunk()) {
        (Some(&destination), Some(&source)) => {
            Ok(Words { destination: u64::from_le_bytes(destination), source: u64::from_le_bytes(source) })
        }
        _ => Err(DropReason::Runt),
    }
}

#[inline]
fn word(head: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*head.get(at)?, *head.get(at + 1)?]))
}

/// The TCI of a tag whose TPID is at `at`. A frame that ends within the tag or the type behind it is a runt.
fn tci(head: &[u8], at: usize) -> Result<u16, DropReason> {
    match head.get(at..at + 6) {
        Some(&[_, _, high, low, _, _]) => Ok(u16::from_be_bytes([high, low])),
        _ => Err(DropReason::Runt),
    }
}

/// The class of all untagged frames of a port, worked out once a burst.
pub(crate) fn untagged(port: &Port) -> Result<Class, DropReason> {
    match port.mode {
        Mode::Transparent | Mode::Uplink => Ok(Class::COMMON),
        Mode::Trunk if port.vid == 0 => Err(DropReason::VlanNotMember),
        Mode::Access | Mode::Trunk => Ok(Class::new(port.vid, port.vid, Carry::Untagged)),
    }
}

#[inline(never)]
fn classify_tagged(port: &Port, network: &Network, head: &[u8], at: usize) -> Result<Class, DropReason> {
    let tci = tci(head, at)?;
    let vid = tci & VID;
    if vid == VID {
        return Err(DropReason::ReservedVid);
    }
    let tagged = Class::new(vid, tci, Carry::Tagged);
    match port.mode {
        Mode::Transparent | Mode::Uplink if vid != 0 && network.named.contains(vid) => Ok(tagged),
        Mode::Transparent | Mode::Uplink => Ok(Class::COMMON),
        Mode::Trunk if vid != 0 && port.is_member(vid) => Ok(tagged),
        Mode::Access | Mode::Trunk if vid == 0 && port.vid != 0 => {
            Ok(Class::new(port.vid, tci & !VID | port.vid, Carry::Priority))
        }
        Mode::Access | Mode::Trunk => Err(DropReason::VlanNotMember),
    }
}

/// Rules 3 to 6, which are the same for all ports.
#[inline(always)]
fn finish(frame: &mut Frame, network: &Network, words: &Words, class: Class) -> Result<Admitted, DropReason> {
    if words.source_is_zero() {
        return Err(DropReason::BadSource);
    }
    // The group bit is the first one of either address.
    let group = (words.destination | words.source) & 1 != 0;
    if group {
        if words.source & 1 != 0 {
            return Err(DropReason::BadSource);
        }
        if frame.destination().is_reserved_group() {
            return Err(DropReason::ReservedGroup);
        }
    }
    if frame.vnet.needs_csum | frame.vnet.is_gso() {
        check_offload(frame, network, class.pops())?;
    } else {
        // Whoever sends the frame on would trip over a length that is none.
        frame.vnet.hdr_len = 0;
        if frame.len() > network.frame_max as usize {
            check_length(frame, network, class.pops())?;
        }
    }
    let source = fdb::key_of_word(words.source, class.fid());
    let destination = if group { 0 } else { fdb::key_of_word(words.destination, class.fid()) };
    Ok(Admitted {
        source,
        destination,
        source_hash: network.fdb.hash(source),
        destination_hash: network.fdb.hash(destination),
        class,
        _sealed: (),
    })
}

/// Admits a frame of a guest's port, whose untagged frames are of the class `untagged`.
#[inline(always)]
pub(crate) fn admit(
    frame: &mut Frame,
    port: &Port,
    network: &Network,
    untagged: Result<Class, DropReason>,
) -> Result<Admitted, DropReason> {
    let words = parse(frame.head())?;
    let class = if words.is_tagged() { classify_tagged(port, network, frame.head(), 12)? } else { untagged? };
    finish(frame, network, &words, class)
}

/// The network that a frame of an uplink belongs to, and whether its outer tag is the uplink's.
#[inline]
pub(crate) fn network_of(frame: &Frame, uplink: &Uplink) -> Result<(u32, bool), DropReason> {
    let words = parse(frame.head())?;
    if words.is_tagged() {
        let vid = tci(frame.head(), 12)? & VID;
        if vid == VID {
            return Err(DropReason::ReservedVid);
        }
        if uplink.claimed(vid) {
            return Ok((uplink.vids[usize::from(vid)], true));
        }
    }
    match uplink.untagged {
        crate::table::NONE => Err(DropReason::NoNetwork),
        network => Ok((network, false)),
    }
}

/// Admits a frame of an uplink into the network that [`network_of`] found.
#[inline]
pub(crate) fn admit_from_uplink(
    frame: &mut Frame,
    port: &Port,
    network: &Network,
    pop: bool,
) -> Result<Admitted, DropReason> {
    let words = parse(frame.head())?;
    let at = if pop { 16 } else { 12 };
    let class = match word(frame.head(), at) {
        Some(TPID) => classify_tagged(port, network, frame.head(), at)?,
        _ => Class::COMMON,
    };
    finish(frame, network, &words, if pop { class.popping() } else { class })
}

/// Bytes of the header that are free of the MTU: Ethernet, and up to two tags beside the uplink's own.
fn link_header(frame: &Frame, pop: bool) -> usize {
    let head = frame.head();
    let outer = if pop { 16 } else { 12 };
    let tags =
        (0..2).take_while(|tag| matches!(word(head, outer + 4 * tag), Some(TPID | TPID_OUTER))).count();
    outer + 2 + 4 * tags
}

#[cold]
fn check_length(frame: &Frame, network: &Network, pop: bool) -> Result<(), DropReason> {
    let packet = frame.len() - link_header(frame, pop).min(frame.len());
    if packet + 14 > network.frame_max as usize { Err(DropReason::TooLong) } else { Ok(()) }
}

/// The offload header came from the guest: nothing of it is believed (`wire::offload`). `hdr_len` becomes
/// what the headers say.
#[inline(never)]
fn check_offload(frame: &mut Frame, network: &Network, pop: bool) -> Result<(), DropReason> {
    let layers = parse_layers(frame.head());
    validate_offload(frame, &layers).map_err(|_| DropReason::BadOffload)?;
    if !frame.vnet.is_gso() {
        frame.vnet.hdr_len = 0;
        return check_length(frame, network, pop);
    }
    frame.vnet.hdr_len = layers.payload.unwrap_or(0);
    if packet_len(frame, &layers) + 14 > network.frame_max as usize {
        return Err(DropReason::TooLong);
    }
    Ok(())
}
