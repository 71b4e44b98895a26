//! A job as bytes, between two evaluations.
//!
//! ```text
//! "LDMC"  format u16
//! identity   [u8; 32]  SHA-256 of engine version, weights, dtype, device kind, mode, model and request
//! plan       [u8; 32]  SHA-256 of all coefficients
//! pass       u8        0, or 1 for the second
//! cursor     u32       evaluations done of the pass
//! noise      [f32; 4]  what the noise source gives next
//! registers  u8        then for each: u8, 0 when unwritten; else four u32 and that many f32
//! seal       [u8; 32]  SHA-256 of everything before
//! ```
//!
//! All numbers are little-endian. What `prepare` makes is made again: plan, conditioning, masks, and the noise source, which then
//! draws what the passes and steps drew that were done. Four numbers of its next draw tell whether it came out at the same place.

use ldm_core::task::Work;
use ldm_core::{Checkpoint, Failure};
use ldm_sampler::{NoiseSource, Plan, Step};
use sha2::{Digest, Sha256};
use tch::Tensor;

use crate::hires::Pass;
use crate::options::LoadOptions;
use crate::run::Run;

const MAGIC: &[u8; 4] = b"LDMC";
const FORMAT: u16 = 1;
/// Bytes of a SHA-256.
const SUM: usize = 32;
/// Numbers of the next draw that are kept.
const DRAWN: usize = 4;

/// Why a checkpoint cannot be taken up.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Mismatch {
    #[error("the checkpoint is damaged: {0}")]
    Damaged(&'static str),
    #[error("the checkpoint is of another version, model, device or request")]
    Other,
    #[error("the checkpoint is of another plan")]
    Plan,
    #[error("the noise of the checkpoint is other noise")]
    Noise,
}

/// Everything that has to be the same for a job to go on, and to end as it would have.
fn identity(run: &Run, options: &LoadOptions) -> [u8; SUM] {
    let (about, request) = (&run.system.about, &run.asked);
    let device = about.device.split(':').next().unwrap_or_default();
    let words = [env!("CARGO_PKG_VERSION"), &about.weights, &about.dtype, device, &about.id];
    let mut sum = Sha256::new();
    for word in words.into_iter().chain([options.mode.to_string().as_str(), &request.prompt, &request.negative_prompt]) {
        sum.update((word.len() as u64).to_le_bytes());
        sum.update(word);
    }
    let (task, seed) = (request.work.task().name(), request.seed);
    let rest = (task, seed, request.width, request.height, &request.prompting, request.guidance, &request.tuning, &request.loras);
    sum.update(format!("{rest:?}"));
    add_work(&mut sum, &request.work);
    sum.finalize().into()
}

/// What the task starts from.
fn add_work(sum: &mut Sha256, work: &Work) {
    match work {
        Work::Img2Img(work) => sum.update(work.init.data()),
        Work::Inpaint(work) => {
            sum.update(format!("{:?}", work.masking));
            [work.init.data(), work.mask.data()].into_iter().for_each(|data| sum.update(data));
        }
        Work::Depth(work) => [work.init.data(), work.depth.data()].into_iter().for_each(|data| sum.update(data)),
        Work::SuperResolution(work) => {
            sum.update(format!("{:?} {}", work.noise_level, work.scale));
            sum.update(work.low.data());
        }
        Work::Semantic(work) => sum.update(work.map.data()),
        other => sum.update(format!("{other:?}")),
    }
}

fn sum_of(plan: &Plan) -> [u8; SUM] {
    // Rust writes floats so that they are read back bit for bit.
    Sha256::digest(format!("{plan:?}")).into()
}

/// What the run's noise source gives next.
fn next_noise(run: &Run) -> Vec<f32> {
    run.noise.clone().normal(DRAWN)
}

pub(super) fn write(run: &Run, options: &LoadOptions) -> Result<Checkpoint, Failure> {
    let mut bytes = Vec::new();
    bytes.extend(MAGIC);
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend(identity(run, options));
    bytes.extend(sum_of(&run.plan));
    bytes.push(u8::from(run.passed > 0));
    bytes.extend((run.cursor as u32).to_le_bytes());
    next_noise(run).into_iter().for_each(|number| bytes.extend(number.to_le_bytes()));
    bytes.push(run.registers.len() as u8);
    for register in &run.registers {
        bytes.push(u8::from(register.is_some()));
        let Some(register) = register else { continue };
        register.size().into_iter().for_each(|side| bytes.extend((side as u32).to_le_bytes()));
        let flat = register.to_device(tch::Device::Cpu).contiguous().flatten(0, -1);
        let numbers = Vec::<f32>::try_from(flat);
        let numbers = numbers.map_err(|error| Failure::new(ldm_core::FailureKind::Device, error.to_string()))?;
        numbers.into_iter().for_each(|number| bytes.extend(number.to_le_bytes()));
    }
    let seal = Sha256::digest(&bytes);
    bytes.extend(seal);
    Ok(Checkpoint { step: run.place().0.saturating_sub(1), bytes: bytes.into() })
}

