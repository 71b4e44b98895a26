//! The binary from outside: flags, configuration, `inspect`, `generate`, `serve`.

mod cli;
mod demo;
mod generate;
mod serve;
mod support;
