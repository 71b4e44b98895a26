//! A picture from boxes with labels.

use super::img2img::required;
use crate::{BoxBounds, Violation, Violations};

/// An object's place in the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bbox {
    /// What it is: a label of the model's, from 0.
    pub label: i64,
    /// Left, top, width, height, as fractions of the picture.
    pub bbox: [f64; 4],
    /// Another object hides a part of it.
    pub is_occluded: bool,
    /// It is more than five objects in one box.
    pub is_group_of: bool,
    /// It is a drawing or a statue.
    pub is_depiction: bool,
    /// It is seen from its inside.
    pub is_inside: bool,
}

/// What only layout-to-image needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// The boxes, in the order in which they become tokens.
    pub boxes: Vec<Bbox>,
}

impl Layout {
    /// Checks the boxes; `None` when there are none.
    pub(crate) fn check(boxes: Option<Vec<Bbox>>, bounds: BoxBounds, bad: &mut Violations) -> Option<Self> {
        let boxes = required("boxes", boxes, bad)?;
        if boxes.is_empty() || boxes.len() > bounds.count as usize {
            let message = format!("`boxes` must hold from 1 to {} boxes, not {}", bounds.count, boxes.len());
            bad.push(Violation::new("boxes", message, format!("1..={}", bounds.count), boxes.len()));
        }
        for (index, b) in boxes.iter().take(bounds.count as usize).enumerate() {
            if !(0..i64::from(bounds.labels)).contains(&b.label) {
                let field = format!("boxes[{index}].label");
                let limit = format!("0..={}", i64::from(bounds.labels) - 1);
                bad.push(Violation::new(&field, format!("`{field}` must be {limit}, not {}", b.label), limit, b.label));
            }
            let [x, y, width, height] = b.bbox;
            let inside =
                x >= 0.0 && y >= 0.0 && width >= 0.0 && height >= 0.0 && x + width <= 1.0 + 1e-6 && y + height <= 1.0 + 1e-6;
            if !inside {
                let field = format!("boxes[{index}]");
                let message = format!("`{field}` must lie in the picture, in fractions of it, not {:?}", b.bbox);
                bad.push(Violation::new(
                    &field,
                    message,
                    "x, y, width, height with x + width and y + height at most 1",
                    format!("{:?}", b.bbox),
                ));
            }
        }
        Some(Self { boxes })
    }
}
