//! Boxes as tokens, for layout-to-image (taming-transformers, conditional_builder/objects_bbox.py
//! `ObjectsBoundingBoxConditionalBuilder`).

use serde::Deserialize;

/// Left, top, width, height, as fractions of the picture's.
pub type Box4 = [f64; 4];

/// How layouts become tokens. The default is that of layout2img-openimages256, apart from the number of classes, which its
/// published configuration does not tell.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct LayoutConfig {
    /// Classes of objects.
    pub no_object_classes: i64,
    /// Objects at most; fewer are padded.
    #[serde(default = "thirty")]
    pub no_max_objects: usize,
    /// Token ids; the last means "none".
    #[serde(default = "eight_thousand")]
    pub no_tokens: i64,
    /// Whether the crop stands in two tokens behind the objects.
    #[serde(default = "yes")]
    pub encode_crop: bool,
    /// Whether [`LayoutObject::is_group`] is encoded.
    #[serde(default = "yes")]
    pub use_group_parameter: bool,
    /// Whether the other attributes are.
    #[serde(default = "yes")]
    pub use_additional_parameters: bool,
}

fn thirty() -> usize {
    30
}

fn eight_thousand() -> i64 {
    8192
}

fn yes() -> bool {
    true
}

/// One object of a layout.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct LayoutObject {
    /// The number of its class, from 0.
    pub category: i64,
    /// Where it is.
    pub bbox: Box4,
    /// A group of things of that class.
    #[serde(default)]
    pub is_group: bool,
    /// Partly hidden.
    #[serde(default)]
    pub is_occluded: bool,
    /// A picture of the thing.
    #[serde(default)]
    pub is_depiction: bool,
    /// Seen from its inside.
    #[serde(default)]
    pub is_inside: bool,
}

/// A layout that has no tokens. Objects count from 0.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LayoutError {
    /// More objects than the model reads.
    #[error("the layout has {found} objects, more than {limit}")]
    TooMany {
        /// Objects.
        found: usize,
        /// Objects at most.
        limit: usize,
    },
    /// A class that the model does not have.
    #[error("object {index}: category {found} is not between 0 and {last}")]
    Category {
        /// The object.
        index: usize,
        /// Its class.
        found: i64,
        /// The last class.
        last: i64,
    },
    /// A class and attributes that no token is left for.
    #[error("object {index}: category and attributes make token {token}, more than {last}")]
    Token {
        /// The object.
        index: usize,
        /// The token.
        token: i64,
        /// The last one.
        last: i64,
    },
    /// A box that is not in the picture, or empty.
    #[error("{place}: [x, y, width, height] = {found:?} is not a box with an area within [0, 1]")]
    Box {
        /// "object 3", or "crop".
        place: String,
        /// The box.
        found: Box4,
    },
    /// A configuration that cannot be.
    #[error("`{key}` = {found} is not supported: {why}")]
    Config {
        /// The setting.
        key: &'static str,
        /// Its value.
        found: i64,
        /// What is supported.
        why: &'static str,
    },
}

/// How far a box may reach over the edge: what rounding of `x + width` can do.
const SLACK: f64 = 1e-6;

impl LayoutConfig {
    /// For `classes` classes; all else as published.
    pub fn openimages(classes: i64) -> Self {
        Self {
            no_object_classes: classes,
            no_max_objects: thirty(),
            no_tokens: eight_thousand(),
            encode_crop: true,
            use_group_parameter: true,
            use_additional_parameters: true,
        }
    }

    /// Refuses what has no tokens.
    pub fn check(&self) -> Result<(), LayoutError> {
        let refuse = |key, found, why| Err(LayoutError::Config { key, found, why });
        if !(9..=1 << 20).contains(&self.no_tokens) {
            return refuse("no_tokens", self.no_tokens, "from 9 to 1048576");
        }
        if !(1..self.no_tokens).contains(&self.no_object_classes) {
            return refuse("no_object_classes", self.no_object_classes, "from 1 to one less than the tokens");
        }
        if self.no_max_objects > 10_000 {
            return refuse("no_max_objects", self.no_max_objects as i64, "at most 10000");
        }
        Ok(())
    }

    /// The token that means "none".
    pub fn none(&self) -> i64 {
        self.no_tokens - 1
    }

