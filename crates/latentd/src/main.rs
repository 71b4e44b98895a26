//! `latentd`: serves latent diffusion models over HTTP; also makes single pictures, inspects models, and trains.

mod commands;
mod config;
mod exit;
mod nearest;
mod signals;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    exit::code(commands::Cli::parse().run())
}
