//! Ledgers that outlive the process: [`Sqlite`], for one process with a folder of its own.

mod sqlite;

pub use sqlite::{OpenError, Sqlite};
