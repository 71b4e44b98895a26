//! The same request gives the same picture, today and after others; other requests give others.

use ldm_core::{Draft, FailureKind, Prompting, Raster, Task};
use ldm_engine::{Decoding, Executor};
use ldm_pipeline::{Dtype, LoadOptions};

use crate::rig::{device, directory, draft, draw, error, evaluate, levels, load, options, request, solo};

#[test]
fn a_seed_gives_one_picture() {
    let mut device = device();
    for sampler in ["euler_a", "dpmpp_2m", "ddpm"] {
        let with = |seed| Draft { sampler: Some(sampler.into()), seed: Some(seed), ..draft("a photo of a cat") };
        let first = request(&device, with(11));
        let finished = solo(&mut device, &first);
        let other = request(&device, with(12));
        assert!(error(&solo(&mut device, &other).latent, &finished.latent) > 0.1, "{sampler}: another seed");
        // Bit for bit, on this device and on one that has done nothing else.
        assert!(solo(&mut device, &first) == finished, "{sampler}: again");
        assert!(solo(&mut crate::rig::device(), &first) == finished, "{sampler}: on another device");
    }
}

#[test]
fn several_pictures_are_those_of_their_seeds() {
    let mut device = device();
    let several = Draft { images: Some(3), ..draft("a photo of a cat") }.check(&device.catalogue()).expect("a valid draft");
    for (i, one) in several.into_iter().enumerate() {
        let alone = request(&device, Draft { seed: Some(7 + i as i64), ..draft("a photo of a cat") });
        assert_eq!(one, *alone);
        assert!(solo(&mut device, &one.into()) == solo(&mut device, &alone));
    }
}

#[test]
fn a_prompt_encoded_before_gives_the_same_picture() {
    let tiny = directory().join("tiny-sd");
    let prompts = ["a photo of a cat", "a red square", "a photo of a cat", "", "a red square", "a photo of a cat"];
    let pictures = |cache| {
        let mut device = load(&tiny, &LoadOptions { cache, ..options() }).expect("it loads");
        let draft = |prompt| Draft { negative_prompt: Some("a red square".into()), ..draft(prompt) };
        prompts.map(|prompt| draw(&mut device, draft(prompt)))
    };
    let kept = pictures(256);
    assert!(kept[0] == kept[2] && kept[2] == kept[5] && kept[1] == kept[4]);
    assert!(kept[0] != kept[1] && kept[0] != kept[3]);
    // With room for one prompt, every call but an immediate repetition encodes anew.
    assert!(pictures(1) == kept && pictures(0) == kept);
}

#[test]
fn plain_prompts_longer_than_the_text_encoder_reads_are_cut() {
    let mut device = device();
    let prompt_tokens = device.catalogue().models[0].prompt_tokens as usize;
    assert_eq!(prompt_tokens, 75);
    let mut of = |prompt: &str| draw(&mut device, Draft { prompting: Some(Prompting::Plain), ..draft(prompt) });
    // One token per word.
    let full = "a ".repeat(prompt_tokens);
    assert!(of(&full) == of(&format!("{full} cat and whatever else")), "what is cut off has no part");
    let short = "a ".repeat(prompt_tokens - 1);
    assert!(of(&full) != of(&format!("{short} cat")), "the last token that fits has");
    let huge = "cat ".repeat(1000);
    assert!(of(&huge[..3999]) == of(&huge[..400]));
}

#[test]
fn weighted_prompts_have_weights_and_any_length() {
    let mut device = device();
    let mut of = |prompt: &str| draw(&mut device, draft(prompt));
    let plain = of("a red square");
    assert!(of("a (red:1.0) square") == plain, "a weight of 1 is none");
    assert!(of("a (red:1.5) square") != plain);
    assert!(of(r"a \(red\) square") != plain, "escaped brackets are text");
    // One token per word: the second chunk has a part, whichever row is longer.
    let full = "a ".repeat(75);
    assert!(of(&full) != of(&format!("{full} cat")));
    let negative = |negative: &str| Draft { negative_prompt: Some(negative.into()), ..draft("a red square") };
    assert!(draw(&mut device, negative(&full)) != draw(&mut device, negative(&format!("{full} cat"))));
}

#[test]
fn without_guidance_the_negative_prompt_has_no_part() {
    let mut device = device();
    let mut of = |guidance, negative: &str| {
        let draft = Draft { guidance: Some(guidance), negative_prompt: Some(negative.into()), ..draft("a photo of a cat") };
        draw(&mut device, draft)
    };
    assert!(of(1., "") == of(1., "a red square"));
    assert!(of(2., "") != of(2., "a red square"));
    // Guidance away from the prompt itself: what is added is nothing.
    assert!(error(&of(9., "a photo of a cat").latent, &of(1., "").latent) < 1e-4);
}

#[test]
fn pictures_to_start_from_may_have_any_size() {
    let mut device = device();
    let with = |init: Raster, strength| Draft {
        init_image: Some(init),
        strength: Some(strength),
        steps: Some(10),
        task: Task::Img2Img,
        ..draft("a photo of a cat")
    };
    let mut of = |init, strength| draw(&mut device, with(init, strength));
    // One colour is that colour in every size.
    let reference = of(Raster::filled(64, 64, [180, 40, 90]), 0.5);
    for (width, height) in [(1, 1), (33, 70), (640, 16), (200, 200)] {
        let found = of(Raster::filled(width, height, [180, 40, 90]), 0.5);
        assert_eq!((found.picture.width(), found.picture.height()), (64, 64));
        assert!(error(&found.latent, &reference.latent) < 1e-4, "{width}x{height}");
    }
    assert!(error(&of(Raster::filled(64, 64, [20, 240, 90]), 0.5).latent, &reference.latent) > 1e-2, "its colour matters");
    assert!(error(&of(Raster::filled(64, 64, [180, 40, 90]), 0.9).latent, &reference.latent) > 1e-2, "its strength matters");
}

#[test]
fn previews_are_small_and_only_on_request() {
    let mut device = device();
    let with = |side, every| Draft {
        width: Some(side),
        height: Some(side),
        preview_every: every,
        // It ends at the estimate.
        sampler: Some("euler".into()),
        ..draft("")
    };
    for (side, preview) in [(64, 64), (128, 64)] {
        let mut run = device.prepare(&request(&device, with(side, Some(1)))).expect("it is prepared").run;
        while !evaluate(&mut device, &mut [&mut run])[0] {
            let picture = device.preview(&run).expect("a preview");
            assert_eq!((picture.width(), picture.height()), (preview, preview));
        }
        let picture = device.preview(&run).expect("a preview");
        let finished = device.decode(&mut run, Decoding::Usual).expect("a picture");
        assert!(side != 64 || levels(&picture, &finished) <= 1);
    }
    let mut run = device.prepare(&request(&device, with(64, None))).expect("it is prepared").run;
    evaluate(&mut device, &mut [&mut run]);
    assert_eq!(device.preview(&run).expect_err("none was asked for").kind, FailureKind::Unsupported);
}

#[test]
fn half_precision_draws_nearly_the_same() {
    let tiny = directory().join("tiny-sd");
    let draft = Draft { guidance: Some(1.), steps: Some(4), ..draft("a photo of a cat") };
    let mut single = device();
    let reference = draw(&mut single, draft.clone());
    let mut half = load(&tiny, &LoadOptions { dtype: Dtype::Bf16, ..options() }).expect("it loads");
    assert_eq!(half.catalogue().models[0].dtype, "bf16");
    let found = draw(&mut half, draft);
    let error = error(&found.latent, &reference.latent);
    assert!(error < 5e-2, "{error:.1e}");
}
