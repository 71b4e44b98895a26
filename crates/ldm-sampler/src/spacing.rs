//! Timestep spacings: which of the trained timesteps a few inference steps visit (Lin et al. 2023, table 2).

/// How inference timesteps are spread over the trained ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spacing {
    /// Whole strides counted up from zero plus `steps_offset`; never reaches the last timestep.
    Leading,
    /// Strides counted down from the last timestep.
    Trailing,
    /// Even between the first and the last timestep, both included.
    Linspace,
    /// CompVis' `make_ddim_timesteps("uniform")`: every `train / steps`-th timestep plus one, however many those are.
    /// Where `steps` does not divide `train`, that is more steps than were asked for.
    Compvis,
    /// k-diffusion's `get_sigmas`: even and fractional between the last timestep and the first, with noise levels
    /// between trained timesteps interpolated in ln sigma.
    KDiffusion,
}

impl Spacing {
    /// The name users see and send.
    pub fn name(self) -> &'static str {
        match self {
            Spacing::Leading => "leading",
            Spacing::Trailing => "trailing",
            Spacing::Linspace => "linspace",
            Spacing::Compvis => "compvis",
            Spacing::KDiffusion => "k_diffusion",
        }
    }

    /// The spacing of a `scheduler_config.json`'s `timestep_spacing`, or one of the two that diffusers does not have.
    pub fn parse(name: &str) -> Option<Spacing> {
        match name {
            "leading" => Some(Spacing::Leading),
            "trailing" => Some(Spacing::Trailing),
            "linspace" => Some(Spacing::Linspace),
            "compvis" => Some(Spacing::Compvis),
            "k_diffusion" => Some(Spacing::KDiffusion),
            _ => None,
        }
    }

    /// How many steps are run when `steps` of `train` were asked for.
    pub fn count(self, steps: usize, train: usize) -> usize {
        match self {
            Spacing::Compvis => train.div_ceil((train / steps.max(1)).max(1)),
            _ => steps,
        }
    }

    /// Descending timesteps of `train`, [`Spacing::count`] of them; fractional for [`Spacing::Linspace`] and
    /// [`Spacing::KDiffusion`] (diffusers' Euler family).
    pub fn timesteps(self, steps: usize, train: usize, offset: usize) -> Vec<f64> {
        match self {
            Spacing::Leading => leading(steps, train / steps, offset).collect(),
            Spacing::Trailing => trailing(steps, train),
            Spacing::Linspace => linspace((train - 1) as f64, steps),
            Spacing::Compvis => leading(self.count(steps, train), (train / steps).max(1), 1).collect(),
            Spacing::KDiffusion => falling((train - 1) as f64, steps),
        }
    }

    /// [`Spacing::timesteps`] rounded to whole timesteps, ties to even as numpy does (diffusers' DDPM, DDIM, PNDM).
    pub fn whole_timesteps(self, steps: usize, train: usize, offset: usize) -> Vec<f64> {
        self.timesteps(steps, train, offset).into_iter().map(f64::round_ties_even).collect()
    }

    /// `steps` descending timesteps, one further grid point being the clean end (diffusers' DPM-Solver and UniPC).
    pub fn solver_timesteps(self, steps: usize, train: usize, offset: usize) -> Vec<f64> {
        match self {
            Spacing::Leading => leading(steps + 1, train / (steps + 1), offset).take(steps).collect(),
            Spacing::Trailing => trailing(steps, train),
            Spacing::Linspace => {
                let grid = linspace((train - 1) as f64, steps + 1);
                grid.into_iter().take(steps).map(f64::round_ties_even).collect()
            }
            Spacing::Compvis | Spacing::KDiffusion => self.timesteps(steps, train, offset),
        }
    }
}

fn leading(steps: usize, stride: usize, offset: usize) -> impl Iterator<Item = f64> {
    (0..steps).rev().map(move |i| (i * stride + offset) as f64)
}

/// numpy's `arange(train, 0, -train / steps).round() - 1`, ties to even. numpy steps by the difference of the first
/// two elements, and (for 62 step counts of a thousand) yields an element too many at timestep -1; that we do not.
fn trailing(steps: usize, train: usize) -> Vec<f64> {
    let train = train as f64;
    let stride = (train - train / steps as f64) - train;
    (0..steps).map(|i| (train + i as f64 * stride).round_ties_even() - 1.0).collect()
}

/// numpy's `linspace(0, last, count)`, reversed; a single point is the first one.
fn linspace(last: f64, count: usize) -> Vec<f64> {
    let stride = last / (count.max(2) - 1) as f64;
    (0..count).rev().map(|i| if i > 0 && i + 1 == count { last } else { i as f64 * stride }).collect()
}

/// torch's `linspace(last, 0, count)`; a single point is the first one.
fn falling(last: f64, count: usize) -> Vec<f64> {
    let gaps = (count.max(2) - 1) as f64;
    (0..count).map(|i| last * ((gaps - i as f64) / gaps)).collect()
}
