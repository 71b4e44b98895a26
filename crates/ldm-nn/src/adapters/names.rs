//! Names of layers in LoRA files: kohya's, those of diffusers old and new, and PEFT's.

use std::collections::BTreeMap;
use std::fmt;

use crate::clip_text::{ClipTextConfig, ClipTextModel};
use crate::formats::unet::names;
use crate::unet::{Architecture, UNet};
use crate::weights::{Mapped, Weights};

/// A part of a model that adapters change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The denoiser.
    Unet,
    /// The text encoder, of SDXL the first.
    Text,
    /// The second text encoder of SDXL, the only one of its refiner.
    Text2,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unet => "unet",
            Self::Text => "text_encoder",
            Self::Text2 => "text_encoder_2",
        })
    }
}

/// What a tensor of a LoRA file is to its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Down,
    Mid,
    Up,
    Alpha,
}

/// Endings of keys. The first that fits counts.
const ROLES: [(&str, Role); 8] = [
    (".lora_down.weight", Role::Down),
    (".lora_mid.weight", Role::Mid),
    (".lora_up.weight", Role::Up),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    (".alpha", Role::Alpha),
];

/// Traces of other methods in a key, and what they are.
const OTHERS: [(&str, &str); 8] = [
    ("dora_scale", "DoRA"),
    ("lora_magnitude_vector", "DoRA"),
    (".hada_", "LoHa"),
    (".lokr_", "LoKr"),
    (".oft_", "OFT"),
    (".diff", "full differences of weights"),
    (".lora_B.bias", "LoRA with biases"),
    (".lora_up.bias", "LoRA with biases"),
];

/// The method that a key belongs to, if it is not LoRA.
pub(super) fn other_method(key: &str) -> Option<&'static str> {
    OTHERS.iter().find(|(trace, _)| key.contains(trace)).map(|(_, method)| *method)
}

/// A key as its layer's name in the file and the tensor's role.
pub(super) fn split(key: &str) -> Option<(&str, Role)> {
    if let Some(found) = ROLES.iter().find_map(|(ending, role)| Some((key.strip_suffix(ending)?, *role))) {
        return Some(found);
    }
    // `to_q_lora.down.weight` of old attention processors.
    for (ending, role) in [(".down.weight", Role::Down), (".up.weight", Role::Up)] {
        if let Some(name) = key.strip_suffix(ending).filter(|name| name.ends_with("_lora")) {
            return Some((name, role));
        }
    }
    // `lora_A.weight`, or with the adapter's name, `lora_A.default.weight`.
    for (middle, role) in [(".lora_A.", Role::Down), (".lora_B.", Role::Up)] {
        if let Some((name, rest)) = key.split_once(middle)
            && (rest == "weight" || rest.strip_suffix(".weight").is_some_and(|name| !name.contains('.')))
        {
            return Some((name, role));
        }
    }
    None
}

/// Projections under the names of old attention processors, in a denoiser and in a text encoder.
const PROCESSORS: [(&str, &str, &str); 4] = [
    ("to_q_lora", "to_q", "q_proj"),
    ("to_k_lora", "to_k", "k_proj"),
    ("to_v_lora", "to_v", "v_proj"),
    ("to_out_lora", "to_out.0", "out_proj"),
];

/// PEFT's prefix of a wrapped model.
const WRAPPED: &str = "base_model.model.";

/// The layers of a model that adapters may change.
#[derive(Debug, Default)]
pub struct Targets {
    /// Shapes of weights by path.
    shapes: BTreeMap<Part, BTreeMap<String, Vec<i64>>>,
    /// Layers by their names in kohya's files.
    kohya: BTreeMap<String, (Part, String)>,
}

