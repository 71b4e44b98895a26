//! What a device is asked to do: one picture, everything resolved and within bounds.

use crate::task::{Hires, MaskingDraft, Work};
use crate::{Draft, Lora, Rounding, Tuning};

/// How a prompt is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prompting {
    /// With weights, `(word:1.2)` and `[word]`, and of any length, as stable-diffusion-webui reads it.
    #[default]
    Weighted,
    /// As it stands, cut where the text encoder ends, as diffusers' pipelines read it.
    Plain,
}

impl Prompting {
    /// Every way.
    pub const ALL: [Self; 2] = [Self::Weighted, Self::Plain];

    /// How it is said.
    pub fn name(self) -> &'static str {
        match self {
            Self::Weighted => "weighted",
            Self::Plain => "plain",
        }
    }
}

/// One picture, checked. Only [`Draft::check`](crate::Draft::check) makes one, so nothing after re-checks.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Request {
    /// The model's id in the catalogue.
    pub model: String,
    /// The task with what only it needs.
    pub work: Work,
    /// What the picture shall show.
    pub prompt: String,
    /// What it shall not show.
    pub negative_prompt: String,
    /// How both are read.
    pub prompting: Prompting,
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
    /// Steps of the sampler.
    pub steps: u32,
    /// The sampler's canonical name.
    pub sampler: String,
    /// The sigma schedule's name.
    pub schedule: String,
    /// Guidance scale; 1 means no guidance.
    pub guidance: f64,
    /// Share of fresh noise in DDIM, in [0, 1].
    pub eta: f64,
    /// Seed of the noise.
    pub seed: u64,
    /// Adapters, each at most once.
    pub loras: Vec<Lora>,
    /// Settings for reproducing other programs' pictures.
    pub tuning: Tuning,
    /// How numbers become bytes.
    pub rounding: Rounding,
    /// A preview picture is wanted every so many steps.
    pub preview_every: Option<u32>,
}

impl Request {
    /// The second pass of txt2img, if there is one.
    pub fn hires(&self) -> Option<&Hires> {
        match &self.work {
            Work::Txt2Img(work) => work.hires.as_ref(),
            _ => None,
        }
    }

    /// Width and height of the picture that comes out.
    pub fn size(&self) -> [u32; 2] {
        let size = [self.width, self.height];
        match &self.work {
            Work::Txt2Img(work) => work.hires.as_ref().map_or(size, |hires| [hires.width, hires.height]),
            Work::Inpaint(work) => work.size(size),
            _ => size,
        }
    }

    /// Bytes that it holds until it has ended, about: its texts, its pictures, and the picture that comes out.
    pub fn bytes(&self) -> usize {
        let [width, height] = self.size();
        let picture = width as usize * height as usize * 3;
        self.prompt.len() + self.negative_prompt.len() + self.work.bytes() + picture
    }

    /// The draft that says all of this: [`Draft::check`] against the same catalogue gives this request back.
    ///
    /// Both are taken apart and put together field by field, so that a new field cannot be forgotten here.
    pub fn draft(&self) -> Draft {
        let Self {
            model,
            work,
            prompt,
            negative_prompt,
            prompting,
            width,
            height,
            steps,
            sampler,
            schedule,
            guidance,
            eta,
            seed,
            tuning,
            rounding,
            preview_every,
            loras,
        } = self;
        let draft = Draft {
            task: work.task(),
            model: Some(model.clone()),
            prompt: Some(prompt.clone()),
            negative_prompt: Some(negative_prompt.clone()),
            prompting: Some(*prompting),
            width: Some(i64::from(*width)),
            height: Some(i64::from(*height)),
            steps: Some(i64::from(*steps)),
            sampler: Some(sampler.clone()),
            schedule: Some(schedule.clone()),
            guidance: Some(*guidance),
            eta: Some(*eta),
            seed: i64::try_from(*seed).ok(),
            tuning: *tuning,
            rounding: Some(*rounding),
            images: None,
            preview_every: preview_every.map(i64::from),
            init_image: None,
            strength: work.strength(),
            mask: None,
            masking: MaskingDraft::default(),
            lr_image: None,
            scale: None,
            noise_level: None,
            depth: None,
            class: None,
            boxes: None,
            semantic: None,
            neighbors: None,
            hires: None,
            loras: loras.clone(),
        };
        draft.asking(work)
    }
}
