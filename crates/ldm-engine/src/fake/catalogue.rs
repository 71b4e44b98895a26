//! What a fake executor offers: enough variety to test every rule that an edge reads from a catalogue.

use ldm_core::{
    Alias, Bounds, BoxBounds, Catalogue, Conditions, Defaults, Mode, Model, NeighborBounds, Rounding, Sampler, Sizes, Task,
};

pub(super) fn example() -> Catalogue {
    let model = Model {
        id: "fake".to_owned(),
        family: "fake".to_owned(),
        tasks: Task::ALL.to_vec(),
        parameters: 1,
        dtype: "f32".to_owned(),
        device: "cpu".to_owned(),
        weights: "0f".repeat(32),
        mode: Mode::Fast,
        sizes: Sizes { min: 64, max: 1024, multiple: 8, default: (64, 64) },
        defaults: Defaults {
            sampler: "dpmpp_2m".to_owned(),
            schedule: "default".to_owned(),
            steps: 20,
            guidance: 7.5,
            strength: 0.75,
            eta: 0.0,
            rounding: Rounding::Round,
        },
        prompt_tokens: 75,
        conditions: Conditions {
            classes: Some(10),
            boxes: Some(BoxBounds { labels: 10, count: 30 }),
            semantic_classes: Some(10),
            upscale: Some(4),
            noise_levels: Some(350),
            neighbors: Some(NeighborBounds { width: 8, count: 20 }),
            ..Conditions::default()
        },
        loras: vec!["ink".to_owned(), "moss".to_owned()],
    };
    let samplers = vec![
        sampler("ddim", "DDIM", 1, &[]),
        sampler("euler", "Euler", 1, &[("k_euler", None), ("Euler Karras", Some("karras"))]),
        sampler("euler_a", "Euler a", 1, &[("euler_ancestral", None), ("k_euler_ancestral", None)]),
        sampler("heun", "Heun", 2, &[("k_heun", None)]),
        sampler("dpmpp_2m", "DPM++ 2M", 2, &[("DPM++ 2M Karras", Some("karras")), ("dpmpp_2m_karras", Some("karras"))]),
    ];
    Catalogue { models: vec![model], samplers, bounds: Bounds::default() }
}

/// The model of that name: as the example, but `pixel` makes pictures from one pixel on.
pub(super) fn model(example: &Model, id: &str) -> Model {
    let mut model = Model { id: id.to_owned(), ..example.clone() };
    if id == "pixel" {
        model.sizes = Sizes { min: 1, max: 64, multiple: 1, default: (1, 1) };
    }
    model
}

fn sampler(name: &str, label: &str, order: u32, aliases: &[(&str, Option<&str>)]) -> Sampler {
    let alias = |&(name, schedule): &(&str, Option<&str>)| Alias { name: name.to_owned(), schedule: schedule.map(str::to_owned) };
    // DDIM, as the one that draws on the trained timesteps alone, runs on no other schedule.
    let schedules: &[&str] = if name == "ddim" { &["default"] } else { &["default", "karras", "exponential"] };
    Sampler {
        name: name.to_owned(),
        label: label.to_owned(),
        aliases: aliases.iter().map(alias).collect(),
        order,
        stochastic: name == "euler_a",
        takes_eta: name == "ddim",
        schedules: schedules.iter().map(|&schedule| schedule.to_owned()).collect(),
    }
}
