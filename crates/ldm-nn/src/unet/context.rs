//! What a job gives the denoiser beside the picture and the timestep, computed once.

use tch::{Kind, Tensor};

use super::UNet;
use super::architecture::{Architecture, Labels};
use super::embedding::{LabelEmbedding, guidance_sinusoids, sinusoids};
use crate::blocks::CrossKv;

/// What the denoiser is conditioned on: keys and values of every attention to the prompt, and what is added to the timestep. A row
/// of a batch is a row of each.
#[derive(Debug)]
pub struct Context {
    pub(super) layers: Vec<CrossKv>,
    /// Added to the timestep's embedding, `[B, 4·C₀]`.
    pub(super) embedding: Option<Tensor>,
    /// Added to the timestep's sinusoids, `[B, C₀]`.
    pub(super) guidance: Option<Tensor>,
    rows: i64,
}

impl Context {
    /// For a network that takes nothing but the picture and the timestep.
    pub fn empty(rows: i64) -> Self {
        Self { layers: Vec::new(), embedding: None, guidance: None, rows }
    }

    /// Rows of several contexts, one after another.
    ///
    /// # Panics
    /// When there is none, or they are of different networks.
    pub fn cat(contexts: &[&Context]) -> Self {
        let layers = contexts[0].layers.len();
        let layers =
            (0..layers).map(|i| CrossKv::cat(&contexts.iter().map(|context| &context.layers[i]).collect::<Vec<_>>())).collect();
        let cat = |part: fn(&Context) -> &Option<Tensor>| {
            part(contexts[0]).as_ref().map(|_| {
                let all: Vec<&Tensor> =
                    contexts.iter().map(|context| part(context).as_ref().expect("contexts of one network")).collect();
                Tensor::cat(&all, 0)
            })
        };
        Self {
            layers,
            embedding: cat(|context| &context.embedding),
            guidance: cat(|context| &context.guidance),
            rows: contexts.iter().map(|context| context.rows).sum(),
        }
    }

    /// The rows `from .. from + count`.
    pub fn rows(&self, from: i64, count: i64) -> Self {
        let narrow = |part: &Option<Tensor>| part.as_ref().map(|part| part.narrow(0, from, count));
        Self {
            layers: self.layers.iter().map(|layer| layer.rows(from, count)).collect(),
            embedding: narrow(&self.embedding),
            guidance: narrow(&self.guidance),
            rows: count,
        }
    }

    /// Number of rows.
    pub fn len(&self) -> i64 {
        self.rows
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }
}

/// What a [`Context`] is computed from, each part of as many rows. A network takes exactly the parts that its architecture names.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditioning<'a> {
    /// What is attended to, `[B, L, D]`.
    pub tokens: Option<&'a Tensor>,
    /// Classes, int64 `[B]`; or numbers such as a noise level, `[B]`, for a network that takes their sinusoids.
    pub labels: Option<&'a Tensor>,
    /// The vector that is embedded beside the timestep, `[B, V]`; [`Architecture::added_vector`] makes SDXL's.
    pub vector: Option<&'a Tensor>,
    /// The guidance scales `[B]` of a distilled network, as a user gives them (w + 1 in the paper).
    pub guidance: Option<&'a Tensor>,
}

/// A [`Conditioning`] that the network cannot take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConditioningError {
    /// A part is absent.
    #[error("the network takes {what}, and there is none")]
    Missing {
        /// The part.
        what: &'static str,
    },
    /// A part is there that the network does not take.
    #[error("the network takes no {what}")]
    Unwanted {
        /// The part.
        what: &'static str,
    },
    /// A part has another shape.
    #[error("{what} has the shape {found:?}, the network takes {wanted}")]
    Shape {
        /// The part.
        what: &'static str,
        /// Its shape.
        found: Vec<i64>,
        /// The right one.
        wanted: String,
    },
    /// A class that the table does not have.
    #[error("class {class} is not one of the network's {classes}, which start at 0")]
    Class {
        /// The class.
        class: i64,
        /// How many there are.
        classes: i64,
    },
}

/// The part when the network takes it and it is there with that many rows and that width, `None` when neither.
fn part<'a>(
    what: &'static str,
    given: Option<&'a Tensor>,
    wanted: Option<Vec<i64>>,
) -> Result<Option<&'a Tensor>, ConditioningError> {
    match (given, wanted) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(ConditioningError::Missing { what }),
        (Some(_), None) => Err(ConditioningError::Unwanted { what }),
        (Some(given), Some(wanted)) => {
            let found = given.size();
            // −1 is any number, but not 0.
            let fits = |(&found, &wanted): (&i64, &i64)| found == wanted || wanted == -1 && found > 0;
            if found.len() == wanted.len() && found.iter().zip(&wanted).all(fits) {
                return Ok(Some(given));
            }
            Err(ConditioningError::Shape { what, found, wanted: format!("{wanted:?}").replace("-1", "any") })
        }
    }
}

