//! Models from one layout into the other and back: the same tensors, the same pictures, and refusals that leave nothing behind.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use ldm_core::{Draft, Rounding};
use ldm_formats::convert::Cast;
use ldm_formats::recognise::{Part, part_of};
use ldm_nn::Checkpoint;
use ldm_pipeline::convert::{ConvertError, ConvertOptions, Converted, to_diffusers, to_original};
use ldm_pipeline::{DeviceExecutor, EmaChoice, ModelSource};
use tch::Kind;

use crate::rig::{Finished, directory, error, levels, load, options, scratch, solo};
use crate::systems::{Case, cases, made_in, request, weight};

const PLAIN: ConvertOptions = ConvertOptions { cast: None, force: false };
const FORCE: ConvertOptions = ConvertOptions { cast: None, force: true };

fn diffusers(from: &Path, to: &Path, options: ConvertOptions) -> Result<Converted, ConvertError> {
    to_diffusers(&ModelSource::new("", from), to, options, |_| {})
}

fn original(from: &Path, to: &Path, options: ConvertOptions) -> Result<Converted, ConvertError> {
    to_original(&ModelSource::new("", from), to, options, |_| {})
}

/// One test for each original system that diffusers can express: which weights of its denoiser are read by default.
macro_rules! systems {
    ($($test:ident: $model:literal, averaged: $averaged:literal,)*) => {
        $(
            #[test]
            fn $test() {
                there_and_back($model, $averaged);
            }
        )*
    };
}

systems! {
    an_unconditional_model_goes_there_and_back: "original-unconditional", averaged: true,
    super_resolution_goes_there_and_back: "original-super-resolution", averaged: true,
    the_papers_text_encoder_goes_there_and_back: "original-txt2img", averaged: false,
    stable_diffusion_1_goes_there_and_back: "stability-one", averaged: false,
    stable_diffusion_2_goes_there_and_back: "stability-two", averaged: false,
    inpainting_goes_there_and_back: "stability-inpainting", averaged: false,
    the_upscaler_goes_there_and_back: "stability-upscaler", averaged: false,
    depth_goes_there_and_back: "stability-depth", averaged: false,
    sdxl_goes_there_and_back: "stability-sdxl", averaged: false,
    the_refiner_goes_there_and_back: "stability-refiner", averaged: false,
}

/// The cases of a model whose steps both layouts place alike: CompVis' rule and diffusers' are one where steps divide 1000.
fn alike(model: &str) -> Vec<Case> {
    let cases = cases().into_iter().filter(|case| case.model == model);
    let cases: Vec<Case> = cases.filter(|case| 1000 % case.draft().steps.unwrap_or(1) == 0).collect();
    assert!(!cases.is_empty(), "{model} has no case");
    cases
}

