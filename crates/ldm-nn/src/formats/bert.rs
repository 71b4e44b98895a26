//! The text transformer of latent-diffusion's checkpoints (`BERTEmbedder`, encoders/modules.py and x_transformer.py).

use crate::weights::Mapped;

/// Before its names in a whole checkpoint.
pub const PREFIX: &str = "cond_stage_model.";

/// What becomes of a parameter behind `prefix`. The output layer over the vocabulary, and anything else in the file, is left out.
pub fn original(prefix: &str, name: &str) -> Mapped {
    let Some(name) = name.strip_prefix(prefix).and_then(|name| name.strip_prefix("transformer.")) else { return Mapped::Drop };
    if name.starts_with("to_logits.") {
        return Mapped::Drop;
    }
    let ours = |name: &str| Mapped::As(format!("model.{name}"));
    let heads = [("token_emb.", "embed_tokens."), ("pos_emb.emb.", "embed_positions."), ("norm.", "layer_norm.")];
    if let Some((part, at)) = heads.iter().find_map(|(theirs, ours)| Some((name.strip_prefix(theirs)?, ours))) {
        return ours(&format!("{at}{part}"));
    }
    layer(name).map_or_else(|| ours(name), |name| ours(&name))
}

/// Attention and feed-forward stand in turns: `attn_layers.layers.{2i}` and `{2i + 1}` are our layer `i`; `.0` is the
/// normalisation before, `.1` the block.
fn layer(name: &str) -> Option<String> {
    let (index, part) = name.strip_prefix("attn_layers.layers.")?.split_once('.')?;
    let index: usize = index.parse().ok()?;
    let table: &[(&str, &str)] = if index.is_multiple_of(2) {
        &[
            ("0.", "self_attn_layer_norm."),
            ("1.to_q.", "self_attn.q_proj."),
            ("1.to_k.", "self_attn.k_proj."),
            ("1.to_v.", "self_attn.v_proj."),
            ("1.to_out.", "self_attn.out_proj."),
        ]
    } else {
        &[("0.", "final_layer_norm."), ("1.net.0.0.", "fc1."), ("1.net.2.", "fc2.")]
    };
    let (theirs, ours) = table.iter().find(|(theirs, _)| part.starts_with(theirs))?;
    Some(format!("layers.{}.{ours}{}", index / 2, &part[theirs.len()..]))
}
