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
}

impl Spacing {
    /// The spacing of a `scheduler_config.json`'s `timestep_spacing`.
    pub fn parse(name: &str) -> Option<Spacing> {
        match name {
            "leading" => Some(Spacing::Leading),
            "trailing" => Some(Spacing::Trailing),
            "linspace" => Some(Spacing::Linspace),
            _ => None,
        }
    }

    /// `steps` descending timesteps of `train`; fractional for [`Spacing::Linspace`] (diffusers' Euler family).
    pub fn timesteps(self, steps: usize, train: usize, offset: usize) -> Vec<f64> {
        match self {
            Spacing::Leading => leading(steps, train / steps, offset).collect(),
            Spacing::Trailing => trailing(steps, train),
            Spacing::Linspace => linspace((train - 1) as f64, steps),
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
