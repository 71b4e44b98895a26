//! A picture with a part of it painted anew: the rest stays as it is.

use super::img2img::{check_strength, required};
use super::{Masking, MaskingDraft};
use crate::{Plane, Raster, Violation, Violations};

/// What only inpainting needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Inpaint {
    /// The picture, of any size; it is resized to the request's, unless only the masked area is drawn.
    pub init: Raster,
    /// What to paint: 128 and more. As large as the picture.
    pub mask: Plane,
    /// How the mask is taken.
    pub masking: Masking,
    /// How much of the schedule is run, in (0, 1]: 1 forgets what was under the mask.
    pub strength: f64,
}

impl Inpaint {
    /// Checks the fields; `None` when one of them is wrong.
    pub(crate) fn check(
        init: Option<Raster>,
        mask: Option<Plane>,
        masking: MaskingDraft,
        strength: f64,
        steps: Option<u32>,
        bad: &mut Violations,
    ) -> Option<Self> {
        check_strength("strength", strength, steps, bad);
        let masking = Masking::check(masking, bad);
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
        if !mask.data().iter().any(|&value| masking.paints(value)) {
            let (message, limit) = match masking.invert {
                false => ("`mask` has no pixel to paint", "at least one value of 128 or more"),
                true => ("the inverted `mask` has no pixel to paint", "at least one value below 128"),
            };
            bad.push(Violation::new("mask", message, limit, "none"));
        }
        Some(Self { init, mask, masking, strength })
    }

    /// Width and height of the picture that comes out of a request of that size.
    pub fn size(&self, request: [u32; 2]) -> [u32; 2] {
        match self.masking.only_masked {
            Some(_) => [self.init.width(), self.init.height()],
            None => request,
        }
    }
}
