//! The processor's cycle counter and a thread's place.
#![allow(unsafe_code)]

use std::io;

/// A counter that grows with time at a constant rate, cheap to read (about 20 cycles on x86).
///
/// On x86-64 the time stamp counter, on AArch64 the virtual counter; elsewhere nanoseconds of the
/// monotonic clock. Only differences on one machine mean anything.
#[inline]
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: RDTSC is part of every x86-64 processor; it reads a counter and touches no memory.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
    #[cfg(target_arch = "aarch64")]
    {
        let count: u64;
        // SAFETY: Linux lets user space read CNTVCT_EL0; the instruction touches neither memory nor flags.
        unsafe {
            core::arch::asm!("mrs {}, cntvct_el0", out(reg) count, options(nomem, nostack, preserves_flags));
        }
        count
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }
}

/// Binds the calling thread to processor `cpu` (counted from 0). EINVAL when there is no such processor
/// or it is not allowed to this process.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Asks the scheduler for short time slices of `nanoseconds` (0.1–100 ms) for the calling thread.
///
/// Since Linux 6.12 a thread with a shorter slice than the running one gets the processor when it wakes,
/// and does not wait until the other's slice (3 ms and more) is over; its share stays the same. Older
/// kernels take the call and change nothing. Needs no privilege; the nice value is kept.
pub fn short_slices(nanoseconds: u64) -> io::Result<()> {
    let (pid, flags) = (0 as libc::pid_t, 0 as libc::c_uint);
    // SAFETY: every field of the plain structure may be zero.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::sched_attr>() as u32;
    // SAFETY: the kernel writes at most `size` bytes of the structure, which lives through the call.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, pid, &raw mut attributes, size, flags) };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    if attributes.sched_policy != libc::SCHED_OTHER as u32 {
        // Somebody gave the daemon a class of its own (chrt): that is theirs to choose.
        return Ok(());
    }
    attributes.size = size;
    attributes.sched_runtime = nanoseconds;
    // SAFETY: the kernel reads `size` bytes of the structure, which lives through the call.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const attributes, flags) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_grow_with_time() {
        let before = cycles();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(cycles() > before);
    }

    #[test]
    fn short_slices_are_granted_to_anyone() {
        std::thread::spawn(|| short_slices(100_000).unwrap()).join().unwrap();
    }

    #[test]
    fn a_thread_can_be_pinned_and_a_missing_processor_is_refused() {
        std::thread::spawn(|| {
            let allowed = rustix::thread::sched_getaffinity(None).unwrap();
            let cpu = (0..rustix::thread::CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).unwrap();
            pin_to_cpu(cpu).unwrap();
            let set = rustix::thread::sched_getaffinity(None).unwrap();
            assert_eq!(set.count(), 1);
            assert!(set.is_set(cpu));
            assert!(pin_to_cpu(rustix::thread::CpuSet::MAX_CPU - 1).is_err());
            assert!(pin_to_cpu(usize::MAX).is_err());
        })
        .join()
        .unwrap();
    }
}
