//! A request goes into a ledger and an object store and comes out as it was, whatever the task.

use std::time::Duration;

use bytes::Bytes;
use ldm_core::task::{Bbox, Fill, HiresDraft, MaskingDraft, Upscaler};
use ldm_core::{
    Bounds, BoxBounds, Catalogue, Conditions, Defaults, Draft, JobId, Library, Lora, Mode, Model, NeighborBounds, Plane,
    Priority, Prompting, Random, Raster, Request, Rounding, Sampler, Sizes, Task, Tenant, Terms, Tuning, Variation,
};
use ldm_engine::ledger::{LedgerLimits, MAX_SPEC, Retention, Spec, SpecError, contract, sweep, unpack, upkeep};
use ldm_engine::objects::{ObjectError, Objects, checkpoint_key, input_key, output_key};

/// One model that does everything.
fn catalogue() -> Catalogue {
    let conditions = Conditions {
        classes: Some(10),
        boxes: Some(BoxBounds { labels: 5, count: 3 }),
        semantic_classes: Some(9),
        upscale: Some(2),
        noise_levels: Some(30),
        neighbors: Some(NeighborBounds { width: 3, count: 4 }),
        ..Conditions::default()
    };
    let defaults = Defaults {
        sampler: "ddim".into(),
        schedule: "default".into(),
        steps: 20,
        guidance: 7.5,
        strength: 0.75,
        eta: 1.0,
        rounding: Rounding::Round,
    };
    let model = Model {
        id: "all".into(),
        family: "all".into(),
        tasks: Task::ALL.into(),
        parameters: 1,
        dtype: "f32".into(),
        device: "cpu".into(),
        weights: String::new(),
        mode: Mode::Fast,
        loras: vec!["ink".into(), "moss".into()],
        sizes: Sizes { min: 8, max: 64, multiple: 8, default: (32, 32) },
        defaults,
        prompt_tokens: 75,
        conditions,
    };
    let schedules = vec!["default".to_owned(), "karras".to_owned()];
    let sampler = Sampler {
        name: "ddim".into(),
        label: "DDIM".into(),
        aliases: vec![],
        order: 1,
        stochastic: true,
        takes_eta: true,
        schedules,
    };
    Catalogue { models: vec![model], samplers: vec![sampler], bounds: Bounds::default() }
}

/// Pixels that are not all alike.
fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i * 37 % 251) as u8).collect()
}

/// A draft of that task in which nothing is as by default.
fn draft(task: Task) -> Draft {
    let raster = |w: u32, h: u32| Some(Raster::new(w, h, pattern((w * h * 3) as usize)).unwrap());
    let plane = |w: u32, h: u32| Some(Plane::new(w, h, pattern((w * h) as usize)).unwrap());
    let tuning = Tuning {
        guidance_rescale: 0.1 + 0.2,
        guidance_interval: Some((0.3, f64::INFINITY)),
        random: Random::Gpu,
        library: Library::KDiffusion,
        variation: Some(Variation { seed: 9, strength: 0.7 }),
        eta_seed_delta: -31_337,
        clip_skip: 2,
    };
    let mut draft = Draft {
        model: Some("all".into()),
        width: Some(24),
        height: Some(16),
        steps: Some(7),
        schedule: Some("karras".into()),
        guidance: Some(1.0 / 3.0),
        eta: Some(0.0),
        seed: Some((1 << 53) - 1),
        prompting: Some(Prompting::Plain),
        rounding: Some(Rounding::Truncate),
        preview_every: Some(3),
        tuning,
        loras: vec![Lora { name: "moss".into(), strength: -0.3 }],
        ..Draft::new(task)
    };
    if task.takes_prompt() {
        draft.prompt = Some("a \"cat\"\n\u{0}🐈".into());
        draft.negative_prompt = Some("{dog}".into());
    }
    match task {
        Task::Txt2Img => {
            let (width, height, steps) = (Some(48), Some(32), Some(5));
            let (strength, upscaler) = (Some(0.6), Upscaler::PixelLanczos);
            draft.hires = Some(HiresDraft { width, height, scale: None, steps, strength, upscaler });
        }
        Task::Unconditional => {}
        Task::Img2Img => (draft.init_image, draft.strength) = (raster(5, 9), Some(0.7)),
        Task::Inpaint => {
            (draft.init_image, draft.mask, draft.strength) = (raster(9, 30), plane(9, 30), Some(0.9));
            draft.masking = MaskingDraft {
                blur: Some([0.1 + 0.2, 7.0]),
                invert: Some(true),
                only_masked: Some(true),
                padding: Some(17),
                fill: Some(Fill::LatentNothing),
                composite: Some(false),
            };
        }
        Task::Depth => (draft.init_image, draft.depth, draft.strength) = (raster(5, 9), plane(3, 2), Some(0.6)),
        Task::SuperResolution => {
            (draft.width, draft.height) = (None, None);
            (draft.lr_image, draft.noise_level, draft.scale) = (raster(8, 16), Some(3), Some(3));
        }
        Task::Class => draft.class = Some(9),
        Task::Layout => {
            let bbox = [0.1, 0.2, 0.3, 0.1 + 0.2];
            let bbox = Bbox { label: 4, bbox, is_occluded: true, is_group_of: false, is_depiction: true, is_inside: false };
            draft.boxes = Some(vec![bbox, Bbox { is_occluded: false, is_group_of: true, is_inside: true, ..bbox }]);
        }
        Task::Semantic => draft.semantic = Some(Plane::new(4, 2, (0..8).collect::<Vec<u8>>()).unwrap()),
        Task::Rdm => draft.neighbors = Some(vec![vec![0.1, -2.5, f32::MIN_POSITIVE], vec![1.0, 0.0, 3.0e38]]),
    }
    draft
}

