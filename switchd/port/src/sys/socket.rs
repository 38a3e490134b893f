//! Sockets of the host egress: what rustix does not wrap (peeking at an offset, discarding, scattered
//! sends with control messages, bursts of datagrams with their senders, the error queue, send memory).
//!
//! As in `packet`, the structures that a system call needs are built on the stack at each call from borrowed
//! slices. Addresses are encoded and decoded as plain bytes.
#![allow(unsafe_code)]

use super::check;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Datagrams in one system call.
pub const BATCH: usize = 16;
/// Bytes that a peek without SO_PEEK_OFF can skip: see [`peek_skipping`].
pub const SKIP_MAX: usize = 15 * SCRATCH;
const SCRATCH: usize = 64 * 1024;
/// Pending forwarded connections.
const BACKLOG: i32 = 512;

/// struct sockaddr_in or sockaddr_in6.
#[repr(C, align(4))]
#[derive(Clone, Copy)]
struct RawAddress([u8; 28]);

impl RawAddress {
    const EMPTY: RawAddress = RawAddress([0; 28]);

    fn new(address: &SocketAddr) -> (RawAddress, libc::socklen_t) {
        let mut raw = RawAddress::EMPTY;
        let bytes = &mut raw.0;
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(v4) => {
                bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                (raw, 16)
            }
            SocketAddr::V6(v6) => {
                bytes[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                (raw, 28)
            }
        }
    }

    /// IPv4-mapped addresses come out as IPv4.
    fn read(bytes: &[u8]) -> Option<SocketAddr> {
        let family = i32::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let port = u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]);
        let ip = match family {
            libc::AF_INET => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?)),
            libc::AF_INET6 => {
                IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?)).to_canonical()
            }
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }
}

/// Room for control messages, aligned as cmsghdr.
type Control = [u64; 16];

fn family(v6: bool) -> AddressFamily {
    if v6 { AddressFamily::INET6 } else { AddressFamily::INET }
}

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// A TCP socket that does not wait.
pub fn stream(v6: bool) -> io::Result<OwnedFd> {
    Ok(socket_with(family(v6), SocketType::STREAM, FLAGS, None)?)
}

/// A UDP socket that does not wait, for one family only.
pub fn datagram(v6: bool) -> io::Result<OwnedFd> {
    let fd = socket_with(family(v6), SocketType::DGRAM, FLAGS, None)?;
    if v6 {
        set(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    Ok(fd)
}

/// A listening TCP or a bound UDP socket. An unspecified IPv6 address is for both families.
pub fn listen(tcp: bool, address: SocketAddr) -> io::Result<OwnedFd> {
    let kind = if tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let fd = socket_with(family(address.is_ipv6()), kind, FLAGS, None)?;
    if address.is_ipv6() {
        set(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, i32::from(!address.ip().is_unspecified()))?;
    }
    if tcp {
        // Connections of an earlier listener in TIME-WAIT do not keep the port.
        set(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    }
    bind(&fd, address)?;
    if tcp {
        rustix::net::listen(&fd, BACKLOG)?;
    }
    Ok(fd)
}

pub fn bind(fd: impl AsFd, address: SocketAddr) -> io::Result<()> {
    Ok(rustix::net::bind(fd, &address)?)
}

pub fn open_ping(v6: bool) -> io::Result<OwnedFd> {
    let protocol = if v6 { ipproto::ICMPV6 } else { ipproto::ICMP };
    let fd = socket_with(family(v6), SocketType::DGRAM, FLAGS, Some(protocol))?;
    // The kernel's "port" is the identifier of its echo requests.
    let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    bind(&fd, SocketAddr::new(any, 0))?;
    Ok(fd)
}

/// A raw socket that gives echo replies only; errors come by its error queue.
pub fn open_raw_icmp(v6: bool) -> io::Result<OwnedFd> {
    const LDB_ABS: u16 = 0x30;
    const LDXB_MSH: u16 = 0xb1;
    const LDB_IND: u16 = 0x50;
    const JEQ: u16 = 0x15;
    const RET: u16 = 0x06;
    let protocol = if v6 { ipproto::ICMPV6 } else { ipproto::ICMP };
    let fd = socket_with(family(v6), SocketType::RAW, FLAGS, Some(protocol))?;
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // IPv4 arrives with its header, IPv6 without.
    let v4_program = [
        op(LDXB_MSH, 0, 0, 0),
        op(LDB_IND, 0, 0, 0),
        op(JEQ, 0, 1, 0),
        op(RET, 0, 0, u32::MAX),
        op(RET, 0, 0, 0),
    ];
    let v6_program = [op(LDB_ABS, 0, 0, 0), op(JEQ, 0, 1, 129), op(RET, 0, 0, u32::MAX), op(RET, 0, 0, 0)];
    let program: &[libc::sock_filter] = if v6 { &v6_program } else { &v4_program };
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    let len = size_of::<libc::sock_fprog>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of the program's head and the instructions it points to; both
    // live on this stack frame.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&program).cast(),
            len,
        )
    })?;
    set(&fd, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, 1)?;
    Ok(fd)
}

