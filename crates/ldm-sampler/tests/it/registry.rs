//! The registry's police: every name is unique and resolves, every sampler file is registered.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use ldm_sampler::{Eval, PlanSpec, Prediction, SchedulerConfig, SigmaSchedule, entries, plan, resolve};

#[test]
fn every_name_is_unique_and_resolves() {
    let squash = |name: &str| name.to_lowercase().replace([' ', '_', '-'], "").replace('+', "p");
    let mut owners = HashMap::new();
    for entry in entries() {
        assert_eq!(entry.sampler.entry().name, entry.name, "the table is in the order of the enum");
        let own: BTreeSet<String> = [entry.name, entry.label].map(squash).into();
        let aliases = entry.aliases.iter().map(|alias| squash(alias.name));
        for name in own.into_iter().chain(aliases) {
            assert_eq!(owners.insert(name.clone(), entry.name), None, "{name} twice");
        }
        for name in [entry.name, entry.label, &entry.name.to_uppercase(), &entry.label.replace(' ', "-")] {
            let resolved = resolve(name).expect(name);
            assert_eq!((resolved.entry.name, resolved.schedule), (entry.name, None), "{name}");
        }
        for alias in entry.aliases {
            let resolved = resolve(alias.name).expect(alias.name);
            assert_eq!((resolved.entry.name, resolved.schedule), (entry.name, alias.schedule), "{}", alias.name);
            assert!(alias.schedule.is_none_or(|schedule| entry.schedules.contains(&schedule)), "{}", alias.name);
        }
    }
    assert!(resolve("no such sampler").is_none() && resolve("").is_none() && resolve(&"x".repeat(1 << 20)).is_none());
}

#[test]
fn names_of_the_world_resolve() {
    let named = |name: &str| resolve(name).map(|resolved| (resolved.entry.name, resolved.schedule));
    let (karras, exponential) = (Some(SigmaSchedule::Karras), Some(SigmaSchedule::Exponential));
    assert_eq!(named("Euler a"), Some(("euler_a", None)));
    assert_eq!(named("k_euler_a"), Some(("euler_a", None)));
    assert_eq!(named("EulerAncestralDiscreteScheduler"), Some(("euler_a", None)));
    assert_eq!(named("PNDMScheduler"), Some(("plms", None)));
    assert_eq!(named("dpm++ 2m karras"), Some(("dpmpp_2m", karras)));
    assert_eq!(named("DPM++ 2M SDE Exponential"), Some(("dpmpp_2m_sde", exponential)));
    assert_eq!(named("LMS Karras"), Some(("lms", karras)));
    assert_eq!(named("DPM++ 2S a Karras"), Some(("dpmpp_2s_a", karras)));
    assert_eq!(named("DPM2 a"), Some(("dpm2_a", None)));
    assert_eq!(named("DPM++ SDE"), Some(("dpmpp_sde", None)));
    assert_eq!(named("DPM++ 3M SDE Exponential"), Some(("dpmpp_3m_sde", exponential)));
    for (class, sampler) in [
        ("KDPM2DiscreteScheduler", "dpm2"),
        ("KDPM2AncestralDiscreteScheduler", "dpm2_a"),
        ("DPMSolverSDEScheduler", "dpmpp_sde"),
        ("DEISMultistepScheduler", "deis"),
        ("IPNDMScheduler", "ipndm"),
        ("TCDScheduler", "tcd"),
        ("DDIMInverseScheduler", "ddim_inverse"),
    ] {
        assert_eq!(named(class), Some((sampler, None)));
    }
}

#[test]
fn every_sampler_file_is_registered() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/samplers");
    let files = std::fs::read_dir(folder).expect("the samplers");
    let stems = files.map(|file| file.expect("a file").path().file_stem().expect("a stem").display().to_string());
    let names = entries().iter().map(|entry| entry.name.to_owned());
    assert_eq!(stems.collect::<BTreeSet<_>>(), names.collect::<BTreeSet<_>>());
}

/// What an entry says of its sampler is true of its plans, for every schedule, prediction, step count and strength.
#[test]
fn entries_tell_the_truth() {
    for entry in entries() {
        for schedule in [SigmaSchedule::Default, SigmaSchedule::Karras, SigmaSchedule::Exponential, SigmaSchedule::Beta] {
            for prediction in [Prediction::Epsilon, Prediction::V, Prediction::Sample] {
                for (steps, strength) in [(1, None), (2, None), (5, None), (30, None), (10, Some(0.35)), (9, Some(1.0))] {
                    let config = SchedulerConfig { prediction, ..SchedulerConfig::stable_diffusion() };
                    let spec = PlanSpec { schedule, strength, ..PlanSpec::new(entry.sampler, steps) };
                    let plan = plan(&config, &spec);
                    if !entry.schedules.contains(&schedule) {
                        assert!(plan.is_err(), "{} {schedule:?}", entry.name);
                        continue;
                    }
                    let plan = plan.expect(entry.name);
                    assert!(plan.is_sound(), "{} {spec:?}", entry.name);
                    assert_eq!(plan.count, strength.map_or(steps, |s: f64| (steps as f64 * s) as usize));
                    let draws = plan.steps.iter().any(|step| step.noise);
                    // A single step to the clean latent needs no noise, but diffusers' own draw it all the same.
                    let frugal = ["lcm", "dpm2_a", "dpmpp_2s_a", "dpmpp_sde", "dpmpp_3m_sde"].contains(&entry.name);
                    assert_eq!(draws, entry.noise && !(frugal && plan.count == 1), "{}", entry.name);
                }
            }
        }
    }
}

/// The clean latent of a preview is the one that the prediction stands for, whatever the sampler's space and estimate.
#[test]
fn previews_show_the_clean_latent() {
    let (x, f) = (0.7, 0.3);
    for entry in entries() {
        for prediction in [Prediction::Epsilon, Prediction::V, Prediction::Sample] {
            let config = SchedulerConfig { prediction, ..SchedulerConfig::stable_diffusion() };
            let plan = plan(&config, &PlanSpec::new(entry.sampler, 20)).expect(entry.name);
            for step in &plan.steps {
                let Eval { c_in, sigma, skip, out, denoised, .. } = step.eval;
                let alpha = 1.0 / (1.0 + sigma * sigma).sqrt();
                let clean = match prediction {
                    Prediction::Epsilon => c_in * x / alpha - sigma * f,
                    Prediction::V => alpha * c_in * x - sigma * alpha * f,
                    Prediction::Sample => f,
                };
                let shown = denoised.0 * x + denoised.1 * (skip * x + out * f);
                // LCM shows what it goes on with, which is the clean latent but for its boundary condition.
                let tolerance = if entry.name == "lcm" { 1e-4 } else { 1e-12 };
                assert!((shown - clean).abs() < tolerance * (1.0 + clean.abs()), "{} {prediction:?}", entry.name);
            }
        }
    }
}
