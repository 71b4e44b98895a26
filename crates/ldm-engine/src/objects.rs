//! Where bytes lie: pictures, inputs, checkpoints. A thin layer over `object_store`: our keys, bounds and digests.

use std::collections::BTreeSet;
use std::path::Path as Folder;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::TryStreamExt;
use ldm_core::JobId;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutPayload};
use sha2::{Digest, Sha256};

use crate::ledger::ObjectRef;

/// Bytes of one object at most, unless said otherwise: a picture of 4096×4096, as it is, has 48 MiB.
pub const MAX_OBJECT: u64 = 256 << 20;

/// The first parts of keys.
const KINDS: [&str; 3] = ["in", "out", "ckpt"];

/// Why bytes were not kept or not given back.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// More than an object may have.
    #[error("object {key} has {bytes} bytes, more than {limit}")]
    TooLarge {
        /// Where it was to lie.
        key: String,
        /// How many it has.
        bytes: u64,
        /// How many it may have.
        limit: u64,
    },
    /// It is not there.
    #[error("object {0} is not there")]
    Missing(String),
    /// What is there is not what was put there.
    #[error("object {0} is damaged: its size or its digest is not what was put there")]
    Damaged(String),
    /// The store failed.
    #[error("the object store failed: {0}")]
    Store(#[from] Error),
}

/// Where job `id`'s input `n` lies.
pub fn input_key(id: JobId, n: usize) -> String {
    format!("in/{id}/{n}")
}

/// Where its picture `n` lies.
pub fn output_key(id: JobId, n: usize) -> String {
    format!("out/{id}/{n}.png")
}

/// Where the checkpoint of one of its lives lies.
pub fn checkpoint_key(id: JobId, epoch: u64) -> String {
    format!("ckpt/{id}/{epoch}")
}

/// An object store. A clone is the same store.
#[derive(Clone, Debug)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    limit: u64,
}

impl Objects {
    /// A store in memory, which ends with the process.
    pub fn memory() -> Self {
        Self::new(Arc::new(InMemory::new()), MAX_OBJECT)
    }

    /// A store in a folder, which is made. An object is written beside its place and then moved there, after a flush: it is
    /// there whole or not at all.
    pub fn folder(folder: &Folder) -> Result<Self, ObjectError> {
        let failed = |source: std::io::Error| Error::Generic { store: "LocalFileSystem", source: Box::new(source) };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let store = LocalFileSystem::new_with_prefix(folder)?.with_automatic_cleanup(true).with_fsync(true);
        Ok(Self::new(Arc::new(store), MAX_OBJECT))
    }

    /// Another store, with that many bytes per object at most.
    pub fn new(store: Arc<dyn ObjectStore>, limit: u64) -> Self {
        Self { store, limit }
    }

    /// Puts bytes there, in place of what was there.
    pub async fn put(&self, key: &str, bytes: Bytes) -> Result<ObjectRef, ObjectError> {
        let size = bytes.len() as u64;
        self.bounded(key, size)?;
        let reference = ObjectRef { key: key.to_owned(), bytes: size, digest: digest(&bytes) };
        self.store.put(&Path::from(key), PutPayload::from(bytes)).await?;
        Ok(reference)
    }

    /// The bytes that were put there; others are an error.
    pub async fn get(&self, reference: &ObjectRef) -> Result<Bytes, ObjectError> {
        let ObjectRef { key, bytes, digest: expected } = reference;
        self.bounded(key, *bytes)?;
        let found = self.store.get(&Path::from(key.as_str())).await.map_err(|error| missing(key, error))?;
        if found.meta.size != *bytes {
            return Err(ObjectError::Damaged(key.clone()));
        }
        let data = found.bytes().await.map_err(|error| missing(key, error))?;
        if data.len() as u64 != *bytes || digest(&data) != *expected {
            return Err(ObjectError::Damaged(key.clone()));
        }
        Ok(data)
    }

    /// Deletes what is there; nothing there is no error.
    pub async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        match self.store.delete(&Path::from(key)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes all that a job has, also what no record names: a checkpoint or a picture of a life that was superseded.
    pub async fn delete_job(&self, id: JobId) -> Result<(), ObjectError> {
        for kind in KINDS {
            let prefix = Path::from(format!("{kind}/{id}"));
            let found: Vec<_> = self.store.list(Some(&prefix)).try_collect().await?;
            for object in found {
                self.delete(object.location.as_ref()).await?;
            }
        }
        Ok(())
    }

    /// Jobs of which something was put here longer ago than that, at most so many: by what lies here, whatever records say.
    pub async fn jobs_since(&self, age: Duration, most: usize) -> Result<Vec<JobId>, ObjectError> {
        let before = SystemTime::now().checked_sub(age).and_then(|before| before.duration_since(UNIX_EPOCH).ok());
        let before = before.map_or(0, |before| before.as_secs() as i64);
        let mut jobs = BTreeSet::new();
        for kind in KINDS {
            let mut found = self.store.list(Some(&Path::from(kind)));
            while let Some(object) = found.try_next().await? {
                if jobs.len() == most {
                    break;
                }
                // What does not lie under a job's id is none of ours.
                let id = object.location.parts().nth(1).and_then(|part| part.as_ref().parse::<JobId>().ok());
                jobs.extend(id.filter(|_| object.last_modified.timestamp() <= before));
            }
        }
        Ok(jobs.into_iter().collect())
    }

    fn bounded(&self, key: &str, bytes: u64) -> Result<(), ObjectError> {
        let limit = self.limit;
        if bytes <= limit { Ok(()) } else { Err(ObjectError::TooLarge { key: key.to_owned(), bytes, limit }) }
    }
}

fn missing(key: &str, error: Error) -> ObjectError {
    match error {
        Error::NotFound { .. } => ObjectError::Missing(key.to_owned()),
        error => error.into(),
    }
}

/// SHA-256 in lowercase hexadecimal.
fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
