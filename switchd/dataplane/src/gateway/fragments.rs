//! IPv4 fragmentation (RFC 791 3.2, RFC 1812 5.2.6), for a way on that is narrower than the packet.
//!
//! A superframe is cut into its segments first. Options that are not marked to be copied stay with the first
//! fragment.

use super::packet::L3;
use switchd_wire::checksum::Sum;
use switchd_wire::segmentation::{Scratch, segment};
use switchd_wire::{Frame, TailSource};

const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// The frames that a frame becomes where packets have at most `mtu` bytes. Empty when it cannot be cut.
pub fn cut(frame: &Frame, tails: &dyn TailSource, mtu: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut whole = true;
    let cut = segment(frame, &tails, &mut Scratch::new(), |packet| {
        whole &= cut_packet(packet, mtu, &mut frames).is_some();
    });
    if cut.is_err() || !whole {
        frames.clear();
    }
    frames
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn cut_packet(frame: &[u8], mtu: usize, frames: &mut Vec<Vec<u8>>) -> Option<()> {
    let ip = frame.get(L3..)?;
    let total = usize::from(word(ip, 2)?);
    if total <= mtu {
        frames.push(frame.to_vec());
        return Some(());
    }
    let header = ip.get(..usize::from(ip.first()? & 0xf) * 4)?;
    let payload = ip.get(header.len()..total)?;
    let fragment = word(ip, 6)?;
    let later = copied(header)?;
    let mut done = 0;
    while done < payload.len() {
        let header = if done == 0 { header } else { &later };
        let room = mtu.checked_sub(header.len())? & !7;
        if room == 0 {
            return None;
        }
        let take = room.min(payload.len() - done);
        let last = done + take == payload.len();
        let mut bytes = frame[..L3].to_vec();
        bytes.extend_from_slice(header);
        let offset = (fragment & OFFSET) + u16::try_from(done / 8).ok()?;
        let more = if last { fragment & MORE } else { MORE };
        bytes[L3 + 2..L3 + 4].copy_from_slice(&((header.len() + take) as u16).to_be_bytes());
        bytes[L3 + 6..L3 + 8].copy_from_slice(&(offset | more).to_be_bytes());
        bytes[L3 + 10..L3 + 12].fill(0);
        let checksum = Sum::new().over(&bytes[L3..]).checksum();
        bytes[L3 + 10..L3 + 12].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend_from_slice(&payload[done..done + take]);
        frames.push(bytes);
        done += take;
    }
    Some(())
}

/// The header of a later fragment.
fn copied(header: &[u8]) -> Option<Vec<u8>> {
    let (fixed, mut options) = header.split_at_checked(20)?;
    let mut kept = fixed.to_vec();
    while let [kind, rest @ ..] = options {
        match kind {
            0 => break,
            1 => options = rest,
            _ => {
                let length = usize::from(*rest.first()?);
                let option = options.get(..length).filter(|option| option.len() >= 2)?;
                if kind & 0x80 != 0 {
                    kept.extend_from_slice(option);
                }
                options = &options[length..];
            }
        }
    }
    kept.resize(kept.len().next_multiple_of(4), 0);
    kept[0] = 0x40 | (kept.len() / 4) as u8;
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use switchd_wire::NoTails;

    fn packet(options: &[u8], payload: usize, fragment: u16) -> Frame {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        let header = 20 + options.len();
        bytes.extend([0x40 | (header / 4) as u8, 0]);
        bytes.extend(((header + payload) as u16).to_be_bytes());
        bytes.extend([0x12, 0x34]);
        bytes.extend(fragment.to_be_bytes());
        bytes.extend([64, 17, 0, 0, 10, 0, 0, 2, 192, 0, 2, 1]);
        bytes.extend(options);
        let checksum = Sum::new().over(&bytes[L3..]).checksum();
        bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
        bytes.extend((0..payload).map(|byte| byte as u8));
        Frame::from_bytes(&bytes).unwrap()
    }

    /// (offset in bytes, more, payload) of each fragment, whose checksum and id are right.
    fn pieces(frames: &[Vec<u8>]) -> Vec<(usize, bool, Vec<u8>)> {
        let piece = |frame: &Vec<u8>| {
            let ip = &frame[L3..];
            let header = usize::from(ip[0] & 0xf) * 4;
            assert_eq!(Sum::new().over(&ip[..header]).uncomplemented(), 0xffff);
            assert_eq!((word(ip, 2), word(ip, 4)), (Some(ip.len() as u16), Some(0x1234)));
            let fragment = word(ip, 6).unwrap();
            (usize::from(fragment & OFFSET) * 8, fragment & MORE != 0, ip[header..].to_vec())
        };
        frames.iter().map(piece).collect()
    }

    #[test]
    fn rfc791_3_2_fragments_are_multiples_of_eight_and_hold_the_whole_payload() {
        let frames = cut(&packet(&[], 200, 0), &NoTails, 100);
        let pieces = pieces(&frames);
        assert_eq!(
            pieces.iter().map(|p| (p.0, p.1, p.2.len())).collect::<Vec<_>>(),
            [(0, true, 80), (80, true, 80), (160, false, 40)]
        );
        let payload: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.2).collect();
        assert_eq!(payload, (0..200).map(|byte| byte as u8).collect::<Vec<_>>());
    }

    #[test]
    fn rfc791_3_2_a_fragment_is_cut_on_and_keeps_its_place() {
        let frames = cut(&packet(&[], 160, MORE | 10), &NoTails, 120);
        let places: Vec<_> = pieces(&frames).iter().map(|p| (p.0, p.1)).collect();
        assert_eq!(places, [(80, true), (176, true)], "not even the last one ends the datagram");
    }

    #[test]
    fn rfc791_3_1_options_that_are_not_to_be_copied_stay_with_the_first() {
        let record_route = [7, 3, 4, 1];
        let router_alert = [0x94, 4, 0, 0];
        let frames = cut(&packet(&[record_route, router_alert].concat(), 160, 0), &NoTails, 120);
        assert_eq!((frames[0][L3], frames[1][L3]), (0x47, 0x46));
        assert_eq!(frames[1][L3 + 20..L3 + 24], router_alert);
        pieces(&frames);
    }

    #[test]
    fn what_fits_is_left_alone_and_what_cannot_be_cut_is_nothing() {
        assert_eq!(cut(&packet(&[], 80, 0), &NoTails, 100).len(), 1);
        assert!(cut(&packet(&[], 80, 0), &NoTails, 24).is_empty());
    }
}