/// Reads one thing after another.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Mismatch> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Mismatch::Damaged("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Mismatch> {
        self.take(N)?.try_into().map_err(|_| Mismatch::Damaged("it ends too early"))
    }

    fn u32(&mut self) -> Result<u32, Mismatch> {
        self.array().map(u32::from_le_bytes)
    }

    fn floats(&mut self, count: usize) -> Result<Vec<f32>, Mismatch> {
        let bytes = self.take(count.checked_mul(4).ok_or(Mismatch::Damaged("a register has an odd shape"))?)?;
        Ok(bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect())
    }
}

/// Brings a run that was just prepared to where the checkpoint was written. A run that cannot be stays as it is.
pub(super) fn read(run: &mut Run, checkpoint: &Checkpoint, options: &LoadOptions) -> Result<(), Mismatch> {
    let bytes: &[u8] = &checkpoint.bytes;
    let body = bytes.len().checked_sub(SUM).ok_or(Mismatch::Damaged("it is too short"))?;
    let (body, seal) = bytes.split_at(body);
    let mut reader = Reader(body);
    if reader.array::<4>()? != *MAGIC {
        return Err(Mismatch::Damaged("it is no checkpoint"));
    }
    if u16::from_le_bytes(reader.array()?) != FORMAT {
        return Err(Mismatch::Other);
    }
    if Sha256::digest(body).as_slice() != seal {
        return Err(Mismatch::Damaged("its bytes do not add up"));
    }
    if reader.array::<SUM>()? != identity(run, options) {
        return Err(Mismatch::Other);
    }
    let (plan, pass) = (reader.array::<SUM>()?, reader.array::<1>()?[0]);
    let mut place = Place::of(run, pass)?;
    if plan != sum_of(place.plan) {
        return Err(Mismatch::Plan);
    }
    let cursor = reader.u32()? as usize;
    let drawn = reader.floats(DRAWN)?;
    let registers = registers(&mut reader, &place)?;
    if cursor > place.plan.steps.len() || !reader.0.is_empty() {
        return Err(Mismatch::Damaged("its parts do not fit"));
    }
    replay(&mut place.noise, &place.plan.steps[..cursor], place.latent.numel());
    if place.noise.clone().normal(DRAWN) != drawn {
        return Err(Mismatch::Noise);
    }
    let Place { noise, entered, .. } = place;
    if let Some(pass) = entered {
        let serial = run.serial;
        run.enter(pass, serial);
    }
    (run.registers, run.cursor, run.noise) = (registers, cursor, noise);
    Ok(())
}

/// Where a pass begins.
struct Place<'a> {
    plan: &'a Plan,
    /// What it starts from.
    latent: Tensor,
    noise: NoiseSource,
    /// The second pass.
    entered: Option<Pass>,
}

impl<'a> Place<'a> {
    fn of(run: &'a Run, pass: u8) -> Result<Self, Mismatch> {
        let (latent, mut noise) = (run.register(0).shallow_clone(), run.noise.clone());
        match (pass, &run.second) {
            (0, _) => Ok(Self { plan: &run.plan, latent, noise, entered: None }),
            (1, Some(second)) => {
                replay(&mut noise, &run.plan.steps, latent.numel());
                // What the second pass draws does not depend on what the first one made.
                let pass = second.begin(&run.system, &latent.zeros_like(), noise).map_err(|_| Mismatch::Plan)?;
                let (latent, noise) = (pass.latent.shallow_clone(), pass.noise.clone());
                Ok(Self { plan: &second.plan, latent, noise, entered: Some(pass) })
            }
            _ => Err(Mismatch::Plan),
        }
    }
}

/// Draws what the steps drew. A Brownian path draws nothing: it comes from the seed alone.
fn replay(noise: &mut NoiseSource, steps: &[Step], size: usize) {
    for step in steps.iter().filter(|step| step.brownian.is_none()) {
        noise.for_step(step, size);
    }
}

/// The registers, of the latent's shape each.
fn registers(reader: &mut Reader<'_>, place: &Place<'_>) -> Result<Vec<Option<Tensor>>, Mismatch> {
    let (shape, device) = (place.latent.size(), place.latent.device());
    let count = usize::from(reader.array::<1>()?[0]);
    if count != place.plan.registers {
        return Err(Mismatch::Damaged("it has another number of registers"));
    }
    let mut registers = Vec::with_capacity(count);
    for _ in 0..count {
        if reader.array::<1>()?[0] == 0 {
            registers.push(None);
            continue;
        }
        for &side in &shape {
            if i64::from(reader.u32()?) != side {
                return Err(Mismatch::Damaged("a register has another shape"));
            }
        }
        let numbers = reader.floats(shape.iter().product::<i64>() as usize)?;
        registers.push(Some(Tensor::from_slice(&numbers).view(shape.as_slice()).to_device(device)));
    }
    if registers.first().is_none_or(Option::is_none) {
        return Err(Mismatch::Damaged("it has no latent"));
    }
    Ok(registers)
}
