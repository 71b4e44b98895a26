//! What is refused, and by which name.

use ldm_sampler::{
    FinalSigma, PlanError, PlanSpec, Prediction, Sampler, ScheduleConfig, SchedulerConfig, SigmaSchedule, SolverConfig, Spacing,
    Variant, entries, plan,
};

fn refusal(config: &SchedulerConfig, spec: &PlanSpec) -> PlanError {
    plan(config, spec).expect_err("a refusal")
}

#[test]
fn requests() {
    let sd = SchedulerConfig::stable_diffusion();
    let ddim = |steps| PlanSpec::new(Sampler::Ddim, steps);
    assert_eq!(refusal(&sd, &ddim(0)), PlanError::ZeroSteps);
    assert_eq!(refusal(&sd, &ddim(1001)), PlanError::TooManySteps { steps: 1001, limit: 1000 });
    let lcm = PlanSpec::new(Sampler::Lcm, 51);
    assert_eq!(refusal(&sd, &lcm), PlanError::TooManySteps { steps: 51, limit: 50 });
    let eta = PlanSpec { eta: 0.5, ..PlanSpec::new(Sampler::Euler, 20) };
    assert_eq!(refusal(&sd, &eta), PlanError::EtaUnsupported { sampler: Sampler::Euler });
    let eta = PlanSpec { eta: 1.5, ..ddim(20) };
    assert_eq!(refusal(&sd, &eta), PlanError::EtaOutOfRange { eta: 1.5 });
    assert!(matches!(refusal(&sd, &PlanSpec { eta: f64::NAN, ..ddim(20) }), PlanError::EtaOutOfRange { .. }));
    let (sampler, schedule) = (Sampler::EulerA, SigmaSchedule::Karras);
    let karras = PlanSpec { schedule, ..PlanSpec::new(sampler, 20) };
    assert_eq!(refusal(&sd, &karras), PlanError::ScheduleUnsupported { sampler, schedule });
    for strength in [0.0, -0.5, 1.01, f64::NAN, f64::INFINITY] {
        let spec = PlanSpec { strength: Some(strength), ..ddim(20) };
        assert!(matches!(refusal(&sd, &spec), PlanError::StrengthOutOfRange { .. }), "{strength}");
    }
    let weak = PlanSpec { strength: Some(0.04), ..ddim(20) };
    assert_eq!(refusal(&sd, &weak), PlanError::StrengthTooLow { strength: 0.04, steps: 20 });
    assert_eq!(refusal(&sd, &ddim(1000)), PlanError::TimestepBeyondTraining { timestep: 1000, last: 999 });
    let dense = PlanSpec::new(Sampler::Dpmpp2m, 1000);
    assert_eq!(refusal(&sd, &dense), PlanError::StepsTooDense { steps: 1000 });
}

#[test]
fn settings() {
    let sd = SchedulerConfig::stable_diffusion;
    let with = |order, lower_order_final| SchedulerConfig {
        solver: SolverConfig { order, lower_order_final, ..SolverConfig::default() },
        ..sd()
    };
    for sampler in [Sampler::Dpmpp2m, Sampler::Dpmpp2mSde, Sampler::Unipc, Sampler::Deis] {
        let spec = PlanSpec::new(sampler, 20);
        for order in [0, 4, usize::MAX] {
            assert_eq!(refusal(&with(order, true), &spec), PlanError::SolverOrderUnsupported { sampler, order });
        }
        assert!((1..=3).all(|order| plan(&with(order, true), &spec).is_ok()));
    }
    assert!(plan(&with(4, true), &PlanSpec::new(Sampler::Euler, 20)).is_ok(), "Euler has no order to set");
    let unipc = PlanSpec::new(Sampler::Unipc, 20);
    assert!(matches!(refusal(&with(2, false), &unipc), PlanError::InvalidSetting { setting: "lower_order_final", .. }));
    assert!(plan(&SchedulerConfig { final_sigma: FinalSigma::SigmaMin, ..with(2, false) }, &unipc).is_ok());
    for end in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let low = SchedulerConfig { sigma_min: Some(end), ..sd() };
        assert!(matches!(refusal(&low, &unipc), PlanError::InvalidSetting { setting: "sigma_min", .. }), "{end}");
        let high = SchedulerConfig { sigma_max: Some(end), ..sd() };
        assert!(matches!(refusal(&high, &unipc), PlanError::InvalidSetting { setting: "sigma_max", .. }), "{end}");
    }
    let crossed = SchedulerConfig { sigma_min: Some(2.0), sigma_max: Some(1.0), ..sd() };
    assert!(matches!(refusal(&crossed, &unipc), PlanError::InvalidSetting { setting: "sigma_max", value: 1.0, .. }));
    let clean = SchedulerConfig { prediction: Prediction::Sample, set_alpha_to_one: Some(true), ..sd() };
    let inverse = PlanSpec::new(Sampler::DdimInverse, 20);
    assert_eq!(refusal(&clean, &inverse), PlanError::NoiseUndefined { timestep: 1 });
}

