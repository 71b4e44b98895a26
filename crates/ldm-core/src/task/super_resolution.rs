//! A larger picture from a smaller one.

use super::img2img::required;
use crate::{Model, Raster, Violation, Violations};

/// What only super-resolution needs.
#[derive(Clone, Debug, PartialEq)]
pub struct SuperResolution {
    /// The small picture, of any size.
    pub low: Raster,
    /// How many times wider and higher the picture comes out.
    pub scale: u32,
    /// Noise level that the small picture is brought to, for models that were trained with one.
    pub noise_level: Option<u32>,
}

/// Sizes that a [`SuperResolution`] comes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Width and height that the model draws.
    pub(crate) drawn: [u32; 2],
    /// Width and height of the picture that comes out.
    pub(crate) out: [u32; 2],
}

impl SuperResolution {
    /// How many times wider and higher a picture comes out at most.
    pub const MOST_SCALE: u32 = 16;

    /// Width and height that the small picture is brought to before a model that enlarges `upscale` times sees it: its own, unless more is
    /// asked of the model than it does.
    pub fn shown(&self, upscale: u32) -> [u32; 2] {
        let upscale = upscale.max(1);
        [self.low.width(), self.low.height()].map(|side| match self.scale > upscale {
            true => side.saturating_mul(self.scale).div_ceil(upscale),
            false => side,
        })
    }

    /// Checks the fields, and that the request's size is that of the enlarged picture; `None` when one of them is wrong.
    pub(crate) fn check(
        low: Option<Raster>,
        scale: Option<i64>,
        noise_level: Option<i64>,
        said: [Option<i64>; 2],
        model: &Model,
        bad: &mut Violations,
    ) -> Option<(Self, Sizes)> {
        let upscale = model.conditions.upscale.unwrap_or(1).max(1);
        let scale = crate::draft::whole("scale", scale, upscale.into(), 1, Self::MOST_SCALE.max(upscale).into(), bad);
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
        let scale = u32::try_from(scale?).ok()?;
        let out = [low.width(), low.height()].map(|side| side.saturating_mul(scale));
        for ((field, size), said) in ["width", "height"].into_iter().zip(out).zip(said) {
            if let Some(said) = said.filter(|&said| said != i64::from(size)) {
                let message = format!("`{field}` of a {scale} times larger picture is {size}, not {said}; it need not be said");
                bad.push(Violation::new(field, message, size, said));
            }
        }
        let work = Self { low, scale, noise_level };
        let drawn = work.shown(upscale).map(|side| side.saturating_mul(upscale));
        Some((work, Sizes { drawn, out }))
    }
}
