//! One BPF program: drop every packet (bpf(2), linux/bpf.h).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
/// The verdict "drop" of linux/pkt_cls.h.
const TC_ACT_SHOT: i32 = 2;

#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The first part of `union bpf_attr` for BPF_PROG_LOAD; the kernel takes shorter attributes than its own.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// Loads a traffic-control program that drops all that it is shown. Needs CAP_BPF and CAP_NET_ADMIN.
pub fn load_drop_all() -> io::Result<OwnedFd> {
    let program = [
        // BPF_ALU64 | BPF_MOV | BPF_K: r0 = TC_ACT_SHOT
        Instruction { code: 0xb7, registers: 0, offset: 0, immediate: TC_ACT_SHOT },
        // BPF_JMP | BPF_EXIT
        Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 },
    ];
    let license = c"GPL";
    let mut prog_name = [0; 16];
    prog_name[..13].copy_from_slice(b"switchd_guard");
    let attributes = ProgLoad {
        prog_type: BPF_PROG_TYPE_SCHED_CLS,
        insn_cnt: program.len() as u32,
        insns: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name,
    };
    // SAFETY: the kernel reads `size_of::<ProgLoad>()` bytes, and through them the instructions and the
    // license; all three live until the call returns, and nothing of ours is written.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &attributes,
            std::mem::size_of::<ProgLoad>() as libc::c_uint,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a successful BPF_PROG_LOAD returns a new descriptor (close-on-exec) that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
