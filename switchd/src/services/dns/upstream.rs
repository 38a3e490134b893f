//! One query, asked of the host's name servers.
//!
//! Each query has a socket of its own, so a random port (the kernel's choice) besides a random id (RFC 5452
//! 9.2), connected to the server, so that nobody else's datagrams arrive. What does not belong to the query
//! is counted and not believed; the wait goes on. A server that is silent for [`TRY`] or refuses gives way to
//! the next one, for [`ROUNDS`] rounds.

use super::answer::belongs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Of one server, before the next one is asked.
const TRY: Duration = Duration::from_millis(1500);
const TRY_TCP: Duration = Duration::from_secs(3);
const ROUNDS: usize = 2;
/// As many as the C library asks.
pub const SERVERS: usize = 3;

/// Counted by all queries of a network together.
#[derive(Default)]
pub struct Watch {
    /// Datagrams that did not belong to the query.
    pub spoofed: AtomicU64,
    /// Servers that did not answer in time or refused.
    pub silent: AtomicU64,
}

pub fn random_id() -> u16 {
    // Keyed from the system's randomness, and another key with every call.
    RandomState::new().build_hasher().finish() as u16
}

/// The reply under the id that `query` bears. `None`: nobody answered.
pub async fn ask(servers: &[SocketAddr], query: &[u8], tcp: bool, watch: &Watch) -> Option<Vec<u8>> {
    let mut query = query.to_vec();
    let id = [*query.first()?, *query.get(1)?];
    for _ in 0..ROUNDS {
        for &server in servers.iter().take(SERVERS) {
            query[..2].copy_from_slice(&random_id().to_be_bytes());
            let answer = if tcp {
                timeout(TRY_TCP, over_tcp(server, &query)).await
            } else {
                timeout(TRY, over_udp(server, &query, watch)).await
            };
            match answer {
                Ok(Ok(mut reply)) if belongs(&reply, &query) => {
                    reply[..2].copy_from_slice(&id);
                    return Some(reply);
                }
                Ok(Ok(_)) => watch.spoofed.fetch_add(1, Ordering::Relaxed),
                Ok(Err(_)) | Err(_) => watch.silent.fetch_add(1, Ordering::Relaxed),
            };
        }
    }
    None
}

/// Not bound by us, which the sandbox forbids: the kernel chooses a random port when it connects.
fn connected(server: SocketAddr) -> io::Result<std::net::UdpSocket> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    connect(&socket, &server)?;
    Ok(socket.into())
}

async fn over_udp(server: SocketAddr, query: &[u8], watch: &Watch) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::from_std(connected(server)?)?;
    socket.send(query).await?;
    let mut reply = vec![0; 65_535];
    loop {
        let length = socket.recv(&mut reply).await?;
        if belongs(&reply[..length], query) {
            reply.truncate(length);
            return Ok(reply);
        }
        watch.spoofed.fetch_add(1, Ordering::Relaxed);
    }
}

/// RFC 7766: length, then the message.
async fn over_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x01b\x00\x00\x01\x00\x01";

    fn reply_to(query: &[u8]) -> Vec<u8> {
        let mut reply = query.to_vec();
        reply[2] |= 0x80;
        reply
    }

    #[tokio::test]
    async fn a_forged_reply_is_not_believed_and_the_true_one_still_comes() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let watch = Watch::default();
        let serve = async {
            let mut bytes = [0; 512];
            let (length, from) = server.recv_from(&mut bytes).await.unwrap();
            let mut forged = reply_to(&bytes[..length]);
            forged[1] ^= 1;
            server.send_to(&forged, from).await.unwrap();
            server.send_to(&reply_to(&bytes[..length]), from).await.unwrap();
            assert_ne!(&bytes[..2], &QUERY[..2], "the id upstream is ours (fails once in 65,536 runs)");
        };
        let servers = [address];
        let (reply, ()) = tokio::join!(ask(&servers, QUERY, false, &watch), serve);
        assert_eq!(reply, Some(reply_to(QUERY)));
        assert_eq!(watch.spoofed.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_server_that_refuses_gives_way_to_the_next() {
        let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let watch = Watch::default();
        let serve = async {
            let mut bytes = [0; 512];
            let (length, from) = server.recv_from(&mut bytes).await.unwrap();
            server.send_to(&reply_to(&bytes[..length]), from).await.unwrap();
        };
        let servers = [closed, address];
        let (reply, ()) = tokio::join!(ask(&servers, QUERY, false, &watch), serve);
        assert_eq!(reply, Some(reply_to(QUERY)));
        assert_eq!(watch.silent.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn over_tcp_a_long_reply_comes_whole() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let watch = Watch::default();
        let serve = async {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut bytes = vec![0; 2 + QUERY.len()];
            stream.read_exact(&mut bytes).await.unwrap();
            let mut reply = reply_to(&bytes[2..]);
            reply.resize(9000, 0);
            stream.write_all(&9000u16.to_be_bytes()).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        };
        let servers = [address];
        let (reply, ()) = tokio::join!(ask(&servers, QUERY, true, &watch), serve);
        assert_eq!(reply.map(|reply| reply.len()), Some(9000));
    }

    #[tokio::test]
    async fn nobody_to_ask_is_no_answer() {
        assert_eq!(ask(&[], QUERY, false, &Watch::default()).await, None);
        let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(ask(&[closed], QUERY, false, &Watch::default()).await, None);
    }
}
