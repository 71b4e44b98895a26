//! A job in flight: the plan with its cursor, registers, noise and conditioning. All of it is a row, nothing is a batch.

use std::rc::Rc;
use std::sync::Arc;

use ldm_core::{Failure, Request};
use ldm_engine::Advance;
use ldm_sampler::{Assign, NoiseSource, Operand, Plan, Step};
use tch::{Device, Tensor};

use crate::conditioning::Conditioning;
use crate::hires::{Pass, Second};
use crate::loras::Chosen;
use crate::masking::Overlay;
use crate::system::System;
use crate::tasks::{Keep, Paste};

/// A job in flight.
pub struct Run {
    /// The weights that it began with.
    pub(crate) system: Rc<System>,
    /// What was asked for.
    pub(crate) asked: Arc<Request>,
    /// What this pass is asked for: the same, unless it is the second one.
    pub(crate) request: Arc<Request>,
    pub(crate) plan: Plan,
    /// The pass after this one.
    pub(crate) second: Option<Second>,
    /// Steps of the pass before this one.
    pub(crate) passed: u32,
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
    /// How the drawn picture is laid over the one that came in.
    pub(crate) overlay: Option<Overlay>,
    /// Height and width of the picture where the latent is larger.
    pub(crate) crop: Option<[i64; 2]>,
    /// The clean latent as estimated at the last evaluation, kept when previews are wanted.
    pub(crate) denoised: Option<Tensor>,
    /// Names the run among all of this device.
    pub(crate) serial: u64,
}

/// What a job is after an evaluation.
pub(crate) struct Next {
    pub(crate) registers: Vec<Option<Tensor>>,
    /// Where noise was drawn from it.
    noise: Option<NoiseSource>,
    denoised: Option<Tensor>,
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

    pub(crate) fn register(&self, index: usize) -> &Tensor {
        self.registers[index].as_ref().expect("a sound plan writes a register before it reads it")
    }

    /// What the network's output `[rows, C, H, W]`, in the order of [`Guided`], makes of the job. The job itself stays as it is.
    pub(crate) fn next(&mut self, output: &Tensor) -> Next {
        let step = &self.plan.steps[self.cursor];
        let eval = &step.eval;
        let x = self.register(eval.input);
        let estimate = x * eval.skip + self.guided(step, output) * eval.out;
        let denoised = self.request.preview_every.map(|_| x * eval.denoised.0 + &estimate * eval.denoised.1);
        // A Brownian path comes from the seed alone: what its source remembers changes nothing.
        let mut fresh = (step.noise && step.brownian.is_none()).then(|| self.noise.clone());
        let noise = step.noise.then(|| {
            let shape = estimate.size();
            let source = fresh.as_mut().unwrap_or(&mut self.noise);
            let values = source.for_step(step, shape.iter().product::<i64>() as usize);
            Tensor::from_slice(&values).view(shape.as_slice()).to_device(estimate.device())
        });
        let mut registers: Vec<Option<Tensor>> =
            self.registers.iter().map(|register| register.as_ref().map(Tensor::shallow_clone)).collect();
        for Assign { to, terms } in &step.update {
            let terms = terms.iter().filter(|(_, coefficient)| *coefficient != 0.);
            let value = terms.fold(None, |sum: Option<Tensor>, (operand, coefficient)| {
                let operand = match operand {
                    Operand::Register(index) => self.register(*index),
                    Operand::Estimate => &estimate,
                    Operand::Noise => noise.as_ref().expect("a sound plan draws the noise that it reads"),
                };
                let term = operand * *coefficient;
                Some(sum.map_or_else(|| term.shallow_clone(), |sum| sum + &term))
            });
            registers[*to] = Some(value.unwrap_or_else(|| estimate.zeros_like()));
        }
        let latent = registers[0].take().expect("a sound plan");
        registers[0] = Some(self.put_back(latent));
        Next { registers, noise: fresh, denoised }
    }

