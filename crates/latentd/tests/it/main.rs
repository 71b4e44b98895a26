//! The binary from outside: flags, configuration, `inspect`, `generate`, `serve`.

mod cli;
mod generate;
mod serve;
mod support;
