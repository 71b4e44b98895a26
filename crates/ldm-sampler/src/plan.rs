//! The plan: a sampler unrolled into evaluations and linear updates whose coefficients are plain numbers.

/// What a linear combination reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operand {
    /// The value a register had before the step.
    Register(usize),
    /// The estimate of this step's evaluation.
    Estimate,
    /// The noise drawn for this step.
    Noise,
}

/// `registers[to] <- sum of coefficient * operand`; all assignments of a step read the old register values.
#[derive(Debug, Clone, PartialEq)]
pub struct Assign {
    /// The register that is written.
    pub to: usize,
    /// Operands and their coefficients; none means zero.
    pub terms: Vec<(Operand, f64)>,
}

/// One evaluation of the network `F`: it is fed `c_in * registers[input]` at `timestep`, and
/// `estimate = skip * registers[input] + out * F` folds the prediction type into what the sampler wants.
#[derive(Debug, Clone, PartialEq)]
pub struct Eval {
    /// The register that is fed to the network.
    pub input: usize,
    /// The scale of the network's input (Karras et al. 2022, equation 7).
    pub c_in: f64,
    /// The timestep given to the network; may be fractional.
    pub timestep: f64,
    /// The noise-to-signal ratio at this evaluation; infinite where there is no signal.
    pub sigma: f64,
    /// The share of the input register in the estimate.
    pub skip: f64,
    /// The share of the network's output in the estimate.
    pub out: f64,
    /// For previews: `clean latent = denoised.0 * registers[input] + denoised.1 * estimate`, at unit signal scale.
    pub denoised: (f64, f64),
}

/// One evaluation and the update after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The evaluation.
    pub eval: Eval,
    /// The assignments, in no particular order.
    pub update: Vec<Assign>,
    /// Whether fresh standard normal noise is drawn for this step (even where its coefficient vanishes).
    pub noise: bool,
    /// Where the noise is the increment of a Brownian path: between which noise levels. Without it, noise is drawn
    /// anew. [`NoiseSource::for_step`](crate::NoiseSource::for_step) honours both.
    pub brownian: Option<Interval>,
    /// Whether guidance applies to this evaluation ([`GuidanceSpec::interval`](crate::GuidanceSpec)); where not, the
    /// conditional output stands alone.
    pub guided: bool,
    /// The user's step (counted from 0) that this evaluation belongs to.
    pub index: usize,
}

/// A stretch of a Brownian path whose time is the noise level (k-diffusion `BrownianTreeNoiseSampler`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The noise level where the step begins.
    pub from: f64,
    /// The noise level where it ends (usually below `from`).
    pub to: f64,
    /// The lowest noise level of the run's path, above zero.
    pub low: f64,
    /// The highest noise level of the run's path.
    pub high: f64,
}

/// A sampler, unrolled for one schedule and step count.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Txt2img: the initial latent is `init_scale` times standard normal noise.
    pub init_scale: f64,
    /// How many registers there are. Register 0 is the latent; the others start at zero.
    pub registers: usize,
    /// In the end, `final_scale * registers[0]` is the clean latent.
    pub final_scale: f64,
    /// The user's steps, after img2img took its share away.
    pub count: usize,
    /// Img2img: the initial latent is `start.0 * clean + start.1 * noise` (txt2img plans do not need it).
    pub start: (f64, f64),
    /// How far guided outputs are rescaled to the deviation of the conditional ones
    /// ([`rescale_guidance`](crate::rescale_guidance)); 0 is not at all.
    pub guidance_rescale: f64,
    /// The evaluations and updates, in order.
    pub steps: Vec<Step>,
}

impl Plan {
    /// How often the network is evaluated.
    pub fn evaluations(&self) -> usize {
        self.steps.len()
    }

    /// Whether no coefficient is infinite or NaN.
    pub fn is_finite(&self) -> bool {
        let scalars = [self.init_scale, self.final_scale, self.start.0, self.start.1];
        scalars.iter().all(|scalar| scalar.is_finite()) && self.steps.iter().all(Step::is_finite)
    }

