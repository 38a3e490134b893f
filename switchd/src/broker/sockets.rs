//! Sockets of the host that only the broker may make: ping sockets, and those that listen on ports.
//!
//! What the dataplane connects itself (outgoing TCP and UDP) it makes itself: that takes no privilege. It
//! has no bind(2), so a socket with an address or port of its own comes from here. No copy is kept: the
//! connections end with the dataplane, and the next one asks again.

use super::devices::Granted;
use super::messages::{ListenRequest, Protocol, Refused, Reply};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use switchd_port::host_egress;

/// Connections that may wait for the dataplane to accept them.
const BACKLOG: i32 = 1024;
/// Processes looked at for the one that holds a port.
const PROCESSES_MAX: usize = 20_000;
/// Where systems that let nobody ping say so.
const PING_RANGE: &str = "/proc/sys/net/ipv4/ping_group_range";

/// A socket for echo requests. Why it is safe: a ping socket sends echo requests only, and gets the answers
/// to those. Where the system gives nobody one, a raw ICMP socket takes its place: what it receives is held
/// to echo replies by a filter that its owner cannot change; it could send other ICMP messages, in the
/// host's name, which none but a dataplane that was broken into would do.
pub fn ping(v6: bool) -> Granted {
    match host_egress::open_icmp(v6) {
        Ok(socket) => Ok((Reply::Done, Some(socket))),
        Err(error) if error.raw_os_error() == Some(Errno::ACCESS.raw_os_error()) => {
            let range = fs::read_to_string(PING_RANGE).unwrap_or_default();
            let range: Vec<&str> = range.split_whitespace().collect();
            Err(Refused {
                errno: error.raw_os_error(),
                message: format!(
                    "a ping socket: net.ipv4.ping_group_range is \"{}\", which leaves our group out; \
                     `sysctl net.ipv4.ping_group_range=\"0 2147483647\"` lets everybody ping",
                    range.join(" ")
                ),
            })
        }
        Err(error) => Err(Refused::io("a ping socket", &error)),
    }
}

/// A socket that listens (TCP) or is bound (UDP). Why it is safe: it gets what others send to this one
/// port of this one address, and only where nobody else has it: no port is shared or stolen.
pub fn listener(request: &ListenRequest) -> Granted {
    let what = shown(request);
    if request.port == 0 {
        return Err(Refused::rule(format!("{what}: there is no port 0")));
    }
    let multicast = request.address.is_multicast();
    if multicast || request.address == IpAddr::from([255; 4]) {
        return Err(Refused::rule(format!("{what}: this is not the address of a host")));
    }
    open(request).map(|socket| (Reply::Done, Some(socket))).map_err(|errno| {
        let message = match errno {
            Errno::ADDRINUSE => match holder(request) {
                Some(holder) => format!("{what}: the port is taken by {holder} ({})", text(errno)),
                None => format!("{what}: the port is taken ({})", text(errno)),
            },
            Errno::ADDRNOTAVAIL => format!("{what}: the host has no such address ({})", text(errno)),
            Errno::ACCESS | Errno::PERM => format!("{what}: only root may listen there ({})", text(errno)),
            _ => format!("{what}: {}", text(errno)),
        };
        Refused { errno: Some(errno.raw_os_error()), message }
    })
}

fn text(errno: Errno) -> String {
    std::io::Error::from(errno).to_string()
}