impl Architecture {
    /// SDXL's vector: pooled text `[B, P]` and sinusoids of the numbers `[B, N]` (sizes and crops), as wide as the network leaves room
    /// for → float32 `[B, V]`.
    pub fn added_vector(&self, pooled: &Tensor, numbers: &Tensor) -> Result<Tensor, ConditioningError> {
        let what = "vector";
        let total = self.vector().ok_or(ConditioningError::Unwanted { what })?;
        let (pooled_shape, count) = (pooled.size(), numbers.size());
        let (&[rows, text], &[same_rows, count]) = (pooled_shape.as_slice(), count.as_slice()) else {
            return Err(ConditioningError::Shape {
                what,
                found: pooled_shape,
                wanted: "pooled text [B, P], numbers [B, N]".into(),
            });
        };
        let width = if count > 0 { (total - text) / count } else { 0 };
        let fits = self.added.is_none_or(|added| added.sinusoids == width);
        if rows != same_rows || width <= 0 || width % 2 != 0 || text + width * count != total || !fits {
            let wanted = format!("{total} numbers, {text} of them pooled text and the rest sinusoids of {count} numbers");
            return Err(ConditioningError::Shape { what, found: vec![rows, text, same_rows, count], wanted });
        }
        let numbers = sinusoids(&numbers.flatten(0, -1), width, self.flip_sin_to_cos, self.freq_shift); // [B·N, width]
        Ok(Tensor::cat(&[pooled.to_kind(Kind::Float), numbers.view([rows, count * width]).to_device(pooled.device())], 1))
    }
}

impl UNet {
    /// Keys and values of every attention to the tokens `[B, L, D]`: once per prompt, not per step.
    ///
    /// # Panics
    /// When the network takes other things than tokens; ask for them with [`condition`](Self::condition).
    pub fn context(&self, tokens: &Tensor) -> Context {
        let given = Conditioning { tokens: Some(tokens), ..Conditioning::default() };
        self.condition(tokens.size()[0], &given).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Everything that a job of `rows` rows gives, ready for every step; an error names the part that is absent, of no use or of
    /// another shape.
    pub fn condition(&self, rows: i64, given: &Conditioning<'_>) -> Result<Context, ConditioningError> {
        let architecture = self.config();
        let width = architecture.cross_attention_dim;
        let tokens = part("context tokens", given.tokens, (width > 0).then(|| vec![rows, -1, width]))?;
        let labels = part("labels", given.labels, architecture.takes_labels().then(|| vec![rows]))?;
        let vector = part("vector", given.vector, architecture.vector().map(|width| vec![rows, width]))?;
        let scales = part("guidance scale", given.guidance, architecture.guidance.map(|_| vec![rows]))?;
        if let (Labels::Table(classes), Some(labels)) = (architecture.labels, labels)
            && rows > 0
        {
            let bad = [labels.min(), labels.max()]
                .iter()
                .map(|class| class.int64_value(&[]))
                .find(|class| !(0..classes).contains(class));
            if let Some(class) = bad {
                return Err(ConditioningError::Class { class, classes });
            }
        }

        let place = |x: &Tensor| x.to_device(self.device()).to_kind(self.kind());
        let layers = tokens.map_or_else(Vec::new, |tokens| self.cross_kv(tokens));
        let embedding = match (&self.class_embedding, labels, vector) {
            (Some(LabelEmbedding::Table(table)), Some(labels), _) => {
                Some(table.forward(&labels.to_device(self.device()).to_kind(Kind::Int64)))
            }
            (Some(LabelEmbedding::Sinusoids(layers)), Some(labels), _) => {
                Some(layers.forward(&place(&self.time_embedding.sinusoids(labels))))
            }
            (Some(LabelEmbedding::Vector(layers)), _, Some(vector)) => Some(layers.forward(&place(vector))),
            (Some(LabelEmbedding::Linear(layer)), _, Some(vector)) => Some(layer.forward(&place(vector))),
            (Some(LabelEmbedding::Identity), _, Some(vector)) => Some(place(vector)),
            _ => None,
        };
        let added = self.add_embedding.as_ref().zip(vector).map(|(layers, vector)| layers.forward(&place(vector)));
        let embedding = match (embedding, added) {
            (Some(embedding), Some(added)) => Some(embedding + added),
            (embedding, added) => embedding.or(added),
        };
        let guidance = architecture.guidance.zip(scales);
        let guidance =
            guidance.and_then(|(width, scales)| self.time_embedding.guidance(&place(&guidance_sinusoids(scales, width))));
        Ok(Context { layers, embedding, guidance, rows })
    }
}
