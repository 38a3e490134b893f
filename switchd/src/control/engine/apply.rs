//! Whole configurations: apply, diff, and the window in which an apply waits for its confirmation.
//!
//! Within the window the new configuration is in force and the old one is on the disk. So a crash or a
//! restart rolls back by itself, and so does the end of the window.
//!
//! An apply that changes nothing opens no window. A confirmation that comes in its time is answered all the same,
//! so that `apply --confirm && check && confirm` ends well whether or not something differed.

use super::Engine;
use super::change::Save;
use super::errors::conflict;
use super::execute::Mode;
use crate::config;
use std::time::{Duration, Instant};
use switchd_api::model::Desired;
use switchd_api::reply::{ApplyReply, ErrorBody};

/// A whole configuration as a client sends it.
pub enum Source {
    /// TOML text; `name` is shown in error reports.
    Toml {
        text: String,
        name: String,
    },
    Desired(Desired),
}

pub(super) struct Window {
    pub deadline: Instant,
    /// What comes back without a confirmation.
    pub before: Desired,
}

impl Engine {
    pub(super) fn read(&self, source: Source) -> Result<Desired, ErrorBody> {
        match source {
            Source::Toml { text, name } => {
                config::parse_toml_over(&self.running, &text, &name, &self.process.capture_dir)
                    .map_err(|report| report.body())
            }
            Source::Desired(desired) => self.validated(&desired).map(|_| desired),
        }
    }

    /// Puts a whole configuration in force; what it does not name is deleted.
    pub fn apply(
        &mut self,
        source: Source,
        dry_run: bool,
        confirm: Option<Duration>,
    ) -> Result<ApplyReply, ErrorBody> {
        let desired = self.read(source)?;
        let changes = config::changes(&config::plan(&self.running, &desired));
        if dry_run {
            return Ok(ApplyReply { changes, applied: false, confirm_within: None });
        }
        self.refuse_in_window()?;
        let before = self.running.clone();
        // What changes nothing needs no confirmation.
        let unneeded = confirm.filter(|_| changes.is_empty());
        let confirm = confirm.filter(|_| !changes.is_empty());
        let save = if confirm.is_some() { Save::Not } else { Save::Yes };
        self.transact(desired, save, Mode::Strict)?;
        let confirm_within = confirm.map(|time| time.as_secs());
        let what = config::counted(changes.len(), "change");
        self.unneeded = unneeded.map(|time| self.now() + time);
        match confirm {
            Some(time) => {
                self.window = Some(Window { deadline: self.now() + time, before });
                let message = format!("{what}; rolled back after {} s unless confirmed", time.as_secs());
                self.events.tell("config.applied", "config", message);
                self.wake.notify_one();
            }
            None => self.events.tell("config.applied", "config", what),
        }
        Ok(ApplyReply { changes, applied: true, confirm_within })
    }

    /// Keeps what was applied. Durable when it returns; if it cannot be saved, the window goes on. Not `applied`:
    /// nothing had changed, and nothing waited.
    pub fn confirm(&mut self) -> Result<ApplyReply, ErrorBody> {
        let Some(window) = &self.window else {
            if self.unneeded.take().is_some_and(|until| self.now() < until) {
                return Ok(ApplyReply { changes: Vec::new(), applied: false, confirm_within: None });
            }
            return Err(conflict("nothing waits for a confirmation", "switchctl apply FILE --confirm 60s"));
        };
        let changes = config::changes(&config::plan(&window.before, &self.running));
        self.means.disk.save(&self.running).map_err(|message| {
            super::errors::hinted(
                switchd_api::reply::ErrorCode::Unavailable,
                format!("the configuration could not be saved and is not confirmed: {message}"),
                "make room, and confirm again before the time is over",
            )
        })?;
        let running = self.running.clone();
        self.forget_old_leases(&running);
        self.saved = running;
        self.window = None;
        self.events.tell("config.confirmed", "config", config::counted(changes.len(), "change"));
        Ok(ApplyReply { changes, applied: true, confirm_within: None })
    }

    /// What `apply` would change.
    pub fn diff(&self, source: Source) -> Result<ApplyReply, ErrorBody> {
        let desired = self.read(source)?;
        let changes = config::changes(&config::plan(&self.running, &desired));
        Ok(ApplyReply { changes, applied: false, confirm_within: None })
    }

    /// The window is over.
    pub(super) fn roll_back(&mut self, now: Instant) {
        if self.window.as_ref().is_none_or(|window| window.deadline > now) {
            return;
        }
        if let Some(window) = self.window.take() {
            // What was on the disk needs no saving; it was valid when it was put in force.
            match self.transact(window.before, Save::Not, Mode::Lenient) {
                Ok(()) => {
                    self.events.tell("config.rolled-back", "config", "the time to confirm is over");
                }
                Err(error) => self.events.tell("config.rolled-back", "config", error.message),
            }
        }
    }
}
