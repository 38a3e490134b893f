//! A host with several cables to a rack switch (Open vSwitch), and what `bond show` says of them.
//!
//! ```text
//! guest a ── switchd in `host` ── m0, m1 ═══ p0, p1 ── Open vSwitch in `rack` ── o0 ═══ eth0 in `out`: 10.9.0.2
//! ```

use crate::daemon::Daemon;
use crate::lab::{Lab, Space};
use crate::ovs::Ovs;
use crate::wait::eventually;
use crate::wire::Wire;
use serde_json::Value;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);
/// The other end of every cable.
pub const OUT: &str = "10.9.0.2";
/// The usual bond of the rack switch: LACP at the fast rate.
pub const FAST: &[&str] = &["lacp=active", "bond_mode=balance-tcp", "other_config:lacp-time=fast"];

pub struct Rack {
    pub ovs: Ovs,
    pub host: Space,
    pub rack: Space,
    pub out: Space,
    /// The cables, when they can lose frames.
    pub wires: Vec<Wire>,
}

impl Lab {
    /// With members m0 and m1, and a bond with these settings at the rack switch (none: no bond yet).
    #[track_caller]
    pub fn rack(&self, settings: &[&str]) -> Rack {
        self.make_rack(settings, false)
    }

    /// The same with cables that can lose frames in silence (`There` leads to the rack).
    #[track_caller]
    pub fn lossy_rack(&self, settings: &[&str]) -> Rack {
        self.make_rack(settings, true)
    }

    #[track_caller]
    fn make_rack(&self, settings: &[&str], lossy: bool) -> Rack {
        let (host, rack, out) = (self.space("host"), self.space("rack"), self.space("out"));
        let mut wires = Vec::new();
        for (member, far) in [("m0", "p0"), ("m1", "p1")] {
            match lossy {
                true => {
                    wires.push(self.lossy_wire(&format!("wire-{member}"), (&host, member), (&rack, far)));
                }
                false => self.wire((&host, member), (&rack, far)),
            }
        }
        self.wire((&rack, "o0"), (&out, "eth0"));
        out.address("eth0", &format!("{OUT}/24"));
        plain(&host, "m0");
        plain(&host, "m1");
        plain(&out, "eth0");
        let ovs = Ovs::start(self, &rack, "ovs");
        ovs.port("o0", &[]);
        if !settings.is_empty() {
            ovs.bond(&["p0", "p1"], settings);
        }
        Rack { ovs, host, rack, out, wires }
    }
}

/// Frames that leave an interface are complete, as on a real cable: Open vSwitch takes them as they are, without
/// the checksums and segments that a veth leaves to be made.
#[track_caller]
pub fn plain(space: &Space, interface: &str) {
    space.run(&["ethtool", "-K", interface, "tx", "off", "tso", "off", "gso", "off"]);
}

impl Rack {
    /// The daemon with the bond `b0` (with more flags of `bond create`), the network `office` on it and a
    /// guest that reaches the outside.
    #[track_caller]
    pub fn office(&self, lab: &Lab, flags: &str) -> (Daemon, Space) {
        let switch = Daemon::start(lab, &self.host);
        switch.do_(&format!("bond create b0 --members m0,m1 --mode lacp {flags}"));
        switch.do_("network create office --kind bridged --uplink b0");
        let guest = lab.space("a");
        switch.guest("office", "a", &guest, "10.9.0.1/24");
        switch.works("b0", &["m0", "m1"]);
        self.ovs.negotiated(&["p0", "p1"]);
        guest.reaches(OUT);
        (switch, guest)
    }
}

impl Daemon {
    #[track_caller]
    pub fn bond(&self, name: &str) -> Value {
        self.json(&["bond", "show", name])
    }

    #[track_caller]
    pub fn member(&self, bond: &str, interface: &str) -> Value {
        let bond = self.bond(bond);
        let links = bond["links"].as_array().expect("a list");
        let found = links.iter().find(|link| link["interface"] == interface);
        found.unwrap_or_else(|| panic!("no {interface} in {bond}")).clone()
    }

    /// A frame counter of a member.
    #[track_caller]
    pub fn member_count(&self, bond: &str, interface: &str, key: &str) -> u64 {
        let member = self.member(bond, interface);
        member["counters"][key].as_u64().unwrap_or_else(|| panic!("no {key} in {member}"))
    }

    /// A protocol counter of a member, 0 when it is not there.
    #[track_caller]
    pub fn protocol_count(&self, bond: &str, interface: &str, key: &str) -> u64 {
        self.member(bond, interface)["protocol"][key].as_u64().unwrap_or(0)
    }

    /// Waits until exactly these members collect and distribute.
    #[track_caller]
    pub fn works(&self, bond: &str, members: &[&str]) {
        eventually(SOON, || match self.working(bond) {
            working if working == members => Ok(()),
            working => Err(format!("{working:?} work, not {members:?}: {}", self.bond(bond))),
        });
    }

    /// The members that collect and distribute.
    #[track_caller]
    pub fn working(&self, bond: &str) -> Vec<String> {
        let bond = self.bond(bond);
        let links = bond["links"].as_array().expect("a list").iter();
        let working = links.filter(|link| link["collecting"] == true && link["distributing"] == true);
        working.filter_map(|link| link["interface"].as_str().map(str::to_owned)).collect()
    }

    /// Waits until a member is out for a reason that says this, both as data and in the wide table.
    #[track_caller]
    pub fn out_because(&self, bond: &str, interface: &str, words: &str) {
        eventually(SOON, || {
            let member = self.member(bond, interface);
            let reason = member["reason"].as_str().unwrap_or_default().to_owned();
            let wide = self.ctl(&["bond", "show", bond, "-o", "wide"]).ok().text();
            match member["distributing"] == false && reason.contains(words) && wide.contains(words) {
                true => Ok(()),
                false => Err(format!("{interface} should be out because of {words:?}: {member}\n{wide}")),
            }
        });
    }
}
