//! A picture with a part of it painted anew: the rest stays as it is.

use super::img2img::{check_strength, required};
use crate::{Plane, Raster, Violation, Violations};

/// What only inpainting needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Inpaint {
    /// The picture, of any size; it is resized to the request's.
    pub init: Raster,
    /// What to paint: 128 and more. As large as the picture.
    pub mask: Plane,
    /// How much of the schedule is run, in (0, 1]: 1 forgets what was under the mask.
    pub strength: f64,
}

impl Inpaint {
    /// From this value on a mask says "paint".
    pub const THRESHOLD: u8 = 128;

    /// Checks the fields; `None` when one of them is wrong.
    pub(crate) fn check(
        init: Option<Raster>,
        mask: Option<Plane>,
        strength: f64,
        steps: Option<u32>,
        bad: &mut Violations,
    ) -> Option<Self> {
        check_strength("strength", strength, steps, bad);
        let (init, mask) = (required("init_image", init, bad), required("mask", mask, bad));
        let (init, mask) = (init?, mask?);
        if (mask.width(), mask.height()) != (init.width(), init.height()) {
            let (limit, value) = (format!("{}x{}", init.width(), init.height()), format!("{}x{}", mask.width(), mask.height()));
            bad.push(Violation::new(
                "mask",
                format!("`mask` must be as large as `init_image`, {limit}, not {value}"),
                limit,
                value,
            ));
        }
        if mask.data().iter().all(|&value| value < Self::THRESHOLD) {
            bad.push(Violation::new("mask", "`mask` has no pixel to paint", "at least one value of 128 or more", "none"));
        }
        Some(Self { init, mask, strength })
    }
}
