//! System calls: three filters, of which the strictest answer counts.
//!
//! 1. Calls that nothing in the dataplane can mean (a new program, a trace, a mount, a namespace): the
//!    process is killed, as only an intruder makes them. The broker starts a clean one.
//! 2. `clone3` does not exist (ENOSYS): its flags lie in memory, where a filter cannot see them. The C
//!    library then uses `clone`, which may make threads only.
//! 3. All that is not listed is refused (EPERM).
//!
//! Calls that are listed without a condition are answered from the kernel's bitmap, not by running the
//! filters, so the frames' reads and writes cost nothing more.

use libc as c;
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};
use std::collections::BTreeMap;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

const KILLED: &[c::c_long] = &[
    c::SYS_execve,
    c::SYS_execveat,
    c::SYS_ptrace,
    c::SYS_process_vm_readv,
    c::SYS_process_vm_writev,
    c::SYS_mount,
    c::SYS_umount2,
    c::SYS_pivot_root,
    c::SYS_chroot,
    c::SYS_setns,
    c::SYS_unshare,
    c::SYS_init_module,
    c::SYS_finit_module,
    c::SYS_kexec_load,
    c::SYS_bpf,
    c::SYS_perf_event_open,
    c::SYS_keyctl,
    c::SYS_userfaultfd,
];

const ALLOWED: &[c::c_long] = &[
    // Frames, captures, sockets.
    c::SYS_read,
    c::SYS_write,
    c::SYS_readv,
    c::SYS_writev,
    c::SYS_pread64,
    c::SYS_pwrite64,
    c::SYS_preadv,
    c::SYS_pwritev,
    c::SYS_preadv2,
    c::SYS_pwritev2,
    c::SYS_sendto,
    c::SYS_recvfrom,
    c::SYS_sendmsg,
    c::SYS_recvmsg,
    c::SYS_sendmmsg,
    c::SYS_recvmmsg,
    c::SYS_accept4,
    c::SYS_accept,
    c::SYS_shutdown,
    c::SYS_getsockopt,
    c::SYS_setsockopt,
    c::SYS_getsockname,
    c::SYS_getpeername,
    c::SYS_socketpair,
    c::SYS_connect,
    c::SYS_close,
    c::SYS_close_range,
    c::SYS_dup,
    c::SYS_dup3,
    c::SYS_fcntl,
    c::SYS_pipe2,
    // Waiting.
    c::SYS_ppoll,
    c::SYS_epoll_create1,
    c::SYS_epoll_ctl,
    c::SYS_epoll_pwait,
    c::SYS_epoll_pwait2,
    c::SYS_eventfd2,
    c::SYS_timerfd_create,
    c::SYS_timerfd_settime,
    c::SYS_timerfd_gettime,
    c::SYS_futex,
    c::SYS_nanosleep,
    c::SYS_clock_nanosleep,
    c::SYS_restart_syscall,
    // Time, chance, figures.
    c::SYS_clock_gettime,
    c::SYS_clock_getres,
    c::SYS_gettimeofday,
    c::SYS_getrandom,
    c::SYS_getpid,
    c::SYS_getppid,
    c::SYS_gettid,
    c::SYS_getuid,
    c::SYS_geteuid,
    c::SYS_getgid,
    c::SYS_getegid,
    c::SYS_getrusage,
    c::SYS_prlimit64,
    c::SYS_sysinfo,
    c::SYS_uname,
    c::SYS_getcpu,
    // Threads and memory.
    c::SYS_mmap,
    c::SYS_munmap,
    c::SYS_mremap,
    c::SYS_mprotect,
    c::SYS_madvise,
    c::SYS_brk,
    c::SYS_membarrier,
    c::SYS_rseq,
    c::SYS_set_robust_list,
    c::SYS_set_tid_address,
    c::SYS_sched_yield,
    c::SYS_sched_getaffinity,
    c::SYS_sched_setaffinity,
    c::SYS_setpriority,
    c::SYS_sched_getattr,
    c::SYS_sched_setattr,
    c::SYS_sigaltstack,
    c::SYS_rt_sigaction,
    c::SYS_rt_sigprocmask,
    c::SYS_rt_sigreturn,
    c::SYS_exit,
    c::SYS_exit_group,
    // Files, which landlock holds to the state folder.
    c::SYS_openat,
    c::SYS_openat2,
    c::SYS_fstat,
    c::SYS_newfstatat,
    c::SYS_statx,
    c::SYS_fstatfs,
    c::SYS_statfs,
    c::SYS_lseek,
    c::SYS_getdents64,
    c::SYS_faccessat,
    c::SYS_faccessat2,
    c::SYS_readlinkat,
    c::SYS_getcwd,
    c::SYS_mkdirat,
    c::SYS_unlinkat,
    c::SYS_linkat,
    c::SYS_renameat,
    c::SYS_renameat2,
    c::SYS_fsync,
    c::SYS_fdatasync,
    c::SYS_sync_file_range,
    c::SYS_ftruncate,
    c::SYS_memfd_create,
    c::SYS_fallocate,
    c::SYS_flock,
    c::SYS_fchmod,
    c::SYS_umask,
];

/// The forms that newer architectures have no more.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: &[c::c_long] = &[
    c::SYS_open,
    c::SYS_stat,
    c::SYS_lstat,
    c::SYS_access,
    c::SYS_readlink,
    c::SYS_mkdir,
    c::SYS_unlink,
    c::SYS_link,
    c::SYS_rmdir,
    c::SYS_rename,
    c::SYS_dup2,
    c::SYS_poll,
    c::SYS_epoll_wait,
    c::SYS_time,
    c::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLD: &[c::c_long] = &[];