    /// Tokens of every layout: 92 as published.
    pub fn length(&self) -> usize {
        self.no_max_objects * 3 + if self.encode_crop { 2 } else { 0 }
    }

    /// Rows, and columns, of the grid that corners are rounded to.
    fn sections(&self) -> i64 {
        self.no_tokens.isqrt()
    }

    /// [`length`](Self::length) token ids: class with attributes, top left, bottom right of each object in the given order (the
    /// original shuffles them), "none" for the rest, then the crop's corners.
    ///
    /// Objects outside the crop are left out. Without [`encode_crop`](Self::encode_crop) boxes are taken relative to the crop.
    pub fn tokens(&self, objects: &[LayoutObject], crop: Option<Box4>) -> Result<Vec<i64>, LayoutError> {
        self.check()?;
        if objects.len() > self.no_max_objects {
            return Err(LayoutError::TooMany { found: objects.len(), limit: self.no_max_objects });
        }
        let full = [0., 0., 1., 1.];
        let crop = crop.unwrap_or(full);
        check_box(crop, || "crop".into())?;
        let mut tokens = Vec::with_capacity(self.length());
        for (index, object) in objects.iter().enumerate() {
            check_box(object.bbox, || format!("object {index}"))?;
            let class = self.class_token(index, object)?;
            if overlap(object.bbox, crop) > 0. {
                let [first, second] = self.corners(relative(object.bbox, if self.encode_crop { full } else { crop }));
                tokens.extend([class, first, second]);
            }
        }
        tokens.resize(self.no_max_objects * 3, self.none());
        if self.encode_crop {
            tokens.extend(self.corners(crop));
        }
        Ok(tokens)
    }

    fn class_token(&self, index: usize, object: &LayoutObject) -> Result<i64, LayoutError> {
        let last = self.no_object_classes - 1;
        if !(0..=last).contains(&object.category) {
            return Err(LayoutError::Category { index, found: object.category, last });
        }
        let (group, more) = (self.use_group_parameter, self.use_additional_parameters);
        let attributes = [
            (1, group && object.is_group),
            (2, more && object.is_occluded),
            (4, more && object.is_depiction),
            (8, more && object.is_inside),
        ];
        let mask: i64 = attributes.into_iter().filter(|&(_, set)| set).map(|(bit, _)| bit).sum();
        let token = object.category + self.no_object_classes * mask;
        let last = self.none() - 1;
        if token > last { Err(LayoutError::Token { index, token, last }) } else { Ok(token) }
    }

    fn corners(&self, [x, y, width, height]: Box4) -> [i64; 2] {
        [self.point(x, y), self.point(x + width, y + height)]
    }

    fn point(&self, x: f64, y: f64) -> i64 {
        let sections = self.sections();
        // Halves go to the even neighbour, as Python rounds. Never outside the grid, whatever the slack.
        let discrete = |z: f64| ((z * (sections - 1) as f64).round_ties_even() as i64).clamp(0, sections - 1);
        discrete(y) * sections + discrete(x)
    }
}

fn check_box(found: Box4, place: impl FnOnce() -> String) -> Result<(), LayoutError> {
    let [x, y, width, height] = found;
    let inside = |start: f64, size: f64| start >= 0. && size > 0. && start < 1. && start + size <= 1. + SLACK;
    if inside(x, width) && inside(y, height) { Ok(()) } else { Err(LayoutError::Box { place: place(), found }) }
}

/// The area that two boxes share.
fn overlap(a: Box4, b: Box4) -> f64 {
    let side = |i: usize| (a[i] + a[i + 2]).min(b[i] + b[i + 2]) - a[i].max(b[i]);
    side(0).max(0.) * side(1).max(0.)
}

/// `bbox` in units of `crop`, cut off at its edges. As in the original, what is cut off at the left or top is not taken from the
/// size.
fn relative(bbox: Box4, crop: Box4) -> Box4 {
    let start = |i: usize| ((bbox[i] - crop[i]) / crop[i + 2]).clamp(0., 1.);
    let size = |i: usize| (bbox[i + 2] / crop[i + 2]).min(1. - start(i));
    [start(0), start(1), size(0), size(1)]
}
