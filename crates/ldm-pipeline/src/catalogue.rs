//! What the executor offers, in the service's vocabulary.

use ldm_core::{Alias, Defaults, Model, Sampler, Sizes};

use crate::blueprint::Blueprint;
use crate::families::ModelError;
use crate::options::{LoadOptions, ModelSource};

/// Every sampler of the registry.
pub fn samplers() -> Vec<Sampler> {
    ldm_sampler::entries()
        .iter()
        .map(|entry| Sampler {
            name: entry.name.to_owned(),
            label: entry.label.to_owned(),
            aliases: entry
                .aliases
                .iter()
                .map(|alias| Alias {
                    name: alias.name.to_owned(),
                    schedule: alias.schedule.map(|schedule| schedule.name().to_owned()),
                })
                .collect(),
            order: entry.order as u32,
            stochastic: entry.noise,
            takes_eta: entry.eta,
            schedules: entry.schedules.iter().map(|schedule| schedule.name().to_owned()).collect(),
        })
        .collect()
}

/// The catalogue's entry of a model: its card, else its configurations, else the family's habits, without what only the weights
/// say: parameters, tokens of a prompt, digest.
pub(crate) fn describe(source: &ModelSource, blueprint: &Blueprint, options: &LoadOptions) -> Result<Model, ModelError> {
    let habits = &blueprint.habits;
    let factor = blueprint.stage.config.factor() as u32;
    let trained = blueprint.unet.config.sample_size.map_or(512, |side| side as u32 * factor);
    let sizes = Sizes {
        min: habits.min.unwrap_or((8 * factor).min(trained)),
        max: options.max_side.or(habits.max).unwrap_or(trained * 2),
        multiple: habits.multiple.unwrap_or(factor),
        default: habits.size.unwrap_or((trained, trained)),
    };
    let sides = [sizes.default.0, sizes.default.1];
    let fits = |side: u32| (sizes.min..=sizes.max).contains(&side) && side.is_multiple_of(sizes.multiple);
    if sizes.multiple == 0 || !sizes.multiple.is_multiple_of(factor) || sizes.min == 0 || !sides.into_iter().all(fits) {
        return Err(ModelError::Mismatch(format!(
            "sizes of model {:?} do not fit: default {:?}, from {} to {}, multiples of {} (which must be a multiple of {factor})",
            source.id, sizes.default, sizes.min, sizes.max, sizes.multiple
        )));
    }
    let (sampler, schedule) = match &habits.sampler {
        Some(name) => {
            let resolved = ldm_sampler::resolve(name)
                .ok_or_else(|| ModelError::Mismatch(format!("card.toml: `sampler` = {name:?} names no sampler")))?;
            (resolved.entry, resolved.schedule)
        }
        None => {
            let preferred = blueprint.scheduler.preferred.unwrap_or(ldm_sampler::Sampler::Ddim).entry();
            (preferred, Some(blueprint.scheduler.preferred_schedule))
        }
    };
    let schedule = schedule.filter(|schedule| sampler.schedules.contains(schedule)).unwrap_or(sampler.schedules[0]);
    Ok(Model {
        id: source.id.clone(),
        family: blueprint.family.clone(),
        tasks: blueprint.tasks.clone(),
        parameters: 0,
        dtype: options.dtype.to_string(),
        device: options.device.to_string(),
        weights: String::new(),
        mode: options.mode,
        sizes,
        defaults: Defaults {
            sampler: sampler.name.to_owned(),
            schedule: schedule.name().to_owned(),
            steps: habits.steps.unwrap_or(if sampler.sampler == ldm_sampler::Sampler::Lcm { 4 } else { 25 }),
            guidance: habits.guidance.unwrap_or(7.5),
            strength: habits.strength.unwrap_or(0.75),
            eta: habits.eta.unwrap_or(0.),
            rounding: habits.rounding,
        },
        prompt_tokens: 0,
        conditions: blueprint.conditions.clone(),
        loras: Vec::new(),
    })
}
