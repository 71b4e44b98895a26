//! A draft becomes requests, or every violation is listed with field, limit and value.

use ldm_core::task::{Bbox, Work};
use ldm_core::{
    Alias, Bounds, BoxBounds, Catalogue, Conditions, Defaults, Draft, Lora, MAX_SEED, Model, NeighborBounds, Plane, Raster,
    Request, Rounding, Sampler, Sizes, Task, Violations,
};

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
            weights: "w".into(),
            mode: ldm_core::Mode::Fast,
            sizes: Sizes { min: 32, max: 256, multiple: 16, default: (64, 96) },
            defaults: Defaults {
                sampler: "dpmpp_2m".into(),
                schedule: "karras".into(),
                steps: 20,
                guidance: 3.,
                strength: 0.5,
                eta: 0.25,
                rounding: Rounding::Truncate,
            },
            prompt_tokens: 75,
            conditions: Default::default(),
            loras: vec!["ink".into(), "moss".into()],
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
    assert_eq!(fields, ["model", "steps", "seed", "sampler", "width", "height"]);
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

fn refusals(model: Conditions, draft: Draft) -> Vec<String> {
    let mut catalogue = catalogue();
    catalogue.models[0].conditions = model;
    draft.check(&catalogue).map_or_else(|bad| bad.0.into_iter().map(|bad| bad.field).collect(), |_| vec![])
}

#[test]
fn the_smallest_draft_of_every_task_is_taken() {
    for task in Task::ALL {
        let mut catalogue = catalogue();
        let model = &mut catalogue.models[0];
        model.tasks = vec![task];
        model.conditions = everything();
        let draft = Draft::smallest(model);
        let request = draft.check(&catalogue).unwrap_or_else(|bad| panic!("{task}: {bad}")).remove(0);
        assert_eq!((request.work.task(), request.width, request.height), (task, 32, 32));
        assert_eq!(task.name().parse::<Task>(), Ok(task));
    }
    assert!("txt2video".parse::<Task>().unwrap_err().to_string().contains("super-resolution"));
}

fn everything() -> Conditions {
    Conditions {
        classes: Some(10),
        boxes: Some(BoxBounds { labels: 5, count: 2 }),
        semantic_classes: Some(3),
        upscale: Some(4),
        noise_levels: Some(350),
        neighbors: Some(NeighborBounds { width: 2, count: 2 }),
        ..Conditions::default()
    }
}

