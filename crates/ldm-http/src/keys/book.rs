//! The keys that are good now: looked up in constant time, and read again when their file changes.

use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use ldm_core::Tenant;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::file::{self, Record};
use super::places::Places;
use super::rate::Bucket;
use crate::caller::{Caller, Identity};

/// Bytes of a file of keys at most.
const MOST_BYTES: u64 = 4 << 20;
/// How every secret begins, so that one that leaks is recognised.
const PREFIX: &str = "ltd_";

/// Why a file of keys could not be read; a line for everything that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct KeysError(Vec<String>);

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// A new secret. It is shown once; the file of keys holds its digest.
pub struct Secret {
    /// What a caller shows.
    pub secret: String,
    /// Its SHA-256 in hexadecimal digits.
    pub sha256: String,
}

impl Secret {
    /// 32 bytes of the system's randomness, in hexadecimal digits behind `ltd_`.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new() -> std::io::Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        let secret = format!("{PREFIX}{}", hex(&bytes));
        let sha256 = hex(&Sha256::digest(secret.as_bytes()));
        Ok(Self { secret, sha256 })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// When a file was written and how long it is: what shows that it changed.
type Stamp = (Option<SystemTime>, u64);

/// The keys of a file. A clone is the same keys.
#[derive(Clone)]
pub struct Keys(Arc<Shared>);

struct Shared {
    path: PathBuf,
    book: RwLock<Arc<Vec<Key>>>,
    /// Of the file as it was last read, well or not.
    stamp: Mutex<Option<Stamp>>,
}

/// One key.
struct Key {
    digests: Vec<[u8; 32]>,
    expires: Option<SystemTime>,
    caller: Caller,
}

/// What became of a secret.
pub(super) enum Found {
    /// It is a key's.
    Caller(Caller),
    /// It was one.
    Expired,
    /// It is none.
    Nothing,
}

impl Keys {
    /// The keys in that file.
    ///
    /// # Errors
    /// When it cannot be read, or says something that keys cannot say.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, KeysError> {
        let path = path.into();
        let (records, stamp) = read(&path)?;
        let book = records.into_iter().map(|record| Key::new(record, &[])).collect();
        let (book, stamp) = (RwLock::new(Arc::new(book)), Mutex::new(Some(stamp)));
        Ok(Self(Arc::new(Shared { path, book, stamp })))
    }

    /// Whether a file that says this would be taken.
    ///
    /// # Errors
    /// When it would not.
    pub fn check(text: &str) -> Result<(), KeysError> {
        file::read(text).map(|_| ()).map_err(KeysError)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.book().len()
    }

    /// Reads the file again, if it has changed; says whether it had. What keys have used up of their limits stays used up.
    ///
    /// # Errors
    /// When it cannot be taken over; then the keys stay as they were.
    pub fn refresh(&self) -> Result<bool, KeysError> {
        let Shared { path, book, stamp } = &*self.0;
        let mut last = stamp.lock().unwrap_or_else(PoisonError::into_inner);
        let now = fs::metadata(path).ok().map(|file| (file.modified().ok(), file.len()));
        if *last == now {
            return Ok(false);
        }
        *last = now;
        let (records, stamp) = read(path)?;
        *last = Some(stamp);
        let old = self.book();
        let new = records.into_iter().map(|record| Key::new(record, &old)).collect();
        *book.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(true)
    }

    /// Looks at the file again and again, for as long as it is polled. A file that is wrong is told to the log and changes nothing.
    pub async fn follow(self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            let keys = self.clone();
            match tokio::task::spawn_blocking(move || keys.refresh()).await {
                Ok(Ok(true)) => tracing::info!(keys = self.count(), "the keys were read again"),
                Ok(Ok(false)) | Err(_) => {}
                Ok(Err(error)) => tracing::error!("the keys stay as they were, since their file is wrong: {error}"),
            }
        }
    }

    fn book(&self) -> Arc<Vec<Key>> {
        Arc::clone(&self.0.book.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whose secret that is. How long it takes says nothing of how much of it is right, nor of which key it is.
    pub(super) fn find(&self, secret: &[u8]) -> Found {
        let digest: [u8; 32] = Sha256::digest(secret).into();
        let book = self.book();
        let mut found = None;
        for key in book.iter() {
            for known in &key.digests {
                if bool::from(known[..].ct_eq(&digest[..])) {
                    found = Some(key);
                }
            }
        }
        match found {
            None => Found::Nothing,
            Some(key) if key.expires.is_some_and(|at| at <= SystemTime::now()) => Found::Expired,
            Some(key) => Found::Caller(key.caller.clone()),
        }
    }
}

impl Key {
    /// The key of that record; one of `old` that has the same name and limits hands over what was used up.
    fn new(record: Record, old: &[Key]) -> Self {
        let tenant = Tenant::new(&record.name);
        let before = old.iter().find(|key| *key.caller.tenant() == tenant).map(|key| &key.caller);
        let bucket = record.rate.map(|rate| {
            let known = before.and_then(|caller| caller.bucket()).filter(|bucket| bucket.rate() == rate);
            known.cloned().unwrap_or_else(|| Arc::new(Bucket::new(rate)))
        });
        let places = record.concurrency.map(|limit| {
            let known = before.and_then(|caller| caller.places()).filter(|places| places.limit() == limit);
            known.cloned().unwrap_or_else(|| Arc::new(Places::new(limit)))
        });
        let Record { digests, role, priority, models, expires, .. } = record;
        let caller = Caller::new(Identity { tenant, role, priority, models, bucket, places });
        Self { digests, expires, caller }
    }
}

fn read(path: &Path) -> Result<(Vec<Record>, Stamp), KeysError> {
    let broken = |error: std::io::Error| KeysError(vec![format!("{}: {error}", path.display())]);
    let file = fs::File::open(path).map_err(broken)?;
    let about = file.metadata().map_err(broken)?;
    let mut text = String::new();
    file.take(MOST_BYTES + 1).read_to_string(&mut text).map_err(broken)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(KeysError(vec![format!("{}: the file is larger than {MOST_BYTES} bytes", path.display())]));
    }
    let placed = |bad: Vec<String>| KeysError(bad.iter().map(|line| format!("{}: {line}", path.display())).collect());
    Ok((file::read(&text).map_err(placed)?, (about.modified().ok(), about.len())))
}
