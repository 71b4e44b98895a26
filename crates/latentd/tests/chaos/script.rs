//! What is asked for, and what goes wrong: 200 jobs, the same in every process and in every run.

use std::io::Cursor;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::{ImageFormat, RgbImage};
use ldm_core::{Draft, Raster, Task};
use serde_json::{Value, json};

/// Jobs in all.
pub(crate) const JOBS: usize = 200;
/// Seeds of the jobs' pictures begin here; below are those of warm-ups.
const FIRST_SEED: u64 = 1000;
/// Seeds from one job to the next.
const STRIDE: u64 = 8;

/// What goes wrong with the last picture of a job. Evaluations are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    /// Preparing it panics.
    Prepare,
    /// The first try to prepare it has no memory.
    PrepareMemory,
    /// The call of that evaluation panics, and takes all that were in it along.
    Call(u32),
    /// The same, but once, and only where others are in it.
    Company(u32),
    /// The network panics for it.
    Network(u32),
    /// There is no memory for that evaluation together with others.
    CompanyMemory(u32),
    /// There is no memory for that evaluation at all.
    Memory(u32),
    /// The network gives that number.
    NotFinite(u32, f64),
    /// Its checkpoints panic.
    Checkpoint,
    /// Decoding it panics.
    Decode,
    /// There is memory for decoding it frugally only.
    DecodeMemory,
    /// There is no memory for decoding it at all.
    NoPicture,
}

impl Fault {
    /// The word that the log has.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Prepare => "panic-prepare",
            Self::PrepareMemory => "memory-prepare",
            Self::Call(_) => "panic-call",
            Self::Company(_) => "panic-company",
            Self::Network(_) => "panic-network",
            Self::CompanyMemory(_) => "memory-company",
            Self::Memory(_) => "memory-alone",
            Self::NotFinite(_, number) if number.is_nan() => "nan",
            Self::NotFinite(..) => "infinity",
            Self::Checkpoint => "panic-checkpoint",
            Self::Decode => "panic-decode",
            Self::DecodeMemory => "memory-usual-decode",
            Self::NoPicture => "memory-decode",
        }
    }

    /// Why its job fails; `None`: it does not.
    pub(crate) fn reason(self) -> Option<&'static str> {
        match self {
            Self::Prepare | Self::Call(_) | Self::Network(_) | Self::Decode => Some("panicked"),
            Self::Memory(_) | Self::NoPicture => Some("out_of_memory"),
            Self::NotFinite(..) => Some("not_finite"),
            Self::PrepareMemory | Self::Company(_) | Self::CompanyMemory(_) | Self::Checkpoint | Self::DecodeMemory => None,
        }
    }

    /// How often each occurs.
    fn all() -> Vec<Self> {
        let of = |count, fault: fn(u32) -> Self| (0..count).map(move |n| fault(1 + n % 2));
        of(2, |_| Self::Prepare)
            .chain(of(3, |_| Self::PrepareMemory))
            .chain(of(8, Self::Call))
            .chain(of(12, Self::Company))
            .chain(of(4, Self::Network))
            .chain(of(8, Self::CompanyMemory))
            .chain(of(3, Self::Memory))
            .chain(of(4, |n| Self::NotFinite(n, f64::NAN)))
            .chain(of(3, |n| Self::NotFinite(n, f64::INFINITY)))
            .chain(of(3, |_| Self::Checkpoint))
            .chain(of(2, |_| Self::Decode))
            .chain(of(6, |_| Self::DecodeMemory))
            .chain(of(2, |_| Self::NoPicture))
            .collect()
    }
}

/// One named job.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) index: usize,
    pub(crate) images: u64,
    pub(crate) fault: Option<Fault>,
    /// It is told to stop when that many jobs have ended.
    pub(crate) cancel_after: Option<usize>,
    /// The process may stand still in it, to be killed there.
    pub(crate) is_long: bool,
    is_batch: bool,
    prompt: &'static str,
    sampler: &'static str,
    steps: i64,
    guidance: f64,
    size: (u32, u32),
    /// Where it starts from a picture.
    strength: Option<f64>,
}

impl Job {
    pub(crate) fn name(&self) -> String {
        format!("job-{:03}", self.index)
    }

    /// The seed of its first picture.
    fn seed(&self) -> u64 {
        FIRST_SEED + self.index as u64 * STRIDE
    }

    /// What goes wrong with the picture of that seed.
    pub(crate) fn fault_of(&self, seed: u64) -> Option<Fault> {
        self.fault.filter(|_| seed == self.seed() + self.images - 1)
    }

