//! How the process ends: 0 well, 1 it failed, 2 it was asked for something that cannot be.

use std::process::ExitCode;

/// What was asked for cannot be; the text says why, a line each.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The exit code of a command's outcome; its error goes to stderr.
pub(crate) fn code(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    match outcome {
        Ok(code) => code,
        Err(error) => {
            let usage = error.downcast_ref::<Usage>().is_some();
            for line in format!("{error:#}").lines() {
                eprintln!("error: {line}");
            }
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

/// Ends the process as it stands: without destructors, which would pull libtorch from under a device thread at work.
pub(crate) fn at_once(code: u8) -> ! {
    unsafe extern "C" {
        /// `_exit(2)` of POSIX.
        safe fn _exit(status: std::ffi::c_int) -> !;
    }
    _exit(code.into())
}
