//! A picture from a picture and a prompt: starts from the noised latent of the given picture (SDEdit).

use crate::{Raster, Violation, Violations};

/// What only img2img needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Img2Img {
    /// The picture to start from, of any size; it is resized to the request's.
    pub init: Raster,
    /// How much of the schedule is run, in (0, 1]: 1 forgets the picture.
    pub strength: f64,
}

impl Img2Img {
    /// Checks the two fields; `None` when one of them is wrong.
    pub(crate) fn check(init: Option<Raster>, strength: f64, steps: Option<u32>, bad: &mut Violations) -> Option<Self> {
        check_strength("strength", strength, steps, bad);
        Some(Self { init: required("init_image", init, bad)?, strength })
    }
}

/// The value, or a violation that says that it is required.
pub(super) fn required<T>(field: &str, value: Option<T>, bad: &mut Violations) -> Option<T> {
    if value.is_none() {
        bad.push(Violation::missing(field));
    }
    value
}

/// Strengths are in (0, 1] and leave a step to run.
pub(super) fn check_strength(field: &str, strength: f64, steps: Option<u32>, bad: &mut Violations) {
    if !(strength > 0.0 && strength <= 1.0) {
        bad.push(Violation::new(
            field,
            format!("`{field}` must be above 0 and at most 1, not {strength}"),
            "above 0, at most 1",
            strength,
        ));
    } else if let Some(steps) = steps
        && f64::from(steps) * strength < 1.0
    {
        bad.push(Violation::new(
            field,
            format!("`{field}` {strength} of {steps} steps leaves no step to run"),
            format!("at least {}", 1.0 / f64::from(steps)),
            strength,
        ));
    }
}
