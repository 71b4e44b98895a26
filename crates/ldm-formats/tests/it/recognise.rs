//! Files are known by their shapes as far as shapes say, and no further.

use ldm_formats::card::{Card, Model, builtin, builtins};
use ldm_formats::expect;
use ldm_formats::recognise::{EmaFound, Part, RecogniseError, Shapes, inventory, recognise};

/// Names and shapes of a file of this card, as the original classes write it.
fn file(card: &Card, ema: bool) -> Shapes {
    let mut shapes = Shapes::new();
    let first_stage = expect::first_stage(card.model.first_stage());
    let Some(model) = card.model.diffusion() else { return first_stage.into_iter().collect() };
    for (name, shape) in expect::unet(&model.unet) {
        if ema {
            shapes.insert(expect::ema_name(&name), shape.clone());
        }
        shapes.insert(format!("model.diffusion_model.{name}"), shape);
    }
    shapes.extend(first_stage.into_iter().map(|(name, shape)| (format!("first_stage_model.{name}"), shape)));
    let engine = card.name.starts_with("sdxl");
    for (index, conditioner) in model.conditioners.iter().enumerate() {
        let prefix = if engine { format!("conditioner.embedders.{index}.") } else { "cond_stage_model.".to_owned() };
        shapes.extend(expect::conditioner(&conditioner.kind).into_iter().map(|(name, shape)| (format!("{prefix}{name}"), shape)));
    }
    for buffer in ["betas", "alphas_cumprod", "ddim_sigmas"] {
        shapes.insert(buffer.to_owned(), vec![1000]);
    }
    shapes
}

fn named(name: &str) -> Card {
    builtin(name).unwrap()
}

#[test]
fn rows_with_networks_of_their_own_are_known() {
    let cards = builtins().unwrap();
    let alone = "kl-f4 kl-f8 kl-f16 kl-f32 vq-f4 vq-f4-noattn vq-f8 vq-f8-n256 vq-f16 taesd lsun_churches256 cin256 cin256-v2 \
                 text2img256 text2img-large bsr_sr inpainting_big layout2img-openimages256 rdm768 sd-v1 sd-v1-inpainting \
                 sd-v2-inpainting sd-v2-depth sd-v21-unclip-h sd-v21-unclip-l sd-x4-upscaler sdxl-refiner lcm-sd15";
    let alike: [&[&str]; 4] = [
        &["celeba256", "ffhq256", "lsun_beds256"],
        &["semantic_synthesis256", "semantic_synthesis512"],
        &["sd-v2-base", "sd-v2-768-v", "sd-turbo"],
        &["sdxl-base", "sdxl-turbo"],
    ];
    let mut seen = 0;
    for name in alone.split_whitespace() {
        let found = recognise(&file(&named(name), false), &cards).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found.card.name, name);
        assert!(found.evidence[0].starts_with("all "), "{name}: {:?}", found.evidence);
        seen += 1;
    }
    for group in alike {
        for name in group {
            match recognise(&file(&named(name), false), &cards) {
                Err(RecogniseError::Ambiguous { names, .. }) => assert_eq!(names, group, "{name}"),
                other => panic!("{name}: {other:?}"),
            }
            seen += 1;
        }
    }
    assert_eq!(seen, cards.len());
}

#[test]
fn what_shapes_cannot_say_is_asked() {
    let cards = builtins().unwrap();
    let error = recognise(&file(&named("sd-v2-768-v"), false), &cards).unwrap_err().to_string();
    assert!(
        error.starts_with("the file fits sd-v2-base, sd-v2-768-v, sd-turbo: shapes cannot tell them apart. Name the card"),
        "{error}"
    );
    let setting = "parameterization: \"eps\" (sd-v2-base), \"v\" (sd-v2-768-v), \"eps\" (sd-turbo)";
    assert!(error.contains(setting), "{error}");
    let error = recognise(&file(&named("celeba256"), true), &cards).unwrap_err().to_string();
    assert!(error.contains("They differ in serving.defaults.eta: 0.0 (celeba256), 1.0 (ffhq256), 1.0 (lsun_beds256)"), "{error}");
    // Heads leave no trace: with another card of the same shapes, cin256-v2 is no longer known by shapes alone.
    let mut twin = named("cin256-v2");
    twin.name = "cin256-v2-heads".to_owned();
    let Model::Diffusion(model) = &mut twin.model else { panic!() };
    (model.unet.num_heads, model.unet.num_head_channels) = (None, Some(32));
    let both = [named("cin256-v2"), twin];
    let error = recognise(&file(&both[0], false), &both).unwrap_err().to_string();
    assert!(error.contains("unet.num_head_channels: null (cin256-v2), 32 (cin256-v2-heads)"), "{error}");
    assert!(error.contains("unet.num_heads: 1 (cin256-v2), null (cin256-v2-heads)"), "{error}");
}