/// Sets an integer option.
pub fn set(fd: impl AsFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel reads four bytes of `value`, which lives on this stack frame.
    let result = unsafe {
        libc::setsockopt(fd.as_fd().as_raw_fd(), level, option, std::ptr::from_ref(&value).cast(), len)
    };
    check(result).map(drop)
}

/// The pending error of a socket, which this call clears.
pub fn take_error(fd: impl AsFd) -> Option<io::Error> {
    match rustix::net::sockopt::socket_error(fd) {
        Ok(Ok(())) => None,
        Ok(Err(errno)) | Err(errno) => Some(errno.into()),
    }
}

/// A close of the descriptor resets the connection (RST) instead of ending it.
pub fn reset_on_close(fd: impl AsFd) {
    // A socket that never was connected has nothing to reset, so an error means nothing.
    let _ = rustix::net::sockopt::set_socket_linger(fd, Some(std::time::Duration::ZERO));
}

/// Copies what the socket holds into `buffer` and leaves it there. With SO_PEEK_OFF set, from that offset
/// on, which moves along.
pub fn peek(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the kernel writes at most the slice's length to it; it is borrowed mutably for the call.
    let got = unsafe { libc::recv(fd.as_fd().as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) };
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(got as usize) }
}

/// The same for kernels without SO_PEEK_OFF on TCP (before 6.9; 6.11 for IPv6): what lies before the
/// offset is copied to a scratch buffer. `skip` is at most [`SKIP_MAX`]. Returns the bytes behind `skip`.
pub fn peek_skipping(
    fd: impl AsFd,
    skip: usize,
    buffer: &mut [u8],
    scratch: &mut Vec<u8>,
) -> io::Result<usize> {
    scratch.resize(SCRATCH, 0);
    let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; 16];
    let (mut used, mut left) = (0, skip.min(SKIP_MAX));
    while left > 0 {
        let len = left.min(SCRATCH);
        vectors[used] = libc::iovec { iov_base: scratch.as_mut_ptr().cast(), iov_len: len };
        (used, left) = (used + 1, left - len);
    }
    vectors[used] = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut message = message();
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = (used + 1) as _;
    // SAFETY: the message points to initialised iovecs on this stack frame. They cover the scratch buffer
    // (several times: the kernel fills them one after the other) and `buffer`, both borrowed mutably.
    let got =
        unsafe { libc::recvmsg(fd.as_fd().as_raw_fd(), &mut message, libc::MSG_PEEK | libc::MSG_DONTWAIT) };
    match got {
        got if got < 0 => Err(io::Error::last_os_error()),
        got if got as usize > skip => Ok(got as usize - skip),
        // Nothing behind what is known: whether the stream has ended, `EPOLLRDHUP` tells.
        _ => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
    }
}

/// Takes `len` bytes out of a stream's receive queue without copying them. Returns how many.
pub fn discard(fd: impl AsFd, len: usize) -> io::Result<usize> {
    // SAFETY: with MSG_TRUNC a TCP socket writes nothing to the buffer (tcp(7)), so it may be null.
    let got = unsafe {
        libc::recv(fd.as_fd().as_raw_fd(), std::ptr::null_mut(), len, libc::MSG_TRUNC | libc::MSG_DONTWAIT)
    };
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(got as usize) }
}

/// Gives a stream two pieces at once. Returns how many bytes it took.
pub fn write(fd: impl AsFd, parts: [&[u8]; 2]) -> io::Result<usize> {
    send(fd.as_fd(), parts, None, &[])
}

/// What a datagram is sent with.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendOptions {
    /// Cut into datagrams of this many bytes (UDP_SEGMENT).
    pub segment: Option<u16>,
    /// TTL or hop limit; absent: the socket's.
    pub ttl: Option<u8>,
}

