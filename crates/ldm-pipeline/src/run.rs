//! A job in flight: the plan with its cursor, registers, noise and conditioning. All of it is a row, nothing is a batch.

use std::rc::Rc;
use std::sync::Arc;

use ldm_core::Request;
use ldm_engine::Advance;
use ldm_sampler::{NoiseSource, Operand, Plan, Step};
use tch::{Device, Tensor};

use crate::conditioning::Conditioning;

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
    pub(crate) conditioning: Guided,
    /// The clean latent as estimated at the last evaluation, kept when previews are wanted.
    pub(crate) denoised: Option<Tensor>,
    /// Names the run among all of this device.
    pub(crate) serial: u64,
}

/// Rows of a network call that one job asks for.
pub(crate) enum Guided {
    /// No guidance: the prompt alone.
    Off(Rc<Conditioning>),
    /// Classifier-free guidance (Ho & Salimans 2022): negative prompt, prompt.
    On(Rc<Conditioning>, Rc<Conditioning>),
}

impl Guided {
    /// Rows per call.
    pub(crate) fn rows(&self) -> i64 {
        match self {
            Self::Off(_) => 1,
            Self::On(..) => 2,
        }
    }
}

/// Standard normal `shape` from a job's own source, as torch's CPU generator would draw it.
pub(crate) fn draw(noise: &mut NoiseSource, shape: &[i64], device: Device) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    Tensor::from_slice(&noise.normal(count)).view(shape).to_device(device)
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
        let output = match &self.conditioning {
            Guided::Off(_) => output.shallow_clone(),
            Guided::On(..) => {
                let (negative, positive) = (output.narrow(0, 0, 1), output.narrow(0, 1, 1));
                &negative + (positive - &negative) * self.request.guidance
            }
        };
        let step = &self.plan.steps[self.cursor];
        let eval = &step.eval;
        let x = self.register(eval.input);
        let estimate = x * eval.skip + output * eval.out;
        if self.request.preview_every.is_some() {
            self.denoised = Some(x * eval.denoised.0 + &estimate * eval.denoised.1);
        }
        let noise = step.noise.then(|| draw(&mut self.noise, &estimate.size(), estimate.device()));
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
        Advance { step: index as u32 + 1, steps: self.plan.count as u32, finished: self.cursor == self.plan.steps.len() }
    }

    /// The clean latent, once every step is done: `[1, C, H, W]`.
    pub(crate) fn latent(&self) -> Tensor {
        self.register(0) * self.plan.final_scale
    }
}
