//! Text encoders of Stable Diffusion's single files: names of Hugging Face's CLIP behind a prefix, and OpenCLIP's own names.

use crate::clip_text::{ClipTextConfig, ClipTextModel};
use crate::weights::Mapped;

/// Before Hugging Face's names, Stable Diffusion 1.x.
pub const SD1: &str = "cond_stage_model.transformer.";
/// Before OpenCLIP's names, Stable Diffusion 2.x.
pub const SD2: &str = "cond_stage_model.model.";
/// Before Hugging Face's names, the first encoder of SDXL.
pub const SDXL_L: &str = "conditioner.embedders.0.transformer.";
/// Before OpenCLIP's names, the second encoder of SDXL.
pub const SDXL_G: &str = "conditioner.embedders.1.model.";
/// Before OpenCLIP's names, the only encoder of SDXL's refiner.
pub const REFINER: &str = "conditioner.embedders.0.model.";

/// What becomes of a parameter of Hugging Face's CLIP behind `prefix`. Anything else in the file is left out.
pub fn transformers(prefix: &str, name: &str) -> Mapped {
    name.strip_prefix(prefix).and_then(ClipTextModel::canonical_name).map_or(Mapped::Drop, Mapped::As)
}

/// Names of one layer, OpenCLIP's and ours.
const LAYER: [(&str, &str); 5] = [
    ("ln_1.", "layer_norm1."),
    ("ln_2.", "layer_norm2."),
    ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
    ("attn.out_proj.", "self_attn.out_proj."),
];

/// Every name that an OpenCLIP text tower of so many layers may have behind a prefix: [`open_clip`] says what they are.
pub fn open_clip_candidates(layers: i64) -> impl Iterator<Item = String> {
    let leaves = |name: String| ["weight", "bias"].map(|leaf| format!("{name}{leaf}"));
    let parts = LAYER.iter().map(|(theirs, _)| *theirs).chain(["attn.in_proj_"]);
    let parts: Vec<&str> = parts.collect();
    let layers = (0..layers).flat_map(move |index| {
        let named: Vec<String> = parts.iter().map(|part| format!("transformer.resblocks.{index}.{part}")).collect();
        named.into_iter().flat_map(leaves)
    });
    let single = ["positional_embedding", "token_embedding.weight", "text_projection"].map(str::to_owned);
    single.into_iter().chain(leaves("ln_final.".to_owned())).chain(layers)
}

/// What becomes of a parameter of OpenCLIP's text tower behind `prefix`: layers that `config` does not have are left out, and the
/// projection if it has none; so are the contrastive scale, the mask, the picture's tower, and anything else in the file.
pub fn open_clip(prefix: &str, config: &ClipTextConfig, name: &str) -> Mapped {
    let Some(name) = name.strip_prefix(prefix) else { return Mapped::Drop };
    let ours = |name: &str| Mapped::As(format!("text_model.{name}"));
    match name {
        "positional_embedding" => return ours("embeddings.position_embedding.weight"),
        "token_embedding.weight" => return ours("embeddings.token_embedding.weight"),
        "text_projection" | "text_projection.weight" if !config.has_projection() => return Mapped::Drop,
        "text_projection" => return Mapped::Transposed("text_projection.weight".into()),
        // Some trainers save it as a linear layer.
        "text_projection.weight" => return Mapped::As(name.into()),
        "logit_scale" | "attn_mask" => return Mapped::Drop,
        _ if name.starts_with("visual.") || name.ends_with("position_ids") => return Mapped::Drop,
        _ => {}
    }
    if let Some(part) = name.strip_prefix("ln_final.") {
        return ours(&format!("final_layer_norm.{part}"));
    }
    let layer = name.strip_prefix("transformer.resblocks.").and_then(|rest| rest.split_once('.'));
    let Some((index, part)) = layer.and_then(|(index, part)| Some((index.parse::<i64>().ok()?, part))) else {
        return ours(name);
    };
    if index >= config.num_hidden_layers {
        return Mapped::Drop;
    }
    let at = format!("text_model.encoder.layers.{index}");
    if let Some(kind) = part.strip_prefix("attn.in_proj_") {
        let names = ["q", "k", "v"].map(|which| format!("{at}.self_attn.{which}_proj.{kind}"));
        return Mapped::Rows(names.into());
    }
    let renamed = LAYER.iter().find_map(|(theirs, ours)| Some(format!("{at}.{ours}{}", part.strip_prefix(theirs)?)));
    Mapped::As(renamed.unwrap_or_else(|| format!("{at}.{part}")))
}
