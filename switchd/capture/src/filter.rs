//! The capture filter: a checked interpreter of classic BPF.
//!
//! libpcap compiles the expression (`switchd_port::libpcap`); what comes back is a plain list of numbers
//! that is not trusted. [`Program::new`] checks it once: known instructions, jumps forward and inside the
//! program, memory slots that exist, no constant division by zero, a `ret` at the end. After that a run is
//! bounded by the program's length, because every jump goes forward.
//!
//! A frame is read where it lies, head and tail. A load beyond the frame's end ends the run without a
//! match, as in the kernel and in libpcap. Tags are in the bytes, so `vlan 20` is plain loads; the
//! kernel's ancillary loads (negative offsets) lie beyond every frame and never match. `protochain`, which
//! compiles to a loop, is refused, as the kernel refuses it.
//!
//! Semantics follow libpcap's `bpf_filter()`: 32-bit wrapping arithmetic, big-endian loads, a division by a
//! zero X ends the run without a match, a shift by 32 or more gives 0.

pub use switchd_wire::bpf::Instruction;
use switchd_wire::{Frame, TailSource};

/// The longest program: the kernel's own bound (BPF_MAXINSNS).
pub const MAX_INSTRUCTIONS: usize = 4096;
/// Words of scratch memory (BPF_MEMWORDS).
const MEMORY: usize = 16;