pub fn send_to(fd: impl AsFd, parts: [&[u8]; 2], to: SocketAddr, options: SendOptions) -> io::Result<usize> {
    let mut messages = [(0, 0, 0, 0); 2];
    let mut used = 0;
    if let Some(size) = options.segment {
        messages[used] = (libc::SOL_UDP, libc::UDP_SEGMENT, i32::from(size), 2);
        used += 1;
    }
    if let Some(ttl) = options.ttl {
        let (level, kind) = match to {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TTL),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT),
        };
        messages[used] = (level, kind, i32::from(ttl), 4);
        used += 1;
    }
    send(fd.as_fd(), parts, Some(to), &messages[..used])
}

/// `controls`: level, type, value, and its length of 2 or 4 bytes.
fn send(
    fd: BorrowedFd<'_>,
    parts: [&[u8]; 2],
    to: Option<SocketAddr>,
    controls: &[(i32, i32, i32, usize)],
) -> io::Result<usize> {
    const DATA: usize = size_of::<libc::cmsghdr>();
    let mut vectors =
        parts.map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
    let mut message = message();
    message.msg_iov = vectors.as_mut_ptr();
    message.msg_iovlen = if parts[1].is_empty() { 1 } else { 2 };
    let mut address = to.map(|to| RawAddress::new(&to));
    if let Some((raw, len)) = &mut address {
        message.msg_name = raw.0.as_mut_ptr().cast();
        message.msg_namelen = *len;
    }
    let mut control: Control = [0; 16];
    if !controls.is_empty() {
        let mut at = 0;
        for &(level, kind, value, len) in controls {
            // SAFETY: a cmsghdr is integers, for which zero is a value.
            let mut head: libc::cmsghdr = unsafe { std::mem::zeroed() };
            head.cmsg_len = (DATA + len) as _;
            head.cmsg_level = level;
            head.cmsg_type = kind;
            let short = (value as u16).to_ne_bytes();
            let long = value.to_ne_bytes();
            let value: &[u8] = if len == 2 { &short } else { &long };
            // SAFETY: at most two messages of DATA + 8 bytes are written into 128, at multiples of 8.
            unsafe {
                let to = control.as_mut_ptr().cast::<u8>().add(at);
                to.cast::<libc::cmsghdr>().write(head);
                to.add(DATA).copy_from_nonoverlapping(value.as_ptr(), len);
            }
            at += DATA + 8;
        }
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = at as _;
    }
    // SAFETY: the message points to iovecs, an address and control messages that are initialised and live
    // on this stack frame; the iovecs cover borrowed slices, which the kernel only reads.
    let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

/// A datagram that came.
#[derive(Clone, Copy, Debug)]
pub struct Datagram {
    pub len: usize,
    pub from: Option<SocketAddr>,
    /// It was longer than the buffer.
    pub truncated: bool,
    /// Several datagrams of this length, the last one perhaps shorter (UDP_GRO).
    pub segment: Option<u16>,
}

impl Datagram {
    pub const EMPTY: Datagram = Datagram { len: 0, from: None, truncated: false, segment: None };
}

/// Receives at most [`BATCH`] datagrams without waiting, one a buffer. Returns how many.
pub fn receive_from<'a>(
    fd: impl AsFd,
    buffers: impl Iterator<Item = &'a mut [u8]>,
    datagrams: &mut [Datagram; BATCH],
) -> io::Result<usize> {
    let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; BATCH];
    let mut names = [RawAddress::EMPTY; BATCH];
    let mut controls = [const { MaybeUninit::<[u64; 4]>::uninit() }; BATCH];
    let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH];
    let mut count = 0;
    for buffer in buffers.take(BATCH) {
        let vector =
            vectors[count].write(libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() });
        let control = controls[count].write([0; 4]);
        let mut msg_hdr = message();
        msg_hdr.msg_iov = vector;
        msg_hdr.msg_iovlen = 1;
        msg_hdr.msg_name = names[count].0.as_mut_ptr().cast();
        msg_hdr.msg_namelen = 28;
        msg_hdr.msg_control = control.as_mut_ptr().cast();
        msg_hdr.msg_controllen = size_of::<[u64; 4]>() as _;
        messages[count].write(libc::mmsghdr { msg_hdr, msg_len: 0 });
        count += 1;
    }
    // SAFETY: the first `count` headers are initialised and point to initialised iovecs, names and control
    // buffers on this stack frame; the iovecs cover slices borrowed mutably, each once, for 'a, which is
    // longer than this call.
    let received = check(unsafe {
        libc::recvmmsg(
            fd.as_fd().as_raw_fd(),
            messages.as_mut_ptr().cast(),
            count as libc::c_uint,
            libc::MSG_DONTWAIT as _,
            std::ptr::null_mut(),
        )
    })? as usize;
    for (index, datagram) in datagrams.iter_mut().enumerate().take(received.min(count)) {
        // SAFETY: initialised above, as `index` is below `count`.
        let (message, control) =
            unsafe { (messages[index].assume_init_ref(), controls[index].assume_init_ref()) };
        let mut segment = None;
        #[allow(clippy::unnecessary_cast)] // the type differs between C libraries
        let control_len = message.msg_hdr.msg_controllen as usize;
        each_control(control, control_len, |level, kind, data| {
            if (level, kind) == (libc::SOL_UDP, libc::UDP_GRO)
                && let Some(size) = data.first_chunk()
            {
                segment = u16::try_from(i32::from_ne_bytes(*size)).ok();
            }
        });
        *datagram = Datagram {
            len: message.msg_len as usize,
            from: RawAddress::read(&names[index].0),
            truncated: message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            segment,
        };
    }
    Ok(received)
}

