//! The subcommands, one file each.

mod bench;
mod convert;
mod evaluate;
mod files;
mod generate;
mod guards;
mod inspect;
mod keys;
mod named;
mod reconstruct;
mod serve;
mod served;
mod train;

use std::process::ExitCode;

/// Latent diffusion models over HTTP.
#[derive(Debug, clap::Parser)]
#[command(name = "latentd", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Serve models over HTTP.
    Serve(serve::Args),
    /// Make one picture and write it to a file.
    Generate(Box<generate::Args>),
    /// Say what a model's files hold, and what is wrong with them.
    Inspect(inspect::Args),
    /// Encode and decode a picture with a first stage alone.
    Reconstruct(reconstruct::Args),
    /// Turn a PyTorch checkpoint into safetensors, without running anything that is in it.
    Convert(convert::Args),
    /// Train a model from scratch.
    Train(train::Args),
    /// Make a key that callers show.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Put a load on a running server and say how it fared.
    Bench(Box<bench::Args>),
}

impl Cli {
    /// Does what was asked for.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(args) => serve::run(args),
            Command::Generate(args) => generate::run(*args),
            Command::Inspect(args) => inspect::run(&args),
            Command::Reconstruct(args) => reconstruct::run(&args),
            Command::Convert(args) => convert::run(&args),
            Command::Train(args) => train::run(&args),
            Command::Keys(command) => keys::run(&command),
            Command::Bench(args) => bench::run(&args),
        }
    }
}
