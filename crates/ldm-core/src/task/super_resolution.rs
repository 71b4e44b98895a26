//! A larger picture from a smaller one.

use super::img2img::required;
use crate::{Model, Raster, Violation, Violations};

/// What only super-resolution needs.
#[derive(Clone, Debug, PartialEq)]
pub struct SuperResolution {
    /// The small picture, taken at its own size.
    pub low: Raster,
    /// Noise level that the small picture is brought to, for models that were trained with one.
    pub noise_level: Option<u32>,
}

impl SuperResolution {
    /// Checks the fields, and that the request's size is that of the enlarged picture; `None` when one of them is wrong.
    pub(crate) fn check(
        low: Option<Raster>,
        noise_level: Option<i64>,
        said: [Option<i64>; 2],
        model: &Model,
        bad: &mut Violations,
    ) -> Option<(Self, [u32; 2])> {
        let upscale = model.conditions.upscale.unwrap_or(1);
        let noise_level = match (noise_level, model.conditions.noise_levels) {
            (None, levels) => levels.map(|levels| levels.saturating_sub(1).min(20)),
            (Some(level), None) => {
                bad.push(Violation::new("noise_level", "the model takes no `noise_level`", "absent", level));
                None
            }
            (Some(level), Some(levels)) => match u32::try_from(level) {
                Ok(level) if level < levels => Some(level),
                _ => {
                    let limit = format!("0..={}", levels - 1);
                    bad.push(Violation::new("noise_level", format!("`noise_level` must be {limit}, not {level}"), limit, level));
                    None
                }
            },
        };
        let low = required("lr_image", low, bad)?;
        let size = [low.width(), low.height()].map(|side| side.saturating_mul(upscale));
        for ((field, size), said) in ["width", "height"].into_iter().zip(size).zip(said) {
            if let Some(said) = said.filter(|&said| said != i64::from(size)) {
                let message = format!("`{field}` of a {upscale} times larger picture is {size}, not {said}; it need not be said");
                bad.push(Violation::new(field, message, size, said));
            }
        }
        Some((Self { low, noise_level }, size))
    }
}