    /// The output that counts, `[1, C, H, W]`.
    fn guided(&self, step: &Step, output: &Tensor) -> Tensor {
        match &self.conditioning {
            Guided::Off(_) => output.shallow_clone(),
            Guided::On(..) if !step.guided => output.narrow(0, 1, 1),
            Guided::On(..) => {
                let (negative, positive) = (output.narrow(0, 0, 1), output.narrow(0, 1, 1));
                let guided = &negative + (&positive - &negative) * self.request.guidance;
                rescaled(guided, &positive, self.plan.guidance_rescale)
            }
        }
    }

    /// The latent with what an inpainting must not change, at the noise level that the evaluation after this one expects.
    fn put_back(&self, latent: Tensor) -> Tensor {
        let Some(Keep { clean, noise, mask }) = &self.keep else { return latent };
        let (signal, level) = match self.plan.steps.get(self.cursor + 1).map(|step| &step.eval) {
            // Intermediate registers of a step are estimates, not the latent.
            Some(eval) if eval.input != 0 => return latent,
            Some(eval) if eval.sigma.is_finite() => {
                // The network is fed √ᾱ·x₀ + √(1 − ᾱ)·ε, which is `c_in` times the register; σ² = (1 − ᾱ) / ᾱ.
                let alpha = 1. / (1. + eval.sigma * eval.sigma).sqrt();
                (alpha / eval.c_in, alpha * eval.sigma / eval.c_in)
            }
            Some(eval) => (0., 1. / eval.c_in),
            None => (1. / self.plan.final_scale, 0.),
        };
        let kept = clean * signal + noise * level;
        &kept + (latent - &kept) * mask
    }

    /// Takes what [`next`](Self::next) made.
    pub(crate) fn take(&mut self, next: Next) -> Advance {
        let Next { registers, noise, denoised } = next;
        let (step, steps) = self.place();
        self.registers = registers;
        if let Some(noise) = noise {
            self.noise = noise;
        }
        self.denoised = denoised;
        self.cursor += 1;
        Advance { step, steps, left: self.left(), moved: None }
    }

    /// Whether the next evaluation is the last of this pass, and another follows.
    pub(crate) fn turns(&self) -> Option<&Second> {
        self.second.as_ref().filter(|_| self.cursor + 1 == self.plan.steps.len())
    }

    /// The second pass as it begins, after what [`next`](Self::next) made of the first.
    pub(crate) fn turn(&self, second: &Second, next: &Next) -> Result<Pass, Failure> {
        let latent = next.registers[0].as_ref().expect("a sound plan") * self.plan.final_scale;
        let noise = next.noise.as_ref().unwrap_or(&self.noise).clone();
        second.begin(&self.system, &latent, noise)
    }

    /// Goes on with the second pass.
    pub(crate) fn enter(&mut self, pass: Pass, serial: u64) {
        let Some(Second { request, plan, .. }) = self.second.take() else { return };
        let Pass { latent, noise, conditioning } = pass;
        self.passed += self.plan.count as u32;
        self.registers = (0..plan.registers).map(|_| None).collect();
        self.registers[0] = Some(latent);
        (self.request, self.plan, self.cursor) = (request, plan, 0);
        (self.noise, self.conditioning, self.serial) = (noise, conditioning, serial);
    }

    /// The step that the next evaluation belongs to, from 1, and steps in all.
    pub(crate) fn place(&self) -> (u32, u32) {
        let count = self.plan.count as u32;
        let step = self.plan.steps.get(self.cursor).map_or(count, |step| step.index as u32) + 1;
        let later = self.second.as_ref().map_or(0, |second| second.plan.count as u32);
        (self.passed + step, self.passed + count + later)
    }

    /// Network calls that are left.
    pub(crate) fn left(&self) -> u32 {
        let later = self.second.as_ref().map_or(0, |second| second.plan.steps.len());
        (self.plan.steps.len() - self.cursor + later) as u32
    }

    /// The clean latent, once every step is done: `[1, C, H, W]`.
    pub(crate) fn latent(&self) -> Tensor {
        self.register(0) * self.plan.final_scale
    }
}
