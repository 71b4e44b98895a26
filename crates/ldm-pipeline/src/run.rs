//! A job in flight: the plan with its cursor, registers, noise and conditioning. All of it is a row, nothing is a batch.

use std::rc::Rc;
use std::sync::Arc;

use ldm_core::Request;
use ldm_engine::Advance;
use ldm_sampler::{NoiseSource, Operand, Plan, Step};
use tch::{Device, Tensor};

use crate::conditioning::Conditioning;
use crate::loras::Chosen;
use crate::tasks::{Keep, Paste};

/// A job in flight.
pub struct Run {
    pub(crate) model: usize,
    pub(crate) request: Arc<Request>,
    pub(crate) plan: Plan,
    /// Evaluations done.
    pub(crate) cursor: usize,
    /// float32 `[1, C, H, W]` each; `None` until written.
    pub(crate) registers: Vec<Option<Tensor>>,
    pub(crate) noise: NoiseSource,
    /// The conditional row, and the unconditional one under guidance.
    pub(crate) conditioning: Guided<Rc<Conditioning>>,
    /// Adapters of all its rows.
    pub(crate) loras: Chosen,
    /// What is put back after every step.
    pub(crate) keep: Option<Keep>,
    /// What is laid over the decoded picture.
    pub(crate) paste: Option<Paste>,
    /// Height and width of the picture where the latent is larger.
    pub(crate) crop: Option<[i64; 2]>,
    /// The clean latent as estimated at the last evaluation, kept when previews are wanted.
    pub(crate) denoised: Option<Tensor>,
    /// Names the run among all of this device.
    pub(crate) serial: u64,
}

/// What one job gives a network call, once or twice.
#[derive(Clone, Debug)]
pub(crate) enum Guided<T> {
    /// No guidance: the prompt alone.
    Off(T),
    /// Classifier-free guidance (Ho & Salimans 2022): without the condition (or with the negative prompt), with it.
    On(T, T),
}

impl<T> Guided<T> {
    /// Rows per call.
    pub(crate) fn rows(&self) -> i64 {
        match self {
            Self::Off(_) => 1,
            Self::On(..) => 2,
        }
    }

    /// The same of each.
    pub(crate) fn try_map<U, E>(self, mut f: impl FnMut(T) -> Result<U, E>) -> Result<Guided<U>, E> {
        Ok(match self {
            Self::Off(one) => Guided::Off(f(one)?),
            Self::On(negative, positive) => Guided::On(f(negative)?, f(positive)?),
        })
    }
}

/// Standard normal `shape` from a job's own source, as torch's CPU generator would draw it.
pub(crate) fn draw(noise: &mut NoiseSource, shape: &[i64], device: Device) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    Tensor::from_slice(&noise.normal(count)).view(shape).to_device(device)
}

/// A share `phi` of the guided output with the deviation of the conditional one (Lin et al. 2023, Equations 15 and 16).
fn rescaled(guided: Tensor, positive: &Tensor, phi: f64) -> Tensor {
    if phi == 0. {
        return guided;
    }
    let deviation = |x: &Tensor| x.std_dim([1i64, 2, 3].as_slice(), true, true); // [1, 1, 1, 1]
    let factor = deviation(positive) / deviation(&guided);
    &guided * factor * phi + guided * (1. - phi)
}

impl Run {
    /// The step that is to be evaluated.
    fn step(&self) -> &Step {
        &self.plan.steps[self.cursor]
    }

    /// What the network is fed: float32 `[1, C, H, W]`, and the timestep.
    pub(crate) fn input(&self) -> (Tensor, f32) {
        let eval = &self.step().eval;
        (self.register(eval.input) * eval.c_in, eval.timestep as f32)
    }

    fn register(&self, index: usize) -> &Tensor {
        self.registers[index].as_ref().expect("a sound plan writes a register before it reads it")
    }

    /// Takes the network's output `[rows, C, H, W]` in the order of [`Guided`], and updates the registers.
    pub(crate) fn advance(&mut self, output: &Tensor) -> Advance {
        let step = &self.plan.steps[self.cursor];
        let output = match &self.conditioning {
            Guided::Off(_) => output.shallow_clone(),
            Guided::On(..) if !step.guided => output.narrow(0, 1, 1),
            Guided::On(..) => {
                let (negative, positive) = (output.narrow(0, 0, 1), output.narrow(0, 1, 1));
                let guided = &negative + (&positive - &negative) * self.request.guidance;
                rescaled(guided, &positive, self.plan.guidance_rescale)
            }
        };
        let eval = &step.eval;
        let x = self.register(eval.input);
        let estimate = x * eval.skip + output * eval.out;
        if self.request.preview_every.is_some() {
            self.denoised = Some(x * eval.denoised.0 + &estimate * eval.denoised.1);
        }
        let noise = step.noise.then(|| {
            let shape = estimate.size();
            let values = self.noise.for_step(step, shape.iter().product::<i64>() as usize);
            Tensor::from_slice(&values).view(shape.as_slice()).to_device(estimate.device())
        });
        let written: Vec<(usize, Option<Tensor>)> = step
            .update
            .iter()
            .map(|assign| {
                let terms = assign.terms.iter().filter(|(_, coefficient)| *coefficient != 0.);
                let value = terms.fold(None, |sum: Option<Tensor>, (operand, coefficient)| {
                    let operand = match operand {
                        Operand::Register(index) => self.registers[*index].as_ref().expect("a sound plan"),
                        Operand::Estimate => &estimate,
                        Operand::Noise => noise.as_ref().expect("a sound plan draws the noise that it reads"),
                    };
                    let term = operand * *coefficient;
                    Some(sum.map_or_else(|| term.shallow_clone(), |sum| sum + &term))
                });
                (assign.to, Some(value.unwrap_or_else(|| estimate.zeros_like())))
            })
            .collect();
        let index = step.index;
        for (to, value) in written {
            self.registers[to] = value;
        }
        self.cursor += 1;
        self.put_back();
        Advance { step: index as u32 + 1, steps: self.plan.count as u32, finished: self.cursor == self.plan.steps.len() }
    }

    /// What an inpainting must not change, at the noise level that the next evaluation expects.
    fn put_back(&mut self) {
        let Some(Keep { clean, noise, mask }) = &self.keep else { return };
        let (signal, level) = match self.plan.steps.get(self.cursor).map(|step| &step.eval) {
            // Intermediate registers of a step are estimates, not the latent.
            Some(eval) if eval.input != 0 => return,
            Some(eval) if eval.sigma.is_finite() => {
                // The network is fed √ᾱ·x₀ + √(1 − ᾱ)·ε, which is `c_in` times the register; σ² = (1 − ᾱ) / ᾱ.
                let alpha = 1. / (1. + eval.sigma * eval.sigma).sqrt();
                (alpha / eval.c_in, alpha * eval.sigma / eval.c_in)
            }
            Some(eval) => (0., 1. / eval.c_in),
            None => (1. / self.plan.final_scale, 0.),
        };
        let kept = clean * signal + noise * level;
        let latent = self.register(0);
        self.registers[0] = Some(&kept + (latent - &kept) * mask);
    }

    /// The clean latent, once every step is done: `[1, C, H, W]`.
    pub(crate) fn latent(&self) -> Tensor {
        self.register(0) * self.plan.final_scale
    }
}
