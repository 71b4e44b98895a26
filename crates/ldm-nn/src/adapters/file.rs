//! Reading a LoRA file: every key must be understood, fit a layer, and have a partner.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value};
use tch::{Kind, Tensor};

use super::names::{Part, Role, Targets, other_method, split};
use super::{Adapter, Layers, LowRank};

/// The largest rank of a layer.
pub const MAX_RANK: i64 = 1024;

/// The largest file, 4 GiB: several times what the largest LoRAs of SDXL have.
pub const MAX_BYTES: u64 = 4 << 30;

/// Keys that a complaint shows.
const SHOWN: usize = 5;

/// diffusers' entry in a file's metadata: PEFT's configuration as JSON.
const METADATA: &str = "lora_adapter_metadata";

/// A LoRA file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct AdapterError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub problem: AdapterProblem,
}

/// What is wrong with a LoRA file.
#[derive(Debug, thiserror::Error)]
pub enum AdapterProblem {
    /// It cannot be read.
    #[error("{0}")]
    Read(std::io::Error),
    /// It is a pickle.
    #[error("is a Python pickle, which can run code when it is read: convert it to safetensors first")]
    Pickle,
    /// It is too large.
    #[error("has {0} bytes, more than {MAX_BYTES}: no LoRA is that large")]
    TooLarge(u64),
    /// It is not safetensors.
    #[error("is no safetensors file: {0}")]
    Format(safetensors::SafeTensorError),
    /// It has no layer.
    #[error("has no LoRA layer")]
    Empty,
    /// It is another kind of adapter.
    #[error("`{key}` belongs to {method}, which is not supported; only LoRA is")]
    Method {
        /// The key.
        key: String,
        /// What it is.
        method: &'static str,
    },
    /// Keys that are for another model, or not understood.
    #[error("{count} keys fit no layer of this model: {first}")]
    Strangers {
        /// How many.
        count: usize,
        /// The first few.
        first: String,
    },
    /// A layer that is not whole, or named twice.
    #[error("`{key}` {why}")]
    Broken {
        /// The key.
        key: String,
        /// Why.
        why: String,
    },
    /// A tensor that does not fit.
    #[error("`{key}` has the shape {found:?}; {layer} takes {wanted}")]
    Shape {
        /// The key.
        key: String,
        /// Its shape.
        found: Vec<i64>,
        /// The layer.
        layer: String,
        /// The right shape.
        wanted: String,
    },
}

/// A tensor with the key that it has in the file.
struct Named {
    key: String,
    tensor: Tensor,
}

/// The tensors of one layer.
#[derive(Default)]
struct Pieces {
    down: Option<Named>,
    mid: Option<Named>,
    up: Option<Named>,
    alpha: Option<Named>,
}

