//! What a denoiser is told: the conditioners of every system but CLIP itself, and what is done to a prompt on its way to CLIP.

pub mod bert_tokenizer;
pub mod chunks;
pub mod class_embedder;
pub mod emphasis;
pub mod layout;
pub mod ldm_bert;
pub mod prompt;
pub mod spatial_rescaler;
pub mod textual_inversion;
pub mod vectors;

pub use bert_tokenizer::BertTokenizer;
pub use chunks::{Chunk, ChunkError, Chunker};
pub use class_embedder::{ClassEmbedder, ClassEmbedderConfig};
pub use emphasis::{ChunkEncoder, Emphasis};
pub use layout::{LayoutConfig, LayoutError, LayoutObject};
pub use ldm_bert::{BertEmbedderParams, LdmBertConfig, LdmBertModel};
pub use prompt::{Piece, PromptError};
pub use spatial_rescaler::{SpatialRescaler, SpatialRescalerConfig};
pub use textual_inversion::{InversionError, Inversions, TextualInversion};