fn open(request: &ListenRequest) -> rustix::io::Result<OwnedFd> {
    let family = if request.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match request.protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if request.address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if request.protocol == Protocol::Tcp {
        // Connections of before that linger in TIME_WAIT are no reason to refuse; a listener is.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &SocketAddr::new(request.address, request.port))?;
    if request.protocol == Protocol::Tcp {
        listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

fn shown(request: &ListenRequest) -> String {
    let protocol = match request.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    match request.address.is_unspecified() {
        true => format!("{protocol}/{}", request.port),
        false => format!("{}:{protocol}/{}", request.address, request.port),
    }
}

/// Who holds the port: `nginx (pid 12)`, as far as it can be found out.
fn holder(request: &ListenRequest) -> Option<String> {
    let tables = match request.protocol {
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    // Of TCP only those that listen hold a port against us.
    let state = (request.protocol == Protocol::Tcp).then_some("0A");
    let inode =
        tables.iter().find_map(|table| inode(&fs::read_to_string(table).ok()?, request.port, state))?;
    process_with(&format!("socket:[{inode}]"))
}

/// Of the first socket in a table of /proc/net that has the local port: fields `sl local remote st … inode`.
fn inode(table: &str, port: u16, state: Option<&str>) -> Option<u64> {
    let port = format!("{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, local) = fields.get(1)?.rsplit_once(':')?;
        let wanted = local == port && state.is_none_or(|state| fields.get(3) == Some(&state));
        wanted.then(|| fields.get(9)?.parse().ok())?
    })
}

fn process_with(link: &str) -> Option<String> {
    let processes = fs::read_dir("/proc").ok()?.flatten().take(PROCESSES_MAX);
    for process in processes {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else {
            continue;
        };
        let Ok(mut descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = descriptors.any(|entry| {
            entry
                .ok()
                .and_then(|entry| fs::read_link(entry.path()).ok())
                .is_some_and(|to| to == Path::new(link))
        });
        if holds {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let command: String = command.trim().chars().filter(char::is_ascii_graphic).take(32).collect();
            return Some(format!("{command} (pid {pid})"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn request(protocol: Protocol, port: u16) -> ListenRequest {
        ListenRequest { protocol, address: IpAddr::from([127, 0, 0, 1]), port }
    }

    #[test]
    fn a_port_that_is_taken_is_refused_with_its_holder() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let refused = listener(&request(Protocol::Tcp, port)).unwrap_err();
        assert_eq!(refused.errno, Some(Errno::ADDRINUSE.raw_os_error()));
        let own = format!("(pid {})", std::process::id());
        assert!(refused.message.contains(&own) && refused.message.contains("in use"), "{}", refused.message);
        // The other protocol's ports are others.
        listener(&request(Protocol::Udp, port)).unwrap();
        drop(held);
        listener(&request(Protocol::Tcp, port)).unwrap();
        let held = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        assert!(listener(&request(Protocol::Udp, port)).unwrap_err().message.contains(&own));
    }

    #[test]
    fn a_listener_takes_connections_and_is_not_shared() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (_, socket) = listener(&request(Protocol::Tcp, free.port())).unwrap();
        let socket = TcpListener::from(socket.unwrap());
        let _client = std::net::TcpStream::connect(free).unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.accept().unwrap();
        assert!(listener(&request(Protocol::Tcp, free.port())).is_err());
    }

    #[test]
    fn addresses_that_are_no_hosts_and_port_0_are_refused() {
        for address in ["224.0.0.1", "255.255.255.255", "ff02::1"] {
            let request =
                ListenRequest { protocol: Protocol::Udp, address: address.parse().unwrap(), port: 5000 };
            assert_eq!(listener(&request).unwrap_err().errno, None, "{address}");
        }
        assert_eq!(listener(&request(Protocol::Tcp, 0)).unwrap_err().errno, None);
        let foreign =
            ListenRequest { protocol: Protocol::Tcp, address: IpAddr::from([192, 0, 2, 77]), port: 5000 };
        assert_eq!(listener(&foreign).unwrap_err().errno, Some(Errno::ADDRNOTAVAIL.raw_os_error()));
    }

    #[test]
    fn a_table_of_sockets_is_read_by_port_and_state() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 0100007F:A0A0 01 00000000:00000000 00:00000000 00000000     0        0 77 1\n\
            1: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 78 1\n";
        assert_eq!(inode(table, 8080, Some("0A")), Some(78));
        assert_eq!(inode(table, 8080, None), Some(77));
        assert_eq!(inode(table, 8081, None), None);
        assert_eq!(inode("", 1, None), None);
    }
}
