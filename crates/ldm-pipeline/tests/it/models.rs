//! Loading models: what the catalogue says of them, and what is refused by name.

use std::path::Path;

use ldm_core::{Draft, FailureKind, Task};
use ldm_engine::{Decoding, Executor};
use ldm_nn::Checkpoint;
use ldm_nn::weights::save;
use ldm_pipeline::{Device, DeviceExecutor, Dtype, LoadOptions, ModelSource, inspect};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::rig::{copy_of_the_model, device, directory, draft, load, options, request, scratch, solo};

fn edit(path: &Path, change: impl Fn(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON");
    change(&mut value);
    std::fs::write(path, value.to_string()).expect("a file");
}

/// Rewrites the tensors of a part.
pub(crate) fn edit_weights(path: &Path, change: impl Fn(&str, Tensor) -> Option<Tensor>) {
    let file = Checkpoint::open_files([path.to_owned()]).expect("the file");
    let tensors: Vec<_> =
        file.names().filter_map(|name| Some((name.to_owned(), change(name, file.tensor(name).copy())?))).collect();
    // A file that is mapped must not be written to: the new one takes its place.
    std::fs::remove_file(path).expect("it goes");
    save(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), Kind::Float, path).expect("saved");
}

#[test]
fn the_catalogue_describes_the_model() {
    let catalogue = device().catalogue();
    let model = &catalogue.models[0];
    assert_eq!((model.id.as_str(), model.dtype.as_str(), model.device.as_str()), ("tiny", "f32", "cpu"));
    assert_eq!(model.tasks, [Task::Txt2Img, Task::Img2Img, Task::Inpaint]);
    assert_eq!(model.parameters, inspect(&directory().join("tiny-sd")).parameters());
    assert_eq!((model.sizes.default, model.sizes.multiple), ((64, 64), 4));
    assert_eq!(model.defaults.sampler, "plms");
    assert_eq!(catalogue.samplers.len(), ldm_sampler::entries().len());
    // What is offered by default can be done.
    let request = request(&device(), Draft { prompt: Some("a cat".into()), steps: Some(2), ..Draft::new(Task::Txt2Img) });
    assert_eq!((request.width, request.height, request.sampler.as_str()), (64, 64, "plms"));
    solo(&mut device(), &request);
}

#[test]
fn a_card_overrides_the_files() {
    let dir = copy_of_the_model("card");
    let card = "[defaults]\nsampler = \"DPM++ 2M Karras\"\nsteps = 9\nguidance = 3.5\nstrength = 0.4\n\
                [sizes]\ndefault = [96, 64]\nmin = 48\nmax = 160\nmultiple = 16\n";
    std::fs::write(dir.join("card.toml"), card).expect("a file");
    let device = load(&dir, &options()).expect("it loads");
    let model = &device.catalogue().models[0];
    let sizes = model.sizes;
    assert_eq!((sizes.default, sizes.min, sizes.max, sizes.multiple), ((96, 64), 48, 160, 16));
    let request = request(&device, Draft::new(Task::Txt2Img));
    assert_eq!((request.sampler.as_str(), request.schedule.as_str()), ("dpmpp_2m", "karras"));
    assert_eq!((request.steps, request.guidance, request.width, request.height), (9, 3.5, 96, 64));
}

