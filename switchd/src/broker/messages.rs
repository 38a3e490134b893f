//! What the dataplane process asks of the broker, and what the broker says of its own accord.
//!
//! Postcard over `SOCK_SEQPACKET`: one datagram a message, at most [`MESSAGE_MAX`] bytes, descriptors beside
//! it (SCM_RIGHTS). Requests and replies carry a number, so that a reply which came too late for its
//! request is told from the one that is awaited. Nothing else crosses between the processes.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Largest message in bytes: below the kernel's default send buffer, so that an unprivileged broker can
/// send it too.
pub const MESSAGE_MAX: usize = 128 * 1024;
/// Most descriptors beside a message.
pub const FDS_MAX: usize = 4;
/// Names in one [`Request::Retain`]; a longer list is sent in parts.
pub const RETAIN_PART: usize = 512;

/// A refused request: what, by which rule, and the errno when the kernel said no.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    pub errno: Option<i32>,
    /// Names the object, the rule and the offending value. One line.
    pub message: String,
}

impl Refused {
    /// A rule of the broker's own.
    pub fn rule(message: impl Into<String>) -> Refused {
        Refused { errno: None, message: message.into() }
    }

    /// The kernel's refusal of `what`.
    pub fn io(what: impl std::fmt::Display, error: &std::io::Error) -> Refused {
        Refused { errno: error.raw_os_error(), message: format!("{what}: {error}") }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TapRequest {
    pub name: String,
    /// Name under /run/netns; absent: the broker's own namespace.
    pub netns: Option<String>,
    pub mtu: u32,
    pub mac: [u8; 6],
}

#[derive(Debug)]
pub struct TapGrant {
    /// Non-blocking, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, 10-byte header, offloads set.
    pub fd: OwnedFd,
    /// The interface stood already (held by the broker, or persistent since an earlier run).
    pub reattached: bool,
    pub index: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Role {
    /// The host keeps its stack and its address on the interface.
    Uplink,
    /// An uplink that is one of several: its carrier is asked for again and again.
    Member,
    /// The host's stack is kept off until the interface is closed.
    Port,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NetdevRequest {
    pub name: String,
    pub role: Role,
    /// The network's MTU; the interface's own must not be below it.
    pub mtu: u32,
}

#[derive(Debug)]
pub struct NetdevGrant {
    pub fd: OwnedFd,
    pub index: u32,
    /// Unicast addresses of the interface itself.
    pub macs: Vec<[u8; 6]>,
    pub mtu: u32,
    pub carrier: bool,
    /// Mbit/s; 0: not known.
    pub speed: u32,
    pub full_duplex: bool,
}

#[derive(Debug)]
pub struct CaptureGrant {
    /// Opened for reading and appending; a regular file.
    pub fd: OwnedFd,
    pub path: PathBuf,
    pub existed: bool,
    /// Bytes it held.
    pub len: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LinkInfo {
    pub name: String,
    pub index: u32,
    /// IFF_UP.
    pub up: bool,
    /// IFF_LOWER_UP.
    pub carrier: bool,
    pub mac: Option<[u8; 6]>,
    pub mtu: u32,
    /// Mbit/s; 0: not known.
    pub speed: u32,
    pub full_duplex: bool,
}

/// An address with the length of its prefix; or, where said so, the prefix alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Prefix {
    pub address: IpAddr,
    pub len: u8,
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// An address that the host holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HostAddress {
    pub interface: String,
    pub prefix: Prefix,
}

/// A route of the host, never a default one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HostRoute {
    pub prefix: Prefix,
    pub interface: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// A port of the host that leads to a guest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ListenRequest {
    pub protocol: Protocol,
    /// One of the host's, or the unspecified one of its family: all of that family.
    pub address: IpAddr,
    pub port: u16,
}

/// A socket for virtual machines to connect to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VhostListenRequest {
    pub path: String,
    pub mode: u32,
    /// `USER`, `USER:GROUP` or `:GROUP`.
    pub owner: Option<String>,
}

/// Facts and choices that the dataplane starts with. Descriptors beside it: the notice socket, the control
/// socket's listener and, if there is one, the `--config` file, in that order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    pub options: Options,
    pub broker_pid: u32,
    /// Starts of the dataplane before this one.
    pub restarts: u32,
    /// Nanoseconds of the real-time clock at which the broker started.
    pub started: u64,
    pub rootless: bool,
    /// Who the dataplane shall be; absent: the user it is.
    pub identity: Option<Identity>,
    pub socket: SocketAccess,
}

/// The control socket's own access rights.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SocketAccess {
    pub owner: u32,
    pub group: u32,
    pub mode: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
}

