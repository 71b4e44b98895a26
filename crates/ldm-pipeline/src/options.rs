//! How models are loaded: device, dtype, bounds.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ldm_core::Mode;
use tch::Kind;

/// A word that names no device or dtype.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {allowed}, not {value:?}")]
pub struct ParseError {
    what: &'static str,
    allowed: &'static str,
    value: String,
}

/// Where models live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// A CUDA device, by number.
    Cuda(usize),
}

impl Device {
    pub(crate) fn tch(self) -> tch::Device {
        match self {
            Self::Cpu => tch::Device::Cpu,
            Self::Cuda(index) => tch::Device::Cuda(index),
        }
    }
}

impl FromStr for Device {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let index = |text: &str| text.strip_prefix("cuda:").and_then(|index| index.parse().ok());
        match text {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => index(text).map(Self::Cuda).ok_or_else(|| ParseError {
                what: "device",
                allowed: "cpu or cuda:N",
                value: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// The number format of parameters and activations; latents are float32 whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dtype {
    /// float32.
    #[default]
    F32,
    /// bfloat16.
    Bf16,
    /// float16.
    F16,
}

impl Dtype {
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
            Self::F16 => Kind::Half,
        }
    }

    /// The word of a libtorch dtype.
    pub(crate) fn name_of(kind: Kind) -> &'static str {
        match kind {
            Kind::BFloat16 => "bf16",
            Kind::Half => "f16",
            Kind::Float => "f32",
            _ => "other",
        }
    }
}

impl FromStr for Dtype {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "f32" | "fp32" | "float32" => Ok(Self::F32),
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            "f16" | "fp16" | "float16" => Ok(Self::F16),
            _ => Err(ParseError { what: "dtype", allowed: "f32, bf16 or f16", value: text.to_owned() }),
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::name_of(self.kind()))
    }
}

/// How models are loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where they live.
    pub device: Device,
    /// Their number format.
    pub dtype: Dtype,
    /// Whether company may change a picture's last bits.
    pub mode: Mode,
    /// Largest side of a picture, pixels; `None` takes the model's own.
    pub max_side: Option<u32>,
    /// Threads of a CPU device, of the thread that loads it alone; `None` leaves the choice to libtorch.
    pub threads: Option<usize>,
    /// Encoded prompts that are kept.
    pub cache: usize,
    /// A folder for what was measured of models whose own folders cannot be written.
    pub profiles: Option<PathBuf>,
    /// Pictures with a longer side than this many pixels are decoded in tiles, which bounds memory.
    pub tile_from: u32,
    /// Bounds on what a request may ask for.
    pub bounds: ldm_core::Bounds,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            dtype: Dtype::F32,
            mode: Mode::Fast,
            max_side: None,
            threads: None,
            cache: 256,
            profiles: None,
            tile_from: 1536,
            bounds: ldm_core::Bounds::default(),
        }
    }
}

/// A LoRA that is merged into a model's weights when they are read: it costs nothing afterwards, and every job has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Merge {
    /// A safetensors file.
    pub path: PathBuf,
    /// What its changes are multiplied by.
    pub strength: f64,
}

/// A model to load.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSource {
    /// The name that requests use.
    pub id: String,
    /// A diffusers directory, or a file in the original layout.
    pub dir: PathBuf,
    /// What describes a file: a published .yaml, a card's .toml, or a card's name. Looked for beside the file when not given.
    pub config: Option<PathBuf>,
    /// Which weights of a file's denoiser are read.
    pub ema: EmaChoice,
    /// Learnt words (textual inversion, Gal et al. 2022): safetensors files, or folders of them. Prompts use them by name.
    pub embeddings: Vec<PathBuf>,
    /// It is described at the start, and loaded when somebody asks for it.
    pub lazy: bool,
    /// A tiny decoder that previews are made with: a file of TAESD in its own or diffusers' names, whole or the decoder alone, or a
    /// directory of diffusers' `AutoencoderTiny`. Without it the first stage makes them.
    pub preview: Option<PathBuf>,
    /// A first stage in place of the model's own: TAESD as above, an original file, or a directory of diffusers' autoencoder.
    pub first_stage: Option<PathBuf>,
    /// LoRAs that jobs may ask for: safetensors files, or folders of them. A LoRA is called like its file, without the extension.
    pub loras: Vec<PathBuf>,
    /// LoRAs that every job has.
    pub merge: Vec<Merge>,
}

impl ModelSource {
    /// A model whose files say everything.
    pub fn new(id: impl Into<String>, dir: impl Into<PathBuf>) -> Self {
        Self {
            id: id.into(),
            dir: dir.into(),
            config: None,
            ema: EmaChoice::Auto,
            embeddings: Vec::new(),
            preview: None,
            first_stage: None,
            loras: Vec::new(),
            merge: Vec::new(),
            lazy: false,
        }
    }
}

/// Which weights of an original file's denoiser are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmaChoice {
    /// The averaged ones where the file has them, unless its description says `use_ema: False`.
    #[default]
    Auto,
    /// The averaged ones.
    On,
    /// Those of the last training step.
    Off,
}

impl FromStr for EmaChoice {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text {
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err(ParseError { what: "ema", allowed: "auto, on or off", value: text.to_owned() }),
        }
    }
}

impl fmt::Display for EmaChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        })
    }
}