#[test]
fn spacings() {
    let sd = SchedulerConfig::stable_diffusion;
    let all = [Spacing::Leading, Spacing::Trailing, Spacing::Linspace, Spacing::Compvis, Spacing::KDiffusion];
    for spacing in all {
        assert_eq!(Spacing::parse(spacing.name()), Some(spacing));
        for entry in entries() {
            let sampler = entry.sampler;
            let asked = PlanSpec { spacing: Some(spacing), ..PlanSpec::new(sampler, 20) };
            let habit = SchedulerConfig { timestep_spacing: Some(spacing), ..sd() };
            let by_habit = plan(&habit, &PlanSpec::new(sampler, 20));
            if entry.spacings.contains(&spacing) {
                assert_eq!(plan(&sd(), &asked), by_habit, "{} {spacing:?}", entry.name);
                continue;
            }
            assert_eq!(refusal(&sd(), &asked), PlanError::SpacingUnsupported { sampler, spacing });
            // A model's CompVis habit leaves the other samplers as they are.
            let own = matches!(spacing, Spacing::Compvis | Spacing::KDiffusion);
            assert_eq!(by_habit.is_ok(), own, "{} {spacing:?}", entry.name);
            assert!(!own || by_habit == plan(&sd(), &PlanSpec::new(sampler, 20)));
        }
    }
    // Steps that do not divide 1000 become more, and more than 500 would begin beyond training.
    let compvis = |steps| PlanSpec { spacing: Some(Spacing::Compvis), ..PlanSpec::new(Sampler::Ddim, steps) };
    for (asked, run) in [(400, 500), (150, 167), (30, 31), (7, 8), (50, 50)] {
        assert_eq!(plan(&sd(), &compvis(asked)).expect("a plan").count, run);
    }
    assert_eq!(refusal(&sd(), &compvis(501)), PlanError::TimestepBeyondTraining { timestep: 1000, last: 999 });
}

#[test]
fn schedules() {
    let ddim = PlanSpec::new(Sampler::Ddim, 20);
    let with = |schedule| SchedulerConfig { schedule, ..SchedulerConfig::default() };
    let wrong = [
        ScheduleConfig { num_train_timesteps: 1, ..ScheduleConfig::default() },
        ScheduleConfig { num_train_timesteps: usize::MAX, ..ScheduleConfig::default() },
        ScheduleConfig { beta_end: 1.5, ..ScheduleConfig::default() },
        ScheduleConfig { beta_start: f64::NAN, ..ScheduleConfig::default() },
        ScheduleConfig { trained_betas: Some(vec![0.1; 10]), ..ScheduleConfig::default() },
    ];
    for schedule in wrong {
        let spec = if schedule.num_train_timesteps < 20 { PlanSpec::new(Sampler::Ddim, 1) } else { ddim.clone() };
        assert!(matches!(refusal(&with(schedule), &spec), PlanError::InvalidNoiseSchedule { .. }));
    }
    let zero = ScheduleConfig { rescale_betas_zero_snr: true, ..ScheduleConfig::default() };
    let trailing = SchedulerConfig { timestep_spacing: Some(Spacing::Trailing), ..with(zero) };
    assert_eq!(refusal(&trailing, &ddim), PlanError::ZeroTerminalSnr);
    let v = SchedulerConfig { prediction: Prediction::V, ..trailing };
    assert!(plan(&v, &ddim).is_ok());
}

/// No request makes a planner panic or hand out an unsound plan.
#[test]
fn nothing_panics() {
    for entry in entries() {
        for spacing in [Spacing::Leading, Spacing::Trailing, Spacing::Linspace, Spacing::Compvis, Spacing::KDiffusion] {
            for train in [2, 10, 50, 1000] {
                for steps in [1, 2, 3, 9, 10, 49, 50, 61, 333, 500, 501, 999, 1000] {
                    for strength in [None, Some(0.1), Some(0.77)] {
                        for (offset, schedule) in entry.schedules.iter().enumerate() {
                            let variant = match steps % 2 {
                                0 => Variant::DIFFUSERS,
                                _ => Variant { discard_next_to_last_sigma: true, ..Variant::K_DIFFUSION },
                            };
                            let config = SchedulerConfig {
                                schedule: ScheduleConfig { num_train_timesteps: train, ..ScheduleConfig::default() },
                                timestep_spacing: Some(spacing),
                                steps_offset: offset,
                                ..SchedulerConfig::default()
                            };
                            let spec = PlanSpec { schedule: *schedule, strength, variant, ..PlanSpec::new(entry.sampler, steps) };
                            if let Ok(plan) = plan(&config, &spec) {
                                assert!(plan.is_sound(), "{} {spec:?} {config:?}", entry.name);
                            }
                        }
                    }
                }
            }
        }
    }
}