fn drawn(path: &Path, cases: &[Case]) -> Vec<Finished> {
    let mut device = load(path, &options()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let tasks = device_tasks(&device);
    let draw = |case: &Case| {
        assert!(tasks.contains(&case.draft().task.name().to_owned()), "{}: {tasks:?}", case.name);
        let draft = case.draft();
        // Where a picture is noised to, CompVis' samplers and diffusers' do not agree; samplers that CompVis has not have one rule.
        let sampler = if draft.strength.is_some() { Some("euler".into()) } else { draft.sampler.clone() };
        let job = request(&device, Draft { rounding: Some(Rounding::Round), sampler, ..draft });
        solo(&mut device, &job)
    };
    cases.iter().map(draw).collect()
}

fn device_tasks(device: &DeviceExecutor) -> Vec<String> {
    let catalogue = ldm_engine::Executor::catalogue(device);
    catalogue.models[0].tasks.iter().map(|task| task.name().to_owned()).collect()
}

/// Panics unless both made the same; two layouts may order the same sums differently.
fn same(what: &str, found: &[Finished], wanted: &[Finished], cases: &[Case]) {
    for ((found, wanted), case) in found.iter().zip(wanted).zip(cases) {
        let (error, levels) = (error(&found.latent, &wanted.latent), levels(&found.picture, &wanted.picture));
        println!("{what}, {}: {error:.1e}, {levels}", case.name);
        assert!(error <= 1e-6 && levels <= 1, "{what}, {}: latents differ by {error:.1e}, pixels by {levels}", case.name);
    }
}

fn open(path: &Path) -> Checkpoint {
    Checkpoint::open_files([path.to_owned()]).expect("a checkpoint")
}

/// Names with dtype, shape and bytes.
fn contents(path: &Path) -> BTreeMap<String, (Kind, Vec<i64>, Vec<u8>)> {
    let file = open(path);
    let read = |name: &str| {
        let tensor = file.tensor(name);
        let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        (name.to_owned(), (tensor.kind(), tensor.size(), bytes))
    };
    file.names().map(read).collect()
}

/// What has no place in a directory of diffusers: averages or what they are averages of, numbers that are computed again, and what
/// Stable Diffusion never reads of OpenCLIP.
fn may_be_left_out(name: &str) -> bool {
    let unread = ["logit_scale", "attn_mask", "position_ids", "resblocks.23.", "cond_stage_model.model.text_projection"];
    matches!(part_of(name), Part::Ema | Part::Schedule | Part::ScaleFactor | Part::Unknown | Part::Auxiliary)
        || unread.iter().any(|part| name.contains(part))
}

fn there_and_back(model: &str, averaged: bool) {
    let base = scratch(&format!("convert-{model}"));
    let file = made_in(model, base.join("from"));
    let (there, back) = (base.join("there"), base.join("back/model.safetensors"));
    std::fs::create_dir_all(base.join("back")).expect("a folder");
    let told = diffusers(&file, &there, PLAIN).unwrap_or_else(|error| panic!("{model}: {error}"));
    assert_eq!(told.left_out.iter().any(|(what, _)| what == "ema"), ema_is_left_out(&file, averaged), "{told:?}");
    original(&there, &back, PLAIN).unwrap_or_else(|error| panic!("{model}: {error}"));
    let (before, after) = (contents(&file), contents(&back));
    for (name, found) in &after {
        let source = match name.strip_prefix("model.") {
            Some(bare) if averaged && bare.starts_with("diffusion_model.") => format!("model_ema.{}", bare.replace('.', "")),
            _ => name.clone(),
        };
        let wanted = before.get(&source).unwrap_or_else(|| panic!("{model}: {name} is new"));
        assert!(found == wanted, "{model}: {name} is {:?} {:?}, was {:?} {:?}", found.0, found.1, wanted.0, wanted.1);
    }
    let lost: Vec<&String> = before.keys().filter(|name| !after.contains_key(*name) && !may_be_left_out(name)).collect();
    assert!(lost.is_empty(), "{model}: {lost:?}");
    let cases = alike(model);
    let wanted = drawn(&file, &cases);
    same("diffusers", &drawn(&there, &cases), &wanted, &cases);
    same("back", &drawn(&back, &cases), &wanted, &cases);
}

/// Averages are left out where the plain weights are taken.
fn ema_is_left_out(file: &Path, averaged: bool) -> bool {
    // The two counters beside the averages are never taken.
    open(file).names().any(|name| part_of(name) == Part::Ema && (!averaged || !name.contains("diffusion_model")))
}

#[test]
fn the_choice_of_weights_is_the_callers() {
    let base = scratch("convert-ema");
    let file = made_in("original-unconditional", base.join("from"));
    for (choice, name) in
        [(EmaChoice::Off, "model.diffusion_model.out.2.bias"), (EmaChoice::On, "model_ema.diffusion_modelout2bias")]
    {
        let there = base.join(choice.to_string());
        let source = ModelSource { ema: choice, ..ModelSource::new("", &file) };
        to_diffusers(&source, &there, PLAIN, |_| {}).expect("it is converted");
        let unet = open(&there.join("unet/diffusion_pytorch_model.safetensors"));
        assert_eq!(unet.tensor("conv_out.bias"), open(&file).tensor(name), "{choice}");
    }
}

#[test]
fn what_diffusers_cannot_express_is_refused_by_name_and_leaves_nothing() {
    for (model, part) in [
        ("original-churches", "`attention_head_dim` is one number"),
        ("original-classes", "cond_stage_model (ClassEmbedder) has no diffusers form"),
        ("original-layout", "cond_stage_model (BERTEmbedder over boxes) has no diffusers form"),
        ("original-semantic", "(SpatialRescaler) has no diffusers form"),
        ("original-inpainting", "the latent of the masked picture beside the latent has no diffusers form"),
        ("original-retrieval", "embeddings of neighbours has no diffusers form"),
    ] {
        let base = scratch(&format!("convert-refused-{model}"));
        let file = made_in(model, base.join("from"));
        let refused = diffusers(&file, &base.join("there"), PLAIN).expect_err(model).to_string();
        assert!(refused.contains(part), "{model}: {refused}");
        assert_eq!(left(&base), ["from"], "{model}");
    }
}

#[test]
fn what_the_original_classes_cannot_express_is_refused_by_name() {
    let base = scratch("convert-to-original-refused");
    let to = base.join("out.safetensors");
    for (model, part) in [
        ("lcm", "has no original form: "),
        ("sd-inpainting", "vae has no original form: "),
        ("ldm-txt2im", "vqvae has no original form: "),
    ] {
        let dir = made_in(model, base.join(model));
        let refused = original(&dir, &to, PLAIN).expect_err(model).to_string();
        assert!(refused.contains(part), "{model}: {refused}");
        assert!(!left(&base).iter().any(|name| name.starts_with("out.")), "{:?}", left(&base));
    }
}

/// What lies in a folder.
fn left(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn nothing_is_replaced_without_force_and_no_other_folder_with_it() {
    let base = scratch("convert-force");
    let file = made_in("original-unconditional", base.join("from"));
    let (there, back) = (base.join("there"), base.join("back.safetensors"));
    diffusers(&file, &there, PLAIN).expect("it is converted");
    let refused = diffusers(&file, &there, PLAIN).expect_err("it is there").to_string();
    assert!(refused.contains("exists already: --force"), "{refused}");
    std::fs::write(there.join("unet/config.json"), "{}").expect("it is written");
    diffusers(&file, &there, FORCE).expect("it is replaced");
    assert!(load(&there, &options()).is_ok());
    original(&there, &back, PLAIN).expect("it is converted");
    let refused = original(&there, &back, PLAIN).expect_err("it is there").to_string();
    assert!(refused.contains("exists already: --force"), "{refused}");
    original(&there, &back, FORCE).expect("it is replaced");
    assert_eq!(left(&base), ["back.safetensors", "back.toml", "from", "there"]);

    let other = base.join("other");
    std::fs::create_dir(&other).expect("a folder");
    std::fs::write(other.join("letter.txt"), "dear").expect("it is written");
    let refused = diffusers(&file, &other, FORCE).expect_err("it is no model").to_string();
    assert!(refused.contains("no directory of a model") && other.join("letter.txt").is_file(), "{refused}");
    std::fs::write(base.join("next.yaml"), "model:").expect("it is written");
    let refused = original(&there, &base.join("next.safetensors"), PLAIN).expect_err("it would mislead").to_string();
    assert!(refused.contains("next.yaml") && !base.join("next.safetensors").exists(), "{refused}");
}

#[test]
fn a_dtype_is_cast_and_numbers_that_do_not_fit_are_named() {
    let base = scratch("convert-dtype");
    let file = made_in("original-unconditional", base.join("from"));
    let half = ConvertOptions { cast: Some(Cast::F16), force: false };
    diffusers(&file, &base.join("half"), half).expect("it is converted");
    let name = "unet/diffusion_pytorch_model.safetensors";
    diffusers(&file, &base.join("whole"), PLAIN).expect("it is converted");
    let (half, whole) = (open(&base.join("half").join(name)), open(&base.join("whole").join(name)));
    for name in whole.names() {
        assert_eq!(half.tensor(name), whole.tensor(name).to_kind(Kind::Half), "{name}");
    }
    // A number beyond float16.
    let large: Vec<(String, tch::Tensor)> = {
        let file = open(&file);
        let scaled = |name: &str| if name.ends_with("conv_out.bias") { file.tensor(name) * 1e9 } else { file.tensor(name) };
        file.names().map(|name| (name.to_owned(), scaled(name))).collect()
    };
    let other = made_in("original-unconditional", base.join("other"));
    tch::Tensor::write_safetensors(&large, &other).expect("it is written");
    let half = ConvertOptions { cast: Some(Cast::F16), force: false };
    let refused = diffusers(&other, &base.join("large"), half).expect_err("it does not fit").to_string();
    assert!(refused.contains("coder.conv_out.bias` holds") && refused.contains("F16"), "{refused}");
    assert_eq!(left(&base), ["from", "half", "other", "whole"]);
}

/// A first stage of a published kind, small: its file under the original names, with its YAML.
fn first_stage(dir: &Path, kind: &str) -> PathBuf {
    let vq = kind == "vq";
    let dd = format!(
        "double_z: {}, z_channels: 4, resolution: 256, in_channels: 3, out_ch: 3, ch: 32, ch_mult: [1, 2], num_res_blocks: 1, \
         attn_resolutions: [128], dropout: 0.0",
        !vq
    );
    let (target, codes) = if vq { ("VQModel", "n_embed: 16, ") } else { ("AutoencoderKL", "") };
    let yaml =
        format!("model:\n  target: ldm.models.autoencoder.{target}\n  params: {{embed_dim: 4, {codes}ddconfig: {{{dd}}}}}\n");
    std::fs::create_dir_all(dir).expect("a folder");
    std::fs::write(dir.join("stage.yaml"), &yaml).expect("it is written");
    let card = ldm_formats::card::Card::from_yaml("stage", &yaml).expect("a card");
    write_weights(&dir.join("stage.safetensors"), &ldm_formats::expect::first_stage(card.model.first_stage()))
}

pub(crate) fn write_weights(file: &Path, shapes: &[(String, Vec<u64>)]) -> PathBuf {
    let shape = |shape: &[u64]| shape.iter().map(|&side| side as i64).collect::<Vec<_>>();
    let tensors: Vec<(&str, tch::Tensor)> =
        shapes.iter().map(|(name, sides)| (name.as_str(), weight(&format!("stage/{name}"), &shape(sides)))).collect();
    tch::Tensor::write_safetensors(&tensors, file).expect("it is written");
    file.to_owned()
}

#[test]
fn first_stages_alone_go_there_and_back() {
    for kind in ["kl", "vq", "tiny"] {
        let base = scratch(&format!("convert-stage-{kind}"));
        let file = if kind == "tiny" {
            let shapes = ldm_formats::expect::first_stage(&ldm_formats::card::FirstStage::Tiny { latent_channels: 4 });
            write_weights(&base.join("taesd.safetensors"), &shapes)
        } else {
            first_stage(&base.join("from"), kind)
        };
        let (there, back) = (base.join("there"), base.join("back.safetensors"));
        diffusers(&file, &there, PLAIN).unwrap_or_else(|error| panic!("{kind}: {error}"));
        original(&there, &back, PLAIN).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert!(contents(&file) == contents(&back), "{kind}");
        // TAESD is known by its names; the others are of no published size and need their card.
        assert_eq!(base.join("back.toml").is_file(), kind != "tiny", "{kind}");
        let picture = crate::systems::picture(&directory().join("systems/given-64x64.png"));
        let seen = |model: &Path| {
            let made = ldm_pipeline::reconstruct(model, None, &options(), &picture, Rounding::Round);
            made.unwrap_or_else(|error| panic!("{kind}: {error}")).picture
        };
        let wanted = seen(&file);
        assert_eq!(levels(&seen(&there), &wanted), 0, "{kind}");
        assert_eq!(levels(&seen(&back), &wanted), 0, "{kind}");
    }
}

#[test]
fn a_pickle_becomes_a_directory() {
    let base = scratch("convert-pickle");
    let file = first_stage(&base.join("from"), "kl");
    let pickle = file.with_extension("ckpt");
    std::fs::write(&pickle, pickled(&file)).expect("it is written");
    diffusers(&pickle, &base.join("there"), PLAIN).expect("it is converted");
    diffusers(&file, &base.join("wanted"), PLAIN).expect("it is converted");
    let name = "diffusion_pytorch_model.safetensors";
    assert!(contents(&base.join("there").join(name)) == contents(&base.join("wanted").join(name)));
    assert_eq!(left(&base), ["from", "there", "wanted"]);
    assert_eq!(left(&base.join("from")), ["stage.ckpt", "stage.safetensors", "stage.yaml"]);
}

/// The float32 tensors of a file as `torch.save` would write them: an archive with one storage.
fn pickled(file: &Path) -> Vec<u8> {
    let text = |text: &str| [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let int = |value: i64| [&b"J"[..], &(value as i32).to_le_bytes()].concat();
    let tuple = |values: &[i64]| [&b"("[..], &values.iter().flat_map(|&value| int(value)).collect::<Vec<u8>>(), b"t"].concat();
    let tensors = contents(file);
    let all: usize = tensors.values().map(|(.., bytes)| bytes.len() / 4).sum();
    let (mut pickle, mut data) = (b"\x80\x02}(".to_vec(), Vec::new());
    for (name, (_, shape, bytes)) in &tensors {
        let strides: Vec<i64> = (0..shape.len()).map(|at| shape[at + 1..].iter().product()).collect();
        pickle.extend(text(name));
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        pickle.extend([text("storage"), b"ctorch\nFloatStorage\n".to_vec(), text("0"), text("cpu"), int(all as i64)].concat());
        pickle.extend(b"tQ");
        pickle.extend([int(data.len() as i64 / 4), tuple(shape), tuple(&strides)].concat());
        pickle.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        data.extend(bytes);
    }
    pickle.extend(b"u.");
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [("m/data.pkl", &pickle[..]), ("m/data/0", &data), ("m/version", b"3\n")] {
        archive.start_file(name, stored).expect("an entry");
        archive.write_all(bytes).expect("it is written");
    }
    archive.finish().expect("an archive").into_inner()
}
