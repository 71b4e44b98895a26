//! What files say of themselves: our own in every format, those of other programs, and none.

use std::fs;
use std::path::Path;

use ldm_core::{Draft, Lora, Output, Raster, Task};
use ldm_engine::fake::FakeExecutor;
use serde_json::Value;

use super::*;
use crate::codec::{Encoding, Format, write_picture};

/// A finished picture of that prompt.
fn output(prompt: &str, negative_prompt: &str) -> Output {
    let mut draft = Draft::new(Task::Txt2Img);
    (draft.prompt, draft.negative_prompt) = (Some(prompt.to_owned()), Some(negative_prompt.to_owned()));
    (draft.seed, draft.steps) = (Some(7), Some(3));
    let request = draft.check(&FakeExecutor::catalogue_example()).unwrap().remove(0);
    let image = Raster::filled(request.width, request.height, [10, 200, 30]);
    Output { request: request.into(), image, timings: ldm_core::Timings::default() }
}

fn encodings() -> [Encoding; 5] {
    let of = |format, quality| Encoding { format, quality };
    [
        of(Format::Png, None),
        of(Format::Jpeg, None),
        of(Format::Jpeg, Some(10)),
        of(Format::WebP, None),
        of(Format::WebP, Some(40)),
    ]
}

#[test]
fn every_format_says_how_it_was_made() {
    let catalogue = FakeExecutor::catalogue_example();
    for prompt in ["a cat", "a cat,\nsecond \"line\": {x}", "кошка, 猫, قطة 🐈\u{200d}", "nul\0nul", ""] {
        for encoding in encodings() {
            let output = output(prompt, "dogs");
            let found = read(&write_picture(&output, &catalogue, encoding).unwrap()).unwrap();
            let context = format!("{encoding:?} {prompt:?}");
            assert_eq!((found.format, found.width, found.height), (encoding.format, 64, 64), "{context}");
            let infotext = Infotext::parse(&found.parameters.unwrap());
            assert_eq!((infotext.prompt, infotext.negative_prompt), (prompt.replace('\0', " "), "dogs".to_owned()), "{context}");
            let latentd = found.latentd.unwrap();
            assert_eq!((&latentd["prompt"], &latentd["seed"]), (&Value::from(prompt), &Value::from(7)), "{context}");
            assert_eq!(latentd.get("quality").and_then(Value::as_u64), encoding.resolved_quality().map(u64::from), "{context}");
            let sha256 = Value::from(crate::provenance::digest(&output.image));
            assert_eq!(found.made.unwrap()["sha256"], sha256, "{context}");
            let names: Vec<_> = found.items.keys().map(String::as_str).collect();
            let software = if encoding.format == Format::Png { &[][..] } else { &["Software"] };
            assert_eq!(names, software, "{context}");
        }
    }
}

#[test]
fn what_is_too_long_for_a_jpeg_is_left_out_json_first() {
    let catalogue = FakeExecutor::catalogue_example();
    let jpeg = Encoding { format: Format::Jpeg, quality: None };
    // Each of these letters takes 12 bytes in JSON and 4 in a comment.
    let long = "🐈".repeat(4000);
    let found = read(&write_picture(&output(&long, &long), &catalogue, jpeg).unwrap()).unwrap();
    assert_eq!(Infotext::parse(&found.parameters.unwrap()).prompt, long);
    assert_eq!((found.latentd, found.made), (None, None));
    let webp = Encoding { format: Format::WebP, ..jpeg };
    let found = read(&write_picture(&output(&long, &long), &catalogue, webp).unwrap()).unwrap();
    assert_eq!(found.latentd.unwrap()["prompt"], Value::from(long.clone()));
    let notes = Notes { parameters: long.repeat(8), latentd: String::new(), made: String::new() };
    let block = notes.exif(65_527);
    assert!(!block.is_empty() && block.len() < 100, "the program's name alone");
    assert_eq!(notes.exif(0), Vec::<u8>::new());
}

#[test]
fn files_of_other_programs_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/pictures");
    let expected: Value = serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
    for (name, expected) in expected.as_object().unwrap() {
        let found = read(&fs::read(folder.join(name)).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found.parameters.as_deref(), expected["infotext"].as_str(), "{name}");
        // The size is the file's; what is turned on its side shows it the other way around.
        assert_eq!((found.width, found.height), (13, 7), "{name}");
        assert_eq!((found.latentd, found.made), (None, None));
        if name == "said.png" {
            let items: Vec<_> = found.items.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
            assert_eq!(items, [("Software", "another program"), ("prompt", "{\"1\": {}}")]);
        }
    }
}

#[test]
fn json_that_is_not_ours_stays_a_text() {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 1, 1);
    encoder.set_color(png::ColorType::Rgb);
    for (keyword, text) in
        [("latentd", "[1]"), ("latentd-made", "{"), ("ImageDescription", "{\"a\": 1}"), ("prompt", "x"), ("prompt", "y")]
    {
        encoder.add_text_chunk(keyword.to_owned(), text.to_owned()).unwrap();
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[1, 2, 3]).unwrap();
    // Texts may follow the pixels.
    writer.write_chunk(png::chunk::tEXt, b"parameters\0a cat").unwrap();
    writer.finish().unwrap();
    let found = read(&file).unwrap();
    assert_eq!((found.parameters.as_deref(), found.latentd, found.made), (Some("a cat"), None, None));
    let items: Vec<_> = found.items.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert_eq!(items, [("ImageDescription", "{\"a\": 1}"), ("latentd", "[1]"), ("latentd-made", "{"), ("prompt", "y")]);
}

fn request(change: impl FnOnce(&mut Draft)) -> Request {
    let mut draft = Draft::new(Task::Txt2Img);
    draft.prompt = Some("a cat".to_owned());
    draft.seed = Some(1);
    change(&mut draft);
    draft.check(&FakeExecutor::catalogue_example()).unwrap().remove(0)
}

#[test]
fn infotext_reads_like_the_web_uis() {
    let plain = request(|draft| draft.sampler = Some("euler_a".to_owned()));
    let end = concat!(", Version: latentd ", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        infotext(&plain, "Euler a"),
        format!(
            "a cat\nSteps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7.5, Seed: 1, Size: 64x64, Model: fake{end}"
        )
    );
    let full = request(|draft| {
        draft.task = Task::Img2Img;
        draft.init_image = Some(Raster::filled(8, 8, [0; 3]));
        draft.negative_prompt = Some("dogs".to_owned());
        draft.sampler = Some("DPM++ 2M Karras".to_owned());
        draft.guidance = Some(7.0);
    });
    assert_eq!(
        infotext(&full, "DPM++ 2M"),
        format!(
            "a cat\nNegative prompt: dogs\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, \
             Size: 64x64, Model: fake, Denoising strength: 0.75{end}"
        )
    );
    let inked = request(|draft| draft.loras = vec![Lora { name: "ink".to_owned(), strength: 0.8 }, Lora::new("moss")]);
    assert!(infotext(&inked, "DPM++ 2M").contains(r#", Loras: "ink: 0.8, moss: 1","#));
    let eta = request(|draft| (draft.sampler, draft.eta) = (Some("ddim".to_owned()), Some(0.5)));
    assert!(infotext(&eta, "DDIM").contains(", Eta DDIM: 0.5,"));
}
