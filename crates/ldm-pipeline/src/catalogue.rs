//! What the executor offers, in the service's vocabulary.

use ldm_core::{Alias, Conditions, Defaults, Model, Sampler, Sizes};

use crate::card::Card;
use crate::families::{Family, Loaded, ModelError};
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

/// The catalogue's entry of a loaded model: its card, else its configurations, else the family's habits.
pub(crate) fn describe(
    source: &ModelSource,
    family: &Family,
    card: &Card,
    loaded: &Loaded,
    options: &LoadOptions,
) -> Result<Model, ModelError> {
    let factor = loaded.vae.config().factor() as u32;
    let trained = loaded.latent_side.map_or(512, |side| side as u32 * factor);
    let sizes = Sizes {
        min: card.sizes.min.unwrap_or((8 * factor).min(trained)),
        max: options.max_side.or(card.sizes.max).unwrap_or(trained * 2),
        multiple: card.sizes.multiple.unwrap_or(factor),
        default: card.sizes.default.unwrap_or((trained, trained)),
    };
    let sides = [sizes.default.0, sizes.default.1];
    let fits = |side: u32| (sizes.min..=sizes.max).contains(&side) && side.is_multiple_of(sizes.multiple);
    if sizes.multiple == 0 || !sizes.multiple.is_multiple_of(factor) || sizes.min == 0 || !sides.into_iter().all(fits) {
        return Err(ModelError::Mismatch(format!(
            "sizes of model {:?} do not fit: default {:?}, from {} to {}, multiples of {} (which must be a multiple of {factor})",
            source.id, sizes.default, sizes.min, sizes.max, sizes.multiple
        )));
    }
    let (sampler, schedule) = match &card.defaults.sampler {
        Some(name) => {
            let resolved = ldm_sampler::resolve(name)
                .ok_or_else(|| ModelError::Mismatch(format!("card.toml: `sampler` = {name:?} names no sampler")))?;
            (resolved.entry, resolved.schedule)
        }
        None => {
            let preferred = loaded.scheduler.preferred.unwrap_or(ldm_sampler::Sampler::Ddim).entry();
            (preferred, Some(loaded.scheduler.preferred_schedule))
        }
    };
    let schedule = schedule.filter(|schedule| sampler.schedules.contains(schedule)).unwrap_or(sampler.schedules[0]);
    Ok(Model {
        id: source.id.clone(),
        family: family.name.to_owned(),
        tasks: family.tasks.to_vec(),
        parameters: loaded.parameters,
        dtype: options.dtype.to_string(),
        device: options.device.to_string(),
        sizes,
        defaults: Defaults {
            sampler: sampler.name.to_owned(),
            schedule: schedule.name().to_owned(),
            steps: card.defaults.steps.unwrap_or(if sampler.sampler == ldm_sampler::Sampler::Lcm { 4 } else { 25 }),
            guidance: card.defaults.guidance.unwrap_or(7.5),
            strength: card.defaults.strength.unwrap_or(0.75),
        },
        prompt_tokens: loaded.prompt_tokens as u32,
        conditions: Conditions::default(),
    })
}