/// The command line after checks and defaults. All paths are absolute.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Name of the `--config` file, for messages; its text comes through a descriptor.
    pub config: Option<PathBuf>,
    pub state_dir: PathBuf,
    pub capture_dir: PathBuf,
    pub socket: PathBuf,
    pub workers: usize,
    /// CPUs for the workers, used in turn; empty: the kernel's choice.
    pub cpus: Vec<usize>,
    pub busy_poll: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    OpenTap(TapRequest),
    CloseTap {
        name: String,
        netns: Option<String>,
    },
    SetTapMtu {
        name: String,
        netns: Option<String>,
        mtu: u32,
    },
    OpenNetdev(NetdevRequest),
    CloseNetdev {
        name: String,
    },
    OpenCapture {
        path: String,
    },
    RemoveCapture {
        path: String,
    },
    /// Numbers of the rotated files of a capture.
    CaptureNumbers {
        path: String,
    },
    /// Everything that is not named is released; paths of vhost-user sockets are among `netdevs`. `more`: another part of the list follows.
    Retain {
        taps: Vec<(String, Option<String>)>,
        netdevs: Vec<String>,
        more: bool,
    },
    Link {
        name: String,
    },
    KernelCounters {
        name: String,
        netns: Option<String>,
    },
    /// A socket for echo requests.
    Ping {
        v6: bool,
    },
    Listen(ListenRequest),
    /// The host's addresses, and its routes that overlap with one of the prefixes. From then on
    /// [`Notice::HostChanged`] is told.
    HostNet {
        prefixes: Vec<Prefix>,
    },
    /// A connection to a virtual machine's vhost-user socket. EAGAIN: ask again.
    ConnectVhost {
        path: String,
    },
    ListenVhost(VhostListenRequest),
    CloseVhost {
        path: String,
    },
    /// Text of the host's resolv.conf; from then on its changes are told.
    Resolv,
    /// Bytes for the next dataplane; empty: forget them.
    Keep {
        key: String,
        value: Vec<u8>,
    },
    /// What an earlier dataplane (or this one) left under the key.
    Kept {
        key: String,
    },
    /// The control socket is served.
    Ready,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    Refused(Refused),
    Done,
    Tap { reattached: bool, index: u32 },
    Netdev { index: u32, macs: Vec<[u8; 6]>, mtu: u32, carrier: bool, speed: u32, full_duplex: bool },
    Capture { path: PathBuf, existed: bool, len: u64 },
    Link(LinkInfo),
    Counters(BTreeMap<String, u64>),
    Numbers(Vec<u32>),
    HostNet { addresses: Vec<HostAddress>, routes: Vec<HostRoute> },
    Resolv(String),
    Kept(Option<Vec<u8>>),
}

/// Second socket, from the broker only.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Notice {
    /// An interface of the broker's namespace that was asked for. `gone`: it is no more (or has another
    /// name now); the descriptor that was granted for it is dead.
    Link {
        name: String,
        index: u32,
        up: bool,
        carrier: bool,
        mac: Option<[u8; 6]>,
        mtu: u32,
        gone: bool,
    },
    NetnsAppeared(String),
    /// Close every descriptor that leads into it, or it stays alive.
    NetnsGone(String),
    /// Addresses or routes of the host have changed.
    HostChanged,
    /// The host's resolv.conf has another text.
    Resolv(String),
    /// Notices were lost for want of room: look at everything again.
    Lost(u64),
    /// End in order: close captures, reply, exit.
    End,
}

#[derive(Serialize, Deserialize)]
pub struct Numbered<T> {
    pub number: u64,
    pub body: T,
}

#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("message of {0} bytes: at most {MESSAGE_MAX}")]
    TooLong(usize),
    #[error("message cannot be read: {0}")]
    Malformed(#[from] postcard::Error),
    #[error("message has {0} bytes behind its end")]
    Trailing(usize),
}

pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = postcard::to_stdvec(message)?;
    if bytes.len() > MESSAGE_MAX { Err(CodecError::TooLong(bytes.len())) } else { Ok(bytes) }
}

pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (message, rest) = postcard::take_from_bytes(bytes)?;
    if rest.is_empty() { Ok(message) } else { Err(CodecError::Trailing(rest.len())) }
}