#[test]
fn models_that_do_not_fit_are_refused_by_name() {
    type Damage = fn(&Path);
    let damages: [(&str, &[&str], Damage); 14] = [
        ("class", &["FluxPipeline", "StableDiffusionPipeline"], |dir| {
            edit(&dir.join("model_index.json"), |index| index["_class_name"] = json!("FluxPipeline"));
        }),
        ("index", &["model_index.json"], |dir| std::fs::remove_file(dir.join("model_index.json")).expect("a file")),
        ("context", &["cross_attention_dim", "hidden_size"], |dir| {
            edit(&dir.join("unet/config.json"), |config| config["cross_attention_dim"] = json!(48));
        }),
        ("channels", &["in_channels", "latent_channels"], |dir| {
            edit(&dir.join("unet/config.json"), |config| config["in_channels"] = json!(8));
        }),
        ("vocabulary", &["vocab_size"], |dir| {
            edit(&dir.join("text_encoder/config.json"), |config| config["vocab_size"] = json!(700));
        }),
        ("config", &["unet", "class_embed_type"], |dir| {
            edit(&dir.join("unet/config.json"), |config| config["class_embed_type"] = json!("picture"));
        }),
        ("scheduler", &["beta_schedule", "sigmoid"], |dir| {
            edit(&dir.join("scheduler/scheduler_config.json"), |config| config["beta_schedule"] = json!("sigmoid"));
        }),
        ("card", &["card.toml", "samplr"], |dir| {
            std::fs::write(dir.join("card.toml"), "[defaults]\nsamplr = \"ddim\"\n").expect("a file");
        }),
        ("missing", &["unet", "missing", "conv_in.weight"], |dir| {
            edit_weights(&dir.join("unet/diffusion_pytorch_model.safetensors"), |name, tensor| {
                (name != "conv_in.weight").then_some(tensor)
            });
        }),
        ("shape", &["vae", "decoder.conv_out.bias"], |dir| {
            edit_weights(&dir.join("vae/diffusion_pytorch_model.safetensors"), |name, tensor| {
                Some(if name == "decoder.conv_out.bias" { tensor.narrow(0, 0, 2) } else { tensor })
            });
        }),
        ("nan", &["unet", "conv_norm_out.bias", "NaN"], |dir| {
            edit_weights(&dir.join("unet/diffusion_pytorch_model.safetensors"), |name, tensor| {
                Some(if name == "conv_norm_out.bias" { tensor * f64::NAN } else { tensor })
            });
        }),
        ("nan-matrix", &["vae", "decoder.conv_out.weight", "NaN"], |dir| {
            edit_weights(&dir.join("vae/diffusion_pytorch_model.safetensors"), |name, tensor| {
                Some(if name == "decoder.conv_out.weight" { tensor * f64::NAN } else { tensor })
            });
        }),
        ("pickle", &["text_encoder", "pickle"], |dir| {
            let part = dir.join("text_encoder");
            std::fs::rename(part.join("model.safetensors"), part.join("pytorch_model.bin")).expect("a file");
        }),
        ("tokenizer", &["tokenizer"], |dir| std::fs::remove_file(dir.join("tokenizer/merges.txt")).expect("a file")),
    ];
    for (name, words, damage) in damages {
        let dir = copy_of_the_model(&format!("damaged-{name}"));
        damage(&dir);
        let Err(error) = load(&dir, &options()) else { panic!("{name}: taken") };
        let message = error.to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{name}: {message}");
    }
}

#[test]
fn sets_of_models_that_cannot_be_are_refused() {
    let tiny = ModelSource::new("tiny", directory().join("tiny-sd"));
    let message = |sources: &[ModelSource], options: &LoadOptions| match DeviceExecutor::load(sources, options) {
        Ok(_) => panic!("taken"),
        Err(error) => error.to_string(),
    };
    assert!(message(&[tiny.clone(), tiny.clone()], &options()).contains("tiny"));
    assert!(message(&[], &options()).contains("no model"));
    let elsewhere = LoadOptions { device: Device::Cuda(99), ..options() };
    assert!(message(&[tiny], &elsewhere).contains("cuda:99"));
}

#[test]
fn learnt_words_stand_for_their_vectors() {
    let file = scratch("embeddings").join("krxo.safetensors");
    let vectors = Tensor::from_slice(&(0..64).map(|i| ((i * 37 % 64) as f32 - 32.) / 40.).collect::<Vec<f32>>()).view([2, 32]);
    save([("emb_params", &vectors)], Kind::Float, &file).expect("saved");
    let source = ModelSource::new("tiny", directory().join("tiny-sd"));
    let with = ModelSource { embeddings: vec![file.clone()], ..source.clone() };
    let of = |source: &ModelSource, prompt: &str| {
        let mut device = DeviceExecutor::load(std::slice::from_ref(source), &options()).expect("it loads");
        let request = request(&device, draft(prompt));
        solo(&mut device, &request)
    };
    assert!(of(&with, "a cat") == of(&source, "a cat"), "a prompt without the word is as before");
    assert!(of(&with, "a krxo cat") != of(&source, "a krxo cat"), "the word stands for its vectors");
    // Two of a name, and vectors of another width, are refused by name.
    let refused = |source: &ModelSource| match DeviceExecutor::load(std::slice::from_ref(source), &options()) {
        Ok(_) => panic!("taken"),
        Err(error) => error.to_string(),
    };
    let twice = ModelSource { embeddings: vec![file.clone(), file.clone()], ..source.clone() };
    assert!(refused(&twice).contains("krxo"));
    save([("emb_params", &vectors.view([1, 64]))], Kind::Float, &file).expect("saved");
    assert!(refused(&with).contains("64"), "{}", refused(&with));
}

