//! Messages of the protocol that the `vhost` crate does not know, or not at that time: answered here, before
//! it sees them.
//!
//! | message | what for |
//! |---|---|
//! | SET_VRING_ENABLE, before features | QEMU enables a network device's rings so early; the crate takes it for an error |
//! | SEND_RARP | the guest has arrived by migration: the network is to learn where it is now |
//! | NET_SET_MTU | the MTU that the guest is told, checked against the network's |
//! | SET_STATUS, GET_STATUS | the driver's device status, kept; stopping is GET_VRING_BASE's business |
//! | SET_LOG_FD | a notice that the log was written to, which no front-end of today waits for: closed |

use super::device::feature;
use super::handshake::Handler;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::time::Timespec;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use switchd_wire::{Frame, MacAddr};
use vhost::vhost_user::VhostUserBackendReqHandler;
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;

const SET_LOG_FD: u32 = 7;
const SET_VRING_ENABLE: u32 = 18;
const SEND_RARP: u32 = 19;
const NET_SET_MTU: u32 = 20;
const SET_STATUS: u32 = 39;
const GET_STATUS: u32 = 40;

/// Of a message's flags: version 1, an answer, an answer is wanted.
const VERSION: u32 = 1;
const REPLY: u32 = 4;
const NEED_REPLY: u32 = 8;

const HEADER: usize = 12;
const BODY_MAX: usize = 8;
/// For the rest of a message to follow its beginning.
const REST: Duration = Duration::from_millis(100);
const MILLISECOND: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
/// Announcements that wait at most; more are of no use.
pub const ANNOUNCEMENTS_MAX: usize = 8;
/// The smallest MTU (virtio 1.2, 5.1.4.1).
const MTU_MIN: u64 = 68;

/// What became of a message: an acknowledgement, if it was asked for, or a value.
enum Answer {
    Done(bool),
    Value(u64),
}

impl Handler {
    /// Handles the next message, if it is one of these.
    pub fn aside(&self, stream: &UnixStream) -> io::Result<bool> {
        let mut raw = [0; HEADER + BODY_MAX];
        if peek(stream, &mut raw[..HEADER])? < HEADER {
            return Ok(false);
        }
        let word =
            |raw: &[u8], at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let (request, flags, size) = (word(&raw, 0), word(&raw, 4), word(&raw, 8));
        let expected = match request {
            SET_VRING_ENABLE if !self.shared.device().has(feature::PROTOCOL_FEATURES) => 8,
            SEND_RARP | NET_SET_MTU | SET_STATUS => 8,
            GET_STATUS | SET_LOG_FD => 0,
            _ => return Ok(false),
        };
        if size as usize != expected || flags & !NEED_REPLY != VERSION {
            return Ok(false);
        }
        let len = HEADER + expected;
        if peek(stream, &mut raw[..len])? < len {
            return Ok(false);
        }
        if request == SET_VRING_ENABLE && word(&raw, 16) > 1 {
            return Ok(false);
        }
        // Descriptors that came with it are closed by not being asked for.
        recv(stream, &mut raw[..len], RecvFlags::DONTWAIT)?;
        let (low, high) = (word(&raw, 12), word(&raw, 16));
        let body = u64::from(low) | u64::from(high) << 32;
        let answer = match request {
            SET_VRING_ENABLE => Answer::Done(self.set_vring_enable(low, high == 1).is_ok()),
            SEND_RARP => Answer::Done(self.announce(body)),
            NET_SET_MTU => Answer::Done(self.set_mtu(body)),
            SET_STATUS => Answer::Done(self.set_status(body)),
            GET_STATUS => self.status().map_or(Answer::Done(false), Answer::Value),
            _ => Answer::Done(
                self.agreed(Protocol::LOG_SHMFD) || self.unsupported::<()>("a log notice").is_ok(),
            ),
        };
        let value = match answer {
            Answer::Value(value) => value,
            Answer::Done(done) if flags & NEED_REPLY != 0 && self.agreed(Protocol::REPLY_ACK) => {
                u64::from(!done)
            }
            Answer::Done(_) => return Ok(true),
        };
        let words = [request, VERSION | REPLY, 8, value as u32, (value >> 32) as u32];
        let reply: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        send(stream, &reply, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        Ok(true)
    }

    fn announce(&self, body: u64) -> bool {
        if !self.agreed(Protocol::RARP) {
            return self.unsupported::<()>("an announcement").is_ok();
        }
        let [a, b, c, d, e, f, _, _] = body.to_le_bytes();
        let mac = MacAddr([a, b, c, d, e, f]);
        self.change(|device| {
            if mac.is_zero() || mac.0[0] & 1 == 1 {
                return Err(format!("an announcement for {mac}"));
            }
            if device.announcements.len() < ANNOUNCEMENTS_MAX {
                device.announcements.push(mac);
                device.changes += 1;
            }
            Ok(())
        })
        .is_ok()
    }

    /// Too large for the network is an answer, no crime.
    fn set_mtu(&self, mtu: u64) -> bool {
        if !self.agreed(Protocol::MTU) {
            return self.unsupported::<()>("an MTU").is_ok();
        }
        (MTU_MIN..=u64::from(self.shared.mtu)).contains(&mtu)
    }

    fn set_status(&self, status: u64) -> bool {
        if !self.agreed(Protocol::STATUS) {
            return self.unsupported::<()>("a status").is_ok();
        }
        self.change(|device| {
            device.status = u8::try_from(status).map_err(|_| format!("status {status:#x}"))?;
            Ok(())
        })
        .is_ok()
    }

    fn status(&self) -> Option<u64> {
        if !self.agreed(Protocol::STATUS) {
            let _ = self.unsupported::<()>("a status");
            return None;
        }
        Some(u64::from(self.shared.device().status))
    }
}

/// As much of a message as was asked for, unless the rest does not come within [`REST`], or at all.
fn peek(stream: &UnixStream, raw: &mut [u8]) -> io::Result<usize> {
    let mut tries = REST.as_millis();
    loop {
        let seen = match recv(stream, &mut *raw, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((seen, _)) => seen,
            Err(Errno::INTR | Errno::AGAIN) => 0,
            Err(error) => return Err(error.into()),
        };
        if seen == 0 || seen == raw.len() || tries == 0 {
            return Ok(seen);
        }
        // A millisecond's rest, unless the other side has closed: then what there is can be looked at once more.
        let closed = poll(&mut [PollFd::new(stream, PollFlags::RDHUP)], Some(&MILLISECOND));
        tries = if closed.is_ok_and(|count| count > 0) { 0 } else { tries - 1 };
    }
}

/// A RARP request (RFC 903) from the guest's address: switches learn from it, and no host answers it.
pub fn announcement(mac: MacAddr) -> Frame {
    let mut bytes = [0; 60];
    bytes[..6].fill(0xff);
    bytes[6..12].copy_from_slice(&mac.0);
    bytes[12..22].copy_from_slice(&[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    bytes[22..28].copy_from_slice(&mac.0);
    bytes[32..38].copy_from_slice(&mac.0);
    Frame::from_bytes(&bytes).expect("sixty bytes")
}
