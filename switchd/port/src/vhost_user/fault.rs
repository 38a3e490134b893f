//! What costs a guest its connection.

use std::fmt;

/// How a guest broke the rules of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    AvailJump { from: u16, to: u16, size: u16 },
    Head { head: u16, size: u16 },
    Next { next: u16, size: u16 },
    Chain { size: u16 },
    Unavailable { at: u16 },
    BufferId { id: u16, size: u16 },
    IndirectUnasked,
    IndirectNested,
    IndirectLength { bytes: u32 },
    IndirectAndNext,
    Unmapped { address: u64, len: u64 },
    Direction,
    Shrunk,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Fault::AvailJump { from, to, size } => {
                write!(f, "the available index jumped from {from} to {to} in a queue of {size}")
            }
            Fault::Head { head, size } => write!(f, "descriptor {head} made available in a queue of {size}"),
            Fault::Next { next, size } => write!(f, "a chain leads to descriptor {next} of {size}"),
            Fault::Chain { size } => write!(f, "a chain is longer than its queue of {size}"),
            Fault::Unavailable { at } => {
                write!(f, "a chain leads to descriptor {at}, which is not available")
            }
            Fault::BufferId { id, size } => write!(f, "buffer id {id} in a queue of {size}"),
            Fault::IndirectUnasked => f.write_str("an indirect descriptor, which was not negotiated"),
            Fault::IndirectNested => f.write_str("an indirect descriptor within an indirect table"),
            Fault::IndirectLength { bytes } => write!(f, "an indirect table of {bytes} bytes"),
            Fault::IndirectAndNext => f.write_str("an indirect descriptor with a next one"),
            Fault::Unmapped { address, len } => {
                write!(f, "a buffer of {len} bytes at {address:#x} is not in the guest's memory")
            }
            Fault::Direction => f.write_str("a buffer of the wrong direction"),
            Fault::Shrunk => f.write_str("the guest's memory file has shrunk"),
        }
    }
}
