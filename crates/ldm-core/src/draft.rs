//! What a client said, before anything was checked.

use crate::task::{Img2Img, Txt2Img, Work};
use crate::{Catalogue, Defaults, Raster, Request, Task, Violation, Violations};

/// The largest seed: the largest whole number that JSON carries safely through every client.
pub const MAX_SEED: i64 = (1 << 53) - 1;

/// What a client said; `None` means "not said", and the model's default is taken.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The task.
    pub task: Task,
    /// The model's id.
    pub model: Option<String>,
    /// What the picture shall show.
    pub prompt: Option<String>,
    /// What it shall not show.
    pub negative_prompt: Option<String>,
    /// Pixels from left to right.
    pub width: Option<i64>,
    /// Pixels from top to bottom.
    pub height: Option<i64>,
    /// Steps.
    pub steps: Option<i64>,
    /// Sampler, by name or alias.
    pub sampler: Option<String>,
    /// Sigma schedule: `default`, `karras`, `exponential`.
    pub schedule: Option<String>,
    /// Guidance scale.
    pub guidance: Option<f64>,
    /// Share of fresh noise in DDIM.
    pub eta: Option<f64>,
    /// Seed; −1 draws one. Picture `i` of several uses `seed + i`.
    pub seed: Option<i64>,
    /// Number of pictures.
    pub images: Option<i64>,
    /// A preview picture every so many steps.
    pub preview_every: Option<i64>,
    /// The picture that img2img starts from.
    pub init_image: Option<Raster>,
    /// How much of the schedule img2img runs.
    pub strength: Option<f64>,
}

impl Draft {
    /// A draft that says nothing yet.
    pub fn new(task: Task) -> Self {
        Self {
            task,
            model: None,
            prompt: None,
            negative_prompt: None,
            width: None,
            height: None,
            steps: None,
            sampler: None,
            schedule: None,
            guidance: None,
            eta: None,
            seed: None,
            images: None,
            preview_every: None,
            init_image: None,
            strength: None,
        }
    }

    /// One checked [`Request`] per picture, seeds `seed`, `seed + 1`, …, or every violation.
    pub fn check(mut self, catalogue: &Catalogue) -> Result<Vec<Request>, Violations> {
        let mut bad = Violations::default();
        let bounds = catalogue.bounds;
        let model = catalogue.model(self.model.as_deref());
        if model.is_none() {
            let known: Vec<_> = catalogue.models.iter().map(|model| model.id.as_str()).collect();
            let value = self.model.as_deref().unwrap_or("");
            bad.push(Violation::new(
                "model",
                format!("`model` names no model that is served: {value:?}"),
                known.join(", "),
                value,
            ));
        }
        // With no model the rest is still checked, against the default one, so that one answer lists everything.
        let Some(shape) = model.or(catalogue.models.first()) else { return Err(bad) };

        if !shape.tasks.contains(&self.task) {
            let tasks: Vec<_> = shape.tasks.iter().map(|task| task.name()).collect();
            bad.push(Violation::new(
                "model",
                format!("model {:?} does not do {}", shape.id, self.task),
                tasks.join(", "),
                self.task,
            ));
        }
        let prompt = text("prompt", self.prompt.take(), bounds.prompt_chars, &mut bad);
        let negative_prompt = text("negative_prompt", self.negative_prompt.take(), bounds.prompt_chars, &mut bad);
        let width = side("width", self.width, shape.sizes.default.0, shape, &mut bad);
        let height = side("height", self.height, shape.sizes.default.1, shape, &mut bad);
        let steps = whole("steps", self.steps, i64::from(shape.defaults.steps), 1, i64::from(bounds.steps), &mut bad);
        let images = whole("images", self.images, 1, 1, i64::from(bounds.images), &mut bad).unwrap_or(1);
        let preview_every =
            self.preview_every.and_then(|every| whole("preview_every", Some(every), 1, 1, i64::from(bounds.steps), &mut bad));
        let guidance = real("guidance", self.guidance, shape.defaults.guidance, 0.0, bounds.guidance, &mut bad);
        let eta = real("eta", self.eta, 0.0, 0.0, 1.0, &mut bad);
        let seed = match self.seed {
            None | Some(-1) => i64::from(random_seed()),
            Some(seed) => whole("seed", Some(seed), 0, -1, MAX_SEED, &mut bad).unwrap_or(0),
        };
        let (sampler, schedule) = match self.check_sampler(catalogue, &shape.defaults, eta, &mut bad) {
            Some((sampler, schedule)) => (sampler, schedule),
            None => (String::new(), String::new()),
        };
        let work = match self.task {
            Task::Txt2Img => {
                if self.init_image.is_some() {
                    bad.push(Violation::new("init_image", "txt2img takes no `init_image`; use img2img", "absent", "a picture"));
                }
                if let Some(strength) = self.strength {
                    bad.push(Violation::new("strength", "txt2img takes no `strength`; use img2img", "absent", strength));
                }
                Some(Work::Txt2Img(Txt2Img))
            }
            Task::Img2Img => {
                let strength = self.strength.unwrap_or(shape.defaults.strength);
                Img2Img::check(self.init_image, strength, steps.and_then(|steps| u32::try_from(steps).ok()), &mut bad)
                    .map(Work::Img2Img)
            }
        };
        if !bad.is_empty() {
            return Err(bad);
        }
        let Some(work) = work else { return Err(bad) };
        let request = Request {
            model: shape.id.clone(),
            work,
            prompt,
            negative_prompt,
            width,
            height,
            steps: small(steps),
            sampler,
            schedule,
            guidance,
            eta,
            seed: seed.unsigned_abs(),
            preview_every: preview_every.map(|every| small(Some(every))),
        };
        // Past the largest seed the count starts again at 0, so that every seed in an answer can be posted back.
        let seeds = (0..images.unsigned_abs()).map(|i| (request.seed + i) % (MAX_SEED.unsigned_abs() + 1));
        Ok(seeds.map(|seed| Request { seed, ..request.clone() }).collect())
    }