#[test]
fn averaged_weights_are_whole_absent_or_broken() {
    let cards = [named("cin256")];
    let of = |shapes: &Shapes| recognise(shapes, &cards).unwrap().ema;
    assert_eq!(of(&file(&cards[0], false)), EmaFound::Absent);
    let mut shapes = file(&cards[0], true);
    shapes.insert("model_ema.decay".to_owned(), vec![]);
    assert_eq!(of(&shapes), EmaFound::Whole);
    shapes.remove("model_ema.diffusion_modelout2bias");
    assert_eq!(of(&shapes), EmaFound::Partial { missing: 1 });
}

#[test]
fn parts_may_be_missing_and_say_so() {
    let cards = builtins().unwrap();
    let without = |name: &str, prefix: &str| -> Shapes {
        file(&named(name), false).into_iter().filter(|(key, _)| !key.starts_with(prefix)).collect()
    };
    let found = recognise(&without("inpainting_big", "cond_stage_model."), &cards).unwrap();
    assert!(found.evidence.contains(&"no conditioner in the file".to_owned()));
    let found = recognise(&without("cin256", "first_stage_model."), &cards).unwrap();
    assert!(found.evidence.contains(&"no first stage in the file".to_owned()));
    let found = recognise(&without("cin256", "first_stage_model.encoder."), &cards);
    assert_eq!(found.unwrap().card.name, "cin256");
    let found = recognise(&file(&named("lsun_churches256"), false), &cards).unwrap();
    assert!(found.evidence.iter().any(|line| line.contains("scale_factor is missing")), "{:?}", found.evidence);
    // The denoiser alone, without its prefix.
    let model = named("layout2img-openimages256");
    let bare: Shapes = expect::unet(&model.model.diffusion().unwrap().unet).into_iter().collect();
    assert_eq!(recognise(&bare, &cards).unwrap().card.name, model.name);
    // CLIP without the level `text_model`.
    let renamed: Shapes =
        file(&named("sd-v1"), false).into_iter().map(|(name, shape)| (name.replace("text_model.", ""), shape)).collect();
    assert_eq!(recognise(&renamed, &cards).unwrap().card.name, "sd-v1");
    // A decoder of TAESD is a file of its own.
    let tiny = expect::first_stage(named("taesd").model.first_stage()).into_iter();
    let decoder: Shapes = tiny.filter_map(|(name, shape)| Some((name.strip_prefix("decoder.")?.to_owned(), shape))).collect();
    assert_eq!(recognise(&decoder, &cards).unwrap().card.name, "taesd");
    // A first stage as it was trained, with its discriminator.
    let mut trained = file(&named("vq-f8"), false);
    trained.insert("loss.discriminator.main.0.weight".to_owned(), vec![64, 3, 4, 4]);
    assert_eq!(recognise(&trained, &cards).unwrap().card.name, "vq-f8");
}

#[test]
fn a_file_that_fits_nothing_names_the_nearest() {
    let cards = builtins().unwrap();
    let mut shapes = file(&named("sd-v1"), false);
    shapes.insert("model.diffusion_model.input_blocks.0.0.weight".to_owned(), vec![320, 8, 3, 3]);
    let error = recognise(&shapes, &cards).unwrap_err().to_string();
    let expected = "the file fits no known model; nearest is sd-v1, with 1 differences: model.diffusion_model.input_blocks.0.0.weight \
                    is [320, 8, 3, 3], not [320, 4, 3, 3]";
    assert_eq!(error, expected);
    // Another codebook, another tokenizer.
    let mut shapes = file(&named("cin256"), false);
    shapes.insert("cond_stage_model.embedding.weight".to_owned(), vec![11, 512]);
    assert!(
        recognise(&shapes, &cards)
            .unwrap_err()
            .to_string()
            .contains("cond_stage_model.embedding.weight is [11, 512], not [1000, 512]")
    );
    let diffusers: Shapes = [("down_blocks.0.resnets.0.norm1.weight".to_owned(), vec![320])].into();
    assert!(recognise(&diffusers, &cards).unwrap_err().to_string().contains("a module of diffusers"));
    assert!(recognise(&Shapes::new(), &cards).is_err());
}

#[test]
fn parts_are_counted() {
    let mut shapes = file(&named("cin256"), true);
    shapes.insert("scale_factor".to_owned(), vec![]);
    shapes.insert("what.is.this".to_owned(), vec![u64::MAX, 3]);
    shapes.insert("first_stage_model.loss.logvar".to_owned(), vec![]);
    let parts = inventory(&shapes);
    assert_eq!(parts[&Part::Unet].0, 626);
    assert_eq!(parts[&Part::Ema].0, 626);
    assert_eq!(parts[&Part::FirstStage].0, 299);
    assert_eq!(parts[&Part::Conditioner], (1, 512_000));
    assert_eq!(parts[&Part::Schedule].0, 3);
    assert_eq!(parts[&Part::ScaleFactor], (1, 1));
    assert_eq!(parts[&Part::Loss], (1, 1));
    assert_eq!(parts[&Part::Unknown], (1, u64::MAX));
}