#[test]
fn what_a_task_needs_is_checked_against_the_model() {
    let with = |task: Task, change: &dyn Fn(&mut Draft)| {
        let mut draft = Draft::new(task);
        change(&mut draft);
        refusals(everything(), draft)
    };
    for (task, field) in [
        (Task::Class, "class"),
        (Task::Layout, "boxes"),
        (Task::Semantic, "semantic_map"),
        (Task::Rdm, "neighbours"),
        (Task::SuperResolution, "lr_image"),
    ] {
        assert_eq!(with(task, &|_| ()), [field], "{task} needs it");
    }
    assert_eq!(with(Task::Inpaint, &|_| ()), ["init_image", "mask"]);
    assert_eq!(with(Task::Depth, &|_| ()), ["init_image", "depth_map"]);

    for class in [-1, 10] {
        assert_eq!(with(Task::Class, &|draft| draft.class = Some(class)), ["class"]);
    }
    assert!(with(Task::Class, &|draft| draft.class = Some(9)).is_empty());

    let b = |label, bbox| Bbox { label, bbox, is_occluded: false, is_group_of: false, is_depiction: false, is_inside: false };
    let layout = |boxes: Vec<Bbox>| with(Task::Layout, &|draft| draft.boxes = Some(boxes.clone()));
    assert!(layout(vec![b(4, [0.5, 0., 0.5, 1.])]).is_empty());
    assert_eq!(layout(vec![]), ["boxes"]);
    assert_eq!(layout(vec![b(0, [0.; 4]); 3]), ["boxes"]);
    assert_eq!(layout(vec![b(5, [0., 0., 1., 1.]), b(0, [0.5, 0., 0.6, 1.])]), ["boxes[0].label", "boxes[1]"]);
    assert_eq!(layout(vec![b(0, [f64::NAN, 0., 1., 1.])]), ["boxes[0]"]);

    assert_eq!(with(Task::Semantic, &|draft| draft.semantic = Some(Plane::filled(4, 4, 3))), ["semantic_map"]);
    let rdm = |one: Vec<f32>| with(Task::Rdm, &|draft| draft.neighbors = Some(vec![one.clone()]));
    assert!(rdm(vec![0.5, 0.]).is_empty());
    for wrong in [vec![0.5], vec![0., 0.], vec![f32::NAN, 1.]] {
        assert_eq!(rdm(wrong), ["neighbours[0]"]);
    }

    let upscale = |change: &dyn Fn(&mut Draft)| {
        with(Task::SuperResolution, &|draft| {
            draft.lr_image = Some(Raster::filled(16, 24, [0; 3]));
            change(draft);
        })
    };
    assert!(upscale(&|_| ()).is_empty());
    assert!(upscale(&|draft| draft.width = Some(64)).is_empty());
    assert_eq!(upscale(&|draft| draft.width = Some(128)), ["width"]);
    assert_eq!(upscale(&|draft| draft.noise_level = Some(350)), ["noise_level"]);
    assert_eq!(
        upscale(&|draft| draft.lr_image = Some(Raster::filled(100, 16, [0; 3]))),
        ["width"],
        "larger than the model makes"
    );

    let inpaint = |mask: Plane| {
        with(Task::Inpaint, &|draft| {
            (draft.init_image, draft.mask) = (Some(Raster::filled(8, 8, [0; 3])), Some(mask.clone()));
        })
    };
    assert!(inpaint(Plane::filled(8, 8, 128)).is_empty());
    assert_eq!(inpaint(Plane::filled(8, 8, 127)), ["mask"], "nothing to paint");
    assert_eq!(inpaint(Plane::filled(8, 9, 255)), ["mask"], "of another size");
}

#[test]
fn what_has_no_part_in_a_task_is_refused() {
    let mut draft = Draft::new(Task::Class);
    (draft.class, draft.prompt, draft.strength) = (Some(1), Some("a cat".into()), Some(0.5));
    (draft.boxes, draft.mask) = (Some(vec![]), Some(Plane::filled(1, 1, 0)));
    assert_eq!(refusals(everything(), draft), ["prompt", "strength", "mask", "boxes"]);
    let draft = Draft { guidance: Some(2.), ..Draft::new(Task::Unconditional) };
    let deaf = Conditions { guidance: false, prompt: false, ..Conditions::default() };
    assert_eq!(refusals(deaf.clone(), draft), ["guidance"]);
    let draft = Draft { guidance: Some(1.), prompt: Some("a".into()), ..Draft::new(Task::Txt2Img) };
    assert_eq!(refusals(deaf, draft), ["prompt"]);
}

#[test]
fn a_models_own_eta_and_rounding_are_its_defaults() {
    let mut catalogue = catalogue();
    let draft = |sampler: Option<&str>| Draft { sampler: sampler.map(str::to_owned), ..Draft::new(Task::Txt2Img) };
    let request = draft(None).check(&catalogue).unwrap().remove(0);
    assert_eq!((request.eta, request.rounding), (0., Rounding::Truncate), "the default sampler takes none");
    catalogue.models[0].defaults.sampler = "ddim".into();
    catalogue.models[0].defaults.schedule = "default".into();
    assert_eq!(draft(None).check(&catalogue).unwrap()[0].eta, 0.25);
    assert_eq!(draft(Some("DDIM")).check(&catalogue).unwrap()[0].eta, 0.25);
    let said = Draft { eta: Some(0.), rounding: Some(Rounding::Round), ..draft(None) };
    let request = said.check(&catalogue).unwrap().remove(0);
    assert_eq!((request.eta, request.rounding), (0., Rounding::Round));
}

