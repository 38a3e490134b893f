//! What was committed is there after any crash, and nothing of what was refused harms it.

use super::*;
type BackendIoError = io::Error;
use std::sync::{Arc, Mutex};

fn record(network: &str, last: u8, expires: u64) -> LeaseRecord {
    LeaseRecord {
        network: network.into(),
        address: IpAddr::from([10, 0, 0, last]),
        body: LeaseBody {
            client: vec![1, 2, 3, last],
            has_client_id: true,
            mac: Some([2, 0, 0, 0, 0, last]),
            port: "vm1".into(),
            hostname: Some("guest".into()),
            state: RecordState::Bound,
            expires,
            length: 60,
        },
    }
}

#[test]
fn leases_come_back_by_network_and_are_forgotten_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, warning) = LeaseStore::open(dir.path()).unwrap();
    assert_eq!(warning, None);
    let v6 = LeaseRecord { address: "fd00::5".parse().unwrap(), ..record("lab", 9, 50) };
    let puts = [record("lab", 5, 100), record("lab", 6, 100), record("lab2", 5, 100), v6.clone()];
    store.commit(&puts.clone().map(LeaseChange::Put)).unwrap();
    let last = LeaseChange::Outside { network: "lab".into(), lease: Some(vec![7]) };
    let gone = LeaseChange::Remove { network: "lab".into(), address: "10.0.0.6".parse().unwrap() };
    store.commit(&[LeaseChange::Put(record("lab", 5, 200)), last, gone]).unwrap();
    drop(store);
    let (mut store, _) = LeaseStore::open(dir.path()).unwrap();
    let (mut records, outside) = store.load("lab").unwrap();
    records.sort_by_key(|record| record.address);
    assert_eq!((records, outside), (vec![record("lab", 5, 200), v6], Some(vec![7])));
    store.commit(&[LeaseChange::Forget { network: "lab".into() }]).unwrap();
    assert_eq!(store.load("lab").unwrap(), (Vec::new(), None));
    assert_eq!(store.all().unwrap().into_keys().collect::<Vec<_>>(), ["lab2"]);
}

#[test]
fn a_file_that_is_no_database_is_kept_aside_and_told() {
    for nonsense in [&b"not a database at all"[..], &[0; 100_000], b"redb\x1a\x0a\xa9\x0d\x0a garbage"] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("leases.redb"), nonsense).unwrap();
        let (mut store, warning) = LeaseStore::open(dir.path()).unwrap();
        assert!(warning.unwrap().contains("leases.redb.damaged"));
        assert_eq!(std::fs::read(dir.path().join("leases.redb.damaged")).unwrap(), nonsense);
        store.commit(&[LeaseChange::Put(record("lab", 5, 1))]).unwrap();
    }
}

#[test]
fn the_committer_tells_of_each_ticket_once_and_a_load_sees_what_was_submitted_before() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = LeaseStore::open(dir.path()).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let done: committer::Done = Box::new(move |tickets, error| {
        assert!(error.is_none());
        tell.send(tickets.to_vec()).unwrap();
    });
    let (committer, thread) = committer::spawn(store, done).unwrap();
    for ticket in 0..200 {
        assert!(committer.submit(ticket, LeaseChange::Put(record("lab", ticket as u8, ticket))));
    }
    let (records, _) = committer.load("lab").unwrap().recv().unwrap().unwrap();
    assert_eq!(records.len(), 200);
    drop(committer);
    thread.join().unwrap();
    let groups: Vec<Vec<u64>> = told.iter().collect();
    assert_eq!(groups.concat(), (0..200).collect::<Vec<_>>());
    assert!(groups.len() < 200, "every change had a commit of its own");
}

/// A disk in memory. After `fail_after` operations everything fails; what was written since the last sync
/// may be there or not, each write by itself.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<DiskState>>);

#[derive(Clone, Debug, Default)]
struct DiskState {
    synced: Vec<u8>,
    now: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
    operations: usize,
    fail_after: Option<usize>,
}

impl DiskState {
    fn operate(&mut self) -> Result<(), BackendIoError> {
        self.operations += 1;
        match self.fail_after {
            Some(limit) if self.operations > limit => Err(io::Error::other("injected")),
            _ => Ok(()),
        }
    }
}

