//! Exact frames, sent and received through packet sockets inside a namespace.

use crate::command::{Background, run_with_input};
use crate::lab::Space;
use crate::wait::eventually;
use std::time::Duration;

const HELPER: &str = include_str!("frames.py");

pub type Mac = [u8; 6];

/// A locally administered address with a number.
pub fn mac(number: u32) -> Mac {
    let [a, b, c, d] = number.to_be_bytes();
    [2, 0, a, b, c, d]
}

pub fn mac_text(mac: &Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

pub const BROADCAST: Mac = [0xff; 6];
/// EtherType for local experiments (802, 9.2.3): no host answers it.
pub const EXPERIMENTAL: u16 = 0x88b5;

/// A frame of at least 60 bytes: addresses, tags (TCI), type, payload.
pub fn ethernet(to: &Mac, from: &Mac, tags: &[u16], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&to[..], &from[..]].concat();
    for tci in tags {
        frame.extend([0x81, 0x00]);
        frame.extend(tci.to_be_bytes());
    }
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame.resize(frame.len().max(60), 0);
    frame
}

/// A frame of type [`EXPERIMENTAL`] with a marker that a test looks for.
pub fn marked(to: &Mac, from: &Mac, tags: &[u16], marker: &str) -> Vec<u8> {
    ethernet(to, from, tags, EXPERIMENTAL, marker.as_bytes())
}

impl Space {
    /// Sends frames out of an interface, byte for byte.
    #[track_caller]
    pub fn send(&self, interface: &str, frames: &[Vec<u8>]) {
        self.send_paced(interface, frames, Duration::ZERO);
    }

    #[track_caller]
    pub fn send_paced(&self, interface: &str, frames: &[Vec<u8>], gap: Duration) {
        let mut text = String::new();
        for frame in frames {
            frame.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
            text.push('\n');
        }
        let gap = gap.as_secs_f64().to_string();
        let mut command = self.command(&["python3", "-c", HELPER, "send", interface, &gap]);
        run_with_input(&mut command, text.as_bytes(), Duration::from_secs(60)).ok();
    }
}

/// Collects what arrives at an interface.
pub struct Sniffer(Background);

impl Sniffer {
    #[track_caller]
    pub fn start(space: &Space, interface: &str) -> Sniffer {
        let listener = space.background(&["python3", "-c", HELPER, "listen", interface]);
        eventually(Duration::from_secs(10), || match listener.stdout().starts_with("ready") {
            true => Ok(()),
            false => Err(format!("the listener is not ready: {}", listener.stderr())),
        });
        Sniffer(listener)
    }

    /// All frames until now.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        let text = self.0.stdout();
        let complete = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        complete.lines().skip(1).map(unhex).collect()
    }

    /// Frames that hold the marker.
    pub fn with(&self, marker: &str) -> Vec<Vec<u8>> {
        let marker = marker.as_bytes();
        let holds = |frame: &Vec<u8>| frame.windows(marker.len()).any(|window| window == marker);
        self.frames().into_iter().filter(holds).collect()
    }

    /// Waits for that many frames with the marker, and returns them.
    #[track_caller]
    pub fn expect(&self, marker: &str, count: usize) -> Vec<Vec<u8>> {
        eventually(Duration::from_secs(5), || {
            let found = self.with(marker);
            if found.len() >= count {
                Ok(found)
            } else {
                Err(format!("{} of {count} frames with {marker:?} arrived", found.len()))
            }
        })
    }
}

fn unhex(line: &str) -> Vec<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or(0) as u8;
    line.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}
