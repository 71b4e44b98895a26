//! Classifier-free guidance beyond a scale: at which noise levels it applies, and how far its output is rescaled.

use crate::PlanError;

/// Which evaluations are guided, and what becomes of a guided output.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct GuidanceSpec {
    /// The share of the output that is rescaled to the deviation of the conditional one (Lin et al. 2023, section 3.4:
    /// phi, 0.7 there); 0 switches it off.
    pub rescale: f64,
    /// Guidance applies where `interval.0 < sigma <= interval.1` (Kynkäänniemi et al. 2024, equation 4); everywhere
    /// when absent.
    pub interval: Option<(f64, f64)>,
}

impl GuidanceSpec {
    /// Whether an evaluation at a noise level is guided.
    pub fn applies(&self, sigma: f64) -> bool {
        self.interval.is_none_or(|(low, high)| low < sigma && sigma <= high)
    }

    pub(crate) fn check(&self) -> Result<(), PlanError> {
        let invalid = |setting, value, reason| Err(PlanError::InvalidSetting { setting, value, reason });
        if !(0.0..=1.0).contains(&self.rescale) {
            return invalid("guidance rescale", self.rescale, "it must lie in [0, 1]");
        }
        match self.interval {
            Some((low, _)) if low.is_nan() || low < 0.0 => {
                invalid("the low end of the guidance interval", low, "it must be a noise level, 0 or more")
            }
            Some((low, high)) if high.is_nan() || high <= low => {
                invalid("the high end of the guidance interval", high, "it must lie above the low end")
            }
            _ => Ok(()),
        }
    }
}

/// Mixes a guided output with itself at the standard deviation of the conditional output: `rescale` of the rescaled
/// one, the rest as it was (Lin et al. 2023, equations 15 and 16; diffusers `rescale_noise_cfg`). Both are the network's
/// outputs for one picture.
///
/// # Panics
/// When the lengths differ.
pub fn rescale_guidance(guided: &[f64], conditional: &[f64], rescale: f64) -> Vec<f64> {
    assert_eq!(guided.len(), conditional.len(), "one output, guided and not");
    let deviation = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(|value| (value - mean).powi(2)).sum::<f64>().sqrt()
    };
    let (from, to) = (deviation(guided), deviation(conditional));
    let ratio = if from > 0.0 { to / from } else { 1.0 };
    guided.iter().map(|value| value * (rescale * ratio + (1.0 - rescale))).collect()
}