    /// Whether the plan can be run: registers exist, nothing but register 0 is read before it is written, each step
    /// writes a register once, noise is read only where it is drawn, and indices run from 0 to `count - 1`.
    pub fn is_sound(&self) -> bool {
        let mut written = vec![false; self.registers];
        if let Some(latent) = written.first_mut() {
            *latent = true;
        }
        let mut index = 0;
        for step in &self.steps {
            let readable = |operand: &Operand| match operand {
                Operand::Register(register) => written.get(*register).copied().unwrap_or(false),
                Operand::Estimate => true,
                Operand::Noise => step.noise,
            };
            let reads = step.update.iter().flat_map(|assign| &assign.terms).all(|(operand, _)| readable(operand));
            if !reads || !readable(&Operand::Register(step.eval.input)) || !(index..=index + 1).contains(&step.index) {
                return false;
            }
            let mut now = vec![false; self.registers];
            for assign in &step.update {
                match now.get_mut(assign.to) {
                    Some(once) if !*once => *once = true,
                    _ => return false,
                }
                written[assign.to] = true;
            }
            index = step.index;
        }
        !self.steps.is_empty() && self.steps[0].index == 0 && index + 1 == self.count && self.is_finite()
    }

    /// The reference execution on plain numbers: `noise(n)` draws `n` normals, `network(input, timestep)` is `F`.
    /// `latent` is the scaled initial latent; the clean latent is returned.
    pub fn run(
        &self,
        latent: &[f64],
        mut noise: impl FnMut(usize) -> Vec<f64>,
        network: impl FnMut(&[f64], f64) -> Vec<f64>,
    ) -> Vec<f64> {
        self.run_with(latent, |_, n| noise(n), network)
    }

    /// [`Plan::run`] where the noise knows its step: `noise(step, n)` draws `n` normals, on the path that
    /// [`Step::brownian`] names.
    pub fn run_with(
        &self,
        latent: &[f64],
        mut noise: impl FnMut(&Step, usize) -> Vec<f64>,
        mut network: impl FnMut(&[f64], f64) -> Vec<f64>,
    ) -> Vec<f64> {
        let size = latent.len();
        let mut registers = vec![vec![0.0; size]; self.registers];
        registers[0].copy_from_slice(latent);
        for step in &self.steps {
            let eval = &step.eval;
            let input = &registers[eval.input];
            let scaled: Vec<f64> = input.iter().map(|x| eval.c_in * x).collect();
            let output = network(&scaled, eval.timestep);
            let estimate: Vec<f64> = input.iter().zip(&output).map(|(x, f)| eval.skip * x + eval.out * f).collect();
            let drawn = if step.noise { noise(step, size) } else { Vec::new() };
            let combine = |assign: &Assign, at: usize| {
                let value = |(operand, coefficient): &(Operand, f64)| match operand {
                    Operand::Register(register) => coefficient * registers[*register][at],
                    Operand::Estimate => coefficient * estimate[at],
                    Operand::Noise => coefficient * drawn[at],
                };
                assign.terms.iter().map(value).sum::<f64>()
            };
            let update = |assign: &Assign| (assign.to, (0..size).map(|at| combine(assign, at)).collect());
            let results: Vec<(usize, Vec<f64>)> = step.update.iter().map(update).collect();
            for (to, value) in results {
                registers[to] = value;
            }
        }
        registers[0].iter().map(|x| self.final_scale * x).collect()
    }
}

impl Step {
    /// A step without noise.
    pub(crate) fn new(index: usize, eval: Eval, update: Vec<Assign>) -> Step {
        Step { eval, update, noise: false, brownian: None, guided: true, index }
    }

    /// The step, drawing noise or not.
    pub(crate) fn drawing(self, noise: bool) -> Step {
        Step { noise, ..self }
    }

    /// The step with noise that is a Brownian increment where there is an interval.
    pub(crate) fn drawing_on(self, brownian: Option<Interval>) -> Step {
        Step { noise: true, brownian, ..self }
    }

    fn is_finite(&self) -> bool {
        let Eval { c_in, timestep, skip, out, denoised, .. } = self.eval;
        let finite = [c_in, timestep, skip, out, denoised.0, denoised.1].iter().all(|scalar| scalar.is_finite());
        let mut terms = self.update.iter().flat_map(|assign| &assign.terms);
        finite && terms.all(|(_, coefficient)| coefficient.is_finite())
    }
}