    fn task(&self) -> Task {
        if self.strength.is_some() { Task::Img2Img } else { Task::Txt2Img }
    }

    /// The picture that it starts from: slopes, and a square of its own.
    fn init(&self) -> Raster {
        let (width, height) = self.size;
        let pixel = |x: u32, y: u32| {
            let inside = x.abs_diff(width / 3) < 9 && y.abs_diff(height / 2) < 9;
            if inside { [250, self.index as u8, 40] } else { [(x * 3) as u8, (y * 2) as u8, 200] }
        };
        let data: Vec<u8> = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
        Raster::new(width, height, data).unwrap()
    }

    /// What a client sends.
    pub(crate) fn body(&self) -> Value {
        let mut body = json!({
            "task": self.task().name(), "prompt": self.prompt, "sampler": self.sampler, "steps": self.steps,
            "guidance": self.guidance, "seed": self.seed(), "images": self.images,
            "width": self.size.0, "height": self.size.1,
        });
        if let Some(strength) = self.strength {
            let init = self.init();
            let pixels = RgbImage::from_raw(init.width(), init.height(), init.data().to_vec()).unwrap();
            let mut file = Cursor::new(Vec::new());
            pixels.write_to(&mut file, ImageFormat::Png).unwrap();
            body["init_image"] = json!(BASE64_STANDARD.encode(file.into_inner()));
            body["strength"] = json!(strength);
        }
        if self.is_batch {
            body["priority"] = json!("batch");
        }
        body
    }

    /// The same, for who needs no service.
    pub(crate) fn draft(&self) -> Draft {
        Draft {
            prompt: Some(self.prompt.to_owned()),
            sampler: Some(self.sampler.to_owned()),
            steps: Some(self.steps),
            guidance: Some(self.guidance),
            seed: Some(self.seed() as i64),
            images: Some(self.images as i64),
            width: Some(i64::from(self.size.0)),
            height: Some(i64::from(self.size.1)),
            strength: self.strength,
            init_image: self.strength.map(|_| self.init()),
            ..Draft::new(self.task())
        }
    }
}

/// The job that a picture of that seed is of.
pub(crate) fn job_of(jobs: &[Job], seed: u64) -> Option<&Job> {
    jobs.get((seed.checked_sub(FIRST_SEED)? / STRIDE) as usize)
}

/// Knuth's MMIX generator.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound as u64) as usize
    }

    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }
}

const PROMPTS: [&str; 4] = ["a photo of a cat", "", "a red square above a blue circle", "a blue circle"];
const SAMPLERS: [&str; 10] =
    ["ddim", "euler", "euler_a", "dpmpp_2m", "heun", "dpmpp_2m_sde", "dpmpp_sde", "lms", "unipc", "plms"];
/// Mostly of one size, so that jobs share calls.
const SIZES: [(u32, u32); 6] = [(32, 32), (32, 32), (32, 32), (32, 32), (32, 40), (64, 48)];
/// Where there is no memory for company, so that the others keep theirs.
const NARROW: (u32, u32) = (32, 40);

/// The jobs, by index.
pub(crate) fn jobs() -> Vec<Job> {
    let mut random = Random(20_221_217);
    let mut faults: Vec<Option<Fault>> = Fault::all().into_iter().map(Some).collect();
    faults.resize(JOBS, None);
    for last in (1..JOBS).rev() {
        faults.swap(last, random.below(last + 1));
    }
    faults.into_iter().enumerate().map(|(index, fault)| job(index, fault, &mut random)).collect()
}

fn job(index: usize, fault: Option<Fault>, random: &mut Random) -> Job {
    let is_long = fault.is_none() && index % 4 == 1 && (80..180).contains(&index);
    let size = if matches!(fault, Some(Fault::CompanyMemory(_))) { NARROW } else { random.of(&SIZES) };
    let cancelled = !is_long && random.one_in(7);
    Job {
        index,
        images: if is_long { 1 } else { random.of(&[1, 1, 1, 1, 1, 1, 2, 3]) },
        fault,
        cancel_after: cancelled.then(|| (index + random.below(40)).saturating_sub(30)),
        is_long,
        is_batch: random.one_in(5),
        prompt: random.of(&PROMPTS),
        sampler: random.of(&SAMPLERS),
        steps: if is_long { 16 } else { 5 + random.below(2) as i64 },
        guidance: random.of(&[1., 1., 3., 7.5]),
        size,
        strength: (!is_long && random.one_in(3)).then(|| random.of(&[0.6, 0.8, 1.])),
    }
}
