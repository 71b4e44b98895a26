//! A draft becomes requests, or every violation is listed with field, limit and value.

use ldm_core::task::Work;
use ldm_core::{Alias, Bounds, Catalogue, Defaults, Draft, MAX_SEED, Model, Raster, Request, Sampler, Sizes, Task, Violations};

fn catalogue() -> Catalogue {
    let sampler = |name: &str, label: &str, takes_eta, schedules: &[&str]| Sampler {
        name: name.into(),
        label: label.into(),
        aliases: vec![],
        order: 1,
        stochastic: false,
        takes_eta,
        schedules: schedules.iter().map(|&schedule| schedule.into()).collect(),
    };
    let mut dpm = sampler("dpmpp_2m", "DPM++ 2M", false, &["default", "karras"]);
    dpm.aliases.push(Alias { name: "DPM++ 2M Karras".into(), schedule: Some("karras".into()) });
    Catalogue {
        models: vec![Model {
            id: "m".into(),
            family: "f".into(),
            tasks: Task::ALL.to_vec(),
            parameters: 1,
            dtype: "f32".into(),
            device: "cpu".into(),
            sizes: Sizes { min: 32, max: 256, multiple: 16, default: (64, 96) },
            defaults: Defaults { sampler: "dpmpp_2m".into(), schedule: "karras".into(), steps: 20, guidance: 3., strength: 0.5 },
            prompt_tokens: 75,
        }],
        samplers: vec![dpm, sampler("ddim", "DDIM", true, &["default"])],
        bounds: Bounds { steps: 100, guidance: 30., images: 4, prompt_chars: 10 },
    }
}

fn check(change: impl FnOnce(&mut Draft)) -> Result<Vec<Request>, Violations> {
    let mut draft = Draft::new(Task::Txt2Img);
    draft.prompt = Some("a cat".into());
    change(&mut draft);
    draft.check(&catalogue())
}

#[test]
fn what_is_not_said_is_the_models_default() {
    let request = check(|_| ()).unwrap().remove(0);
    assert_eq!((request.width, request.height, request.steps, request.guidance), (64, 96, 20, 3.));
    assert_eq!((request.sampler.as_str(), request.schedule.as_str(), request.model.as_str()), ("dpmpp_2m", "karras", "m"));
    assert!(matches!(request.work, Work::Txt2Img(_)));
}

#[test]
fn samplers_go_by_any_spelling_and_bring_their_schedule() {
    let sampler = |name: &str, schedule: Option<&str>| {
        let request = check(|draft| {
            draft.sampler = Some(name.into());
            draft.schedule = schedule.map(str::to_owned);
        });
        request.map(|mut requests| {
            let request = requests.remove(0);
            (request.sampler, request.schedule)
        })
    };
    let pair = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
    assert_eq!(sampler("dpm++ 2m karras", None), pair("dpmpp_2m", "karras"));
    assert_eq!(sampler("DPMPP-2M", Some("default")), pair("dpmpp_2m", "default"));
    assert_eq!(sampler("ddim", None), pair("ddim", "default"));
    assert_eq!(sampler("DPM++ 2M Karras", Some("default")).unwrap_err().0[0].field, "schedule");
    assert_eq!(sampler("ddim", Some("karras")).unwrap_err().0[0].field, "schedule");
    assert_eq!(sampler("nonesuch", None).unwrap_err().0[0].field, "sampler");
}

#[test]
fn several_pictures_have_seeds_that_follow_each_other() {
    let seeds = |seed| {
        let requests = check(|draft| (draft.seed, draft.images) = (Some(seed), Some(3))).unwrap();
        requests.iter().map(|request| request.seed).collect::<Vec<_>>()
    };
    assert_eq!(seeds(7), [7, 8, 9]);
    assert_eq!(seeds(MAX_SEED), [MAX_SEED as u64, 0, 1], "every seed of an answer can be posted back");
    assert_ne!(seeds(-1), seeds(-1), "−1 draws a seed");
}

/// Each violation names its field, with a limit and the value.
#[test]
fn each_field_is_checked() {
    type Change = fn(&mut Draft);
    let table: &[(&str, Change)] = &[
        ("model", |draft| draft.model = Some("other".into())),
        ("prompt", |draft| draft.prompt = Some("x".repeat(11))),
        ("negative_prompt", |draft| draft.negative_prompt = Some("ü".repeat(11))),
        ("width", |draft| draft.width = Some(65)),
        ("width", |draft| draft.width = Some(272)),
        ("height", |draft| draft.height = Some(16)),
        ("height", |draft| draft.height = Some(i64::MIN)),
        ("steps", |draft| draft.steps = Some(0)),
        ("steps", |draft| draft.steps = Some(101)),
        ("guidance", |draft| draft.guidance = Some(f64::NAN)),
        ("guidance", |draft| draft.guidance = Some(-0.1)),
        ("eta", |draft| draft.eta = Some(0.5)),
        ("eta", |draft| (draft.eta, draft.sampler) = (Some(1.5), Some("ddim".into()))),
        ("seed", |draft| draft.seed = Some(-2)),
        ("seed", |draft| draft.seed = Some(MAX_SEED + 1)),
        ("images", |draft| draft.images = Some(5)),
        ("preview_every", |draft| draft.preview_every = Some(0)),
        ("strength", |draft| draft.strength = Some(0.5)),
        ("init_image", |draft| draft.init_image = Some(Raster::filled(8, 8, [0; 3]))),
        ("init_image", |draft| draft.task = Task::Img2Img),
    ];
    for (field, change) in table {
        let violations = check(change).expect_err(field).0;
        assert_eq!(violations.len(), 1, "{field}: {violations:?}");
        assert_eq!(violations[0].field, *field);
        assert!(violations[0].limit.is_some() && violations[0].message.contains(field), "{:?}", violations[0]);
    }
    let strength = |strength| {
        let draft = |draft: &mut Draft| {
            (draft.task, draft.init_image) = (Task::Img2Img, Some(Raster::filled(8, 8, [0; 3])));
            draft.strength = Some(strength);
        };
        check(draft).map(|requests| requests.len()).map_err(|violations| violations.0[0].field.clone())
    };
    assert_eq!(strength(0.5), Ok(1));
    for bad in [0., -1., 1.1, f64::NAN, 0.01] {
        assert_eq!(strength(bad), Err("strength".into()), "{bad}");
    }
}

#[test]
fn every_violation_is_listed_at_once() {
    let violations = check(|draft| {
        draft.model = Some("other".into());
        (draft.width, draft.height, draft.steps, draft.seed) = (Some(1), Some(-1), Some(1000), Some(-5));
        draft.sampler = Some("nonesuch".into());
    });
    let fields: Vec<_> = violations.unwrap_err().0.into_iter().map(|violation| violation.field).collect();
    assert_eq!(fields, ["model", "width", "height", "steps", "seed", "sampler"]);
}

#[test]
fn long_values_are_shortened_in_answers() {
    let violations = check(|draft| draft.sampler = Some("é".repeat(1000))).unwrap_err();
    assert_eq!(violations.0[0].value.as_ref().unwrap().chars().count(), 81);
}

#[test]
fn rasters_know_their_size() {
    assert!(Raster::new(2, 2, vec![0; 12]).is_ok());
    assert_eq!(Raster::new(2, 2, vec![0; 11]).unwrap_err().to_string(), "a 2x2 RGB picture has 12 bytes, not 11");
}