#[test]
fn several_models_serve_side_by_side() {
    let dir = copy_of_the_model("second");
    edit_weights(&dir.join("unet/diffusion_pytorch_model.safetensors"), |name, tensor| {
        Some(if name == "conv_out.bias" { tensor + 0.5 } else { tensor })
    });
    let sources = [("tiny", directory().join("tiny-sd")), ("other", dir)].map(|(id, dir)| ModelSource::new(id, dir));
    let mut both = DeviceExecutor::load(&sources, &options()).expect("they load");
    let of = |model: &str| Draft { model: Some(model.into()), ..draft("a photo of a cat") };
    let (tiny, other) = (request(&both, of("tiny")), request(&both, of("other")));
    assert_ne!(both.price(&tiny).expect("a price").key, both.price(&other).expect("a price").key);
    let found = solo(&mut both, &tiny);
    assert!(solo(&mut both, &other) != found);
    assert!(solo(&mut device(), &tiny) == found);
    // A device that does not have the model says so.
    let failure = device().prepare(&other).err().expect("refused");
    assert!(failure.kind == FailureKind::Unsupported && failure.message.contains("other"));
    assert!(device().price(&other).is_err());
}

#[test]
fn pictures_that_are_not_finite_are_failures() {
    for (part, name) in [("unet", "conv_out.weight"), ("vae", "decoder.conv_out.weight")] {
        let dir = copy_of_the_model(&format!("overflow-{part}"));
        // Finite numbers, whose sums are not.
        edit_weights(&dir.join(part).join("diffusion_pytorch_model.safetensors"), |found, tensor| {
            Some(if found == name { tensor.to_kind(Kind::Float).sign() * 3e38 } else { tensor })
        });
        let mut device = load(&dir, &options()).expect("it loads");
        let mut run = device.prepare(&request(&device, draft(""))).expect("it is prepared").run;
        let failure = loop {
            match device.evaluate(&mut [&mut run]).remove(0) {
                Ok(advance) if advance.left == 0 => break device.decode(&mut run, Decoding::Usual).expect_err("not finite"),
                Ok(_) => {}
                Err(failure) => break failure,
            }
        };
        assert_eq!(failure.kind, FailureKind::NotFinite, "{part}");
        assert_eq!(failure.message.contains("step 1 of 5"), part == "unet", "{}", failure.message);
        device.probe().expect("the device is fine");
    }
}

#[test]
fn inspection_finds_what_loading_would() {
    let whole = inspect(&directory().join("tiny-sd"));
    assert_eq!(whole.problems, [""; 0]);
    assert_eq!(whole.tasks, [Task::Txt2Img, Task::Img2Img, Task::Inpaint]);
    let names: Vec<_> = whole.parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, ["text_encoder", "unet", "vae"]);
    assert!(whole.parts.iter().all(|part| part.dtype.as_deref() == Some("f16") && part.parameters > Some(10_000)));

    let dir = copy_of_the_model("inspected");
    std::fs::remove_file(dir.join("vae/diffusion_pytorch_model.safetensors")).expect("a file");
    edit(&dir.join("unet/config.json"), |config| config["act_fn"] = json!("mish"));
    let broken = inspect(&dir);
    assert_eq!(broken.tasks, []);
    assert_eq!(broken.problems.len(), 2, "{:?}", broken.problems);
    assert!(broken.problems[0].contains("unet") && broken.problems[0].contains("act_fn"));
    assert!(broken.problems[1].contains("vae"));
    assert!(broken.to_string().contains("act_fn"));

    let nothing = inspect(&scratch("nothing"));
    assert!(nothing.family.is_none() && nothing.problems[0].contains("model_index.json"));
}

#[test]
fn options_are_read_from_words() {
    assert_eq!("cuda".parse::<Device>().expect("a device"), Device::Cuda(0));
    assert_eq!("cuda:3".parse::<Device>().expect("a device").to_string(), "cuda:3");
    assert!("cuda:x".parse::<Device>().expect_err("refused").to_string().contains("cuda:x"));
    for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
        assert_eq!(dtype.to_string().parse::<Dtype>().expect("a dtype"), dtype);
    }
    assert!("int8".parse::<Dtype>().expect_err("refused").to_string().contains("bf16"));
}
