//! Guidance: where it applies, and its rescaling against diffusers.

use ldm_sampler::{GuidanceSpec, PlanError, PlanSpec, Sampler, SchedulerConfig, SigmaSchedule, plan, rescale_guidance};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
struct Golden {
    guided: Vec<f64>,
    text: Vec<f64>,
    rescaled: BTreeMap<String, Vec<f64>>,
}

#[test]
fn rescaling_equals_diffusers() {
    let golden: Golden = serde_json::from_str(include_str!("../goldens/guidance.json")).expect("goldens");
    let worst = |found: &[f64], expected: &[f64]| {
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f64::max)
    };
    assert_eq!(golden.rescaled.len(), 3);
    for (phi, expected) in &golden.rescaled {
        let found = rescale_guidance(&golden.guided, &golden.text, phi.parse().expect("a number"));
        assert!(worst(&found, expected) < 1e-12, "{phi}");
    }
    assert_eq!(rescale_guidance(&[0.5, 0.5], &[1.0, 2.0], 0.7), [0.5, 0.5], "nothing to scale");
}

#[test]
fn an_interval_names_the_guided_steps() {
    let config = SchedulerConfig::stable_diffusion();
    let spec = |interval| PlanSpec {
        schedule: SigmaSchedule::Karras,
        guidance: GuidanceSpec { rescale: 0.7, interval },
        ..PlanSpec::new(Sampler::DpmppSde, 10)
    };
    let all = plan(&config, &spec(None)).expect("a plan");
    assert!(all.guidance_rescale == 0.7 && all.steps.iter().all(|step| step.guided));
    let some = plan(&config, &spec(Some((0.28, 5.42)))).expect("a plan");
    for step in &some.steps {
        assert_eq!(step.guided, step.eval.sigma > 0.28 && step.eval.sigma <= 5.42);
    }
    let guided = some.steps.iter().filter(|step| step.guided).count();
    assert!(guided > 5 && guided < some.steps.len() - 5, "{guided}");
    let open = plan(&config, &spec(Some((0.28, f64::INFINITY)))).expect("a plan");
    assert!(open.steps[0].guided);
    for interval in [(5.0, 5.0), (5.0, 1.0), (-1.0, 1.0), (f64::NAN, 1.0), (0.0, f64::NAN)] {
        assert!(matches!(plan(&config, &spec(Some(interval))), Err(PlanError::InvalidSetting { .. })), "{interval:?}");
    }
    for rescale in [-0.1, 1.1, f64::NAN] {
        let spec = PlanSpec { guidance: GuidanceSpec { rescale, interval: None }, ..spec(None) };
        assert!(matches!(plan(&config, &spec), Err(PlanError::InvalidSetting { .. })), "{rescale}");
    }
}
