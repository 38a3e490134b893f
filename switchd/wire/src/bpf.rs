//! One instruction of a classic BPF program (McCanne and Jacobson, 1993), as libpcap's compiler makes it
//! and `switchd-capture` runs it. Just the four numbers: nothing is checked here.

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}