fn spec(task: Task) -> Spec {
    let request: Request = draft(task).check(&catalogue()).unwrap().remove(0);
    let terms = Terms { tenant: Tenant::new("a \"b\""), priority: Priority::Batch, deadline: Some(Duration::new(7, 11)) };
    Spec { request, images: 3, terms }
}

#[test]
fn a_request_s_draft_checks_to_the_same_request() {
    for task in Task::ALL {
        let request = spec(task).request;
        assert_eq!(request.draft().check(&catalogue()).unwrap(), [request]);
    }
}

#[test]
fn a_spec_comes_back_whole_through_the_object_store() {
    super::ledger::wait(async {
        let objects = Objects::memory();
        for task in Task::ALL {
            let spec = spec(task);
            let (packed, id) = (spec.pack().unwrap(), JobId::new());
            assert!(packed.json.len() < MAX_SPEC / 16, "{}", packed.json);
            let mut back = Vec::new();
            for (n, bytes) in packed.objects.into_iter().enumerate() {
                let reference = objects.put(&input_key(id, n), bytes).await.unwrap();
                back.push(objects.get(&reference).await.unwrap());
            }
            let (draft, terms) = unpack(&packed.json, &back).unwrap();
            let requests = draft.check(&catalogue()).unwrap();
            assert_eq!(requests.len(), 3, "{task}");
            assert_eq!((&requests[0], &terms), (&spec.request, &spec.terms), "{task}");
            let seeds: Vec<u64> = requests.iter().map(|request| request.seed).collect();
            assert_eq!(seeds, [(1 << 53) - 1, 0, 1]);
        }
    });
}

#[test]
fn a_spec_that_cannot_be_read_says_why() {
    let packed = spec(Task::Inpaint).pack().unwrap();
    let error = |json: &str, objects: &[Bytes]| unpack(json, objects).unwrap_err();
    assert!(matches!(error(&packed.json, &packed.objects[..1]), SpecError::Object { object: 1, field: "mask" }));
    let swapped: Vec<Bytes> = packed.objects.iter().rev().cloned().collect();
    assert!(matches!(error(&packed.json, &swapped), SpecError::Object { object: 0, field: "init_image" }));
    let newer = packed.json.replacen("\"version\":1", "\"version\":2", 1);
    assert!(matches!(error(&newer, &packed.objects), SpecError::Version(2)));
    let strange = packed.json.replacen("\"images\"", "\"imagos\"", 1);
    assert!(matches!(error(&strange, &packed.objects), SpecError::Json(_)));
    let task = packed.json.replacen("\"inpaint\"", "\"paint\"", 1);
    assert!(matches!(error(&task, &packed.objects), SpecError::Task(_)));
}

