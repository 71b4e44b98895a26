//! Checkpoint files and their descriptions. Nothing here knows tensors: files are read as data, and described for the crates that
//! build networks.
//!
//! - [`torch`] and [`pickle`]: files of `torch.save`, read without running anything; [`convert`] writes them as safetensors, [`writer`] plans such files.
//! - [`header`]: the header of a safetensors file, checked before anything is mapped.
//! - [`card`]: one description of a model, from our cards (TOML) and from published sidecars (YAML).
//! - [`expect`]: the names and shapes that a description asks for; [`recognise`]: from names and shapes back to descriptions.

pub mod card;
pub mod convert;
mod dtype;
pub mod expect;
pub mod header;
pub mod pickle;
pub mod recognise;
pub mod torch;
pub mod writer;

pub use dtype::Dtype;
