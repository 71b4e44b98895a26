//! A picture from a prompt, a picture and a map of depths.

use super::img2img::{check_strength, required};
use crate::{Plane, Raster, Violations};

/// What only depth-to-image needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Depth {
    /// The picture to start from, of any size; it is resized to the request's.
    pub init: Raster,
    /// Depths, of any size and scale: near is bright, as MiDaS' inverse depth.
    pub depth: Plane,
    /// How much of the schedule is run, in (0, 1]: 1 forgets the picture and keeps the depths.
    pub strength: f64,
}

impl Depth {
    /// Checks the fields; `None` when one of them is wrong.
    pub(crate) fn check(
        init: Option<Raster>,
        depth: Option<Plane>,
        strength: f64,
        steps: Option<u32>,
        bad: &mut Violations,
    ) -> Option<Self> {
        check_strength("strength", strength, steps, bad);
        let (init, depth) = (required("init_image", init, bad), required("depth_map", depth, bad));
        Some(Self { init: init?, depth: depth?, strength })
    }
}
