//! Messages of vhost-user: request, flags, size, body, and descriptors beside them.

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

pub struct Message {
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

pub fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub fn flagged(request: u32, flags: u32, body: Vec<u8>) -> Message {
    let header = [request, flags, body.len() as u32];
    let header: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    Message { bytes: [header, body].concat(), fds: Vec::new() }
}

pub fn message(request: u32, body: &[u64]) -> Message {
    flagged(request, 1, words(body))
}

/// Index and value, as most messages about rings have them.
pub fn ring(request: u32, index: u32, value: u32) -> Message {
    message(request, &[u64::from(index) | u64::from(value) << 32])
}

pub fn with(mut message: Message, fds: Vec<OwnedFd>) -> Message {
    message.fds = fds;
    message
}

/// A memory file of that length.
pub fn memory(len: u64) -> OwnedFd {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let file = memfd_create("guest", MFdFlags::MFD_CLOEXEC).expect("a memfd");
    nix::unistd::ftruncate(&file, len as i64).expect("its length");
    file
}

pub fn event() -> OwnedFd {
    nix::sys::eventfd::EventFd::new().expect("an eventfd").into()
}

/// SET_MEM_TABLE. Regions of (guest address, size, address of the monitor, offset in the file).
pub fn table(regions: &[[u64; 4]], fds: Vec<OwnedFd>) -> Message {
    let mut body = vec![regions.len() as u64];
    body.extend(regions.iter().flatten());
    with(message(5, &body), fds)
}

/// Sends it. A refusal is no error here: the other end may have closed already.
pub fn put(stream: &UnixStream, message: &Message) {
    let fds: Vec<RawFd> = message.fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    let bytes = [IoSlice::new(&message.bytes)];
    let _ = sendmsg::<()>(stream.as_raw_fd(), &bytes, control, MsgFlags::MSG_NOSIGNAL, None);
}
