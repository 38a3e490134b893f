//! A namespace's interface behind vhost-user: a kernel's own TCP as the guest.
//!
//! ```text
//! guest's namespace: interface ══ veth ══ packet socket ── thread ── driver ── vhost-user socket ── switch
//! ```
//! Virtio headers are carried over as they are, so superframes and open checksums reach the switch.

use super::{Driver, Shape};
use crate::Card;
use crate::lab::{Lab, Space};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub struct Nic {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _between: Space,
}

impl Nic {
    /// Makes an interface, up, of the switch's port that listens at `socket`.
    #[track_caller]
    pub fn plug(lab: &Lab, guest: &Space, interface: &str, socket: &Path, shape: Shape) -> Nic {
        let between = lab.space(&format!("{}x", guest.name().rsplit('-').next().unwrap_or("nic")));
        lab.wire((guest, interface), (&between, "x"));
        if shape.features & super::driver::CSUM == 0 {
            let off = ["ethtool", "-K", interface, "tx", "off", "tso", "off", "gso", "off"];
            guest.run(&[&off[..], &["tx-udp-segmentation", "off"]].concat());
        }
        let card = Card::open(&between, "x");
        let mut driver = Driver::connect(socket, shape);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let carry = move || {
            while !stopped.load(Ordering::Relaxed) {
                let (out, into) = (card.received(), driver.received());
                out.iter().for_each(|(vnet, frame)| driver.send(vnet, frame));
                into.iter().for_each(|(vnet, frame)| card.send(vnet, frame));
                if out.is_empty() && into.is_empty() {
                    std::thread::sleep(Duration::from_micros(100));
                }
            }
        };
        Nic { stop, thread: Some(std::thread::spawn(carry)), _between: between }
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_none_or(|ended| ended.is_ok()), "the driver panicked");
    }
}
