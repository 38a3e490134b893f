//! Any bytes as a frame behind any offload header: parse, the check at ingress, tags, segmentation and
//! checksum completion.
//!
//! The first ten bytes are the virtio header, the eleventh says how often the rest is repeated (so that
//! short inputs make superframes with a tail).

#![no_main]

use libfuzzer_sys::fuzz_target;
use switchd_wire::frame::{FRAME_MAX, HEAD_MAX, StaleTail};
use switchd_wire::offload::{SEGMENTS_MAX, packet_len};
use switchd_wire::{BadOffload, Frame, Scratch, Tail, TailSource, VnetHeader};
use switchd_wire::{admit_offload, finish_checksum, parse, segment};

struct Bytes<'a>(&'a [u8]);

impl TailSource for Bytes<'_> {
    fn copy_tail(&self, tail: Tail, offset: usize, dst: &mut [u8]) -> Result<(), StaleTail> {
        let named = self.0.get(..tail.len as usize).ok_or(StaleTail)?;
        let end = offset.checked_add(dst.len()).ok_or(StaleTail)?;
        dst.copy_from_slice(named.get(offset..end).ok_or(StaleTail)?);
        Ok(())
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((raw, rest)) = input.split_first_chunk::<10>() else { return };
    let Some((repeat, bytes)) = rest.split_first() else { return };
    let Some(vnet) = VnetHeader::parse(raw) else { return };
    let mut whole = bytes.to_vec();
    for _ in 0..*repeat {
        if bytes.is_empty() || whole.len() + bytes.len() > FRAME_MAX {
            break;
        }
        whole.extend_from_slice(bytes);
    }
    whole.truncate(FRAME_MAX);
    let (head, tail) = whole.split_at(whole.len().min(HEAD_MAX));
    let tails = Bytes(tail);
    let mut frame = Frame::default();
    frame.receive_area()[..head.len()].copy_from_slice(head);
    frame.arrived(head.len(), Tail { len: tail.len() as u32, ..Tail::default() }, vnet);

    let layers = parse(frame.head());
    assert!(layers.l4.is_none_or(|l4| usize::from(l4) <= head.len()));
    assert!(layers.payload.is_none_or(|payload| usize::from(payload) <= head.len()));
    let addresses = (frame.destination(), frame.source());
    if admit_offload(&mut frame).is_err() {
        let cut = segment(&frame, &tails, &mut Scratch::new(), |_| {});
        // A superframe with three tags is refused at ingress only.
        assert!(cut.is_err() || layers.l3 > 22);
        return;
    }
    // An admitted frame can always be cut and completed, also after a tag was pushed or popped.
    let longest = packet_len(&frame, &layers);
    match raw[2] % 3 {
        0 => assert!(frame.push_tag(7) || head.len() < 12),
        // What ends in its tag never comes so far: it is a runt at ingress.
        1 if head.len() >= 18 => {
            let _ = frame.pop_tag();
        }
        _ => {}
    }
    let (mut count, mut total) = (0, 0);
    let cut = segment(&frame, &tails, &mut Scratch::new(), |packet| {
        count += 1;
        total += packet.len();
        assert!(packet.len() <= longest + usize::from(layers.l3) + 4, "no more than a pushed tag is added");
        assert_eq!(packet.get(..12), frame.head().get(..12));
    });
    if matches!(cut, Err(BadOffload::ChecksumMisplaced { .. })) && layers.l3 > 22 {
        return; // Popping the first of four tags showed headers that nobody could judge before.
    }
    assert_eq!(cut, Ok(count));
    assert!(count as usize <= SEGMENTS_MAX && total >= frame.len());
    finish_checksum(&mut frame, &tails).expect("an admitted frame can be completed");
    assert!(addresses.0 == frame.destination() && addresses.1 == frame.source());
});
