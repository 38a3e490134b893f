//! Requests about mirrors.

use super::Engine;
use super::errors::{conflict, not_found};
use switchd_api::Name;
use switchd_api::model::MirrorSpec;
use switchd_api::reply::{ErrorBody, MirrorStatus};

impl Engine {
    pub fn create_mirror(&mut self, name: Name, spec: MirrorSpec) -> Result<MirrorStatus, ErrorBody> {
        let key = name.clone();
        let to = spec.to.clone();
        self.change(|desired| {
            if desired.mirror.contains_key(&key) {
                let hint = format!("switchctl mirror show {key}, or choose another name");
                return Err(conflict(format!("mirror {key} exists already"), hint));
            }
            desired.mirror.insert(key, spec);
            Ok(())
        })?;
        self.events.tell("mirror.created", format!("mirror {name}"), to);
        self.mirror(name.as_str())
    }

    /// Returns after the file is closed.
    pub fn delete_mirror(&mut self, name: &str) -> Result<(), ErrorBody> {
        self.change(|desired| match desired.mirror.remove(name) {
            Some(_) => Ok(()),
            None => Err(not_found("mirror", name)),
        })?;
        self.events.tell("mirror.deleted", format!("mirror {name}"), "nothing more is copied");
        Ok(())
    }
}
