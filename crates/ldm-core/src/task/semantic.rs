//! A picture from a map of classes.

use super::img2img::required;
use crate::{Plane, Violation, Violations};

/// What only semantic synthesis needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Semantic {
    /// The class of every place, from 0; of any size, brought to the request's by the nearest place.
    pub map: Plane,
}

impl Semantic {
    /// Checks the map; `None` when there is none.
    pub(crate) fn check(map: Option<Plane>, classes: u32, bad: &mut Violations) -> Option<Self> {
        let map = required("semantic_map", map, bad)?;
        let largest = map.data().iter().copied().max().unwrap_or(0);
        if u32::from(largest) >= classes {
            let limit = format!("classes from 0 to {}", i64::from(classes) - 1);
            bad.push(Violation::new("semantic_map", format!("`semantic_map` must hold {limit}, not {largest}"), limit, largest));
        }
        Some(Self { map })
    }
}
