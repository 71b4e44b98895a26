//! What a client said, before anything was checked.

use crate::task::{
    Bbox, Class, Depth, EnlargedSizes, HiresDraft, Img2Img, Inpaint, Layout, MaskingDraft, Rdm, Semantic, SuperResolution,
    Txt2Img, Unconditional, Work,
};
use crate::{
    BoxBounds, Catalogue, Defaults, Lora, Model, NeighborBounds, Plane, Prompting, Raster, Request, Rounding, Task, Tuning,
    Violation, Violations, lora, strangers,
};

/// The largest seed: the largest whole number that JSON carries safely through every client.
pub const MAX_SEED: i64 = (1 << 53) - 1;

/// What a client said; `None` means "not said", and the model's default is taken.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The task.
    pub task: Task,
    /// The model's id; the first that does the task when nothing is said.
    pub model: Option<String>,
    /// What the picture shall show.
    pub prompt: Option<String>,
    /// What it shall not show.
    pub negative_prompt: Option<String>,
    /// How both are read.
    pub prompting: Option<Prompting>,
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
    /// Adapters of the model.
    pub loras: Vec<Lora>,
    /// Settings for reproducing other programs' pictures.
    pub tuning: Tuning,
    /// How numbers become bytes.
    pub rounding: Option<Rounding>,
    /// Number of pictures.
    pub images: Option<i64>,
    /// A preview picture every so many steps.
    pub preview_every: Option<i64>,
    /// The picture that img2img, inpainting and depth-to-image start from.
    pub init_image: Option<Raster>,
    /// How much of the schedule they run.
    pub strength: Option<f64>,
    /// What to paint: 128 and more.
    pub mask: Option<Plane>,
    /// How the mask is taken.
    pub masking: MaskingDraft,
    /// The picture to enlarge.
    pub lr_image: Option<Raster>,
    /// How many times wider and higher.
    pub scale: Option<i64>,
    /// Noise level that it is brought to.
    pub noise_level: Option<i64>,
    /// Depths.
    pub depth: Option<Plane>,
    /// A class.
    pub class: Option<i64>,
    /// Boxes with labels.
    pub boxes: Option<Vec<Bbox>>,
    /// A map of classes.
    pub semantic: Option<Plane>,
    /// Embeddings of a prompt and its neighbours.
    pub neighbors: Option<Vec<Vec<f32>>>,
    /// A second pass of txt2img, at a larger size.
    pub hires: Option<HiresDraft>,
}

impl Draft {
    /// A draft that says nothing yet.
    pub fn new(task: Task) -> Self {
        Self {
            task,
            model: None,
            prompt: None,
            negative_prompt: None,
            prompting: None,
            width: None,
            height: None,
            steps: None,
            sampler: None,
            schedule: None,
            guidance: None,
            eta: None,
            seed: None,
            loras: Vec::new(),
            tuning: Tuning::default(),
            rounding: None,
            images: None,
            preview_every: None,
            init_image: None,
            strength: None,
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
        }
    }

    /// The least that `model` can be asked for: the first of its tasks at its smallest size, for a trial run.
    pub fn smallest(model: &Model) -> Self {
        let task = model.tasks.first().copied().unwrap_or(Task::Txt2Img);
        let side = model.sizes.min.next_multiple_of(model.sizes.multiple.max(1));
        let init = || Some(Raster::filled(side, side, [128; 3]));
        let mut draft = Self {
            model: Some(model.id.clone()),
            width: Some(i64::from(side)),
            height: Some(i64::from(side)),
            seed: Some(0),
            ..Self::new(task)
        };
        match task {
            Task::Txt2Img => draft.prompt = Some("warm-up".to_owned()),
            Task::Img2Img => (draft.init_image, draft.strength) = (init(), Some(1.0)),
            Task::Inpaint => (draft.init_image, draft.mask) = (init(), Some(Plane::filled(side, side, 255))),
            Task::Depth => {
                (draft.init_image, draft.strength, draft.depth) = (init(), Some(1.0), Some(Plane::filled(side, side, 128)));
            }
            Task::SuperResolution => {
                let low = side / model.conditions.upscale.unwrap_or(1).max(1);
                (draft.width, draft.height) = (None, None);
                draft.lr_image = Some(Raster::filled(low, low, [128; 3]));
            }
            Task::Unconditional => {}
            Task::Class => draft.class = Some(0),
            Task::Layout => {
                let (label, bbox) = (0, [0.25, 0.25, 0.5, 0.5]);
                let b = Bbox { label, bbox, is_occluded: false, is_group_of: false, is_depiction: false, is_inside: false };
                draft.boxes = Some(vec![b]);
            }
            Task::Semantic => draft.semantic = Some(Plane::filled(side, side, 0)),
            Task::Rdm => {
                let width = model.conditions.neighbors.map_or(0, |bounds| bounds.width);
                draft.neighbors = Some(vec![vec![1.0; width as usize]]);
            }
        }
        draft
    }

