//! How inpainting takes its mask: which side of it is painted, how its edge fades, how much around it is drawn, and what lies under it.

use crate::{Plane, Violation, Violations};

/// How a mask is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Masking {
    /// Standard deviation of the Gaussian that the mask's edge fades by where the picture is laid back, across and down: in pixels of
    /// the picture that comes out.
    pub blur: [f64; 2],
    /// What the mask leaves out is painted.
    pub invert: bool,
    /// Only the masked area is drawn, with so many pixels around it, at the request's size; what comes out is as large as the picture
    /// that came in.
    pub only_masked: Option<u32>,
    /// What lies under the mask at the start.
    pub fill: Fill,
    /// What the mask leaves out keeps its pixels, byte for byte.
    pub composite: bool,
}

impl Default for Masking {
    /// The mask as it is, on all of the picture.
    fn default() -> Self {
        Self { blur: [0.0; 2], invert: false, only_masked: None, fill: Fill::Original, composite: true }
    }
}

/// What lies under the mask at the start (stable-diffusion-webui's "masked content"). At a strength of 1 nothing of it is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fill {
    /// The picture.
    #[default]
    Original,
    /// The colours around the mask, smeared into it.
    Smear,
    /// Noise in place of the latent.
    LatentNoise,
    /// A latent of zeros.
    LatentNothing,
}

impl Fill {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Original, Self::Smear, Self::LatentNoise, Self::LatentNothing];

    /// How it is said.
    pub fn name(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::Smear => "fill",
            Self::LatentNoise => "latent_noise",
            Self::LatentNothing => "latent_nothing",
        }
    }
}

/// What a client said of a mask.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MaskingDraft {
    /// Standard deviation of the edge's blur, across and down; none when nothing is said.
    pub blur: Option<[f64; 2]>,
    /// Whether what the mask leaves out is painted.
    pub invert: Option<bool>,
    /// Whether only the masked area is drawn.
    pub only_masked: Option<bool>,
    /// Pixels around the masked area; 32 when nothing is said, as stable-diffusion-webui's page has it.
    pub padding: Option<i64>,
    /// What lies under the mask.
    pub fill: Option<Fill>,
    /// Whether the rest keeps its pixels; it does when nothing is said.
    pub composite: Option<bool>,
}

impl From<Masking> for MaskingDraft {
    fn from(Masking { blur, invert, only_masked, fill, composite }: Masking) -> Self {
        Self {
            blur: Some(blur),
            invert: Some(invert),
            only_masked: Some(only_masked.is_some()),
            padding: only_masked.map(i64::from),
            fill: Some(fill),
            composite: Some(composite),
        }
    }
}

/// Pixels around the masked area when nothing is said.
const PADDING: i64 = 32;

impl Masking {
    /// The widest blur, in pixels, as on stable-diffusion-webui's page.
    pub const MOST_BLUR: f64 = 64.0;
    /// Pixels around the masked area at most.
    pub const MOST_PADDING: i64 = 256;
    /// From this value on a mask says "paint".
    pub const THRESHOLD: u8 = 128;

    /// Whether a mask's value says "paint".
    pub fn paints(&self, value: u8) -> bool {
        (value >= Self::THRESHOLD) != self.invert
    }

    /// The mask with 255 where it is painted and 0 elsewhere.
    pub fn painted(&self, mask: &Plane) -> Plane {
        mask.map(|value| if self.paints(value) { 255 } else { 0 })
    }

    /// Checks the fields.
    pub(crate) fn check(said: MaskingDraft, bad: &mut Violations) -> Self {
        let usual = Self::default();
        let MaskingDraft { blur, invert, only_masked, padding, fill, composite } = said;
        let blur = blur.unwrap_or(usual.blur);
        if let Some(wrong) = blur.into_iter().find(|sigma| !(0.0..=Self::MOST_BLUR).contains(sigma)) {
            let limit = format!("0..={} pixels", Self::MOST_BLUR);
            let message = format!("`mask_blur` must be from 0 to {} pixels, not {wrong}", Self::MOST_BLUR);
            bad.push(Violation::new("mask_blur", message, limit, wrong));
        }
        let only_masked = only_masked.unwrap_or(false);
        if let Some(padding) = padding.filter(|_| !only_masked) {
            let message = "`padding` goes with `only_masked`: without it all of the picture is drawn";
            bad.push(Violation::new("padding", message, "absent", padding));
        }
        let around = match only_masked {
            false => None,
            true => crate::draft::whole("padding", padding, PADDING, 0, Self::MOST_PADDING, bad),
        };
        Self {
            blur,
            invert: invert.unwrap_or(usual.invert),
            only_masked: around.and_then(|around| u32::try_from(around).ok()),
            fill: fill.unwrap_or(usual.fill),
            composite: composite.unwrap_or(usual.composite),
        }
    }
}
