//! Opening a state folder: the lock that says that nobody else owns it, the file's settings, its schema.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

/// Marks the file as a ledger of latentd: "ldml".
const APPLICATION: i64 = 0x6c64_6d6c;
/// One script per version, from 1 on. Scripts that were released never change.
const MIGRATIONS: [&str; 2] = [include_str!("schema_1.sql"), include_str!("schema_2.sql")];
/// Bytes that the write-ahead log keeps between checkpoints.
const LOG_BYTES: i64 = 8 << 20;

/// Why a state folder could not be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or its lock file cannot be made.
    #[error("the state folder {} cannot be used: {source}", .path.display())]
    Folder {
        /// The folder or the lock file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process owns the folder.
    #[error("the state folder {} belongs to another process that runs now; give each process its own", .0.display())]
    Taken(PathBuf),
    /// A newer version of latentd wrote the file.
    #[error("{} has schema version {found}, this program knows up to {known}: run a newer latentd, or another state folder", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// What it has.
        found: i64,
        /// What is known.
        known: i64,
    },
    /// The file is no ledger.
    #[error("{} is not a ledger of latentd; move it away", .0.display())]
    Foreign(PathBuf),
    /// The file is damaged.
    #[error("{} is damaged ({what}): restore a copy, or move it away and lose its jobs", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        what: String,
    },
    /// SQLite failed otherwise.
    #[error("{} cannot be opened: {source}", .path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

/// An opened file, and the lock on its folder for as long as this lives.
pub(super) struct Opened {
    pub(super) db: Connection,
    pub(super) lock: File,
}

pub(super) fn open(folder: &Path, now: i64) -> Result<Opened, OpenError> {
    let lock = own(folder)?;
    let path = folder.join("ledger.sqlite3");
    let named = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            OpenError::Corrupt { path: path.clone(), what: source.to_string() }
        }
        _ => OpenError::Sqlite { path: path.clone(), source },
    };
    let mut db = Connection::open(&path).map_err(named)?;
    db.busy_timeout(Duration::from_secs(5)).map_err(named)?;
    let version = version(&db, &path, &named)?;
    settings(&db, version).map_err(named)?;
    migrate(&mut db, version, now).map_err(named)?;
    let sound: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(named)?;
    if sound != "ok" {
        return Err(OpenError::Corrupt { path, what: sound });
    }
    Ok(Opened { db, lock })
}

/// Makes the folder and locks it. The lock goes with the process, however that ends.
fn own(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join("lock");
    let failed = |path: &Path, source| OpenError::Folder { path: path.into(), source };
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(|error| failed(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Taken(folder.into())),
        Err(TryLockError::Error(error)) => Err(failed(&path, error)),
    }
}

/// The schema's version; 0 for a new file.
fn version(db: &Connection, path: &Path, named: &impl Fn(rusqlite::Error) -> OpenError) -> Result<i64, OpenError> {
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(named);
    if count("SELECT count(*) FROM sqlite_master")? == 0 {
        return Ok(0);
    }
    let ours = count("PRAGMA application_id")? == APPLICATION;
    if !ours || count("SELECT count(*) FROM sqlite_master WHERE name = 'schema_version'")? == 0 {
        return Err(OpenError::Foreign(path.into()));
    }
    let found: Option<Option<i64>> =
        db.query_row("SELECT max(version) FROM schema_version", [], |row| row.get(0)).optional().map_err(named)?;
    let (found, known) = (found.flatten().unwrap_or(0), MIGRATIONS.len() as i64);
    if found > known {
        return Err(OpenError::Newer { path: path.into(), found, known });
    }
    Ok(found)
}

fn settings(db: &Connection, version: i64) -> rusqlite::Result<()> {
    if version == 0 {
        db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Brings an older schema to the newest version, all of it or nothing.
fn migrate(db: &mut Connection, version: i64, now: i64) -> rusqlite::Result<()> {
    let transaction = db.transaction()?;
    if version == 0 {
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.execute_batch(
            "CREATE TABLE schema_version (version INTEGER NOT NULL PRIMARY KEY, applied INTEGER NOT NULL) STRICT",
        )?;
    }
    for (version, script) in (1_i64..).zip(MIGRATIONS).skip(usize::try_from(version).unwrap_or(0)) {
        transaction.execute_batch(script)?;
        transaction.execute("INSERT INTO schema_version VALUES (?, ?)", params![version, now])?;
    }
    transaction.commit()
}
