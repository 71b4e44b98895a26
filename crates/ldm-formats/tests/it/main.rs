//! The formats from outside: files that torch wrote, files that somebody wrote to harm.

mod attacks;
mod cards;
mod convert;
mod header;
mod mutations;
mod recognise;

use std::path::{Path, PathBuf};

/// A golden file of `tools/goldens/formats.py`.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/formats").join(name)
}

/// A folder of its own that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ldm-formats-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
