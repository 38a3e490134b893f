//! A port's variables (6.4.7, 6.4.8), by the names of the standard.

use super::churn::Churn;
use super::reason::Out;
use super::{Config, PortConfig, mux, periodic, receive, selection::Selected};
use switchd_wire::MacAddr;
use switchd_wire::slow::{BadSlow, Info, State};

/// What is known of the link below a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    pub up: bool,
    /// Mbit/s; 0: not known.
    pub speed: u32,
    pub full_duplex: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    pub lacpdu_rx: u64,
    pub lacpdu_tx: u64,
    pub marker_rx: u64,
    pub marker_response_rx: u64,
    pub marker_response_tx: u64,
    /// Slow protocols of other subtypes.
    pub other_rx: u64,
    /// In the order of [`BadSlow::ALL`].
    pub bad: [u64; BadSlow::ALL.len()],
    /// Frames of ours that found the queue full.
    pub tx_full: u64,
}

impl Counters {
    pub fn bad_total(&self) -> u64 {
        self.bad.iter().sum()
    }

    /// By name.
    pub fn rows(&self) -> Vec<(&'static str, u64)> {
        let mut rows = vec![
            ("lacpdu-rx", self.lacpdu_rx),
            ("lacpdu-tx", self.lacpdu_tx),
            ("lacpdu-bad", self.bad_total()),
            ("marker-rx", self.marker_rx),
            ("marker-response-rx", self.marker_response_rx),
            ("marker-response-tx", self.marker_response_tx),
            ("slow-other-rx", self.other_rx),
            ("slow-tx-full", self.tx_full),
        ];
        const NAMES: [&str; BadSlow::ALL.len()] = [
            "slow-bad-too-short",
            "slow-bad-not-slow",
            "slow-bad-length",
            "slow-bad-system",
            "slow-bad-marker",
        ];
        rows.extend(NAMES.into_iter().zip(self.bad));
        rows
    }
}

/// For display.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortStatus {
    pub collecting: bool,
    pub distributing: bool,
    /// Machine and state, by the standard's names.
    pub machines: Vec<(&'static str, &'static str)>,
    pub actor: Info,
    pub partner: Info,
    pub counters: Counters,
    pub reason: Option<String>,
}

pub(super) struct Port {
    pub config: PortConfig,
    pub link: Link,
    /// Actor_Oper_*.
    pub actor: Info,
    /// Partner_Oper_*.
    pub partner: Info,
    pub selected: Selected,
    pub ntt: bool,
    pub receive: receive::State,
    pub current_while: Option<u64>,
    pub periodic: periodic::State,
    pub periodic_timer: Option<u64>,
    pub mux: mux::State,
    /// Runs in WAITING.
    pub wait_while: Option<u64>,
    pub churn_actor: Churn,
    pub churn_partner: Churn,
    /// When the last LACPDUs were sent, newest last.
    pub sent: [Option<u64>; 3],
    /// What the last LACPDU said of actor and partner.
    pub said: Option<(Info, Info)>,
    pub last_rx: Option<u64>,
    /// Of the last LACPDU: its sender is synchronized; it knows us as we are; it does not hear us.
    pub heard_sync: bool,
    pub heard_match: bool,
    pub heard_expired: bool,
    /// What it said of us.
    pub heard_us: Option<Info>,
    /// The partner that did not take this link in while it took others in, until it does.
    pub refused_by: Option<Info>,
    /// What the partner is to hear again until he knows it, and when that is given up.
    pub insist: Option<(Info, u64)>,
    /// Why selection left it out.
    pub out: Option<Out>,
    pub counters: Counters,
    /// (machine, from, to) since the last look.
    pub trace: Vec<(&'static str, &'static str, &'static str)>,
    /// What was told last as an event.
    pub told: (bool, bool),
}

/// Key of a link by its speed; half duplex never shares a key with full duplex.
pub(super) fn key_of(link: &Link) -> u16 {
    const SPEEDS: [u32; 15] = [
        10, 100, 1000, 2500, 5000, 10_000, 20_000, 25_000, 40_000, 50_000, 56_000, 100_000, 200_000, 400_000,
        800_000,
    ];
    let class = SPEEDS.iter().filter(|&&speed| speed <= link.speed).count() as u16;
    class * 2 + if link.full_duplex { 1 } else { 2 }
}

/// Partner_Admin_*: who is assumed on the other side while nobody speaks.
pub(super) fn default_partner(config: &Config) -> Info {
    let mut state = State(State::TIMEOUT);
    if config.fallback {
        state.0 |= State::SYNCHRONIZATION | State::COLLECTING | State::DISTRIBUTING;
    }
    Info { state, ..Info::default() }
}

impl Port {
    pub fn new(config: PortConfig, link: Link, system: &Config) -> Port {
        let mut port = Port {
            actor: Info::default(),
            partner: default_partner(system),
            config,
            link,
            selected: Selected::Unselected,
            ntt: false,
            receive: receive::State::Initialize,
            current_while: None,
            periodic: periodic::State::NoPeriodic,
            periodic_timer: None,
            mux: mux::State::Detached,
            wait_while: None,
            churn_actor: Churn::default(),
            churn_partner: Churn::default(),
            sent: [None; 3],
            said: None,
            last_rx: None,
            heard_sync: false,
            heard_match: false,
            heard_expired: false,
            heard_us: None,
            refused_by: None,
            insist: None,
            out: None,
            counters: Counters::default(),
            trace: Vec::new(),
            told: (false, false),
        };
        port.refresh_actor(system);
        port
    }

    /// Brings the actor's parameters in line with configuration and link. True when one changed that the
    /// port's place in an aggregate depends on.
    pub fn refresh_actor(&mut self, system: &Config) -> bool {
        let before = self.actor;
        self.actor.system = system.system;
        self.actor.system_priority = system.system_priority;
        self.actor.key = system.key.unwrap_or_else(|| key_of(&self.link));
        self.actor.port = self.config.number;
        self.actor.port_priority = self.config.priority;
        self.actor.state.set(State::ACTIVITY, system.active);
        self.actor.state.set(State::TIMEOUT, system.fast);
        self.actor.state.set(State::AGGREGATION, self.link.full_duplex);
        if self.actor != before {
            self.ntt = true;
        }
        let identity = |info: &Info| {
            (
                info.system,
                info.system_priority,
                info.key,
                info.port,
                info.port_priority,
                info.state.has(State::AGGREGATION),
            )
        };
        identity(&self.actor) != identity(&before)
    }

    pub fn defaulted(&self) -> bool {
        self.actor.state.has(State::DEFAULTED)
    }

    pub fn expired(&self) -> bool {
        self.actor.state.has(State::EXPIRED)
    }

    pub fn collecting(&self) -> bool {
        self.actor.state.has(State::COLLECTING)
    }

    pub fn distributing(&self) -> bool {
        self.actor.state.has(State::DISTRIBUTING)
    }

    /// Its partner speaks, now, and is not this system.
    pub fn usable(&self, system: MacAddr) -> bool {
        self.link.up && self.receive == receive::State::Current && self.partner.system != system
    }

    /// Its partner waits for other links of ours than this one.
    pub fn refused(&self) -> bool {
        self.refused_by.is_some_and(|by| receive::same_place(&by, &self.partner))
    }

    /// The earliest of its timers.
    pub fn next_timeout(&self) -> Option<u64> {
        let delayed = if self.ntt { self.may_send_at() } else { self.insist_at() };
        [
            self.current_while,
            self.periodic_timer,
            self.wait_while,
            self.churn_actor.timer,
            self.churn_partner.timer,
            delayed,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
