//! Leases: who has which address until when, and what the outside's DHCP server gave us.
//!
//! ```text
//! STATE/leases.redb     table leases    (network, address) → record
//!                       table outside   network → the client's last lease
//! ```
//! A B-tree with copy on write: a commit is durable when [`LeaseStore::commit`] returns, and a crash or power
//! cut at any moment leaves the last one. [`committer`] is the thread that does it for many at once. A file
//! that cannot be read is kept aside as `leases.redb.damaged` and a new one begun, with a warning: guests
//! renew from memory of their own, and no start fails for it.
//!
//! Bounds: an entry an address; the server bounds these. [`CACHE`] bytes of memory.

pub mod committer;
mod record;
#[cfg(test)]
mod tests;

pub use record::{LeaseBody, LeaseRecord, RecordState};

use redb::{Database, ReadableDatabase, StorageBackend, TableDefinition, TableError};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Memory for pages of the file.
pub const CACHE: usize = 4 << 20;

/// By network and address (IPv4 as IPv4-mapped).
const LEASES: TableDefinition<(&str, u128), &[u8]> = TableDefinition::new("leases");
const OUTSIDE: TableDefinition<&str, &[u8]> = TableDefinition::new("outside");

#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("{path}: cannot {what}: {error}")]
    Io { path: PathBuf, what: &'static str, error: io::Error },
    #[error("{path}: cannot {what}: {reason}")]
    Database { path: PathBuf, what: &'static str, reason: String },
    /// What is in the file is not a database of ours.
    #[error("{path} is damaged: {reason}")]
    Damaged { path: PathBuf, reason: String },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LeaseChange {
    Put(LeaseRecord),
    Remove {
        network: String,
        address: IpAddr,
    },
    /// All of a network, the outside's lease too.
    Forget {
        network: String,
    },
    /// The outside's lease, in whatever form the client keeps it.
    Outside {
        network: String,
        lease: Option<Vec<u8>>,
    },
}

type Opener = Box<dyn Fn() -> Result<Database, redb::DatabaseError> + Send>;

pub struct LeaseStore {
    path: PathBuf,
    open: Opener,
    /// Absent after an error: a database whose disk failed must be opened again.
    database: Option<Database>,
}

fn is_nonsense(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl LeaseStore {
    /// `dir` exists. The warning tells of a damaged file.
    pub fn open(dir: &Path) -> Result<(LeaseStore, Option<String>), LeaseError> {
        LeaseStore::open_as(dir, dir)
    }

    /// The same where messages call the folder `name`.
    pub fn open_as(dir: &Path, name: &Path) -> Result<(LeaseStore, Option<String>), LeaseError> {
        const FILE: &str = "leases.redb";
        const ASIDE: &str = "leases.redb.damaged";
        let path = name.join(FILE);
        let file = dir.join(FILE);
        let open: Opener = Box::new(move || Database::builder().set_cache_size(CACHE).create(&file));
        let opened = match LeaseStore::with(path.clone(), open) {
            Ok(store) => (store, None),
            Err((LeaseError::Damaged { reason, .. }, open)) => {
                let moved = std::fs::rename(dir.join(FILE), dir.join(ASIDE));
                moved.map_err(|error| LeaseError::Io { path: path.clone(), what: "move it aside", error })?;
                let warning = format!(
                    "{}: {reason}; kept as {}, and all leases are forgotten",
                    path.display(),
                    name.join(ASIDE).display()
                );
                let store = LeaseStore::with(path, open).map_err(|(error, _)| error)?;
                (store, Some(warning))
            }
            Err((error, _)) => return Err(error),
        };
        // The file's name has to last as well.
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(|error| LeaseError::Io { path: name.to_owned(), what: "sync it", error })?;
        Ok(opened)
    }

    /// On another storage than a file (tests). `backend` is asked again after an error.
    pub fn on<B: StorageBackend>(backend: impl Fn() -> B + Send + 'static) -> Result<LeaseStore, LeaseError> {
        let open: Opener =
            Box::new(move || Database::builder().set_cache_size(CACHE).create_with_backend(backend()));
        LeaseStore::with("leases.redb".into(), open).map_err(|(error, _)| error)
    }

    fn with(path: PathBuf, open: Opener) -> Result<LeaseStore, (LeaseError, Opener)> {
        let mut store = LeaseStore { path, open, database: None };
        // The tables are there from now on, so that nobody has to tell missing from empty.
        match store.begin() {
            Ok(()) => Ok(store),
            Err(error) => Err((error, store.open)),
        }
    }

    fn begin(&mut self) -> Result<(), LeaseError> {
        self.commit(&[])?;
        self.records(|_| true).map(drop)
    }

    fn failed(&mut self, what: &'static str, error: redb::Error) -> LeaseError {
        self.database = None;
        let path = self.path.clone();
        let reason = error.to_string();
        match error {
            redb::Error::Io(error) if is_nonsense(&error) => LeaseError::Damaged { path, reason },
            redb::Error::Io(error) => LeaseError::Io { path, what, error },
            redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) | redb::Error::RepairAborted => {
                LeaseError::Damaged { path, reason }
            }
            redb::Error::TableTypeMismatch { .. } => LeaseError::Damaged { path, reason },
            other => LeaseError::Database { path, what, reason: other.to_string() },
        }
    }

    /// Runs with the open database. A file whose pages make no sense makes redb panic: that is an error here.
    fn with_database<R>(
        &mut self,
        what: &'static str,
        act: impl FnOnce(&Database) -> Result<R, redb::Error>,
    ) -> Result<R, LeaseError> {
        let kept = self.database.take();
        let open = &self.open;
        let result = catch_unwind(AssertUnwindSafe(|| {
            let database = match kept {
                Some(database) => database,
                None => open()?,
            };
            let result = act(&database)?;
            Ok((database, result))
        }));
        match result {
            Ok(Ok((database, result))) => {
                self.database = Some(database);
                Ok(result)
            }
            Ok(Err(error)) => Err(self.failed(what, error)),
            Err(_) => Err(self.failed(what, redb::Error::Corrupted("its pages make no sense".into()))),
        }
    }

    /// Durable when it returns. After an error some, all or none of the changes may be there.
    pub fn commit(&mut self, changes: &[LeaseChange]) -> Result<(), LeaseError> {
        self.with_database("write", |database| {
            let transaction = database.begin_write()?;
            {
                let mut leases = transaction.open_table(LEASES)?;
                let mut outside = transaction.open_table(OUTSIDE)?;
                for change in changes {
                    match change {
                        LeaseChange::Put(record) => {
                            let key = (record.network.as_str(), number(record.address));
                            leases.insert(key, record.to_bytes().as_slice())?;
                        }
                        LeaseChange::Remove { network, address } => {
                            leases.remove((network.as_str(), number(*address)))?;
                        }
                        LeaseChange::Forget { network } => {
                            let all = (network.as_str(), 0)..=(network.as_str(), u128::MAX);
                            leases.retain_in(all, |_, _| false)?;
                            outside.remove(network.as_str())?;
                        }
                        LeaseChange::Outside { network, lease: Some(lease) } => {
                            outside.insert(network.as_str(), lease.as_slice())?;
                        }
                        LeaseChange::Outside { network, lease: None } => {
                            outside.remove(network.as_str())?;
                        }
                    }
                }
            }
            transaction.commit()?;
            Ok(())
        })
    }

    /// Records of the networks that pass. One that cannot be read is left out.
    fn records(&mut self, passes: impl Fn(&str) -> bool) -> Result<Vec<LeaseRecord>, LeaseError> {
        self.with_database("read", |database| {
            let table = match database.begin_read()?.open_table(LEASES) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                table => table?,
            };
            let mut records = Vec::new();
            for entry in redb::ReadableTable::iter(&table)? {
                let (key, value) = entry?;
                let (network, address) = key.value();
                if passes(network) {
                    records.extend(LeaseRecord::from_bytes(network, address, value.value()));
                }
            }
            Ok(records)
        })
    }

    /// What is known of a network.
    pub fn load(&mut self, network: &str) -> Result<(Vec<LeaseRecord>, Option<Vec<u8>>), LeaseError> {
        self.with_database("read", |database| {
            let transaction = database.begin_read()?;
            let table = transaction.open_table(LEASES)?;
            let mut records = Vec::new();
            for entry in table.range((network, 0)..=(network, u128::MAX))? {
                let (key, value) = entry?;
                records.extend(LeaseRecord::from_bytes(network, key.value().1, value.value()));
            }
            let table = transaction.open_table(OUTSIDE)?;
            let outside = redb::ReadableTable::get(&table, network)?.map(|value| value.value().to_vec());
            Ok((records, outside))
        })
    }

    /// Everything, by network.
    pub fn all(&mut self) -> Result<BTreeMap<String, Vec<LeaseRecord>>, LeaseError> {
        let mut networks: BTreeMap<String, Vec<LeaseRecord>> = BTreeMap::new();
        for record in self.records(|_| true)? {
            networks.entry(record.network.clone()).or_default().push(record);
        }
        Ok(networks)
    }
}