    /// The same with what only that work needs.
    pub(crate) fn asking(mut self, work: &Work) -> Self {
        match work.clone() {
            Work::Txt2Img(Txt2Img { hires }) => self.hires = hires.map(HiresDraft::from),
            Work::Unconditional(Unconditional) => {}
            Work::Img2Img(Img2Img { init, strength }) => (self.init_image, self.strength) = (Some(init), Some(strength)),
            Work::Inpaint(Inpaint { init, mask, masking, strength }) => {
                (self.init_image, self.mask, self.strength) = (Some(init), Some(mask), Some(strength));
                self.masking = masking.into();
            }
            Work::Depth(Depth { init, depth, strength }) => {
                (self.init_image, self.depth, self.strength) = (Some(init), Some(depth), Some(strength));
            }
            Work::SuperResolution(SuperResolution { low, scale, noise_level }) => {
                (self.lr_image, self.scale, self.noise_level) = (Some(low), Some(scale.into()), noise_level.map(i64::from));
            }
            Work::Class(Class { class }) => self.class = Some(i64::from(class)),
            Work::Layout(Layout { boxes }) => self.boxes = Some(boxes),
            Work::Semantic(Semantic { map }) => self.semantic = Some(map),
            Work::Rdm(Rdm { neighbors }) => self.neighbors = Some(neighbors),
        }
        self
    }

    /// The task with what only it needs, and the sizes that it dictates, if it does.
    fn check_work(&mut self, model: &Model, steps: Option<i64>, bad: &mut Violations) -> Option<(Work, Option<EnlargedSizes>)> {
        let steps = steps.and_then(|steps| u32::try_from(steps).ok());
        let strength = |draft: &Self, default: f64| draft.strength.unwrap_or(default);
        let usual = model.defaults.strength;
        let conditions = &model.conditions;
        let init = self.init_image.take();
        let work = match self.task {
            Task::Txt2Img => Some(Work::Txt2Img(Txt2Img::default())),
            Task::Unconditional => Some(Work::Unconditional(Unconditional)),
            Task::Img2Img => Img2Img::check(init, strength(self, usual), steps, bad).map(Work::Img2Img),
            Task::Inpaint => {
                let (mask, strength) = (self.mask.take(), strength(self, 1.0));
                Inpaint::check(init, mask, self.masking, strength, steps, bad).map(Work::Inpaint)
            }
            Task::Depth => Depth::check(init, self.depth.take(), strength(self, usual), steps, bad).map(Work::Depth),
            Task::Class => Class::check(self.class, conditions.classes.unwrap_or(0), bad).map(Work::Class),
            Task::Layout => {
                let bounds = conditions.boxes.unwrap_or(BoxBounds { labels: 0, count: 0 });
                Layout::check(self.boxes.take(), bounds, bad).map(Work::Layout)
            }
            Task::Semantic => {
                Semantic::check(self.semantic.take(), conditions.semantic_classes.unwrap_or(0), bad).map(Work::Semantic)
            }
            Task::Rdm => {
                let bounds = conditions.neighbors.unwrap_or(NeighborBounds { width: 0, count: 0 });
                Rdm::check(self.neighbors.take(), bounds, bad).map(Work::Rdm)
            }
            Task::SuperResolution => {
                let said = [self.width, self.height];
                let low = self.lr_image.take();
                let (work, sizes) = SuperResolution::check(low, self.scale, self.noise_level, said, model, bad)?;
                return Some((Work::SuperResolution(work), Some(sizes)));
            }
        };
        work.map(|work| (work, None))
    }

