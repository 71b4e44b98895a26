//! The tensors by which conditioners are known.

use super::Expected;
use crate::card::ConditionerKind;

/// The tensors that tell one conditioner from another, without `cond_stage_model.`; none for those without parameters or whose
/// parameters lie elsewhere. Whole lists are the business of the networks.
pub fn conditioner(kind: &ConditionerKind) -> Expected {
    const CLIP_TOKENS: u64 = 49408;
    let width = |number: &u32| u64::from(*number);
    match kind {
        ConditionerKind::Class { n_classes, embed_dim } => {
            vec![("embedding.weight".to_owned(), vec![width(n_classes), width(embed_dim)])]
        }
        ConditionerKind::Bert { n_embed, n_layer, vocab_size, max_seq_len, .. } => {
            // Two of x-transformers' layers to each: attention and feed-forward.
            let last = 2 * width(n_layer).max(1) - 1;
            vec![
                ("transformer.token_emb.weight".to_owned(), vec![width(vocab_size), width(n_embed)]),
                ("transformer.pos_emb.emb.weight".to_owned(), vec![width(max_seq_len), width(n_embed)]),
                (format!("transformer.attn_layers.layers.{last}.1.net.2.bias"), vec![width(n_embed)]),
            ]
        }
        ConditionerKind::SpatialRescaler { in_channels, out_channels, .. } => {
            vec![("channel_mapper.weight".to_owned(), vec![width(out_channels), width(in_channels), 1, 1])]
        }
        ConditionerKind::Clip { version, max_length, .. } if version == "openai/clip-vit-large-patch14" => vec![
            ("transformer.text_model.embeddings.token_embedding.weight".to_owned(), vec![CLIP_TOKENS, 768]),
            ("transformer.text_model.embeddings.position_embedding.weight".to_owned(), vec![width(max_length), 768]),
        ],
        ConditionerKind::OpenClip { arch, max_length, .. } => {
            let width_of = match arch.as_str() {
                "ViT-H-14" => 1024,
                "ViT-bigG-14" => 1280,
                _ => return Vec::new(),
            };
            vec![
                ("model.token_embedding.weight".to_owned(), vec![CLIP_TOKENS, width_of]),
                ("model.positional_embedding".to_owned(), vec![width(max_length), width_of]),
            ]
        }
        _ => Vec::new(),
    }
}
