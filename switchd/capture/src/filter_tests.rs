//! The filter interpreter: its checks, its instructions, frames with tags and tails.

use super::*;
use proptest::prelude::*;
use switchd_wire::frame::{NoTails, StaleTail, Tail};
use switchd_wire::vnet::VnetHeader;

fn program(list: &[(u16, u8, u8, u32)]) -> Result<Program, BadProgram> {
    Program::new(list.iter().map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect())
}

/// Runs one list over bytes and gives its value.
fn run(list: &[(u16, u8, u8, u32)], bytes: &[u8]) -> Option<u32> {
    program(list).unwrap().run(&Frame::from_bytes(bytes).unwrap(), &NoTails)
}

const RET_A: (u16, u8, u8, u32) = (0x16, 0, 0, 0);
const RET_1: (u16, u8, u8, u32) = (0x06, 0, 0, 1);

#[test]
fn bad_programs_are_refused_with_the_place() {
    assert_eq!(program(&[]).unwrap_err(), BadProgram::Empty);
    assert_eq!(program(&vec![RET_1; 4097]).unwrap_err(), BadProgram::TooLong(4097));
    assert!(program(&vec![RET_1; 4096]).is_ok());
    assert_eq!(program(&[(0x20, 0, 0, 0)]).unwrap_err(), BadProgram::NoReturn);
    assert_eq!(program(&[(0x05, 0, 0, 1), RET_1]).unwrap_err(), BadProgram::Jump(0));
    assert_eq!(program(&[(0x05, 0, 0, u32::MAX), RET_1]).unwrap_err(), BadProgram::Jump(0));
    assert_eq!(program(&[(0x15, 1, 0, 5), RET_1]).unwrap_err(), BadProgram::Jump(0));
    assert_eq!(program(&[RET_1, (0x1d, 0, 9, 5), RET_1]).unwrap_err(), BadProgram::Jump(1));
    assert_eq!(program(&[(0x02, 0, 0, 16), RET_1]).unwrap_err(), BadProgram::Memory(0, 16));
    assert_eq!(program(&[(0x61, 0, 0, 99), RET_1]).unwrap_err(), BadProgram::Memory(0, 99));
    assert_eq!(program(&[(0x34, 0, 0, 0), RET_1]).unwrap_err(), BadProgram::Division(0));
    assert_eq!(program(&[(0x94, 0, 0, 0), RET_1]).unwrap_err(), BadProgram::Division(0));
    for unknown in [0x08, 0x21, 0xa0, 0x41, 0xe4, 0xc5, 0x55, 0x1e, 0x8f, 0x120, 0xffff] {
        assert_eq!(program(&[(unknown, 0, 0, 0), RET_1]).unwrap_err(), BadProgram::Unknown(0, unknown));
    }
}

#[test]
fn every_operation_gives_its_value() {
    let bytes: Vec<u8> = (1..=64).collect();
    let imm = |k| (0x00u16, 0, 0, k);
    for (list, value) in [
        (vec![(0x20, 0, 0, 2), RET_A], 0x0304_0506),
        (vec![(0x28, 0, 0, 2), RET_A], 0x0304),
        (vec![(0x30, 0, 0, 2), RET_A], 3),
        (vec![(0x01, 0, 0, 4), (0x40, 0, 0, 2), RET_A], 0x0708_090a),
        (vec![(0x01, 0, 0, 4), (0x48, 0, 0, 2), RET_A], 0x0708),
        (vec![(0x01, 0, 0, 4), (0x50, 0, 0, 2), RET_A], 7),
        (vec![(0x80, 0, 0, 0), RET_A], 64),
        (vec![(0x81, 0, 0, 0), (0x87, 0, 0, 0), RET_A], 64),
        (vec![(0xb1, 0, 0, 19), (0x87, 0, 0, 0), RET_A], (20 & 0xf) * 4),
        (vec![imm(9), (0x02, 0, 0, 15), imm(0), (0x60, 0, 0, 15), RET_A], 9),
        (vec![(0x01, 0, 0, 8), (0x03, 0, 0, 0), (0x01, 0, 0, 0), (0x61, 0, 0, 0), (0x87, 0, 0, 0), RET_A], 8),
        (vec![imm(u32::MAX), (0x04, 0, 0, 3), RET_A], 2),
        (vec![imm(1), (0x14, 0, 0, 3), RET_A], u32::MAX - 1),
        (vec![imm(0x8000_0001), (0x24, 0, 0, 2), RET_A], 2),
        (vec![imm(17), (0x34, 0, 0, 5), RET_A], 3),
        (vec![imm(17), (0x94, 0, 0, 5), RET_A], 2),
        (vec![imm(0xf0), (0x44, 0, 0, 0x0f), RET_A], 0xff),
        (vec![imm(0xf3), (0x54, 0, 0, 0x0f), RET_A], 3),
        (vec![imm(0xff), (0xa4, 0, 0, 0x0f), RET_A], 0xf0),
        (vec![imm(3), (0x64, 0, 0, 4), RET_A], 48),
        (vec![imm(3), (0x64, 0, 0, 32), RET_A], 0),
        (vec![imm(48), (0x74, 0, 0, 4), RET_A], 3),
        (vec![imm(48), (0x01, 0, 0, 40), (0x7c, 0, 0, 0), RET_A], 0),
        (vec![imm(5), (0x84, 0, 0, 0), RET_A], 5u32.wrapping_neg()),
        (vec![imm(7), (0x07, 0, 0, 0), (0x0c, 0, 0, 0), RET_A], 14),
        (vec![imm(5), (0x15, 0, 1, 5), RET_1, RET_A], 1),
        (vec![imm(6), (0x25, 1, 0, 5), RET_1, RET_A], 6),
        (vec![imm(5), (0x25, 1, 0, 5), RET_1, RET_A], 1),
        (vec![imm(5), (0x35, 1, 0, 5), RET_1, RET_A], 5),
        (vec![imm(6), (0x45, 1, 0, 2), RET_1, RET_A], 6),
        (vec![imm(6), (0x01, 0, 0, 6), (0x1d, 1, 0, 0), RET_1, RET_A], 6),
        (vec![imm(6), (0x05, 0, 0, 1), RET_1, RET_A], 6),
    ] {
        assert_eq!(run(&list, &bytes), Some(value), "{list:x?}");
    }
}

