//! Churn Detection machines (6.4.17): a link that stays out of step for a minute is told.

use super::CHURN_DETECTION_TIME;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum State {
    #[default]
    NoChurn,
    Monitor,
    Churn,
}

/// Of the actor, or of the partner.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Churn {
    pub state: State,
    pub timer: Option<u64>,
}

impl Churn {
    pub const fn name(&self, actor: bool) -> &'static str {
        match (self.state, actor) {
            (State::NoChurn, true) => "NO_ACTOR_CHURN",
            (State::Monitor, true) => "ACTOR_CHURN_MONITOR",
            (State::Churn, true) => "ACTOR_CHURN",
            (State::NoChurn, false) => "NO_PARTNER_CHURN",
            (State::Monitor, false) => "PARTNER_CHURN_MONITOR",
            (State::Churn, false) => "PARTNER_CHURN",
        }
    }

    /// Some when churn begins (true) or ends (false).
    pub fn run(&mut self, now: u64, enabled: bool, sync: bool) -> Option<bool> {
        let settled = sync || !enabled;
        match self.state {
            State::NoChurn if !settled => {
                *self = Churn { state: State::Monitor, timer: Some(now + CHURN_DETECTION_TIME) };
                None
            }
            State::Monitor | State::Churn if settled => {
                let churned = self.state == State::Churn;
                *self = Churn::default();
                churned.then_some(false)
            }
            State::Monitor if self.timer.is_some_and(|at| now >= at) => {
                *self = Churn { state: State::Churn, timer: None };
                Some(true)
            }
            State::NoChurn | State::Monitor | State::Churn => None,
        }
    }
}
