//! The start: the saved configuration is brought up as far as it can be.

use super::Engine;
use super::apply::Source;
use super::change::Save;
use super::execute::Mode;
use super::means::Means;
use super::resolve::{self, Around};
use super::target::Backend;
use crate::config;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use switchd_api::model::Desired;
use switchd_api::reply::ErrorBody;
use tokio::sync::Notify;

/// Facts of this process and its broker that do not change.
#[derive(Clone, Debug)]
pub struct Process {
    pub broker_pid: u32,
    /// How often the dataplane was started before.
    pub restarts: u32,
    /// When the broker started: nanoseconds of the real-time clock.
    pub started: u64,
    /// When this process began to work.
    pub began: Instant,
    pub rootless: bool,
    pub state_dir: PathBuf,
    pub capture_dir: PathBuf,
    /// Parts of the sandbox that hold.
    pub sandbox: Vec<String>,
}

impl Process {
    /// Seconds since the broker started.
    pub(super) fn uptime(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
        now.saturating_sub(self.started) / 1_000_000_000
    }
}

/// The `--config` file.
pub struct Seed {
    pub name: String,
    pub text: String,
}

pub struct Start {
    pub means: Means,
    pub process: Process,
    /// What was saved; `None`: nothing yet.
    pub saved: Option<Desired>,
    /// What the store has to say about the load: damaged files, older ones used instead.
    pub warnings: Vec<String>,
    pub seed: Option<Seed>,
}

impl Engine {
    /// Brings up what is saved. Objects that cannot come up are listed and tried again, those that are not
    /// valid any more wait for the user; only a configuration that cannot be read is an error.
    pub fn start(start: Start) -> Result<Engine, ErrorBody> {
        let Start { means, process, saved, warnings, seed } = start;
        let mut engine = Engine {
            means,
            process,
            saved: Desired::default(),
            running: Desired::default(),
            target: Default::default(),
            places: Default::default(),
            standing: Default::default(),
            grants: BTreeMap::new(),
            troubles: Default::default(),
            events: Default::default(),
            window: None,
            unneeded: None,
            config_differs: false,
            leases: BTreeMap::new(),
            resolvers: None,
            deaf: BTreeMap::new(),
            numbers: BTreeMap::new(),
            numbers_changed: false,
            reserved: 0,
            stale: false,
            captures: Default::default(),
            load: Default::default(),
            health: Default::default(),
            wake: Arc::new(Notify::new()),
        };
        engine.take_up();
        for warning in warnings {
            engine.events.tell("state.damaged", "switchd", warning);
        }
        let (desired, save) = match (saved, seed) {
            (Some(saved), seed) => {
                engine.compare(&saved, seed);
                (saved, Save::Not)
            }
            (None, Some(seed)) => {
                let desired = engine.read(Source::Toml { text: seed.text, name: seed.name })?;
                (desired, Save::Yes)
            }
            (None, None) => (Desired::default(), Save::Not),
        };
        engine.keep_what_is_held(&desired)?;
        engine.transact(desired.clone(), save, Mode::Lenient)?;
        engine.saved = desired;
        engine.look_at_conflicts();
        let running = &engine.running;
        let counts = [
            (running.network.len(), "network"),
            (running.bond.len(), "bond"),
            (running.port.len(), "port"),
            (running.mirror.len(), "mirror"),
        ];
        let message = counts.map(|(number, thing)| config::counted(number, thing)).join(", ");
        engine.events.tell("daemon.started", "switchd", message);
        Ok(engine)
    }

    /// The saved state rules; a `--config` file that says something else is reported.
    fn compare(&mut self, saved: &Desired, seed: Option<Seed>) {
        let Some(seed) = seed else { return };
        let name = seed.name.clone();
        let message = match self.read(Source::Toml { text: seed.text, name: seed.name }) {
            Ok(desired) if desired == *saved => return,
            Ok(desired) => {
                let changes = config::changes(&config::plan(saved, &desired)).len();
                format!("{changes} differences; the saved state is used. switchctl diff {name}")
            }
            Err(error) => format!("{}; the saved state is used", error.message),
        };
        self.config_differs = true;
        self.events.tell("config.differs", name, message);
    }

    /// An earlier dataplane's grants that are not wanted any more are released first, so that nothing
    /// stands in the way of what is.
    fn keep_what_is_held(&mut self, desired: &Desired) -> Result<(), ErrorBody> {
        let target = resolve::resolve(&self.what_is_valid(desired)?, &Around::default());
        let mut taps = Vec::new();
        // A bond's name among them is no interface's.
        let mut netdevs: Vec<String> = target.uplinks().into_keys().collect();
        for team in target.bonds.values() {
            netdevs.extend(team.members.iter().chain(&team.peer).cloned());
        }
        for guest in target.ports.values() {
            match &guest.backend {
                Backend::Tap { name, netns, .. } => taps.push((name.clone(), netns.clone())),
                // A socket's path among them.
                other => netdevs.push(other.interface().to_owned()),
            }
        }
        if let Err(refused) = self.means.broker.retain(&taps, &netdevs) {
            self.events.tell("broker.refused", "switchd", refused.message);
        }
        Ok(())
    }
}