/// Why a program was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadProgram {
    #[error("the filter program is empty")]
    Empty,
    #[error("the filter program has {0} instructions; at most {MAX_INSTRUCTIONS} are run for each frame")]
    TooLong(usize),
    #[error("filter instruction {0}: unknown code {1:#06x}")]
    Unknown(usize, u16),
    /// Backward jumps look like this too: they are far forward in 32 bits.
    #[error(
        "filter instruction {0}: the jump goes backward or leaves the program; loops (`protochain`) are not run"
    )]
    Jump(usize),
    #[error("filter instruction {0}: memory slot {1} does not exist (0-15)")]
    Memory(usize, u32),
    #[error("filter instruction {0}: division by zero")]
    Division(usize),
    #[error("the filter program does not end in a return")]
    NoReturn,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Alu {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Or,
    And,
    Xor,
    Lsh,
    Rsh,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Test {
    Eq,
    Gt,
    Ge,
    Set,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    /// A = the bytes at the offset, plus X when indexed.
    Word {
        indexed: bool,
    },
    Half {
        indexed: bool,
    },
    Byte {
        indexed: bool,
    },
    LoadImmediate,
    LoadMemory,
    LoadLength,
    LoadXImmediate,
    LoadXMemory,
    LoadXLength,
    /// X = 4 × the low half of the byte at the offset: length of an IPv4 header.
    LoadXHeader,
    Store,
    StoreX,
    AluK(Alu),
    AluX(Alu),
    Negate,
    Jump,
    TestK(Test),
    TestX(Test),
    ReturnK,
    ReturnA,
    CopyAToX,
    CopyXToA,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    op: Op,
    jt: u8,
    jf: u8,
    k: u32,
}

/// A program that was checked and can be run on any frame.
#[derive(Clone, Debug)]
pub struct Program {
    steps: Box<[Step]>,
}

impl Program {
    /// Checks a program, as `switchd_port::libpcap::compile` returns it.
    pub fn new(instructions: Vec<Instruction>) -> Result<Program, BadProgram> {
        if instructions.is_empty() {
            return Err(BadProgram::Empty);
        }
        if instructions.len() > MAX_INSTRUCTIONS {
            return Err(BadProgram::TooLong(instructions.len()));
        }
        let mut steps = Vec::with_capacity(instructions.len());
        for (at, &instruction) in instructions.iter().enumerate() {
            let Instruction { code, jt, jf, k } = instruction;
            let op = decode(code).ok_or(BadProgram::Unknown(at, code))?;
            let left = instructions.len() - at - 1;
            match op {
                Op::Jump if k as usize >= left => return Err(BadProgram::Jump(at)),
                Op::TestK(_) | Op::TestX(_) if usize::from(jt.max(jf)) >= left => {
                    return Err(BadProgram::Jump(at));
                }
                Op::LoadMemory | Op::LoadXMemory | Op::Store | Op::StoreX if k as usize >= MEMORY => {
                    return Err(BadProgram::Memory(at, k));
                }
                Op::AluK(Alu::Div | Alu::Mod) if k == 0 => return Err(BadProgram::Division(at)),
                _ => {}
            }
            steps.push(Step { op, jt, jf, k });
        }
        match steps.last().map(|step| step.op) {
            Some(Op::ReturnK | Op::ReturnA) => Ok(Program { steps: steps.into() }),
            _ => Err(BadProgram::NoReturn),
        }
    }

    /// Whether the filter wants the frame. A tail token that is stale never matches.
    #[inline]
    pub fn matches(&self, frame: &Frame, tails: &impl TailSource) -> bool {
        self.run(frame, tails).unwrap_or(0) != 0
    }

    /// The program's return value; `None` when a load left the frame or a division by X = 0 ended the run.
    fn run(&self, frame: &Frame, tails: &impl TailSource) -> Option<u32> {
        let (mut a, mut x) = (0u32, 0u32);
        let mut memory = [0u32; MEMORY];
        let mut at = 0;
        loop {
            let step = self.steps.get(at)?;
            at += 1;
            let k = step.k;
            match step.op {
                Op::Word { indexed } => a = load::<4>(frame, tails, offset(k, x, indexed))?,
                Op::Half { indexed } => a = load::<2>(frame, tails, offset(k, x, indexed))?,
                Op::Byte { indexed } => a = load::<1>(frame, tails, offset(k, x, indexed))?,
                Op::LoadImmediate => a = k,
                Op::LoadMemory => a = memory[k as usize],
                Op::LoadLength => a = frame.len() as u32,
                Op::LoadXImmediate => x = k,
                Op::LoadXMemory => x = memory[k as usize],
                Op::LoadXLength => x = frame.len() as u32,
                Op::LoadXHeader => x = (load::<1>(frame, tails, u64::from(k))? & 0xf) << 2,
                Op::Store => memory[k as usize] = a,
                Op::StoreX => memory[k as usize] = x,
                Op::AluK(alu) => a = compute(alu, a, k)?,
                Op::AluX(alu) => a = compute(alu, a, x)?,
                Op::Negate => a = a.wrapping_neg(),
                Op::Jump => at += k as usize,
                Op::TestK(test) => at += usize::from(if holds(test, a, k) { step.jt } else { step.jf }),
                Op::TestX(test) => at += usize::from(if holds(test, a, x) { step.jt } else { step.jf }),
                Op::ReturnK => return Some(k),
                Op::ReturnA => return Some(a),
                Op::CopyAToX => x = a,
                Op::CopyXToA => a = x,
            }
        }
    }
}

#[inline]
fn offset(k: u32, x: u32, indexed: bool) -> u64 {
    u64::from(k) + if indexed { u64::from(x) } else { 0 }
}

/// The big-endian number of N bytes at the offset. The common load is in the head and of a size that the
/// compiler knows.
#[inline]
fn load<const N: usize>(frame: &Frame, tails: &impl TailSource, offset: u64) -> Option<u32> {
    let offset = usize::try_from(offset).ok()?;
    let in_head = frame.head().get(offset..).and_then(|rest| rest.first_chunk::<N>());
    let bytes = match in_head {
        Some(bytes) => *bytes,
        None => load_across(frame, tails, offset)?,
    };
    Some(bytes.iter().fold(0, |value, &byte| value << 8 | u32::from(byte)))
}

#[cold]
fn load_across<const N: usize>(frame: &Frame, tails: &impl TailSource, offset: usize) -> Option<[u8; N]> {
    if offset.checked_add(N)? > frame.len() {
        return None;
    }
    let mut bytes = [0; N];
    frame.copy_out(tails, offset, &mut bytes).ok()?;
    Some(bytes)
}

#[inline]
fn compute(alu: Alu, a: u32, b: u32) -> Option<u32> {
    Some(match alu {
        Alu::Add => a.wrapping_add(b),
        Alu::Sub => a.wrapping_sub(b),
        Alu::Mul => a.wrapping_mul(b),
        Alu::Div => a.checked_div(b)?,
        Alu::Mod => a.checked_rem(b)?,
        Alu::Or => a | b,
        Alu::And => a & b,
        Alu::Xor => a ^ b,
        Alu::Lsh => a.checked_shl(b).unwrap_or(0),
        Alu::Rsh => a.checked_shr(b).unwrap_or(0),
    })
}

#[inline]
fn holds(test: Test, a: u32, b: u32) -> bool {
    match test {
        Test::Eq => a == b,
        Test::Gt => a > b,
        Test::Ge => a >= b,
        Test::Set => a & b != 0,
    }
}

/// The numbers of `<pcap/bpf.h>`: class, then size and mode, operation and source.
fn decode(code: u16) -> Option<Op> {
    Some(match code {
        0x20 => Op::Word { indexed: false },
        0x28 => Op::Half { indexed: false },
        0x30 => Op::Byte { indexed: false },
        0x40 => Op::Word { indexed: true },
        0x48 => Op::Half { indexed: true },
        0x50 => Op::Byte { indexed: true },
        0x00 => Op::LoadImmediate,
        0x60 => Op::LoadMemory,
        0x80 => Op::LoadLength,
        0x01 => Op::LoadXImmediate,
        0x61 => Op::LoadXMemory,
        0x81 => Op::LoadXLength,
        0xb1 => Op::LoadXHeader,
        0x02 => Op::Store,
        0x03 => Op::StoreX,
        0x84 => Op::Negate,
        0x05 => Op::Jump,
        0x06 => Op::ReturnK,
        0x16 => Op::ReturnA,
        0x07 => Op::CopyAToX,
        0x87 => Op::CopyXToA,
        _ => return decode_operation(code),
    })
}

fn decode_operation(code: u16) -> Option<Op> {
    if code & 0xff00 != 0 {
        return None;
    }
    let by_x = code & 0x08 != 0;
    match code & 0x07 {
        0x04 => {
            let alu = match code & 0xf0 {
                0x00 => Alu::Add,
                0x10 => Alu::Sub,
                0x20 => Alu::Mul,
                0x30 => Alu::Div,
                0x40 => Alu::Or,
                0x50 => Alu::And,
                0x60 => Alu::Lsh,
                0x70 => Alu::Rsh,
                0x90 => Alu::Mod,
                0xa0 => Alu::Xor,
                _ => return None,
            };
            Some(if by_x { Op::AluX(alu) } else { Op::AluK(alu) })
        }
        0x05 => {
            let test = match code & 0xf0 {
                0x10 => Test::Eq,
                0x20 => Test::Gt,
                0x30 => Test::Ge,
                0x40 => Test::Set,
                _ => return None,
            };
            Some(if by_x { Op::TestX(test) } else { Op::TestK(test) })
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "filter_peer_tests.rs"]
mod peer_tests;
