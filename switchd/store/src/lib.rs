//! All that must survive: the desired state and the addresses of our own, in files written whole.
//!
//! ```text
//! STATE/desired.toml      STATE/desired.toml.prev       what the user asked for, now and before
//! STATE/identities.toml   STATE/identities.toml.prev    port, gateway, bond → MAC address, for its life
//! STATE/leases.redb                                     see `leases`
//! ```
//!
//! A file is written to a temporary name beside it, synced, and renamed; then the folder is synced. So a
//! crash or power cut at any moment leaves the old or the new content. The first line carries length and
//! checksum of the rest: a file that is torn or was changed by hand is noticed, and the one before is used
//! instead, with a warning; it is kept as `.damaged` when the next one is written. So is what cannot be read at
//! all, such as a folder of the file's name. If there is nothing good,
//! the start fails and says where and what to do: an empty configuration in its place would take every
//! guest's network away.
//!
//! Limits: [`MAX_FILE`] bytes a file. One writer: who opens the store sees to it that there is one daemon a
//! state directory. Left out: flows.

mod document;
mod fs;
mod identities;
pub mod leases;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;

pub use document::MAX_FILE;
pub use fs::{Disk, Fs};

use document::{Document, Found};
use identities::Identities;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use switchd_api::model::Desired;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path}: cannot {what}: {error}")]
    Io { path: PathBuf, what: &'static str, error: io::Error },
    /// Neither the file nor the one before it can be used.
    #[error("{wrong} ({prev}); {help}")]
    Damaged {
        /// Path, line and reason.
        wrong: String,
        /// What is wrong with the file before it.
        prev: String,
        /// What to do.
        help: &'static str,
    },
    #[error("{path}: {size} bytes are more than the {MAX_FILE} that a state file may have")]
    TooLarge { path: PathBuf, size: usize },
    #[error("no free MAC address was found in {tries} tries")]
    NoAddress { tries: usize },
}

/// What was found at the start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Loaded {
    /// `None`: nothing was ever saved here.
    pub desired: Option<Desired>,
    /// A file was damaged or unreadable, and the one before was used.
    pub warnings: Vec<String>,
}

pub struct Store<F: Fs = Disk> {
    fs: F,
    desired: Document,
    identities_file: Document,
    identities: Identities,
}

impl Store<Disk> {
    /// Reads what is there. `dir` exists.
    pub fn open(dir: &Path) -> Result<(Store, Loaded), StoreError> {
        Store::open_as(dir, dir)
    }

    /// The same where messages call the folder `name`.
    pub fn open_as(dir: &Path, name: &Path) -> Result<(Store, Loaded), StoreError> {
        Store::open_on(Disk::new(dir, name), name)
    }
}

impl<F: Fs> Store<F> {
    pub fn open_on(fs: F, dir: &Path) -> Result<(Store<F>, Loaded), StoreError> {
        let mut loaded = Loaded::default();
        let mut desired = Document::new(
            dir.join("desired.toml"),
            "if the text is right, remove its first line, move the file elsewhere and start with `--config` and \
             its new name; to begin empty, move both files away",
        );
        loaded.desired = match desired.load(&fs, |text| toml::from_str::<Desired>(text))? {
            Found::Nothing => None,
            Found::Good(value) => Some(value),
            Found::Previous(value, warning) => {
                loaded.warnings.push(warning);
                Some(value)
            }
        };
        let mut identities_file = Document::new(
            dir.join("identities.toml"),
            "move both files away to have new addresses chosen for taps without `mac`",
        );
        let identities = match identities_file.load(&fs, Identities::parse)? {
            Found::Nothing => Identities::default(),
            Found::Good(value) => value,
            Found::Previous(value, warning) => {
                loaded.warnings.push(format!("{warning}; taps made since get new addresses"));
                value
            }
        };
        Ok((Store { fs, desired, identities_file, identities }, loaded))
    }

    /// Returns when it is on the disk. After an error either the old or the new state may be there: save
    /// what is to hold again. Addresses given since are saved before, those of ports that are gone are
    /// released after.
    pub fn save_desired(&mut self, desired: &Desired) -> Result<(), StoreError> {
        self.save_identities()?;
        let text = toml::to_string(desired).expect("the model is representable in TOML");
        self.desired.save(&self.fs, &text)?;
        self.identities.retain(|key| identities::is_configured(desired, key));
        // Saved again with the next change if this fails: an address too many does no harm.
        let _ = self.save_identities();
        Ok(())
    }

    fn save_identities(&mut self) -> Result<(), StoreError> {
        if self.identities.changed() {
            self.identities_file.save(&self.fs, &self.identities.text())?;
            self.identities.saved();
        }
        Ok(())
    }

    /// The address kept under the key: a port's name, `gateway:NET`, `egress:NET` or `bond:BOND`.
    pub fn identity(&self, key: &str) -> Option<[u8; 6]> {
        self.identities.get(key)
    }

    pub fn identities(&self) -> &BTreeMap<String, [u8; 6]> {
        self.identities.all()
    }

    /// The address under the key, chosen now if it has none: 02 and five octets of `random`, not one that
    /// `in_use` knows or that stands under another key. It is on the disk when [`Store::save_desired`] has
    /// returned, and is released by a `save_desired` without what the key stands for.
    pub fn assign(
        &mut self,
        key: &str,
        in_use: impl Fn([u8; 6]) -> bool,
        random: impl FnMut() -> [u8; 6],
    ) -> Result<[u8; 6], StoreError> {
        self.identities.assign(key, in_use, random)
    }
}
