//! Models from one layout into the other: single files of the original repositories, and directories of diffusers. Tensor by
//! tensor, byte for byte; what comes out is read again and compared before it gets its name.

mod card;
mod compare;
mod configs;
mod diffusers;
mod names;
mod original;
mod output;
mod parameters;
mod tokenizer;
mod unet_config;

use std::path::{Path, PathBuf};

use ldm_formats::convert::{Cast, ConvertError as PickleError, Progress};
use ldm_formats::torch::{self, TorchFile};
use ldm_formats::writer::Partial;

use crate::families::ModelError;
use crate::families::original::Original;
use crate::options::ModelSource;

/// How a model is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConvertOptions {
    /// Float tensors are cast to this; otherwise their dtype is kept.
    pub cast: Option<Cast>,
    /// Whether what is there already is replaced.
    pub force: bool,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Converted {
    /// Tensors.
    pub tensors: usize,
    /// Bytes of tensors.
    pub bytes: u64,
    /// Files beside the one asked for: a card, a tokenizer.
    pub beside: Vec<PathBuf>,
    /// What the source holds and the new layout has no place for: what it is, and how many tensors.
    pub left_out: Vec<(String, usize)>,
}

/// A conversion that failed; nothing new is there then.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The model cannot be read.
    #[error("{0}")]
    Model(#[from] ModelError),
    /// The checkpoint is a pickle that cannot be read.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// The other layout has no form for a part.
    #[error("{part} has no {layout} form: {why}")]
    NoForm {
        /// The part, as its source calls it.
        part: String,
        /// `diffusers` or `original`.
        layout: &'static str,
        /// Why.
        why: String,
    },
    /// Something is there already.
    #[error("{path} exists already{hint}")]
    Exists {
        /// Where.
        path: PathBuf,
        /// What can be done.
        hint: &'static str,
    },
    /// A number does not fit the dtype asked for.
    #[error("tensor `{name}` holds {value}, which {dtype} cannot: keep the dtype or choose another")]
    Range {
        /// The tensor, by its new name.
        name: String,
        /// The number.
        value: f64,
        /// The dtype asked for.
        dtype: ldm_formats::Dtype,
    },
    /// There is no room.
    #[error("{path}: the disk is full; the tensors need {bytes} bytes")]
    Full {
        /// The file.
        path: PathBuf,
        /// Bytes of its tensors.
        bytes: u64,
    },
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What was written reads as another model.
    #[error("the conversion would change the model: {0}")]
    Changed(String),
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> ConvertError + '_ {
    move |source| ConvertError::Io { path: path.to_owned(), source }
}

/// Whether a name is one of a PyTorch pickle.
fn is_pickle(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    ["ckpt", "pt", "pth", "bin"].contains(&extension)
}

/// An original file (safetensors, or a pickle that is read without running anything) as a directory of diffusers at `to`: a
/// pipeline, or an autoencoder alone. `source` says what describes it and which weights of the denoiser are taken.
///
/// # Errors
/// When the file is not read, diffusers has no form for a part, `to` is there already, or the disk fails.
pub fn to_diffusers(
    source: &ModelSource,
    to: &Path,
    options: ConvertOptions,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Converted, ConvertError> {
    let _no_grad = tch::no_grad_guard();
    let staging = output::Staging::create(to, options.force)?;
    let file = source.dir.as_path();
    let unpickled = is_pickle(file).then(|| unpickle(file, to)).transpose()?;
    let weights = unpickled.as_ref().map_or(file, Partial::path);
    let report = diffusers::write(Original { file, weights }, source, staging.path(), options, &mut progress)?;
    staging.finish(to, options.force)?;
    Ok(report)
}

/// A directory of diffusers (a pipeline's, or an autoencoder's own) as an original single file at `to`, with a card and the
/// tokenizer beside it where this project's loader needs them.
///
/// # Errors
/// When the directory is not read, the original classes have no form for a part, `to` or a file beside it is there already, or the
/// disk fails.
pub fn to_original(
    source: &ModelSource,
    to: &Path,
    options: ConvertOptions,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Converted, ConvertError> {
    let _no_grad = tch::no_grad_guard();
    original::write(source, to, options, &mut progress)
}

/// The tensors of a pickle, as safetensors in a file that goes when it is dropped.
fn unpickle(file: &Path, to: &Path) -> Result<Partial, ConvertError> {
    let open = |source| PickleError::Open { path: file.to_owned(), source };
    let mut pickle = TorchFile::open(file, &torch::Options::default()).map_err(open)?;
    let place = output::beside(to, ".weights");
    let partial = Partial::create(&place).map_err(io(&place))?;
    let bytes = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
    let mut write = || -> Result<(), PickleError> {
        let mut sink = std::io::BufWriter::with_capacity(1 << 20, &partial.file);
        ldm_formats::convert::write(&mut pickle, &mut sink, ldm_formats::convert::Options::default(), |_| {})?;
        Ok(std::io::Write::flush(&mut sink)?)
    };
    write().map_err(|error| match error {
        PickleError::Io(source) => output::failed(&place, bytes, source),
        error => error.into(),
    })?;
    Ok(partial)
}