/// Requests of ioctl: non-blocking, close-on-exec, bytes that wait in a socket, "is it a terminal", and what
/// a tap is asked.
const IOCTLS: &[u64] = &[
    c::FIONBIO,
    c::FIOCLEX,
    c::FIONREAD,
    c::TIOCOUTQ,
    c::TCGETS,
    c::TIOCGWINSZ,
    // linux/if_tun.h: TUNGETIFF, TUNSETOFFLOAD, TUNGETVNETHDRSZ.
    0x8004_54d2,
    0x4004_54d0,
    0x8004_54d7,
];

/// prctl: names of threads and of memory (PR_SET_VMA), and what libpcap's own libraries ask at their start.
const PRCTLS: &[u64] =
    &[c::PR_SET_NAME as u64, c::PR_GET_NAME as u64, c::PR_CAPBSET_READ as u64, 0x5356_4d41];

pub fn restrict() -> Result<(), Error> {
    for program in programs()? {
        apply_filter(&program)?;
    }
    Ok(())
}

fn programs() -> Result<[BpfProgram; 3], Error> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let build = |rules: Rules, otherwise, matched| -> Result<BpfProgram, Error> {
        Ok(SeccompFilter::new(rules, otherwise, matched, arch)?.try_into()?)
    };
    let plain = |calls: &[c::c_long]| calls.iter().map(|&call| (call, Vec::new())).collect::<Rules>();
    let mut allowed = plain(ALLOWED);
    allowed.extend(plain(ALLOWED_OLD));
    // Gone for glibc by the second filter; the third one must not turn its ENOSYS into EPERM.
    allowed.insert(c::SYS_clone3, Vec::new());
    allowed.insert(
        c::SYS_clone,
        vec![rule(0, SeccompCmpOp::MaskedEq(c::CLONE_THREAD as u64), c::CLONE_THREAD as u64)?],
    );
    allowed.insert(c::SYS_socket, sockets()?);
    allowed.insert(c::SYS_ioctl, equal(1, IOCTLS)?);
    allowed.insert(c::SYS_prctl, equal(0, PRCTLS)?);
    // abort() signals its own process and no other.
    allowed.insert(c::SYS_tgkill, equal(0, &[u64::from(std::process::id())])?);
    Ok([
        build(plain(KILLED), SeccompAction::Allow, SeccompAction::KillProcess)?,
        build(plain(&[c::SYS_clone3]), SeccompAction::Allow, SeccompAction::Errno(c::ENOSYS as u32))?,
        build(allowed, SeccompAction::Errno(c::EPERM as u32), SeccompAction::Allow)?,
    ])
}

/// Sockets that need no privilege: TCP and UDP, for what leaves through the host's addresses and for name
/// servers. There is no bind and no listen: those that wait for others, or ping, come from the broker; and a
/// raw socket that the broker gave stays on its interface.
fn sockets() -> Result<Vec<SeccompRule>, Error> {
    // SOCK_NONBLOCK and SOCK_CLOEXEC stand above these bits.
    const KIND: u64 = 0xf;
    let argument =
        |number, operator, value| SeccompCondition::new(number, SeccompCmpArgLen::Dword, operator, value);
    let mut rules = Vec::new();
    for family in [c::AF_INET, c::AF_INET6] {
        for (kind, protocol) in [(c::SOCK_STREAM, c::IPPROTO_TCP), (c::SOCK_DGRAM, c::IPPROTO_UDP)] {
            for protocol in [0, protocol] {
                rules.push(SeccompRule::new(vec![
                    argument(0, SeccompCmpOp::Eq, family as u64)?,
                    argument(1, SeccompCmpOp::MaskedEq(KIND), kind as u64)?,
                    argument(2, SeccompCmpOp::Eq, protocol as u64)?,
                ])?);
            }
        }
    }
    Ok(rules)
}

fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, Error> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}

fn equal(argument: u8, values: &[u64]) -> Result<Vec<SeccompRule>, Error> {
    values.iter().map(|&value| rule(argument, SeccompCmpOp::Eq, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_files_and_time_work_behind_the_filters_and_sockets_of_ones_own_do_not() {
        // Filters hold for one thread and those it starts.
        std::thread::spawn(|| {
            restrict().unwrap();
            assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
            assert!(std::fs::read_to_string("/proc/self/status").is_ok());
            assert!(std::net::UdpSocket::bind("127.0.0.1:0").is_err());
            use rustix::net::{AddressFamily, SocketType, connect, ipproto, socket};
            let udp = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
            connect(&udp, &std::net::SocketAddr::from(([127, 0, 0, 1], 9))).unwrap();
            assert!(socket(AddressFamily::INET6, SocketType::STREAM, Some(ipproto::TCP)).is_ok());
            for (family, kind, protocol) in [
                (AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP)),
                (AddressFamily::INET, SocketType::DGRAM, Some(ipproto::ICMP)),
                (AddressFamily::PACKET, SocketType::RAW, None),
                (AddressFamily::NETLINK, SocketType::RAW, None),
                (AddressFamily::UNIX, SocketType::STREAM, None),
            ] {
                assert!(socket(family, kind, protocol).is_err(), "{family:?} {kind:?}");
            }
            assert!(std::os::unix::net::UnixStream::pair().is_ok());
            let clock = std::time::Instant::now();
            std::thread::sleep(std::time::Duration::from_millis(1));
            assert!(clock.elapsed() >= std::time::Duration::from_millis(1));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn no_call_is_both_killed_and_allowed() {
        for call in KILLED {
            assert!(!ALLOWED.contains(call) && !ALLOWED_OLD.contains(call), "{call}");
        }
    }
}
