//! One message, with descriptors, over a `SOCK_SEQPACKET` socket pair.

use super::messages::{CodecError, FDS_MAX, MESSAGE_MAX, decode, encode};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other process closed its end.
    #[error("the other process has ended")]
    Ended,
    #[error("no message is waiting, or there is no room for one")]
    WouldBlock,
    #[error(transparent)]
    Io(io::Error),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("message was cut: longer than {MESSAGE_MAX} bytes or more than {FDS_MAX} descriptors")]
    Cut,
}

impl From<Errno> for ChannelError {
    fn from(errno: Errno) -> ChannelError {
        match errno {
            Errno::AGAIN => ChannelError::WouldBlock,
            Errno::PIPE | Errno::CONNRESET => ChannelError::Ended,
            other => ChannelError::Io(other.into()),
        }
    }
}

/// Both ends close on exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    for end in [&a, &b] {
        // Room for a largest message; the kernel caps the wish without an error.
        sockopt::set_socket_send_buffer_size(end, 2 * MESSAGE_MAX)?;
    }
    Ok((a, b))
}

/// Sends one message. `wait`: blocks for room (within the socket's own time limit); else
/// [`ChannelError::WouldBlock`].
pub fn send<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    fds: &[BorrowedFd<'_>],
    wait: bool,
) -> Result<(), ChannelError> {
    if fds.len() > FDS_MAX {
        return Err(ChannelError::Cut);
    }
    let bytes = encode(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(ChannelError::Cut);
    }
    let flags = if wait { SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL | SendFlags::DONTWAIT };
    loop {
        match sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, flags) {
            Err(Errno::INTR) => continue,
            result => return result.map(drop).map_err(ChannelError::from),
        }
    }
}

/// Receives one message. `wait` as in [`send`].
pub fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
    wait: bool,
) -> Result<(T, Vec<OwnedFd>), ChannelError> {
    let mut bytes = vec![0; MESSAGE_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut flags = RecvFlags::CMSG_CLOEXEC;
    if !wait {
        flags |= RecvFlags::DONTWAIT;
    }
    let received = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Err(Errno::INTR) => continue,
            result => break result?,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Err(ChannelError::Ended);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(ChannelError::Cut);
    }
    Ok((decode(&bytes[..received.bytes])?, fds))
}
