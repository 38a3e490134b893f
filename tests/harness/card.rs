//! Frames with virtio headers, sent and received at an interface in a namespace: superframes whole.

use crate::lab::Space;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use switchd_port::sys::packet;
use switchd_wire::VnetHeader;

/// linux/if_packet.h
const AUXDATA: i32 = 8;
const VNET_HDR: i32 = 15;
const IGNORE_OUTGOING: i32 = 23;
const HEADER: usize = 10;

pub struct Card {
    socket: OwnedFd,
}

impl Card {
    #[track_caller]
    pub fn open(space: &Space, interface: &str) -> Card {
        let index = space.link(interface)["ifindex"].as_u64().expect("an index") as u32;
        let place = File::open(format!("/run/netns/{}", space.name())).expect("the namespace");
        let open = move || {
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(place.as_fd(), Some(kind))?;
            let socket = packet::open()?;
            for option in [AUXDATA, VNET_HDR, IGNORE_OUTGOING] {
                packet::set_option(&socket, option, true)?;
            }
            packet::set_buffers(&socket, 16 << 20)?;
            packet::bind(&socket, index)?;
            Ok::<_, std::io::Error>(socket)
        };
        // A namespace is entered by a thread, which ends with it.
        let socket = std::thread::spawn(open).join().expect("it does not panic").expect("a packet socket");
        Card { socket }
    }

    #[track_caller]
    pub fn send(&self, vnet: &VnetHeader, frame: &[u8]) {
        let header = vnet.emit();
        let sent = packet::send(self.socket.as_fd(), [(&header[..], frame)].into_iter());
        assert_eq!(sent.expect("the kernel takes it"), 1);
    }

    /// What has arrived since the last time. A tag that the kernel took out is put back.
    pub fn received(&self) -> Vec<(VnetHeader, Vec<u8>)> {
        let mut frames = Vec::new();
        loop {
            let (mut header, mut bytes) = ([0; HEADER], vec![0; 70_000]);
            let mut arrivals = [packet::Arrival::default(); packet::BATCH];
            let buffers = [(&mut header[..], &mut bytes[..])].into_iter();
            match packet::receive(self.socket.as_fd(), buffers, &mut arrivals) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return frames,
                Err(error) => panic!("a packet socket: {error}"),
            }
            bytes.truncate(arrivals[0].len - HEADER);
            let mut vnet = VnetHeader::parse(&header).expect("a header that we know");
            if let Some((_, tci)) = arrivals[0].tag {
                bytes = crate::offload::retag(&bytes, Some(tci));
                vnet.shift(4);
            }
            frames.push((vnet, bytes));
        }
    }
}