impl Disk {
    /// The disk as a power cut leaves it: `keep` decides for each write that was not synced.
    fn after_power_cut(&self, mut keep: impl FnMut() -> bool) -> Disk {
        let state = self.0.lock().unwrap();
        let mut bytes = state.synced.clone();
        for (at, data) in &state.unsynced {
            if keep() {
                bytes.resize(bytes.len().max(at + data.len()), 0);
                bytes[*at..at + data.len()].copy_from_slice(data);
            }
        }
        let len = bytes.len().max(state.now.len().min(state.synced.len()));
        bytes.resize(len, 0);
        Disk(Arc::new(Mutex::new(DiskState { synced: bytes.clone(), now: bytes, ..DiskState::default() })))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, BackendIoError> {
        Ok(self.0.lock().unwrap().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), BackendIoError> {
        let state = self.0.lock().unwrap();
        let from = offset as usize;
        let bytes = state.now.get(from..from + out.len());
        out.copy_from_slice(bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), BackendIoError> {
        let mut state = self.0.lock().unwrap();
        state.operate()?;
        state.now.resize(len as usize, 0);
        // Growth is kept: redb shrinks a file only when it is closed.
        if state.synced.len() < len as usize {
            state.synced.resize(len as usize, 0);
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<(), BackendIoError> {
        let mut state = self.0.lock().unwrap();
        state.operate()?;
        state.synced = state.now.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), BackendIoError> {
        let mut state = self.0.lock().unwrap();
        state.operate()?;
        let at = offset as usize;
        state.now[at..at + data.len()].copy_from_slice(data);
        state.unsynced.push((at, data.to_vec()));
        Ok(())
    }
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn a_power_cut_at_any_operation_leaves_every_acknowledged_lease() {
    let mut seed = 0x5eed_1234_5678_9abc;
    let mut cuts = 0;
    for crash_at in 0.. {
        let disk = Disk::default();
        let on = disk.clone();
        let mut store = LeaseStore::on(move || on.clone()).unwrap();
        disk.0.lock().unwrap().operations = 0;
        disk.0.lock().unwrap().fail_after = Some(crash_at);
        let mut acknowledged = BTreeMap::new();
        let mut whole = true;
        for round in 0..12u64 {
            let change = record("lab", (round % 5) as u8, 1000 + round);
            match store.commit(&[LeaseChange::Put(change.clone())]) {
                Ok(()) => drop(acknowledged.insert(change.address, change.body.expires)),
                Err(_) => {
                    whole = false;
                    break;
                }
            }
        }
        for _ in 0..4 {
            let left = disk.after_power_cut(|| random(&mut seed).is_multiple_of(2));
            let on = left.clone();
            let mut store = LeaseStore::on(move || on.clone()).unwrap_or_else(|error| {
                panic!("crash at operation {crash_at}: {error}");
            });
            let found: BTreeMap<_, _> = store.load("lab").unwrap().0.into_iter().collect_expires();
            for (address, expires) in &acknowledged {
                let there = found.get(address).copied().unwrap_or(0);
                assert!(there >= *expires, "crash at operation {crash_at}: {address} is lost");
            }
            cuts += 1;
        }
        if whole {
            break;
        }
    }
    assert!(cuts > 40, "only {cuts} power cuts were tried");
}

trait Expires {
    fn collect_expires(self) -> BTreeMap<IpAddr, u64>;
}

impl<I: Iterator<Item = LeaseRecord>> Expires for I {
    fn collect_expires(self) -> BTreeMap<IpAddr, u64> {
        self.map(|record| (record.address, record.body.expires)).collect()
    }
}

#[test]
fn after_an_error_the_next_commit_opens_the_database_anew() {
    let disk = Disk::default();
    let on = disk.clone();
    let mut store = LeaseStore::on(move || on.clone()).unwrap();
    store.commit(&[LeaseChange::Put(record("lab", 1, 10))]).unwrap();
    disk.0.lock().unwrap().operations = 0;
    disk.0.lock().unwrap().fail_after = Some(0);
    assert!(store.commit(&[LeaseChange::Put(record("lab", 2, 10))]).is_err());
    assert!(store.commit(&[LeaseChange::Put(record("lab", 2, 10))]).is_err());
    disk.0.lock().unwrap().fail_after = None;
    store.commit(&[LeaseChange::Put(record("lab", 3, 10))]).unwrap();
    let (records, _) = store.load("lab").unwrap();
    let last = records.iter().map(|record| record.address.to_string()).collect::<Vec<_>>();
    assert!(last.contains(&"10.0.0.1".into()) && last.contains(&"10.0.0.3".into()), "{last:?}");
}