#[test]
fn maps_are_resized_to_the_nearest_place() {
    let plane = Plane::new(4, 2, vec![0, 1, 2, 3, 4, 5, 6, 7]).unwrap();
    assert_eq!(plane.nearest(2, 1).data(), [0, 2], "the upper left of each block");
    assert_eq!(plane.nearest(4, 4).data(), [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7]);
    assert!(Plane::new(4, 2, vec![0; 7]).is_err());
}

#[test]
fn a_second_pass_is_checked_field_by_field() {
    use ldm_core::task::{HiresDraft, Upscaler};
    let with = |hires: HiresDraft| check(|draft| draft.hires = Some(hires));
    let of = |requests: Vec<Request>| requests[0].hires().cloned().expect("a second pass");
    let usual = of(with(HiresDraft::default()).unwrap());
    assert_eq!((usual.width, usual.height, usual.steps, usual.strength), (128, 192, 20, 0.7));
    assert_eq!(usual.upscaler, Upscaler::LatentBilinear);
    // 1.3 × 64 = 83.2, and 96 gives 124.8: the next sizes below that are multiples of 16.
    let scaled = of(with(HiresDraft { scale: Some(1.3), steps: Some(7), ..HiresDraft::default() }).unwrap());
    assert_eq!((scaled.width, scaled.height, scaled.steps), (80, 112, 7));
    let said = HiresDraft { width: Some(96), height: Some(160), strength: Some(1.0), ..HiresDraft::default() };
    let said = with(said).unwrap();
    assert_eq!(said[0].bytes(), "a cat".len() + 96 * 160 * 3, "the larger picture is what is held");
    assert_eq!((of(said.clone()).width, of(said).height), (96, 160));
    for (hires, fields) in [
        (HiresDraft { scale: Some(9.0), ..HiresDraft::default() }, &["hires.scale", "hires.width", "hires.height"][..]),
        (HiresDraft { scale: Some(f64::NAN), ..HiresDraft::default() }, &["hires.scale", "hires.width", "hires.height"]),
        (HiresDraft { scale: Some(2.0), width: Some(96), ..HiresDraft::default() }, &["hires.scale"]),
        (HiresDraft { width: Some(97), height: Some(272), ..HiresDraft::default() }, &["hires.width", "hires.height"]),
        (HiresDraft { steps: Some(0), ..HiresDraft::default() }, &["hires.steps"]),
        (HiresDraft { strength: Some(0.0), ..HiresDraft::default() }, &["hires.strength"]),
        (HiresDraft { steps: Some(1), strength: Some(0.5), ..HiresDraft::default() }, &["hires.strength"]),
    ] {
        let bad = with(hires.clone()).unwrap_err();
        assert_eq!(bad.0.iter().map(|violation| violation.field.as_str()).collect::<Vec<_>>(), fields, "{hires:?}");
    }
    let wrong = check(|draft| {
        draft.hires = Some(HiresDraft::default());
        draft.task = Task::Unconditional;
        draft.prompt = None;
    });
    assert_eq!(wrong.unwrap_err().0[0].field, "hires");
}

