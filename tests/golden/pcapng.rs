//! Golden captures: an interface is a port, a comment is an offload header.

use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::fmt;
use std::fs::File;
use std::path::Path;
use switchd_wire::{Gso, VnetHeader};

#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    pub port: String,
    pub bytes: Vec<u8>,
    pub vnet: VnetHeader,
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex: String = self.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        write!(f, "{} {:?} {hex}", self.bytes.len(), self.vnet)
    }
}

pub fn read(path: &Path) -> Vec<Packet> {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut reader = PcapNgReader::new(file).expect("a pcapng file");
    let mut names = Vec::new();
    let mut packets = Vec::new();
    while let Some(block) = reader.next_block() {
        match block.expect("a whole file").0 {
            Block::InterfaceDescription(interface) => {
                names.push(interface.options.iter().find_map(|option| match option {
                    InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
                    _ => None,
                }));
            }
            Block::EnhancedPacket(packet) => {
                let comment = packet.options.iter().find_map(|option| match option {
                    EnhancedPacketOption::Common(CommonOption::Comment(text)) => Some(text.to_string()),
                    _ => None,
                });
                packets.push(Packet {
                    port: names[packet.interface_id as usize].clone().expect("a named interface"),
                    bytes: packet.data.to_vec(),
                    vnet: comment.map_or_else(VnetHeader::default, |text| vnet(&text)),
                });
            }
            _ => {}
        }
    }
    packets
}

/// `gso=tcp4 size=1000 csum=34+16 ecn`
fn vnet(comment: &str) -> VnetHeader {
    let mut vnet = VnetHeader::default();
    for word in comment.split_whitespace() {
        match word.split_once('=').unwrap_or((word, "")) {
            ("gso", kind) => {
                vnet.gso = match kind {
                    "tcp4" => Gso::TcpV4,
                    "tcp6" => Gso::TcpV6,
                    "udp" => Gso::UdpL4,
                    _ => panic!("unknown: {word}"),
                }
            }
            ("size", size) => vnet.gso_size = size.parse().expect("a number"),
            ("csum", place) => {
                let (start, offset) = place.split_once('+').expect("START+OFFSET");
                vnet.needs_csum = true;
                vnet.csum_start = start.parse().expect("a number");
                vnet.csum_offset = offset.parse().expect("a number");
            }
            ("ecn", _) => vnet.ecn = true,
            _ => panic!("unknown: {word}"),
        }
    }
    vnet
}
