//! A private Open vSwitch in userspace as a peer: bonds, LACP, RSTP.
//!
//! Both of its processes run in the foreground as children of the test and end with their guard, by their
//! id. One bridge, `br0`, with the `netdev` datapath.

use crate::command::{Background, command, run};
use crate::lab::{Lab, Space};
use crate::wait::eventually;
use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

pub struct Ovs {
    folder: PathBuf,
    // In the order in which they end.
    switch: Option<Background>,
    database: Background,
}

/// A member of a bond, as `lacp/show` tells it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct OvsMember {
    /// `current attached`, `expired detached`, …
    pub status: String,
    /// `activity timeout aggregation synchronized collecting distributing …`
    pub actor: String,
    pub partner: String,
    pub fields: BTreeMap<String, String>,
}

impl OvsMember {
    /// It works as its own end sees it.
    pub fn works(&self) -> bool {
        self.status == "current attached"
            && ["synchronized", "collecting", "distributing"]
                .iter()
                .all(|bit| self.actor.contains(bit) && self.partner.contains(bit))
    }
}

impl Ovs {
    #[track_caller]
    pub fn start(lab: &Lab, space: &Space, name: &str) -> Ovs {
        let folder = lab.folder().join(name);
        std::fs::create_dir_all(&folder).expect("a folder for Open vSwitch");
        let database = folder.join("conf.db");
        let mut tool = command(&["ovsdb-tool", "create"]);
        run(tool.arg(&database).arg(SCHEMA), SOON).ok();
        let socket = folder.join("db.sock");
        let mut server = command(&["ovsdb-server", "--no-chdir", "--pidfile", "-vconsole:warn"]);
        server.arg(&database).arg(format!("--remote=punix:{}", socket.display()));
        let server = Background::start(server.envs(environment(&folder)));
        // The socket is there a moment before it is listened on.
        let connects = || UnixStream::connect(&socket).map(drop).map_err(|error| error.to_string());
        eventually(SOON, connects);
        let mut ovs = Ovs { folder, switch: None, database: server };
        ovs.vsctl(&["--no-wait", "init"]);
        let remote = format!("unix:{}", socket.display());
        let mut switch = space.command(&["ovs-vswitchd", &remote, "--pidfile", "-vconsole:warn"]);
        ovs.switch = Some(Background::start(switch.envs(environment(&ovs.folder))));
        ovs.vsctl(&["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"]);
        ovs
    }

    /// `ovs-vsctl WORDS`
    #[track_caller]
    pub fn vsctl(&self, words: &[&str]) -> String {
        let remote = format!("--db=unix:{}", self.folder.join("db.sock").display());
        let mut tool = command(&["ovs-vsctl", &remote, "--timeout=15"]);
        run(tool.args(words).envs(environment(&self.folder)), SOON).ok().text()
    }

    /// `ovs-appctl WORDS`
    #[track_caller]
    pub fn appctl(&self, words: &[&str]) -> String {
        let mut tool = command(&["ovs-appctl", "--timeout=15"]);
        run(tool.args(words).envs(environment(&self.folder)), SOON).ok().text()
    }

    /// Adds an OpenFlow rule to the bridge.
    #[track_caller]
    pub fn flow(&self, rule: &str) {
        let mut tool = command(&["ovs-ofctl", "--timeout=15", "add-flow", "br0", rule]);
        run(tool.envs(environment(&self.folder)), SOON).ok();
    }

    /// Takes an interface of its namespace in as a port of the bridge.
    #[track_caller]
    pub fn port(&self, interface: &str, settings: &[&str]) {
        let mut words = vec!["add-port", "br0", interface];
        words.extend(settings);
        self.vsctl(&words);
    }

    /// Makes the bond `bond0` of two or more interfaces.
    #[track_caller]
    pub fn bond(&self, members: &[&str], settings: &[&str]) {
        let mut words = vec!["add-bond", "br0", "bond0"];
        words.extend(members);
        words.extend(settings);
        self.vsctl(&words);
    }

    /// The members of all bonds and aggregates with LACP.
    #[track_caller]
    pub fn members(&self) -> BTreeMap<String, OvsMember> {
        let mut members = BTreeMap::new();
        let mut current: Option<&mut OvsMember> = None;
        let text = self.appctl(&["lacp/show"]);
        for line in text.lines() {
            let (key, value) = line.trim().split_once(':').unwrap_or((line.trim(), ""));
            let value = value.trim();
            if line.starts_with("---- ") {
                current = None;
            } else if line.starts_with("member:") {
                let (name, status) = value.split_once(':').unwrap_or((value, ""));
                let member: &mut OvsMember = members.entry(name.to_owned()).or_default();
                member.status = status.trim().to_owned();
                current = Some(member);
            } else if let Some(member) = &mut current {
                match key {
                    "actor state" => member.actor = value.to_owned(),
                    "partner state" => member.partner = value.to_owned(),
                    _ => _ = member.fields.insert(key.to_owned(), value.to_owned()),
                }
            }
        }
        members
    }

    /// Waits until these members work as seen from here; a bond with LACP tells so by both ends' states.
    #[track_caller]
    pub fn negotiated(&self, members: &[&str]) {
        eventually(SOON, || {
            let all = self.members();
            match members.iter().all(|name| all.get(*name).is_some_and(OvsMember::works)) {
                true => Ok(()),
                false => Err(format!("{all:?}")),
            }
        });
    }

    /// A counter of a member, as `lacp/show-stats` tells it.
    #[track_caller]
    pub fn lacp_count(&self, member: &str, counter: &str) -> u64 {
        let text = self.appctl(&["lacp/show-stats", "bond0"]);
        let begin =
            text.find(&format!("member: {member}")).unwrap_or_else(|| panic!("no {member} in {text}"));
        let line = text[begin..].lines().find(|line| line.trim().starts_with(counter));
        let value =
            line.and_then(|line| line.split_once(':')).and_then(|(_, value)| value.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {counter} in {text}"))
    }
}

impl Drop for Ovs {
    fn drop(&mut self) {
        // The switch first: it would complain about a lost database.
        self.switch = None;
        self.database.signal(nix::sys::signal::Signal::SIGTERM);
    }
}

fn environment(folder: &std::path::Path) -> impl Iterator<Item = (&'static str, PathBuf)> {
    ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"]
        .map(|key| (key, folder.to_owned()))
        .into_iter()
}
