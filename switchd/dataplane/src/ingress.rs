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
    AsIs,
    Untagged,
    Tagged,
    /// A priority tag (VID 0), to become the VLAN's tag.
    Priority,
}

/// The frame's VLAN. In the common class (FID 0) `tci` has no meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Class {
    pub fid: u16,
    /// The tag with which the frame leaves, where it leaves tagged: priority kept.
    pub tci: u16,
    pub carry: Carry,
}

const COMMON: Class = Class { fid: 0, tci: 0, carry: Carry::AsIs };

/// A frame that passed ingress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admitted {
    pub source: u64,
    /// Zero: a group address.
    pub destination: u64,
    pub source_hash: u64,
    pub destination_hash: u64,
    pub class: Class,
    /// The outer tag is the uplink's and goes before anything else.
    pub pop: bool,
    _sealed: (),
}

/// Addresses and the two words behind them.
struct Words {
    destination: u64,
    source: u64,
    kind: u16,
    tci: u16,
}

#[inline(always)]
fn words(head: &[u8]) -> Option<Words> {
    if let Some(bytes) = head.first_chunk::<16>() {
        let all = u128::from_be_bytes(*bytes);
        return Some(Words {
            destination: (all >> 80) as u64,
            source: (all >> 32) as u64 & 0xffff_ffff_ffff,
            kind: (all >> 16) as u16,
            tci: all as u16,
        });
    }
    let bytes = head.first_chunk::<14>()?;
    let mut padded = [0; 16];
    padded[..14].copy_from_slice(bytes);
    words(&padded)
}

#[inline]
fn word(head: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*head.get(at)?, *head.get(at + 1)?]))
}

/// Shorter than 14 bytes, or cut within its outer tag.
#[inline(always)]
fn parse(head: &[u8]) -> Result<Words, DropReason> {
    let words = words(head).ok_or(DropReason::Runt)?;
    if words.kind == TPID && head.len() < 18 {
        return Err(DropReason::Runt);
    }
    Ok(words)
}

#[inline(always)]
fn classify(port: &Port, network: &Network, kind: u16, tci: u16) -> Result<Class, DropReason> {
    if kind != TPID {
        return match port.mode {
            Mode::Transparent | Mode::Uplink => Ok(COMMON),
            Mode::Trunk if port.vid == 0 => Err(DropReason::VlanNotMember),
            Mode::Access | Mode::Trunk => Ok(Class { fid: port.vid, tci: port.vid, carry: Carry::Untagged }),
        };
    }
    classify_tagged(port, network, tci)
}

fn classify_tagged(port: &Port, network: &Network, tci: u16) -> Result<Class, DropReason> {
    let vid = tci & VID;
    if vid == VID {
        return Err(DropReason::ReservedVid);
    }
    let tagged = Class { fid: vid, tci, carry: Carry::Tagged };
    match port.mode {
        Mode::Transparent | Mode::Uplink if vid != 0 && network.named.contains(vid) => Ok(tagged),
        Mode::Transparent | Mode::Uplink => Ok(COMMON),
        Mode::Trunk if vid != 0 && port.is_member(vid) => Ok(tagged),
        Mode::Access | Mode::Trunk if vid == 0 && port.vid != 0 => {
            Ok(Class { fid: port.vid, tci: tci & !VID | port.vid, carry: Carry::Priority })
        }
        Mode::Access | Mode::Trunk => Err(DropReason::VlanNotMember),
    }
}

/// Rules 3 to 6, which are the same for all ports.
#[inline(always)]
fn finish(
    frame: &mut Frame,
    network: &Network,
    words: &Words,
    class: Class,
    pop: bool,
) -> Result<Admitted, DropReason> {
    let (source, destination) = (words.source, words.destination);
    if source == 0 || source >> 40 & 1 != 0 {
        return Err(DropReason::BadSource);
    }
    let group = destination >> 40 & 1 != 0;
    if group && destination & !0xf == 0x0180_c200_0000 {
        return Err(DropReason::ReservedGroup);
    }
    if frame.vnet.needs_csum | frame.vnet.is_gso() {
        check_offload(frame, network, pop)?;
    } else if frame.len() > network.frame_max as usize {
        check_length(frame, network, pop)?;
    }
    let source = fdb::key(source, class.fid);
    let destination = if group { 0 } else { fdb::key(destination, class.fid) };
    Ok(Admitted {
        source,
        destination,
        source_hash: network.fdb.hash(source),
        destination_hash: network.fdb.hash(destination),
        class,
        pop,
        _sealed: (),
    })
}

/// Admits a frame of a guest's port.
#[inline(always)]
pub(crate) fn admit(frame: &mut Frame, port: &Port, network: &Network) -> Result<Admitted, DropReason> {
    let words = parse(frame.head())?;
    let class = classify(port, network, words.kind, words.tci)?;
    finish(frame, network, &words, class, false)
}

/// The network that a frame of an uplink belongs to, and whether its outer tag is the uplink's.
#[inline]
pub(crate) fn network_of(frame: &Frame, uplink: &Uplink) -> Result<(u32, bool), DropReason> {
    let words = parse(frame.head())?;
    if words.kind == TPID {
        let vid = words.tci & VID;
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
    let head = frame.head();
    let mut words = parse(head)?;
    if pop {
        words.kind = word(head, 16).ok_or(DropReason::Runt)?;
        words.tci = word(head, 18).unwrap_or(0);
        if words.kind == TPID && head.len() < 22 {
            return Err(DropReason::Runt);
        }
    }
    let class = classify(port, network, words.kind, words.tci)?;
    finish(frame, network, &words, class, pop)
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
