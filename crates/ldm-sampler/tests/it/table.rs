//! The golden scalars of the model spec (section 3.9): diffusers in float32, 10 steps, Stable Diffusion betas.

use ldm_sampler::{PlanSpec, Prediction, Sampler, SchedulerConfig, SigmaSchedule, Spacing, plan};

use crate::toy;

/// The table was made in float32 and printed to six digits.
const TOLERANCE: f64 = 1e-5;

fn check(name: &str, config: SchedulerConfig, spec: PlanSpec, expected: [f64; 4]) {
    let plan = plan(&config, &spec).expect(name);
    let error = toy::error(&toy::run(&plan, &toy::txt2img(&plan)), &expected);
    assert!(error < TOLERANCE, "{name}: {error:e}");
}

#[test]
fn golden_scalars() {
    let sd = SchedulerConfig::stable_diffusion;
    let ten = |sampler| PlanSpec::new(sampler, 10);
    let karras = |sampler| PlanSpec { schedule: SigmaSchedule::Karras, ..ten(sampler) };
    let leading = SchedulerConfig { timestep_spacing: Some(Spacing::Leading), ..sd() };
    let plain = SchedulerConfig { steps_offset: 0, ..sd() };
    let v = SchedulerConfig { prediction: Prediction::V, ..sd() };
    let stochastic = PlanSpec { eta: 1.0, ..ten(Sampler::Ddim) };
    check("DDIM", sd(), ten(Sampler::Ddim), [1.346506, -5.835931, 8.336594, -2.259597]);
    check("DDIM v", v, ten(Sampler::Ddim), [0.197337, -0.684336, 0.840635, -0.253658]);
    check("DDIM eta 1", sd(), stochastic, [4.395398, -8.020341, 10.296788, -2.157498]);
    check("PNDM", sd(), ten(Sampler::Plms), [1.465992, -5.0817, 8.278935, -1.875278]);
    check("DDPM", plain, ten(Sampler::Ddpm), [4.386409, -7.959821, 10.24799, -2.119893]);
    check("Euler", sd(), ten(Sampler::Euler), [1.495577, -11.035414, 14.048971, -4.437583]);
    check("Euler leading", leading, ten(Sampler::Euler), [1.334715, -5.808198, 8.30848, -2.241601]);
    check("Euler Karras", sd(), karras(Sampler::Euler), [1.492709, -11.100288, 14.045905, -4.580349]);
    check("Euler a", sd(), ten(Sampler::EulerA), [4.305332, -14.327625, 15.806602, -4.629142]);
    check("Heun", sd(), ten(Sampler::Heun), [1.685494, -9.013203, 13.916125, -3.487433]);
    check("LMS", sd(), ten(Sampler::Lms), [1.585481, -10.329368, 14.009822, -4.024636]);
    check("DPM++ 2M", sd(), ten(Sampler::Dpmpp2m), [1.626652, -9.77526, 14.036613, -3.784781]);
    let twenty = PlanSpec::new(Sampler::Dpmpp2m, 20);
    check("DPM++ 2M, 20 steps", sd(), twenty, [1.666803, -9.52949, 14.011022, -3.688272]);
    check("DPM++ 2M Karras", sd(), karras(Sampler::Dpmpp2m), [1.699588, -9.128012, 13.997451, -3.459373]);
    check("2M SDE Karras", sd(), karras(Sampler::Dpmpp2mSde), [5.276388, -14.180911, 15.774805, -1.166332]);
    check("UniPC", sd(), ten(Sampler::Unipc), [1.644943, -9.586274, 14.020302, -3.710324]);
    check("LCM", sd(), PlanSpec::new(Sampler::Lcm, 4), [-0.86889, -13.986685, 11.101078, -8.591674]);
}

#[test]
fn karras_grid() {
    let spec = PlanSpec { schedule: SigmaSchedule::Karras, ..PlanSpec::new(Sampler::Dpmpp2m, 10) };
    let plan = plan(&SchedulerConfig::stable_diffusion(), &spec).expect("a plan");
    let sigmas = [14.614643, 9.102929, 5.478392, 3.168605, 1.749418, 0.914073, 0.446918, 0.201398, 0.081910, 0.029167];
    let timesteps = [999.0, 916.0, 815.0, 687.0, 523.0, 327.0, 146.0, 41.0, 7.0, 0.0];
    for ((step, sigma), timestep) in plan.steps.iter().zip(sigmas).zip(timesteps) {
        assert!((step.eval.sigma / sigma - 1.0).abs() < 4e-5, "{} {sigma}", step.eval.sigma);
        assert_eq!(step.eval.timestep, timestep);
    }
}
