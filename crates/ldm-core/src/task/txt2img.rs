//! A picture from a prompt: starts from noise alone, and may be drawn once more, larger, from what came of it.

use crate::{Model, Violation, Violations};

/// What only txt2img needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Txt2Img {
    /// A second pass at another size.
    pub hires: Option<Hires>,
}

/// A second pass: the finished latent is made larger, noised again, and denoised as in img2img ("hires fix"). Its noise goes on
/// where that of the first pass ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Hires {
    /// Pixels from left to right, of the picture that comes out.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
    /// Steps of the second pass, of which `strength` is run.
    pub steps: u32,
    /// How much of the schedule the second pass runs, in (0, 1].
    pub strength: f64,
    /// How the first pass's picture is made larger.
    pub upscaler: Upscaler,
}

/// How a latent is made larger between two passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upscaler {
    /// Latent pixels, bilinear.
    #[default]
    LatentBilinear,
    /// Latent pixels, each repeated.
    LatentNearest,
    /// Decoded, resized (Lanczos), encoded again.
    PixelLanczos,
}

impl Upscaler {
    /// Every upscaler.
    pub const ALL: [Self; 3] = [Self::LatentBilinear, Self::LatentNearest, Self::PixelLanczos];

    /// How it is said.
    pub fn name(self) -> &'static str {
        match self {
            Self::LatentBilinear => "latent-bilinear",
            Self::LatentNearest => "latent-nearest",
            Self::PixelLanczos => "pixel-lanczos",
        }
    }
}

/// What a client said of a second pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HiresDraft {
    /// Pixels from left to right.
    pub width: Option<i64>,
    /// Pixels from top to bottom.
    pub height: Option<i64>,
    /// How many times wider and higher, in place of width and height; 2 when nothing is said.
    pub scale: Option<f64>,
    /// Steps; those of the first pass when nothing is said.
    pub steps: Option<i64>,
    /// Strength; 0.7 when nothing is said, as stable-diffusion-webui has it.
    pub strength: Option<f64>,
    /// How the picture is made larger.
    pub upscaler: Upscaler,
}

impl From<Hires> for HiresDraft {
    fn from(Hires { width, height, steps, strength, upscaler }: Hires) -> Self {
        Self {
            width: Some(width.into()),
            height: Some(height.into()),
            scale: None,
            steps: Some(steps.into()),
            strength: Some(strength),
            upscaler,
        }
    }
}

/// Strength of a second pass when nothing is said.
const STRENGTH: f64 = 0.7;
/// How many times larger it is when nothing is said, and at most.
const SCALE: f64 = 2.0;
const MOST_SCALE: f64 = 8.0;

impl HiresDraft {
    /// Checks every field; `first` is the first pass's width and height, `steps` its steps. `None` when something is wrong.
    pub(crate) fn check(
        self,
        model: &Model,
        first: [u32; 2],
        steps: i64,
        most_steps: u32,
        bad: &mut Violations,
    ) -> Option<Hires> {
        let before = bad.0.len();
        if self.scale.is_some() && (self.width.is_some() || self.height.is_some()) {
            let message = "`hires.scale` is said in place of `hires.width` and `hires.height`, not beside them";
            bad.push(Violation::new("hires.scale", message, "absent", self.scale.unwrap_or_default()));
        }
        let scale = self.scale.unwrap_or(SCALE);
        if !(1.0..=MOST_SCALE).contains(&scale) {
            let message = format!("`hires.scale` must be from 1 to {MOST_SCALE}, not {scale}");
            bad.push(Violation::new("hires.scale", message, format!("1..={MOST_SCALE}"), scale));
        }
        // A size that a scale gives is brought to the next one below that the model draws.
        let multiple = model.sizes.multiple.max(1);
        let scaled = |side: u32| i64::from((f64::from(side) * scale.clamp(1.0, MOST_SCALE)) as u32 / multiple * multiple);
        let [width, height] = [("hires.width", self.width, first[0]), ("hires.height", self.height, first[1])]
            .map(|(field, said, first)| crate::draft::side(field, Some(said.unwrap_or(scaled(first))), 0, model, bad));
        let steps = crate::draft::whole("hires.steps", self.steps, steps, 1, i64::from(most_steps), bad);
        let strength = self.strength.unwrap_or(STRENGTH);
        let steps = steps.and_then(|steps| u32::try_from(steps).ok());
        super::img2img::check_strength("hires.strength", strength, steps, bad);
        let steps = steps?;
        (bad.0.len() == before).then_some(Hires { width, height, steps, strength, upscaler: self.upscaler })
    }
}
