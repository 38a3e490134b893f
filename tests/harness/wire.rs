//! A cable that can lose frames while the carrier stays: two veth pairs, joined in a namespace between them.
//!
//! The loss is in the middle because a reader of packet sockets still sees what an ingress filter of its own
//! interface discards.

use crate::command::{command, run_with_input};
use crate::lab::{Lab, Space};
use std::time::Duration;

/// Which way, as the wire was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the first end to the second.
    There,
    Back,
    Both,
}

pub struct Wire {
    space: Space,
}

impl Lab {
    /// A wire between two namespaces, both ends up. Needs `nft`.
    #[track_caller]
    pub fn lossy_wire(&self, name: &str, one: (&Space, &str), two: (&Space, &str)) -> Wire {
        let space = self.space(name);
        self.wire(one, (&space, "m0"));
        self.wire(two, (&space, "m1"));
        let wire = Wire { space };
        let chain = |loss: &str, hook: &str, from: &str, to: &str| {
            format!(
                "chain {loss} {{\n}}\nchain {hook} {{\ntype filter hook ingress device {from} priority 0\njump \
                 {loss}\nfwd to {to}\n}}\n"
            )
        };
        let (there, back) = (chain("there", "up", "m0", "m1"), chain("back", "down", "m1", "m0"));
        wire.nft(&format!("table netdev wire {{\n{there}{back}}}\n"));
        wire
    }
}

impl Wire {
    /// From now on: `drop`, or a match and `drop` (`ether type 0x8809 numgen random mod 100 < 60 drop`).
    #[track_caller]
    pub fn lose(&self, way: Way, rule: &str) {
        let rules: String =
            chains(way).iter().map(|chain| format!("add rule netdev wire {chain} {rule}\n")).collect();
        self.nft(&rules);
    }

    #[track_caller]
    pub fn heal(&self) {
        self.nft("flush chain netdev wire there\nflush chain netdev wire back\n");
    }

    #[track_caller]
    fn nft(&self, text: &str) {
        let words = ["ip", "netns", "exec", self.space.name(), "nft", "-f", "-"];
        run_with_input(&mut command(&words), text.as_bytes(), Duration::from_secs(20)).ok();
    }
}

fn chains(way: Way) -> &'static [&'static str] {
    match way {
        Way::There => &["there"],
        Way::Back => &["back"],
        Way::Both => &["there", "back"],
    }
}
