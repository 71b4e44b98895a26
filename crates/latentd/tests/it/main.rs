//! The binary from outside: flags, configuration, `inspect`, `generate`, `serve`.

mod ask;
mod cli;
mod demo;
mod files;
mod generate;
mod keys;
mod serve;
mod support;