fn message() -> libc::msghdr {
    // SAFETY: a msghdr is integers and pointers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// Calls `see` with level, type and data of each control message in the first `len` bytes.
fn each_control(control: &[u64], len: usize, mut see: impl FnMut(i32, i32, &[u8])) {
    const DATA: usize = size_of::<libc::cmsghdr>();
    let len = len.min(size_of_val(control));
    let mut at = 0;
    while at + DATA <= len {
        // SAFETY: `at` is a multiple of 8 and a whole cmsghdr lies within `control`, which is initialised.
        let (head, bytes) = unsafe {
            let base = control.as_ptr().cast::<u8>();
            (base.add(at).cast::<libc::cmsghdr>().read(), std::slice::from_raw_parts(base, len))
        };
        #[allow(clippy::unnecessary_cast)] // the type differs between C libraries
        let end = at.saturating_add(head.cmsg_len as usize).min(len);
        if end < at + DATA {
            return;
        }
        see(head.cmsg_level, head.cmsg_type, &bytes[at + DATA..end]);
        at = end.next_multiple_of(8);
    }
}

/// An entry of a socket's error queue (ip(7), IP_RECVERR).
#[derive(Clone, Copy, Debug)]
pub struct QueuedError {
    pub errno: i32,
    /// SO_EE_ORIGIN_LOCAL, _ICMP or _ICMP6.
    pub origin: u8,
    pub kind: u8,
    pub code: u8,
    /// The path MTU, where the error tells one.
    pub info: u32,
    /// Who sent the ICMP error.
    pub offender: Option<IpAddr>,
    /// Where the packet was going.
    pub to: Option<SocketAddr>,
    /// Bytes of the packet's payload that were put into the buffer.
    pub len: usize,
}

/// Takes the oldest entry of the error queue. EAGAIN when there is none.
pub fn receive_error(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<QueuedError> {
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut name = RawAddress::EMPTY;
    let mut control: Control = [0; 16];
    let mut message = message();
    message.msg_iov = &mut vector;
    message.msg_iovlen = 1;
    message.msg_name = name.0.as_mut_ptr().cast();
    message.msg_namelen = 28;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of::<Control>() as _;
    // SAFETY: the message points to an iovec, an address and control buffer on this stack frame; the iovec
    // covers a slice that is borrowed mutably.
    let got = unsafe {
        libc::recvmsg(fd.as_fd().as_raw_fd(), &mut message, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT)
    };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut error = QueuedError {
        errno: 0,
        origin: 0,
        kind: 0,
        code: 0,
        info: 0,
        offender: None,
        to: RawAddress::read(&name.0),
        len: got as usize,
    };
    #[allow(clippy::unnecessary_cast)] // the type differs between C libraries
    let control_len = message.msg_controllen as usize;
    each_control(&control, control_len, |level, kind, data| {
        let is_error = matches!(
            (level, kind),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        );
        // struct sock_extended_err: errno, origin, type, code, pad, info, data; then the offender.
        if is_error && data.len() >= 16 {
            let long = |at: usize| u32::from_ne_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
            error.errno = long(0) as i32;
            (error.origin, error.kind, error.code) = (data[4], data[5], data[6]);
            error.info = long(8);
            error.offender = RawAddress::read(&data[16..]).map(|address| address.ip());
        }
    });
    Ok(error)
}

/// Memory of a TCP socket's send queue: used, and the bound (which the kernel raises by itself). Both count
/// the kernel's overhead too.
pub fn send_memory(fd: impl AsFd) -> io::Result<(u32, u32)> {
    const SNDBUF: usize = 3;
    const WMEM_QUEUED: usize = 5;
    let mut info = [0u32; 9];
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `info`; both live on this stack frame.
    check(unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &mut len,
        )
    })?;
    Ok((info[WMEM_QUEUED], info[SNDBUF]))
}