#[test]
fn objects_are_bounded_checked_and_deleted_with_their_job() {
    super::ledger::wait(async {
        let folder = tempfile::tempdir().unwrap();
        for objects in [Objects::memory(), Objects::folder(folder.path()).unwrap()] {
            let (id, other) = (JobId::new(), JobId::new());
            let bytes = Bytes::from(pattern(1_000));
            let mut put = Vec::new();
            for key in [input_key(id, 0), output_key(id, 1), checkpoint_key(id, 2), input_key(other, 0)] {
                put.push(objects.put(&key, bytes.clone()).await.unwrap());
            }
            for reference in &put {
                assert_eq!(objects.get(reference).await.unwrap(), bytes);
            }
            let mut wrong = put[0].clone();
            wrong.bytes = 999;
            assert!(matches!(objects.get(&wrong).await, Err(ObjectError::Damaged(_))));
            objects.put(&put[1].key, Bytes::from(vec![1; 1_000])).await.unwrap();
            assert!(matches!(objects.get(&put[1]).await, Err(ObjectError::Damaged(_))));
            objects.delete_job(id).await.unwrap();
            for reference in &put[..3] {
                assert!(matches!(objects.get(reference).await, Err(ObjectError::Missing(_))));
            }
            assert_eq!(objects.get(&put[3]).await.unwrap(), bytes);
            objects.delete(&put[0].key).await.unwrap();
        }
        let small = Objects::new(std::sync::Arc::new(object_store::memory::InMemory::new()), 10);
        let error = small.put("in/x/0", Bytes::from(vec![0; 11])).await.unwrap_err();
        assert_eq!(error.to_string(), "object in/x/0 has 11 bytes, more than 10");
    });
}

#[test]
fn a_half_written_object_is_never_seen() {
    super::ledger::wait(async {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::folder(folder.path()).unwrap();
        let (id, mut seen) = (JobId::new(), 0);
        let (old, new) = (Bytes::from(vec![1; 1 << 20]), Bytes::from(vec![2; 1 << 20]));
        let reference = objects.put(&input_key(id, 0), old.clone()).await.unwrap();
        let writer = {
            let (objects, key) = (objects.clone(), reference.key.clone());
            tokio::spawn(async move {
                for _ in 0..10 {
                    objects.put(&key, new.clone()).await.unwrap();
                    objects.put(&key, old.clone()).await.unwrap();
                }
            })
        };
        while !writer.is_finished() {
            let path = folder.path().join(&reference.key);
            let now = std::fs::read(path).unwrap();
            assert!(now.len() == 1 << 20 && now.iter().all(|byte| *byte == now[0]));
            seen += 1;
        }
        writer.await.unwrap();
        assert!(seen > 0);
        objects.get(&reference).await.unwrap();
    });
}

#[test]
fn upkeep_deletes_old_records_with_all_their_objects() {
    super::ledger::wait(async {
        let bench = super::ledger::memory(LedgerLimits::default());
        let objects = Objects::memory();
        let mut put = Vec::new();
        let mut ids = Vec::new();
        for _ in 0..2 {
            let id = bench.accept(contract::job("a")).await;
            // The second is of a life that was superseded: no record names it.
            for key in [input_key(id, 0), checkpoint_key(id, 1)] {
                put.push(objects.put(&key, Bytes::from_static(b"x")).await.unwrap());
            }
            ids.push(id);
        }
        bench.ledger.cancel(ids[0]).await.unwrap();
        let keep = Retention { ttl: contract::SECOND, ..Retention::default() };
        upkeep(&*bench.ledger, &objects, &keep).await.unwrap();
        assert_eq!(bench.ledger.get(&ids).await.unwrap().len(), 2);
        bench.clock.advance(contract::SECOND);
        upkeep(&*bench.ledger, &objects, &keep).await.unwrap();
        assert_eq!(bench.ledger.get(&ids).await.unwrap().len(), 1);
        let mut there = Vec::new();
        for reference in &put {
            there.push(objects.get(reference).await.is_ok());
        }
        assert_eq!(there, [false, false, true, true]);
    });
}

#[test]
fn what_no_record_knows_is_swept() {
    super::ledger::wait(async {
        let bench = super::ledger::memory(LedgerLimits::default());
        let objects = Objects::memory();
        let (known, never) = (bench.accept(contract::job("a")).await, JobId::new());
        let mut put = Vec::new();
        for key in
            [input_key(known, 0), input_key(never, 0), input_key(never, 1), checkpoint_key(never, 3), "in/notes/0".to_owned()]
        {
            put.push(objects.put(&key, Bytes::from_static(b"x")).await.unwrap());
        }
        assert_eq!(sweep(&*bench.ledger, &objects, Duration::from_secs(3600)).await.unwrap(), 0, "its job may be on its way");
        assert_eq!(sweep(&*bench.ledger, &objects, Duration::ZERO).await.unwrap(), 1);
        let mut there = Vec::new();
        for reference in &put {
            there.push(objects.get(reference).await.is_ok());
        }
        assert_eq!(there, [true, false, false, false, true]);
    });
}