    fn check_sampler(
        &self,
        catalogue: &Catalogue,
        defaults: &Defaults,
        eta: f64,
        bad: &mut Violations,
    ) -> Option<(String, String)> {
        let name = self.sampler.as_deref().unwrap_or(&defaults.sampler);
        let Some((sampler, implied)) = catalogue.sampler(name) else {
            let known: Vec<_> = catalogue.samplers.iter().map(|sampler| sampler.name.as_str()).collect();
            bad.push(Violation::new("sampler", format!("`sampler` names no sampler: {name:?}"), known.join(", "), name));
            return None;
        };
        if eta > 0.0 && !sampler.takes_eta {
            bad.push(Violation::new("eta", format!("sampler {} takes no `eta`", sampler.name), "0", eta));
        }
        let schedule = match (self.schedule.as_deref(), implied) {
            (Some(said), Some(implied)) if said != implied => {
                let message = format!("`sampler` {name:?} implies the schedule {implied}, `schedule` says {said:?}");
                bad.push(Violation::new("schedule", message, implied, said));
                return None;
            }
            (Some(said), _) => said,
            (None, Some(implied)) => implied,
            (None, None) if sampler.name == defaults.sampler => &defaults.schedule,
            (None, None) => sampler.schedules.first().map_or("default", String::as_str),
        };
        if !sampler.schedules.iter().any(|known| known == schedule) {
            let message = format!("sampler {} does not run on the schedule {schedule:?}", sampler.name);
            bad.push(Violation::new("schedule", message, sampler.schedules.join(", "), schedule));
            return None;
        }
        Some((sampler.name.clone(), schedule.to_owned()))
    }
}

fn small(value: Option<i64>) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).unwrap_or(1)
}

fn text(field: &str, value: Option<String>, limit: u32, bad: &mut Violations) -> String {
    let value = value.unwrap_or_default();
    let chars = value.chars().count();
    if chars > limit as usize {
        let message = format!("`{field}` has {chars} characters, more than {limit}");
        bad.push(Violation::new(field, message, format!("at most {limit} characters"), format!("{chars} characters")));
    }
    value
}

fn whole(field: &str, value: Option<i64>, default: i64, min: i64, max: i64, bad: &mut Violations) -> Option<i64> {
    let value = value.unwrap_or(default);
    if (min..=max).contains(&value) {
        return Some(value);
    }
    bad.push(Violation::new(
        field,
        format!("`{field}` must be from {min} to {max}, not {value}"),
        format!("{min}..={max}"),
        value,
    ));
    None
}

fn real(field: &str, value: Option<f64>, default: f64, min: f64, max: f64, bad: &mut Violations) -> f64 {
    let value = value.unwrap_or(default);
    if !(min..=max).contains(&value) {
        bad.push(Violation::new(
            field,
            format!("`{field}` must be from {min} to {max}, not {value}"),
            format!("{min}..={max}"),
            value,
        ));
    }
    value
}

fn side(field: &str, value: Option<i64>, default: u32, model: &crate::Model, bad: &mut Violations) -> u32 {
    let sizes = model.sizes;
    let value = value.unwrap_or(i64::from(default));
    let fits = (i64::from(sizes.min)..=i64::from(sizes.max)).contains(&value) && value % i64::from(sizes.multiple) == 0;
    if !fits {
        let limit = format!("{}..={}, a multiple of {}", sizes.min, sizes.max, sizes.multiple);
        bad.push(Violation::new(field, format!("`{field}` must be {limit}, not {value}"), &limit, value));
    }
    u32::try_from(value).unwrap_or(default)
}

/// A seed nobody chose: 32 bits, as much as torch's CPU generator takes.
fn random_seed() -> u32 {
    let bits = uuid::Uuid::new_v4().as_u128();
    (bits >> 96) as u32
}