    /// One checked [`Request`] per picture, seeds `seed`, `seed + 1`, …, or every violation.
    pub fn check(mut self, catalogue: &Catalogue) -> Result<Vec<Request>, Violations> {
        let mut bad = Violations::default();
        let bounds = catalogue.bounds;
        let model = catalogue.model_for(self.model.as_deref(), self.task);
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
        let supported = shape.tasks.contains(&self.task);
        if supported {
            strangers::refuse(&self, shape, &mut bad);
        }
        let prompt = text("prompt", self.prompt.take(), bounds.prompt_chars, &mut bad);
        let negative_prompt = text("negative_prompt", self.negative_prompt.take(), bounds.prompt_chars, &mut bad);
        let steps = whole("steps", self.steps, i64::from(shape.defaults.steps), 1, i64::from(bounds.steps), &mut bad);
        let images = whole("images", self.images, 1, 1, i64::from(bounds.images), &mut bad).unwrap_or(1);
        let preview_every =
            self.preview_every.and_then(|every| whole("preview_every", Some(every), 1, 1, i64::from(bounds.steps), &mut bad));
        let guidance = real("guidance", self.guidance, shape.defaults.guidance, 0.0, bounds.guidance, &mut bad);
        if guidance > 1.0 && !shape.conditions.guidance {
            let message = format!("model {:?} knows no guidance: `guidance` must be at most 1, not {guidance}", shape.id);
            bad.push(Violation::new("guidance", message, "0..=1", guidance));
        }
        let eta = real("eta", self.eta, self.usual_eta(catalogue, &shape.defaults), 0.0, 1.0, &mut bad);
        let seed = match self.seed {
            None | Some(-1) => i64::from(random_seed()),
            Some(seed) => whole("seed", Some(seed), 0, -1, MAX_SEED, &mut bad).unwrap_or(0),
        };
        let (sampler, schedule) = match self.check_sampler(catalogue, &shape.defaults, eta, &mut bad) {
            Some((sampler, schedule)) => (sampler, schedule),
            None => (String::new(), String::new()),
        };
        lora::check(&self.loras, model, &mut bad);
        self.tuning.check(&mut bad);
        let work = self.check_work(shape, steps, &mut bad);
        let dictated = work.as_ref().and_then(|(_, sizes)| *sizes);
        let [width, height] = dictated.map_or([self.width, self.height], |sizes| sizes.drawn.map(|side| Some(i64::from(side))));
        let width = side("width", width, shape.sizes.default.0, shape, &mut bad);
        let height = side("height", height, shape.sizes.default.1, shape, &mut bad);
        let [width, height] = dictated.map_or([width, height], |sizes| sizes.out);
        let hires =
            self.hires.take().and_then(|hires| hires.check(shape, [width, height], steps.unwrap_or(1), bounds.steps, &mut bad));
        if !bad.is_empty() {
            return Err(bad);
        }
        let Some((mut work, _)) = work else { return Err(bad) };
        if let Work::Txt2Img(work) = &mut work {
            work.hires = hires;
        }
        let request = Request {
            model: shape.id.clone(),
            work,
            prompt,
            negative_prompt,
            prompting: self.prompting.unwrap_or_default(),
            width,
            height,
            steps: small(steps),
            sampler,
            schedule,
            guidance,
            eta,
            seed: seed.unsigned_abs(),
            loras: self.loras,
            tuning: self.tuning,
            rounding: self.rounding.unwrap_or(shape.defaults.rounding),
            preview_every: preview_every.map(|every| small(Some(every))),
        };
        // Past the largest seed the count starts again at 0, so that every seed in an answer can be posted back.
        let seeds = (0..images.unsigned_abs()).map(|i| (request.seed + i) % (MAX_SEED.unsigned_abs() + 1));
        Ok(seeds.map(|seed| Request { seed, ..request.clone() }).collect())
    }

    /// The model's share of fresh noise belongs to its own sampler.
    fn usual_eta(&self, catalogue: &Catalogue, defaults: &Defaults) -> f64 {
        let sampler = catalogue.sampler(self.sampler.as_deref().unwrap_or(&defaults.sampler));
        sampler.filter(|(sampler, _)| sampler.takes_eta && sampler.name == defaults.sampler).map_or(0.0, |_| defaults.eta)
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
            let message = format!("sampler {} does not run on `schedule` {schedule:?}", sampler.name);
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

pub(crate) fn whole(field: &str, value: Option<i64>, default: i64, min: i64, max: i64, bad: &mut Violations) -> Option<i64> {
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

pub(crate) fn side(field: &str, value: Option<i64>, default: u32, model: &Model, bad: &mut Violations) -> u32 {
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
