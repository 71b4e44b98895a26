//! AdamW (Loshchilov & Hutter 2019) and a moving average over one flat vector of all parameters.
//!
//! Every variable is a view of one vector, so that a step is a dozen long vector operations instead of a dozen per
//! parameter, and the whole state is four vectors, which are what a checkpoint holds.

use anyhow::{Result, ensure};
use ldm_nn::Variables;
use tch::{Kind, Tensor};

use crate::config::Loop;

/// Parameters with their moments and their moving average.
pub(crate) struct Optimizer {
    /// Names and shapes, in the order of `parameters`.
    layout: Vec<(String, Vec<i64>)>,
    parameters: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    average: Tensor,
    settings: Loop,
}

const BETA1: f64 = 0.9;
const EPS: f64 = 1e-8;

impl Optimizer {
    pub(crate) fn new(variables: &Variables, settings: &Loop) -> Self {
        let flat: Vec<_> = variables.iter().map(|(_, tensor)| tensor.detach().flatten(0, -1)).collect();
        let parameters = Tensor::cat(&flat, 0);
        attach(&parameters, variables);
        Self {
            first_moment: parameters.zeros_like(),
            second_moment: parameters.zeros_like(),
            average: parameters.copy(),
            parameters,
            layout: variables.iter().map(|(name, tensor)| (name.to_owned(), tensor.size())).collect(),
            settings: settings.clone(),
        }
    }

    /// Parameters in all.
    pub(crate) fn len(&self) -> i64 {
        self.parameters.size()[0]
    }

    /// Makes the variables of a replica, of the same modules in the same order, views of these parameters.
    pub(crate) fn attach(&self, replica: &Variables) {
        attach(&self.parameters, replica);
    }

    /// One step along −`gradient`; returns its norm before clipping. Nothing is done when that is not finite.
    pub(crate) fn step(&mut self, mut gradient: Tensor, step: u64) -> f64 {
        tch::no_grad(|| {
            let norm = gradient.norm().double_value(&[]);
            if !norm.is_finite() {
                return norm;
            }
            if norm > self.settings.clip {
                let _ = gradient.g_mul_scalar_(self.settings.clip / norm);
            }
            let Loop { beta2, weight_decay, ema, .. } = self.settings;
            let rate = self.settings.learning_rate_at(step);
            let (t, correct1) = ((step + 1) as f64, 1. - BETA1.powf((step + 1) as f64));
            let correct2 = 1. - beta2.powf(t);
            let _ = self.first_moment.lerp_(&gradient, 1. - BETA1);
            let _ = self.second_moment.lerp_(&gradient.square(), 1. - beta2);
            let mut denominator = self.second_moment.sqrt();
            let _ = denominator.g_mul_scalar_(1. / correct2.sqrt()).g_add_scalar_(EPS);
            let _ = self.parameters.g_mul_scalar_(1. - rate * weight_decay);
            let mut change = &self.first_moment / denominator;
            let _ = self.parameters.g_sub_(&change.g_mul_scalar_(rate / correct1));
            // The average warms up, so that it does not remember the start.
            let decay = ema.min((1. + t) / (10. + t));
            let _ = self.average.lerp_(&self.parameters, 1. - decay);
            norm
        })
    }

    /// Names with the averaged parameters.
    pub(crate) fn averaged(&self) -> Vec<(String, Tensor)> {
        let mut from = 0;
        self.layout
            .iter()
            .map(|(name, shape)| {
                let count = shape.iter().product();
                let tensor = self.average.narrow(0, from, count).view(shape.as_slice());
                from += count;
                (name.clone(), tensor)
            })
            .collect()
    }

    /// Runs `work` with the averaged parameters in place of the trained ones.
    pub(crate) fn with_average<T>(&mut self, work: impl FnOnce() -> T) -> T {
        tch::no_grad(|| {
            let kept = self.parameters.copy();
            self.parameters.copy_(&self.average);
            let result = work();
            self.parameters.copy_(&kept);
            result
        })
    }

    /// What a checkpoint holds.
    pub(crate) fn state(&self) -> Vec<(&'static str, Tensor)> {
        [
            ("parameters", &self.parameters),
            ("first_moment", &self.first_moment),
            ("second_moment", &self.second_moment),
            ("average", &self.average),
        ]
        .map(|(name, tensor)| (name, tensor.shallow_clone()))
        .into()
    }

    /// Takes a checkpoint's state.
    pub(crate) fn restore(&mut self, state: &dyn Fn(&str) -> Result<Tensor>) -> Result<()> {
        for (name, mut tensor) in self.state() {
            let stored = state(name)?;
            ensure!(stored.size() == tensor.size(), "the checkpoint is of another network: {name} has {:?}", stored.size());
            tch::no_grad(|| tensor.copy_(&stored.to_kind(Kind::Float)));
        }
        Ok(())
    }
}

fn attach(parameters: &Tensor, variables: &Variables) {
    let mut from = 0;
    for (_, variable) in variables.iter() {
        let count = variable.numel() as i64;
        let mut handle = variable.shallow_clone();
        handle.set_data(&parameters.narrow(0, from, count).view(variable.size().as_slice()));
        from += count;
    }
    assert_eq!(from, parameters.size()[0], "the variables are of another network");
}

/// The gradient of `loss` as one vector, in the order of the variables.
pub(crate) fn gradient(variables: &Variables, loss: &Tensor) -> Tensor {
    loss.backward();
    let parts: Vec<_> = variables.iter().map(|(_, variable)| variable.grad().flatten(0, -1)).collect();
    let gradient = Tensor::cat(&parts, 0);
    for (_, variable) in variables.iter() {
        variable.shallow_clone().zero_grad();
    }
    gradient
}
