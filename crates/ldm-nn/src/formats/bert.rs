//! The text transformer of latent-diffusion's checkpoints (`BERTEmbedder`, encoders/modules.py and x_transformer.py).

use crate::weights::Mapped;

/// Before its names in a whole checkpoint.
pub const PREFIX: &str = "cond_stage_model.";

/// The output layer over the vocabulary, which diffusers' class has too and nothing uses, behind `prefix`.
pub const LOGITS: &str = "transformer.to_logits.";

/// Names around the layers, original and ours.
const AROUND: [(&str, &str); 3] =
    [("token_emb.", "embed_tokens."), ("pos_emb.emb.", "embed_positions."), ("norm.", "layer_norm.")];
/// Names of an attention, original and ours.
const ATTENTION: [(&str, &str); 5] = [
    ("0.", "self_attn_layer_norm."),
    ("1.to_q.", "self_attn.q_proj."),
    ("1.to_k.", "self_attn.k_proj."),
    ("1.to_v.", "self_attn.v_proj."),
    ("1.to_out.", "self_attn.out_proj."),
];
/// Names of a feed-forward, original and ours.
const FEED_FORWARD: [(&str, &str); 3] = [("0.", "final_layer_norm."), ("1.net.0.0.", "fc1."), ("1.net.2.", "fc2.")];

/// Every name that a transformer of so many layers may have behind a prefix, and more: [`original`] says what they are.
pub fn candidates(layers: i64) -> impl Iterator<Item = String> {
    let around = AROUND.iter().map(|(theirs, _)| (*theirs).to_owned());
    let layers = (0..2 * layers).flat_map(|index| {
        let table = if index % 2 == 0 { &ATTENTION[..] } else { &FEED_FORWARD };
        table.iter().map(move |(theirs, _)| format!("attn_layers.layers.{index}.{theirs}"))
    });
    around.chain(layers).flat_map(|name| ["weight", "bias"].map(|leaf| format!("transformer.{name}{leaf}")))
}

/// What becomes of a parameter behind `prefix`. The output layer over the vocabulary, and anything else in the file, is left out.
pub fn original(prefix: &str, name: &str) -> Mapped {
    let Some(name) = name.strip_prefix(prefix).and_then(|name| name.strip_prefix("transformer.")) else { return Mapped::Drop };
    if name.starts_with("to_logits.") {
        return Mapped::Drop;
    }
    let ours = |name: &str| Mapped::As(format!("model.{name}"));
    if let Some((part, at)) = AROUND.iter().find_map(|(theirs, ours)| Some((name.strip_prefix(theirs)?, ours))) {
        return ours(&format!("{at}{part}"));
    }
    layer(name).map_or_else(|| ours(name), |name| ours(&name))
}

/// Attention and feed-forward stand in turns: `attn_layers.layers.{2i}` and `{2i + 1}` are our layer `i`; `.0` is the
/// normalisation before, `.1` the block.
fn layer(name: &str) -> Option<String> {
    let (index, part) = name.strip_prefix("attn_layers.layers.")?.split_once('.')?;
    let index: usize = index.parse().ok()?;
    let table = if index.is_multiple_of(2) { &ATTENTION[..] } else { &FEED_FORWARD };
    let (theirs, ours) = table.iter().find(|(theirs, _)| part.starts_with(theirs))?;
    Some(format!("layers.{}.{ours}{}", index / 2, &part[theirs.len()..]))
}