impl Adapter {
    /// Reads a safetensors file for a model with these layers: kohya's keys (of diffusers' or original denoiser names),
    /// diffusers' and PEFT's. Strict: what is not understood is refused, by its key. Tensors keep their dtype, on the CPU.
    pub fn open(path: &Path, targets: &Targets) -> Result<Self, AdapterError> {
        let file = bytes(path).and_then(|bytes| {
            let file = SafeTensors::deserialize(&bytes).map_err(|error| {
                if bytes.starts_with(b"PK") || bytes.starts_with(&[0x80]) {
                    AdapterProblem::Pickle
                } else {
                    AdapterProblem::Format(error)
                }
            })?;
            let metadata = SafeTensors::read_metadata(&bytes).map_err(AdapterProblem::Format)?.1;
            let config = metadata.metadata().as_ref().and_then(|texts| texts.get(METADATA));
            parse(&file, Config::read(config.map(String::as_str))?, targets)
        });
        file.map_err(|problem| AdapterError { path: path.to_owned(), problem })
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, AdapterProblem> {
    let file = std::fs::File::open(path).map_err(AdapterProblem::Read)?;
    let length = file.metadata().map_err(AdapterProblem::Read)?.len();
    if length > MAX_BYTES {
        return Err(AdapterProblem::TooLarge(length));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(AdapterProblem::Read)?;
    Ok(bytes)
}

fn parse(file: &SafeTensors<'_>, config: Config, targets: &Targets) -> Result<Adapter, AdapterProblem> {
    let mut keys: Vec<&str> = file.names();
    keys.sort_unstable();
    if let Some((key, method)) = keys.iter().find_map(|key| Some((key, other_method(key)?))) {
        return Err(AdapterProblem::Method { key: (*key).to_owned(), method });
    }
    let mut layers: BTreeMap<(Part, String), Pieces> = BTreeMap::new();
    let mut strangers = Vec::new();
    for key in keys {
        let Some((layer, role)) = split(key).and_then(|(name, role)| Some((targets.find(name)?, role))) else {
            strangers.push(key);
            continue;
        };
        let pieces = layers.entry(layer).or_default();
        let place = match role {
            Role::Down => &mut pieces.down,
            Role::Mid => &mut pieces.mid,
            Role::Up => &mut pieces.up,
            Role::Alpha => &mut pieces.alpha,
        };
        let named = Named { key: key.to_owned(), tensor: tensor(file, key)? };
        if let Some(other) = place.replace(named) {
            return Err(broken(key, format!("is for the same layer as `{}`", other.key)));
        }
    }
    if !strangers.is_empty() {
        let more = if strangers.len() > SHOWN { ", …" } else { "" };
        let first = format!("{}{more}", strangers[..strangers.len().min(SHOWN)].join(", "));
        return Err(AdapterProblem::Strangers { count: strangers.len(), first });
    }
    let (mut unet, mut text, mut text_2) = (Layers::new(), Layers::new(), Layers::new());
    for ((part, path), pieces) in layers {
        let shape = targets.shape(part, &path).unwrap_or_default();
        let layer = pieces.assemble(part, &path, shape, &config)?;
        match part {
            Part::Unet => &mut unet,
            Part::Text => &mut text,
            Part::Text2 => &mut text_2,
        }
        .insert(path, layer);
    }
    let adapter = Adapter { unet: Rc::new(unet), text: [Rc::new(text), Rc::new(text_2)] };
    if adapter.is_empty() { Err(AdapterProblem::Empty) } else { Ok(adapter) }
}

fn broken(key: &str, why: impl Into<String>) -> AdapterProblem {
    AdapterProblem::Broken { key: key.to_owned(), why: why.into() }
}

/// A tensor of the file, of finite numbers.
fn tensor(file: &SafeTensors<'_>, key: &str) -> Result<Tensor, AdapterProblem> {
    let view = file.tensor(key).map_err(AdapterProblem::Format)?;
    let kind = match view.dtype() {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        // kohya's alpha may be a whole number.
        Dtype::I64 if view.shape().iter().product::<usize>() == 1 => Kind::Int64,
        other => return Err(broken(key, format!("has dtype {other:?}, not a floating one"))),
    };
    let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
    if shape.contains(&0) {
        return Err(broken(key, "has no numbers"));
    }
    let tensor = Tensor::from_data_size(view.data(), &shape, kind);
    if tensor.isfinite().all().int64_value(&[]) == 0 {
        return Err(broken(key, "holds NaN or infinity: the file is damaged"));
    }
    Ok(tensor)
}

impl Pieces {
    /// The layer's change, when its pieces fit each other and the weight of `shape`.
    fn assemble(self, part: Part, path: &str, shape: &[i64], config: &Config) -> Result<LowRank, AdapterProblem> {
        let present = [&self.down, &self.mid, &self.up, &self.alpha].into_iter().flatten().next();
        let key = present.map_or_else(String::new, |named| named.key.clone());
        let (Some(down), Some(up)) = (self.down, self.up) else {
            return Err(broken(&key, "has no partner: a layer needs a down and an up matrix"));
        };
        let (output, input, kernel) = (shape[0], shape[1], &shape[2..]);
        let rank = down.tensor.size()[0];
        if rank > MAX_RANK {
            return Err(broken(&down.key, format!("has rank {rank}, more than {MAX_RANK}")));
        }
        if up.tensor.size().get(1) != Some(&rank) && up.tensor.size().first() == Some(&output) {
            let found = up.tensor.size().get(1).copied().unwrap_or(1);
            return Err(broken(&up.key, format!("has rank {found}, `{}` has rank {rank}", down.key)));
        }
        let with = |first: i64, second: i64, kernel: &[i64]| [&[first, second], kernel].concat();
        let ones = vec![1; kernel.len()];
        let fit = |named: &Named, wanted: Vec<i64>| fitted(named, &wanted, &format!("{part} `{path}`"));
        let mid = self.mid.as_ref().map(|mid| fit(mid, with(rank, rank, kernel))).transpose()?;
        if mid.is_some() && kernel.is_empty() {
            return Err(broken(&key, format!("has a middle, but {part} `{path}` is no convolution")));
        }
        let down = fit(&down, with(rank, input, if mid.is_some() { &ones } else { kernel }))?;
        let up = fit(&up, with(output, rank, &ones))?;
        let scale = match &self.alpha {
            Some(alpha) if alpha.tensor.numel() == 1 => alpha.tensor.double_value(&[]) / rank as f64,
            Some(alpha) => return Err(broken(&alpha.key, format!("must be one number, not {:?}", alpha.tensor.size()))),
            None => config.scale(part, path, rank),
        };
        Ok(LowRank { down, mid, up, scale })
    }
}

/// The tensor in the shape `wanted`, from which it may differ by dimensions of 1 at its end: 1×1 convolutions are kept as
/// linear layers, and the other way round.
fn fitted(named: &Named, wanted: &[i64], layer: &str) -> Result<Tensor, AdapterProblem> {
    let found = named.tensor.size();
    let bare = |shape: &[i64]| {
        let (matrix, kernel) = shape.split_at(shape.len().min(2));
        if kernel.iter().all(|&n| n == 1) { matrix.to_vec() } else { shape.to_vec() }
    };
    if bare(&found) == bare(wanted) {
        return Ok(named.tensor.view(wanted));
    }
    let (key, wanted, layer) = (named.key.clone(), format!("{wanted:?}"), layer.to_owned());
    Err(AdapterProblem::Shape { key, found, layer, wanted })
}

/// What PEFT's configuration in the metadata says of scales; without it alpha is the rank.
#[derive(Default)]
struct Config(Map<String, Value>);

impl Config {
    fn read(text: Option<&str>) -> Result<Self, AdapterProblem> {
        let Some(text) = text else { return Ok(Self::default()) };
        let config =
            serde_json::from_str(text).map(Self).map_err(|error| broken(METADATA, format!("is no JSON object: {error}")))?;
        if let Some(key) = config.0.iter().find_map(|(key, value)| (key.ends_with("use_dora") && *value == true).then_some(key)) {
            return Err(AdapterProblem::Method { key: key.clone(), method: "DoRA" });
        }
        Ok(config)
    }

    /// alpha / rank, or alpha / √rank where the configuration says so (rsLoRA, Kalajdzievski 2023).
    fn scale(&self, part: Part, path: &str, rank: i64) -> f64 {
        let said = |key: &str| self.0.get(&format!("{part}.{key}"));
        let patterns = said("alpha_pattern").and_then(Value::as_object);
        let fits = |pattern: &str| path == pattern || path.strip_suffix(pattern).is_some_and(|rest| rest.ends_with('.'));
        let own = patterns.and_then(|patterns| patterns.iter().find(|(pattern, _)| fits(pattern)).map(|(_, alpha)| alpha));
        let alpha = own.or(said("lora_alpha")).and_then(Value::as_f64).unwrap_or(rank as f64);
        let rank = rank as f64;
        alpha / if said("use_rslora") == Some(&Value::Bool(true)) { rank.sqrt() } else { rank }
    }
}