impl Targets {
    /// Of a denoiser and of the text encoders that there are.
    pub fn new(unet: &Architecture, text: [Option<&ClipTextConfig>; 2]) -> Self {
        let mut targets = Self::default();
        let shapes = Weights::shapes();
        UNet::build(&shapes, unet);
        targets.insert(Part::Unet, &shapes, &["lora_unet_"]);
        // What has no original names has no such files.
        for (original, mapped) in names(unet).unwrap_or_default() {
            if let (Some(original), Mapped::As(canonical)) = (original.strip_suffix(".weight"), mapped)
                && let Some(path) = canonical.strip_suffix(".weight")
                && targets.shape(Part::Unet, path).is_some()
            {
                targets.kohya.insert(flat("lora_unet_", original), (Part::Unet, path.to_owned()));
            }
        }
        let parts: [(Part, &[&str]); 2] = [(Part::Text, &["lora_te_", "lora_te1_"]), (Part::Text2, &["lora_te2_"])];
        for ((part, prefixes), config) in parts.into_iter().zip(text) {
            if let Some(config) = config {
                let shapes = Weights::shapes();
                ClipTextModel::new(&shapes, config);
                targets.insert(part, &shapes, prefixes);
            }
        }
        targets
    }

    fn insert(&mut self, part: Part, built: &Weights, prefixes: &[&str]) {
        let slots = built.slots();
        for (path, _) in slots.shapes() {
            for prefix in prefixes {
                self.kohya.insert(flat(prefix, path), (part, path.to_owned()));
            }
        }
        self.shapes.insert(part, slots.shapes().map(|(path, shape)| (path.to_owned(), shape.to_vec())).collect());
    }

    /// The shape of a layer's weight.
    pub fn shape(&self, part: Part, path: &str) -> Option<&[i64]> {
        Some(self.shapes.get(&part)?.get(path)?.as_slice())
    }

    /// Layers of a part, in order.
    pub fn layers(&self, part: Part) -> impl Iterator<Item = &str> {
        self.shapes.get(&part).into_iter().flat_map(|shapes| shapes.keys().map(String::as_str))
    }

    /// The layer that a file names so.
    pub(super) fn find(&self, name: &str) -> Option<(Part, String)> {
        self.kohya.get(name).cloned().or_else(|| self.dotted(name))
    }

    /// The layer of a name with dots.
    fn dotted(&self, name: &str) -> Option<(Part, String)> {
        let (part, path) = part_of(name);
        let path = path.replace(".processor.", ".");
        let path = path.strip_suffix(".lora").or(path.strip_suffix(".lora_linear_layer")).unwrap_or(&path);
        let only_text = match (self.shapes.contains_key(&Part::Text), self.shapes.contains_key(&Part::Text2)) {
            (true, false) => Some(Part::Text),
            (false, true) => Some(Part::Text2),
            _ => None,
        };
        let parts = match part {
            Some(part) => vec![part],
            None => [Some(Part::Unet), only_text].into_iter().flatten().collect(),
        };
        parts.into_iter().find_map(|part| {
            let path = canonical(part, path);
            let whole = self.shape(part, &path).is_some();
            let path = if whole || part == Part::Unet { path } else { format!("text_model.{path}") };
            self.shape(part, &path).is_some().then_some((part, path))
        })
    }
}

/// A path as kohya writes it.
fn flat(prefix: &str, path: &str) -> String {
    format!("{prefix}{}", path.replace('.', "_"))
}

/// The part that a name begins with, and the rest.
fn part_of(name: &str) -> (Option<Part>, &str) {
    let bare = |name| str::strip_prefix(name, WRAPPED).unwrap_or(name);
    let name = bare(name);
    for (prefix, part) in [("unet.", Part::Unet), ("text_encoder.", Part::Text), ("text_encoder_2.", Part::Text2)] {
        if let Some(rest) = name.strip_prefix(prefix) {
            return (Some(part), bare(rest));
        }
    }
    (None, name)
}

/// A path with an old processor's name as its last word, or one that is right already.
fn canonical(part: Part, path: &str) -> String {
    for (old, unet, text) in PROCESSORS {
        if let Some(layer) = path.strip_suffix(old) {
            return format!("{layer}{}", if part == Part::Unet { unet } else { text });
        }
    }
    path.to_owned()
}