#[test]
fn loras_are_those_of_the_model_each_once_and_within_bounds() {
    let lora = |name: &str, strength| Lora { name: name.into(), strength };
    let asked = |loras: Vec<Lora>| check(|draft| draft.loras = loras);
    assert!(asked(vec![]).unwrap()[0].loras.is_empty());
    let request = asked(vec![lora("moss", -4.), lora("ink", 4.)]).unwrap().remove(0);
    assert_eq!(request.loras, [lora("moss", -4.), lora("ink", 4.)]);
    let fields = |loras: Vec<Lora>| asked(loras).unwrap_err().0.into_iter().map(|bad| bad.field).collect::<Vec<_>>();
    for strength in [4.01, -4.01, f64::NAN, f64::INFINITY] {
        assert_eq!(fields(vec![lora("ink", 1.), lora("moss", strength)]), ["loras[1].strength"], "{strength}");
    }
    assert_eq!(fields(vec![lora("ink", 1.), lora("ink", 0.5)]), ["loras[1].name"]);
    assert_eq!(fields(vec![lora("Ink", 9.), lora("moss", 1.)]), ["loras[0].strength", "loras[0].name"]);
    let bad = asked(vec![lora("Ink", 1.)]).unwrap_err().0.remove(0);
    assert_eq!((bad.limit.as_deref(), bad.value.as_deref()), (Some("ink, moss"), Some("Ink")));
    let most = fields((0..9).map(|i| lora(&i.to_string(), 1.)).collect());
    assert_eq!((most[0].as_str(), most.len()), ("loras", 9), "the count, and the eight names that are read");
    // Of a model that is not served nobody knows the names.
    let unserved = check(|draft| (draft.model, draft.loras) = (Some("x".into()), vec![lora("any", 1.)])).unwrap_err();
    assert_eq!(unserved.0.len(), 1);
}

#[test]
fn a_masking_is_checked_and_its_defaults_change_nothing() {
    use ldm_core::task::{Fill, Masking, MaskingDraft};
    let with = |masking: MaskingDraft, mask: Plane| {
        check(|draft| {
            (draft.task, draft.masking, draft.mask) = (Task::Inpaint, masking, Some(mask));
            draft.init_image = Some(Raster::filled(8, 16, [0; 3]));
        })
    };
    let half = || Plane::new(8, 16, [[0; 64], [200; 64]].concat()).unwrap();
    let of = |requests: Vec<Request>| match &requests[0].work {
        Work::Inpaint(work) => (work.masking, requests[0].size(), requests[0].bytes()),
        other => panic!("{other:?}"),
    };
    let held = |width: usize, height: usize| "a cat".len() + 8 * 16 * 4 + width * height * 3;
    let usual = with(MaskingDraft::default(), half()).unwrap();
    assert_eq!(of(usual.clone()), (Masking::default(), [64, 96], held(64, 96)));
    assert_eq!(usual[0].draft().check(&catalogue()).unwrap(), usual);
    let said = MaskingDraft {
        blur: Some([4.0, 0.5]),
        invert: Some(true),
        only_masked: Some(true),
        padding: None,
        fill: Some(Fill::LatentNoise),
        composite: Some(false),
    };
    let requests = with(said, half()).unwrap();
    let masking = Masking { blur: [4.0, 0.5], invert: true, only_masked: Some(32), fill: Fill::LatentNoise, composite: false };
    assert_eq!(of(requests.clone()), (masking, [8, 16], held(8, 16)), "as large as the picture that came");
    assert_eq!(requests[0].draft().check(&catalogue()).unwrap(), requests);

    let only = MaskingDraft { only_masked: Some(true), ..MaskingDraft::default() };
    let inverted = MaskingDraft { invert: Some(true), ..MaskingDraft::default() };
    for (masking, mask, fields) in [
        (MaskingDraft { blur: Some([64.1, 0.0]), ..MaskingDraft::default() }, half(), &["mask_blur"][..]),
        (MaskingDraft { blur: Some([0.0, -1.0]), ..MaskingDraft::default() }, half(), &["mask_blur"]),
        (MaskingDraft { blur: Some([f64::NAN, 0.0]), ..MaskingDraft::default() }, half(), &["mask_blur"]),
        (MaskingDraft { padding: Some(8), ..MaskingDraft::default() }, half(), &["padding"]),
        (MaskingDraft { padding: Some(-1), ..only }, half(), &["padding"]),
        (MaskingDraft { padding: Some(257), ..only }, half(), &["padding"]),
        (inverted, Plane::filled(8, 16, 128), &["mask"]),
        (MaskingDraft::default(), Plane::filled(8, 16, 127), &["mask"]),
    ] {
        let bad = with(masking, mask).unwrap_err();
        assert_eq!(bad.0.iter().map(|bad| bad.field.as_str()).collect::<Vec<_>>(), fields, "{masking:?}");
    }
    assert!(with(inverted, Plane::filled(8, 16, 127)).is_ok());

    let strange = check(|draft| draft.masking = MaskingDraft { fill: Some(Fill::Smear), ..said });
    let fields: Vec<_> = strange.unwrap_err().0.into_iter().map(|bad| bad.field).collect();
    assert_eq!(fields, ["mask_blur", "invert_mask", "only_masked", "fill", "composite"]);
}