#[test]
fn a_load_beyond_the_frame_or_a_division_by_zero_x_does_not_match() {
    let bytes = [0xff; 20];
    for list in [
        vec![(0x20, 0, 0, 17), RET_1],
        vec![(0x28, 0, 0, 19), RET_1],
        vec![(0x30, 0, 0, 20), RET_1],
        vec![(0xb1, 0, 0, 20), RET_1],
        vec![(0x30, 0, 0, 0xffff_f02c), RET_1],
        vec![(0x01, 0, 0, u32::MAX), (0x40, 0, 0, u32::MAX), RET_1],
        vec![(0x00, 0, 0, 4), (0x3c, 0, 0, 0), RET_1],
        vec![(0x00, 0, 0, 4), (0x9c, 0, 0, 0), RET_1],
    ] {
        assert_eq!(run(&list, &bytes), None, "{list:x?}");
    }
    assert_eq!(run(&[(0x30, 0, 0, 19), RET_A], &bytes), Some(0xff));
}

/// Bytes behind the head, good for one generation.
pub(super) struct Behind(Vec<u8>);

impl switchd_wire::TailSource for Behind {
    fn copy_tail(&self, tail: Tail, offset: usize, dst: &mut [u8]) -> Result<(), StaleTail> {
        if tail.generation != 1 {
            return Err(StaleTail);
        }
        dst.copy_from_slice(self.0.get(offset..offset + dst.len()).ok_or(StaleTail)?);
        Ok(())
    }
}

pub(super) fn split(bytes: &[u8], head: usize, generation: u32) -> (Frame, Behind) {
    let mut frame = Frame::default();
    frame.receive_area()[..head].copy_from_slice(&bytes[..head]);
    let tail = Tail { source: 0, slot: 0, len: (bytes.len() - head) as u32, generation };
    frame.arrived(head, tail, VnetHeader::default());
    (frame, Behind(bytes[head..].to_vec()))
}

#[test]
fn loads_cross_from_head_to_tail_and_a_stale_tail_never_matches() {
    let bytes: Vec<u8> = (0..100).collect();
    for at in 56..66 {
        let list = program(&[(0x20, 0, 0, at), RET_A]).unwrap();
        let (frame, tails) = split(&bytes, 60, 1);
        let expected = u32::from_be_bytes([at as u8, at as u8 + 1, at as u8 + 2, at as u8 + 3]);
        assert_eq!(list.run(&frame, &tails), Some(expected));
        let (stale, tails) = split(&bytes, 60, 2);
        assert_eq!(list.run(&stale, &tails), (at <= 56).then_some(expected));
    }
}

proptest! {
    /// Whatever is accepted ends, without a panic, and gives the same for any split into head and tail.
    #[test]
    fn any_accepted_program_is_harmless(
        list in prop::collection::vec(
            (
                prop::sample::select(vec![
                    0x20u16, 0x28, 0x30, 0x40, 0x48, 0x50, 0x00, 0x60, 0x80, 0x01, 0x61, 0x81, 0xb1, 0x02, 0x03, 0x84,
                    0x05, 0x06, 0x16, 0x07, 0x87, 0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3c, 0x44, 0x4c, 0x54,
                    0x5c, 0x64, 0x6c, 0x74, 0x7c, 0x94, 0x9c, 0xa4, 0xac, 0x15, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45,
                    0x4d,
                ]),
                0u8..4, 0u8..4,
                prop_oneof![0u32..16, 0u32..120, any::<u32>()],
            ),
            1..24,
        ),
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        head in 0usize..120,
    ) {
        let mut list = list;
        list.push(RET_A);
        if let Ok(program) = program(&list) {
            let whole = program.run(&Frame::from_bytes(&bytes).unwrap(), &NoTails);
            let (frame, tails) = split(&bytes, head.min(bytes.len()), 1);
            prop_assert_eq!(program.run(&frame, &tails), whole);
        }
    }
}
