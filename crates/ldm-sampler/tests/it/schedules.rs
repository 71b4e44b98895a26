//! Noise schedules and spacings against the anchors of the model spec, and DDIM against CompVis' own recurrence.

use ldm_sampler::{NoiseSchedule, PlanSpec, Sampler, ScheduleConfig, SchedulerConfig, Spacing, plan};

use crate::toy;

#[test]
fn zero_terminal_snr_anchors() {
    let schedule = ScheduleConfig { rescale_betas_zero_snr: true, ..SchedulerConfig::stable_diffusion().schedule };
    let noise = NoiseSchedule::new(&schedule).expect("a schedule");
    let a = noise.alphas_cumprod();
    assert!((a[0] - 0.99915).abs() < 1e-9);
    assert!((a[499] - 0.242359).abs() < 1e-6);
    assert!((a[998] / 1.968e-7 - 1.0).abs() < 1e-3);
    assert!(a[999].abs() < 1e-30);
}

#[test]
fn euler_anchors() {
    let config = |spacing| SchedulerConfig { timestep_spacing: Some(spacing), ..SchedulerConfig::stable_diffusion() };
    let sigmas = |spacing, steps| {
        let plan = plan(&config(spacing), &PlanSpec::new(Sampler::Euler, steps)).expect("a plan");
        (plan.init_scale, plan.steps.iter().map(|step| step.eval.sigma).collect::<Vec<f64>>())
    };
    let near = |found: &[f64], expected: &[f64]| found.iter().zip(expected).all(|(f, e)| (f / e - 1.0).abs() < 1e-5);
    let (_, linspace) = sigmas(Spacing::Linspace, 20);
    assert!(near(&linspace, &[14.61465, 10.74685, 8.08154]));
    let (init, leading) = sigmas(Spacing::Leading, 20);
    assert!(near(&leading, &[11.02834]) && near(&[init], &[11.07358]));
    let (_, trailing) = sigmas(Spacing::Trailing, 4);
    assert!(near(&trailing, &[14.61465, 4.08173, 1.61289, 0.693205]));
}

#[test]
fn spacings_count_down_without_repeats() {
    for steps in 1..=1000 {
        for spacing in [Spacing::Leading, Spacing::Trailing, Spacing::Linspace] {
            let timesteps = spacing.whole_timesteps(steps, 1000, 0);
            assert_eq!(timesteps.len(), steps);
            assert!(timesteps.windows(2).all(|pair| pair[0] > pair[1]), "{spacing:?} {steps}");
            assert!(timesteps[0] <= 999.0 && timesteps[steps - 1] >= 0.0);
        }
    }
    // Ties go to the even neighbour: 499.5 to 500, and 812.5 to 812.
    assert_eq!(Spacing::Linspace.whole_timesteps(3, 1000, 0), [999.0, 500.0, 0.0]);
    assert_eq!(Spacing::Trailing.whole_timesteps(16, 1000, 0)[..4], [999.0, 937.0, 874.0, 811.0]);
}

/// CompVis `ddim.py`: timesteps `arange(0, 1000, 1000 // S) + 1`, the target of the last step being timestep 0.
#[test]
fn ddim_equals_compvis_where_steps_divide_the_schedule() {
    let mut config = SchedulerConfig::stable_diffusion();
    config.schedule.beta_start = 0.0015;
    config.schedule.beta_end = 0.0195;
    let noise = NoiseSchedule::new(&config.schedule).expect("a schedule");
    for steps in [1, 2, 10, 20, 50, 200, 250, 500] {
        let timesteps: Vec<usize> = (0..1000).step_by(1000 / steps).map(|t| t + 1).collect();
        let mut x = toy::NOISE.to_vec();
        for (i, t) in timesteps.iter().enumerate().rev() {
            let a = noise.alphas_cumprod()[*t];
            let a_prev = noise.alphas_cumprod()[if i == 0 { 0 } else { timesteps[i - 1] }];
            let epsilon = toy::network(&x, *t as f64);
            let next = |(x, e): (&f64, &f64)| a_prev.sqrt() * (x - (1.0 - a).sqrt() * e) / a.sqrt() + (1.0 - a_prev).sqrt() * e;
            x = x.iter().zip(&epsilon).map(next).collect();
        }
        let plan = plan(&config, &PlanSpec::new(Sampler::Ddim, steps)).expect("a plan");
        assert!(toy::error(&toy::run(&plan, &toy::NOISE), &x) < 1e-11, "{steps}");
    }
}
