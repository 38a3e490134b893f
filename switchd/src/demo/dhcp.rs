//! A DHCP client for as long as it takes to get one lease (RFC 2131 3.1).

use anyhow::{Context, Result, bail};
use nix::sys::socket::{setsockopt, sockopt};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};
use switchd_proto::dhcp::v4::message::{CLIENT_PORT, Kind, Message, SERVER_PORT};
use switchd_proto::dhcp::v4::options::code;
use switchd_wire::MacAddr;

const TRY: Duration = Duration::from_secs(2);
const TRIES: u32 = 3;

pub struct Lease {
    pub address: Ipv4Addr,
    pub router: Ipv4Addr,
    pub dns: Ipv4Addr,
}

/// Asks on an interface that is brought up and has no address yet.
pub fn lease(interface: &str, mac: MacAddr) -> Result<Lease> {
    super::stage::configure(interface, None)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, CLIENT_PORT))?;
    socket.set_broadcast(true)?;
    setsockopt(&socket, sockopt::BindToDevice, &interface.into())?;
    let exchange = Exchange { socket, mac, xid: std::process::id() };
    let offer = exchange.ask(Kind::Discover, &[], Kind::Offer).context("no DHCP server offers an address")?;
    let server = offer.address_option(code::SERVER_ID).context("the offer names no server")?;
    let chosen = [(code::REQUESTED_ADDRESS, offer.yiaddr), (code::SERVER_ID, server)];
    let ack = exchange.ask(Kind::Request, &chosen, Kind::Ack).context("the offer was not confirmed")?;
    Ok(Lease {
        address: ack.yiaddr,
        router: ack.address_option(code::ROUTER).context("the lease has no router")?,
        dns: ack.address_option(code::DNS).context("the lease has no name server")?,
    })
}

struct Exchange {
    socket: UdpSocket,
    mac: MacAddr,
    xid: u32,
}

impl Exchange {
    fn ask(&self, kind: Kind, addresses: &[(u8, Ipv4Addr)], wanted: Kind) -> Result<Message> {
        let mut request = Message::request(self.xid, self.mac);
        // We have no address to which a reply could be sent.
        request.set_broadcast();
        request.options.push((code::MESSAGE_TYPE, vec![kind as u8]));
        request.options.push((code::PARAMETER_LIST, vec![code::SUBNET_MASK, code::ROUTER, code::DNS]));
        for (option, address) in addresses {
            request.options.push((*option, address.octets().to_vec()));
        }
        let (bytes, _) = request.encode(576);
        for _ in 0..TRIES {
            self.socket.send_to(&bytes, SocketAddrV4::new(Ipv4Addr::BROADCAST, SERVER_PORT))?;
            let deadline = Instant::now() + TRY;
            let mut buffer = [0; 1500];
            while let Some(left) =
                deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            {
                self.socket.set_read_timeout(Some(left))?;
                let Ok(length) = self.socket.recv(&mut buffer) else { break };
                let Ok(reply) = Message::parse(&buffer[..length]) else { continue };
                if reply.xid == self.xid && reply.kind() == Some(wanted) {
                    return Ok(reply);
                }
            }
        }
        bail!("no answer in {} s", TRY.as_secs() * u64::from(TRIES))
    }
}