#[test]
fn a_mask_is_painted_from_128_on_or_below() {
    use ldm_core::task::Masking;
    let mask = Plane::new(4, 1, vec![0, 127, 128, 255]).unwrap();
    let painted = |invert| Masking { invert, ..Masking::default() }.painted(&mask).data().to_vec();
    assert_eq!((painted(false), painted(true)), (vec![0, 0, 255, 255], vec![255, 255, 0, 0]));
}

#[test]
fn super_resolution_takes_every_whole_factor_within_bounds() {
    let mut catalogue = catalogue();
    catalogue.models[0].conditions = everything();
    let ask = |scale: Option<i64>, side: u32, width: Option<i64>| {
        let low = Some(Raster::filled(side, 24, [0; 3]));
        Draft { lr_image: low, scale, width, ..Draft::new(Task::SuperResolution) }.check(&catalogue)
    };
    // The model enlarges four times, sides are multiples of 16 up to 256.
    for (scale, side, size, shown) in [
        (None, 16, [64, 96], [16, 24]),
        (Some(4), 16, [64, 96], [16, 24]),
        (Some(1), 16, [16, 24], [16, 24]),
        (Some(3), 20, [60, 72], [20, 24]),
        (Some(8), 16, [128, 192], [32, 48]),
        (Some(6), 16, [96, 144], [24, 36]),
    ] {
        let requests = ask(scale, side, None).unwrap_or_else(|bad| panic!("{scale:?}: {bad}"));
        assert_eq!([requests[0].width, requests[0].height], size, "{scale:?}");
        assert_eq!(requests[0].draft().check(&catalogue).unwrap(), requests);
        match &requests[0].work {
            Work::SuperResolution(work) => assert_eq!(work.shown(4), shown, "{scale:?}"),
            other => panic!("{other:?}"),
        }
    }
    let fields = |bad: Violations| bad.0.into_iter().map(|bad| bad.field).collect::<Vec<_>>();
    for (scale, side, width, field) in [
        (Some(0), 16, None, "scale"),
        (Some(17), 16, None, "scale"),
        (Some(i64::MAX), 16, None, "scale"),
        (Some(2), 16, Some(64), "width"),
    ] {
        assert_eq!(fields(ask(scale, side, width).unwrap_err()), [field], "{scale:?}");
    }
    assert_eq!(fields(ask(Some(8), 48, None).unwrap_err()), ["width"], "larger than the model draws");
    let strange = check(|draft| draft.scale = Some(2)).unwrap_err();
    assert_eq!(fields(strange), ["scale"]);
}

#[test]
fn without_a_name_the_first_model_that_does_the_task_is_taken() {
    let mut catalogue = catalogue();
    let mut other = catalogue.models[0].clone();
    (other.id, other.tasks) = ("other".into(), vec![Task::Unconditional]);
    catalogue.models[0].tasks = vec![Task::Txt2Img];
    catalogue.models.push(other);
    let model = |task: Task, model: Option<&str>| {
        let draft = Draft { model: model.map(str::to_owned), guidance: Some(1.0), ..Draft::new(task) };
        draft.check(&catalogue).map(|requests| requests[0].model.clone()).map_err(|bad| bad.0[0].field.clone())
    };
    assert_eq!(model(Task::Txt2Img, None), Ok("m".into()));
    assert_eq!(model(Task::Unconditional, None), Ok("other".into()));
    assert_eq!(model(Task::Unconditional, Some("m")), Err("model".into()));
    assert_eq!(model(Task::Class, None), Err("model".into()));
}
