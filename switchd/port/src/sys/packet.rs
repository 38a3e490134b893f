//! AF_PACKET sockets (packet(7), linux/if_packet.h): options, and bursts with recvmmsg and sendmmsg.
//!
//! The arrays that a burst's system call needs are built on the stack at each call, from borrowed slices
//! that live until it returns; nothing that holds a pointer outlives it.
#![allow(unsafe_code)]

use super::check;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Frames in one system call.
pub const BATCH: usize = 64;

const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
const TPID_8021Q: u16 = 0x8100;

/// struct tpacket_auxdata.
#[repr(C)]
#[derive(Clone, Copy)]
struct AuxData {
    status: u32,
    len: u32,
    snaplen: u32,
    mac: u16,
    net: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
}

/// Room for one control message with an [`AuxData`]: CMSG_SPACE(20) is 40 bytes, aligned as cmsghdr.
type Control = [u64; 5];

/// What came with one frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// Bytes put into head and tail together, the virtio header among them.
    pub len: usize,
    /// The frame was longer than the buffers.
    pub truncated: bool,
    /// TPID and TCI of the outer tag, which the kernel has taken out of the frame.
    pub tag: Option<(u16, u16)>,
}

/// A raw socket that receives nothing before it is bound.
pub fn open() -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?)
}