/// Whether the stream has room (a third of its buffer). If not, its EPOLLOUT comes when it has, and the
/// kernel may enlarge the buffer then: the question itself asks for both.
pub fn has_room(fd: impl AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn addresses_survive_their_raw_form_and_mapped_ones_become_ipv4() {
        for text in ["192.0.2.1:80", "[2001:db8::1]:443"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(RawAddress::read(&RawAddress::new(&address).0.0), Some(address));
        }
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:80".parse().unwrap();
        assert_eq!(RawAddress::read(&RawAddress::new(&mapped).0.0), Some("192.0.2.1:80".parse().unwrap()));
        assert_eq!(RawAddress::read(&[0; 28]), None);
    }

    #[test]
    fn peeking_leaves_and_discarding_takes_with_and_without_an_offset_in_the_kernel() {
        let (near, mut far) = pair();
        far.write_all(b"abcdefgh").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let mut buffer = [0; 16];
        assert_eq!(peek(&near, &mut buffer).unwrap(), 8);
        let mut scratch = Vec::new();
        assert_eq!(peek_skipping(&near, 3, &mut buffer, &mut scratch).unwrap(), 5);
        assert_eq!(&buffer[..5], b"defgh");
        assert!(peek_skipping(&near, 8, &mut buffer, &mut scratch).is_err());
        assert_eq!(discard(&near, 2).unwrap(), 2);
        set(&near, libc::SOL_SOCKET, libc::SO_PEEK_OFF, 4).unwrap();
        assert_eq!(peek(&near, &mut buffer[..1]).unwrap(), 1);
        assert_eq!(buffer[0], b'g');
        assert_eq!(peek(&near, &mut buffer).unwrap(), 1);
        assert_eq!(buffer[0], b'h');
        // What is taken out moves the offset along.
        assert_eq!(discard(&near, 3).unwrap(), 3);
        far.write_all(b"i").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_eq!((peek(&near, &mut buffer).unwrap(), buffer[0]), (1, b'i'));
    }

    #[test]
    fn two_pieces_arrive_as_one_and_send_memory_grows() {
        let (near, mut far) = pair();
        assert_eq!(write(&near, [b"head", b"tail"]).unwrap(), 8);
        let mut buffer = [0; 8];
        far.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"headtail");
        assert!(has_room(&near));
        near.set_nonblocking(true).unwrap();
        while write(&near, [&[0; 65536], &[]]).is_ok() {}
        let (used, bound) = send_memory(&near).unwrap();
        assert!(used > 0 && bound > 0 && used + 65536 > bound, "{used} of {bound}");
        assert!(!has_room(&near));
    }

    #[test]
    fn datagrams_come_with_their_sender_and_a_refusal_comes_by_the_error_queue() {
        let near = datagram(false).unwrap();
        bind(&near, "127.0.0.1:0".parse().unwrap()).unwrap();
        set(&near, libc::IPPROTO_IP, libc::IP_RECVERR, 1).unwrap();
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = far.local_addr().unwrap();
        send_to(&near, [b"ab", b"cd"], to, SendOptions { segment: Some(2), ttl: Some(9) }).unwrap();
        let mut buffer = [0; 8];
        let (len, from) = far.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"ab");
        far.send_to(b"reply", from).unwrap();
        let mut datagrams = [Datagram::EMPTY; BATCH];
        let mut space = [[0; 64]; 2];
        let count =
            receive_from(&near, space.iter_mut().map(|bytes| &mut bytes[..]), &mut datagrams).unwrap();
        assert_eq!((count, datagrams[0].from, datagrams[0].len), (1, Some(to), 5));
        drop(far);
        send_to(&near, [b"x", b""], to, SendOptions::default()).unwrap();
        let error = receive_error(&near, &mut buffer).unwrap();
        assert_eq!((error.errno, error.kind, error.code), (libc::ECONNREFUSED, 3, 3));
        assert_eq!((error.to, error.offender), (Some(to), Some("127.0.0.1".parse().unwrap())));
        assert_eq!(receive_error(&near, &mut buffer).unwrap_err().raw_os_error(), Some(libc::EAGAIN));
    }
}