fn set<T>(fd: impl AsFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`, which is borrowed for the whole call.
    let result = unsafe {
        libc::setsockopt(fd.as_fd().as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), len)
    };
    check(result).map(drop)
}

/// Sets one of the integer options of SOL_PACKET.
pub fn set_option(fd: impl AsFd, option: libc::c_int, value: bool) -> io::Result<()> {
    set(fd, libc::SOL_PACKET, option, &libc::c_int::from(value))
}

/// Sets both buffers to `bytes` beyond the system's limit (needs CAP_NET_ADMIN), else within it.
pub fn set_buffers(fd: impl AsFd, bytes: usize) -> io::Result<()> {
    let bytes = bytes as libc::c_int;
    for (force, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        set(fd.as_fd(), libc::SOL_SOCKET, force, &bytes)
            .or_else(|_| set(fd.as_fd(), libc::SOL_SOCKET, plain, &bytes))?;
    }
    Ok(())
}

/// Adds a membership: PACKET_MR_PROMISC or PACKET_MR_ALLMULTI. It ends with the socket.
pub fn add_membership(fd: impl AsFd, index: u32, kind: libc::c_int) -> io::Result<()> {
    let request = libc::packet_mreq {
        mr_ifindex: index as libc::c_int,
        mr_type: kind as libc::c_ushort,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
}

/// Binds to all frames of one interface.
pub fn bind(fd: impl AsFd, index: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::c_ushort,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index as libc::c_int,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of the address, which lives on this stack frame.
    check(unsafe { libc::bind(fd.as_fd().as_raw_fd(), std::ptr::from_ref(&address).cast(), len) }).map(drop)
}

/// The interface that the socket is bound to; `None` once that was deleted or moved away.
pub fn bound_to(fd: impl AsFd) -> io::Result<Option<u32>> {
    let mut address = MaybeUninit::<libc::sockaddr_ll>::zeroed();
    let mut len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to the address; both live on this stack frame.
    check(unsafe { libc::getsockname(fd.as_fd().as_raw_fd(), address.as_mut_ptr().cast(), &mut len) })?;
    // SAFETY: every bit pattern is a sockaddr_ll, and it was zeroed.
    let index = unsafe { address.assume_init() }.sll_ifindex;
    Ok(u32::try_from(index).ok().filter(|&index| index != 0))
}

/// Frames that the kernel dropped since the last call, because the receive buffer was full.
pub fn take_drops(fd: impl AsFd) -> io::Result<u64> {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut len = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `stats`; both live on this stack frame.
    let result = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            std::ptr::from_mut(&mut stats).cast(),
            &mut len,
        )
    };
    check(result)?;
    Ok(u64::from(stats.tp_drops))
}

/// Receives at most [`BATCH`] frames without waiting, each into a head and, when that is full, a tail.
/// Returns how many; the first of `arrivals` tell of them. EAGAIN when there is none.
pub fn receive<'a>(
    fd: BorrowedFd<'_>,
    buffers: impl Iterator<Item = (&'a mut [u8], &'a mut [u8])>,
    arrivals: &mut [Arrival; BATCH],
) -> io::Result<usize> {
    let mut vectors = [const { MaybeUninit::<[libc::iovec; 2]>::uninit() }; BATCH];
    let mut controls = [const { MaybeUninit::<Control>::uninit() }; BATCH];
    let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH];
    let mut count = 0;
    for (head, tail) in buffers.take(BATCH) {
        let vector = vectors[count].write([
            libc::iovec { iov_base: head.as_mut_ptr().cast(), iov_len: head.len() },
            libc::iovec { iov_base: tail.as_mut_ptr().cast(), iov_len: tail.len() },
        ]);
        let control = controls[count].write([0; 5]);
        messages[count].write(header(vector, control.as_mut_ptr().cast(), size_of::<Control>()));
        count += 1;
    }
    // SAFETY: the first `count` headers are initialised and point to initialised iovecs and control buffers
    // on this stack frame; the iovecs cover slices that are borrowed mutably, each once, for 'a, which is
    // longer than this call.
    let received = check(unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            messages.as_mut_ptr().cast(),
            count as libc::c_uint,
            libc::MSG_DONTWAIT as _,
            std::ptr::null_mut(),
        )
    })? as usize;
    for (index, arrival) in arrivals.iter_mut().enumerate().take(received.min(count)) {
        // SAFETY: initialised above, as `index` is below `count`.
        let (message, control) =
            unsafe { (messages[index].assume_init_ref(), controls[index].assume_init_ref()) };
        #[allow(clippy::unnecessary_cast)] // the type differs between C libraries
        let control_len = message.msg_hdr.msg_controllen as usize;
        *arrival = Arrival {
            len: message.msg_len as usize,
            truncated: message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            tag: tag(control, control_len),
        };
    }
    Ok(received)
}

/// Sends at most [`BATCH`] frames, each from a head and a tail, without waiting. Returns how many were
/// taken; an error belongs to the first frame.
pub fn send<'a>(
    fd: BorrowedFd<'_>,
    buffers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> io::Result<usize> {
    let mut vectors = [const { MaybeUninit::<[libc::iovec; 2]>::uninit() }; BATCH];
    let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH];
    let mut count = 0;
    for (head, tail) in buffers.take(BATCH) {
        let vector = vectors[count].write([
            libc::iovec { iov_base: head.as_ptr().cast_mut().cast(), iov_len: head.len() },
            libc::iovec { iov_base: tail.as_ptr().cast_mut().cast(), iov_len: tail.len() },
        ]);
        messages[count].write(header(vector, std::ptr::null_mut(), 0));
        count += 1;
    }
    // SAFETY: the first `count` headers are initialised and point to initialised iovecs on this stack frame;
    // the iovecs cover slices borrowed for 'a, which the kernel only reads.
    let sent = check(unsafe {
        libc::sendmmsg(
            fd.as_raw_fd(),
            messages.as_mut_ptr().cast(),
            count as libc::c_uint,
            libc::MSG_DONTWAIT as _,
        )
    })?;
    Ok(sent as usize)
}

fn header(vector: &mut [libc::iovec; 2], control: *mut libc::c_void, control_len: usize) -> libc::mmsghdr {
    // SAFETY: a msghdr is integers and pointers, for which zero is a value (and it may have private padding
    // fields, so it cannot be written as a literal everywhere).
    let mut msg_hdr: libc::msghdr = unsafe { std::mem::zeroed() };
    msg_hdr.msg_iov = vector.as_mut_ptr();
    msg_hdr.msg_iovlen = 2;
    msg_hdr.msg_control = control;
    msg_hdr.msg_controllen = control_len as _;
    libc::mmsghdr { msg_hdr, msg_len: 0 }
}

/// The stripped tag, from the control message. AUXDATA is the only one that we ask for, so it is the first.
fn tag(control: &Control, len: usize) -> Option<(u16, u16)> {
    const DATA: usize = size_of::<libc::cmsghdr>();
    if len < DATA + size_of::<AuxData>() {
        return None;
    }
    // SAFETY: both structures are plain integers; `control` holds 40 bytes, is aligned to 8, and the kernel
    // has written at least DATA + size_of::<AuxData>() of them; DATA is a multiple of AuxData's alignment.
    let (head, data) = unsafe {
        let base = control.as_ptr().cast::<u8>();
        (base.cast::<libc::cmsghdr>().read(), base.add(DATA).cast::<AuxData>().read())
    };
    if head.cmsg_level != libc::SOL_PACKET || head.cmsg_type != libc::PACKET_AUXDATA {
        return None;
    }
    if data.status & TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let tpid = if data.status & TP_STATUS_VLAN_TPID_VALID != 0 { data.vlan_tpid } else { TPID_8021Q };
    Some((tpid, data.vlan_tci))
}
