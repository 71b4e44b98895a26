//! Adapters against diffusers' networks and DDIM sampling (`tools/goldens/lora.py`), attached and merged.

use std::path::PathBuf;
use std::rc::Rc;

use ldm_core::{Draft, Lora, Prompting};
use ldm_nn::adapters::{Layers, Part};
use ldm_nn::unet::Conditioning;
use ldm_nn::{
    Adapter, Attachment, Checkpoint, ClipTextConfig, ClipTextModel, ClipTokenizer, Layout, Readout, Slots, Targets, UNet,
    UNet2DConditionConfig, Weights,
};
use ldm_pipeline::{DeviceExecutor, Merge, ModelSource};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

use crate::rig::{Finished, directory, draft, draw, error, options};
use crate::systems::made;

const CAT: &str = "a photo of a cat sitting on the table";
const BAD: &str = "low quality, blurry, bad anatomy";

/// Largest differences of networks, relative to the largest value, and of finished latents.
const CLOSE: f32 = 1e-5;
const SAMPLED: f32 = 1e-4;

#[derive(Deserialize)]
struct Case {
    name: String,
    model: String,
    layers: usize,
    strengths: Vec<f64>,
}

impl Case {
    fn file(&self) -> PathBuf {
        goldens().join(format!("{}.safetensors", self.name))
    }
}

fn goldens() -> PathBuf {
    directory().join("lora")
}

fn cases(model: &str) -> Vec<Case> {
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(goldens().join("cases.json")).expect("a file")).expect("cases");
    cases.into_iter().filter(|case| case.model == model).collect()
}

fn outputs() -> Checkpoint {
    Checkpoint::open_files([goldens().join("outputs.safetensors")]).expect("the goldens")
}

fn numbers(x: &Tensor) -> Vec<f32> {
    Vec::<f32>::try_from(x.to_kind(Kind::Float).contiguous().flatten(0, -1)).expect("numbers")
}

/// The networks of one of the two models, with what is merged into them.
struct Networks {
    model: &'static str,
    unet: UNet,
    text: Vec<(ClipTokenizer, ClipTextModel)>,
}

/// Where a model's files are; what is made for a test has its name.
fn folder(model: &str, test: &str) -> PathBuf {
    match model {
        "sd" => directory().join("tiny-sd"),
        _ => made("sdxl", test),
    }
}

impl Networks {
    fn load(model: &'static str, dir: &std::path::Path, merged: Option<(&Adapter, f64)>) -> Self {
        let weights = |name: &str, stem: &str, part: Part| {
            let file = Checkpoint::open(&dir.join(name), stem).expect("weights");
            let file = if part == Part::Unet { file } else { file.rename(ClipTextModel::canonical_name) };
            let merged: Vec<(Rc<Layers>, f64)> =
                merged.iter().map(|(adapter, strength)| (Rc::clone(adapter.part(part)), *strength)).collect();
            Weights::merging(file, merged, Kind::Float, Device::Cpu, Layout::ChannelsLast)
        };
        let config = UNet2DConditionConfig::read(&dir.join("unet/config.json")).expect("a configuration");
        let w = weights("unet", "diffusion_pytorch_model", Part::Unet);
        let unet = UNet::new(&w, &config);
        w.finish().expect("the denoiser fits");
        let names = [("text_encoder", "tokenizer", Part::Text), ("text_encoder_2", "tokenizer_2", Part::Text2)];
        let there = names.into_iter().filter(|(name, ..)| dir.join(name).is_dir());
        let text = there.map(|(name, tokenizer, part)| {
            let config = ClipTextConfig::read(&dir.join(name).join("config.json")).expect("a configuration");
            let w = weights(name, "model", part);
            let text = ClipTextModel::new(&w, &config);
            w.finish().expect("the text encoder fits");
            (ClipTokenizer::read(&dir.join(tokenizer), 77).expect("a tokenizer"), text)
        });
        Self { model, unet, text: text.collect() }
    }

    fn targets(&self) -> Targets {
        let config = |i: usize| self.text.get(i).map(|(_, text)| text.config());
        Targets::new(self.unet.config(), [config(0), config(1)])
    }

    /// Whether every slot is empty.
    fn are_bare(&self) -> bool {
        self.unet.slots().are_empty() && self.text.iter().all(|(_, text)| text.slots().are_empty())
    }

    /// What the reference calls `unet`, `text`, `text2` and `pooled`.
    fn outputs(&self, adapter: Option<(&Adapter, f64)>) -> Vec<(&'static str, Vec<f32>)> {
        let given = outputs();
        let with = |slots: &Slots, part: Part, call: &dyn Fn() -> Tensor| {
            let attached: Vec<_> =
                adapter.iter().map(|(adapter, strength)| Attachment::everywhere(adapter.part(part), *strength)).collect();
            slots.with(&attached, call)
        };
        let tokens = given.tensor(&format!("given.{}.tokens", self.model));
        let vector = (self.model == "sdxl").then(|| {
            let (pooled, numbers) = (given.tensor("given.sdxl.pooled"), given.tensor("given.sdxl.numbers"));
            self.unet.config().added_vector(&pooled, &numbers).expect("a vector")
        });
        let unet = with(self.unet.slots(), Part::Unet, &|| {
            let parts = Conditioning { tokens: Some(&tokens), vector: vector.as_ref(), ..Conditioning::default() };
            let context = self.unet.condition(2, &parts).expect("a context");
            self.unet.forward(&given.tensor("given.x"), &given.tensor("given.t"), &context)
        });
        let mut found = vec![("unet", numbers(&unet))];
        for (index, (tokenizer, text)) in self.text.iter().enumerate() {
            let ids = Tensor::from_slice(&tokenizer.encode(CAT).expect("ids").ids).unsqueeze(0);
            let readout = if self.model == "sd" { Readout::LAST } else { Readout::PENULTIMATE };
            let (part, name) = if index == 0 { (Part::Text, "text") } else { (Part::Text2, "text2") };
            let hidden = with(text.slots(), part, &|| text.encode(&ids, &[], readout, Kind::Float));
            found.push((name, numbers(&hidden)));
            if index == 1 {
                let pooled = with(text.slots(), part, &|| text.encode_pooled(&ids, &[], readout, Kind::Float).1);
                found.push(("pooled", numbers(&pooled)));
            }
        }
        found
    }
}

fn networks_agree(model: &'static str) {
    let _no_grad = tch::no_grad_guard();
    let (reference, dir) = (outputs(), folder(model, "lora-networks"));
    let networks = Networks::load(model, &dir, None);
    let plain = networks.outputs(None);
    for (key, found) in &plain {
        let error = error(found, &numbers(&reference.tensor(&format!("none-{model}.{key}"))));
        assert!(error <= CLOSE, "{model} {key} without adapters: {error:.1e}");
    }
    let cases = cases(model);
    assert!(cases.len() > 2);
    for case in cases {
        let adapter = Adapter::open(&case.file(), &networks.targets()).expect("it is read");
        assert_eq!(adapter.len(), case.layers, "{}", case.name);
        for &strength in &case.strengths {
            let attached = networks.outputs(Some((&adapter, strength)));
            let merged = Networks::load(model, &dir, Some((&adapter, strength))).outputs(None);
            for (((key, found), (_, merged)), (_, plain)) in attached.iter().zip(&merged).zip(&plain) {
                let wanted = numbers(&reference.tensor(&format!("{}.{key}.{strength:?}", case.name)));
                let (branch, merge, apart) = (error(found, &wanted), error(merged, &wanted), error(found, merged));
                println!("{}.{key}: {:.1e}", case.name, branch.max(merge));
                let moved = error(plain, &wanted);
                assert!(branch <= CLOSE && merge <= CLOSE && apart <= CLOSE, "{} {key} {strength}: {branch:.1e}", case.name);
                assert!(moved > 1e-3, "{} {key} {strength} changes nothing: {moved:.1e}", case.name);
            }
            assert!(networks.are_bare());
        }
    }
    // Bit for bit what it was before.
    assert!(networks.outputs(None) == plain);
}

#[test]
fn networks_of_stable_diffusion_are_those_of_the_reference() {
    networks_agree("sd");
}

#[test]
fn networks_of_sdxl_are_those_of_the_reference() {
    networks_agree("sdxl");
}

fn sampled(device: &mut DeviceExecutor, loras: Vec<Lora>) -> Finished {
    let asked = Draft {
        negative_prompt: Some(BAD.into()),
        prompting: Some(Prompting::Plain),
        width: Some(64),
        height: Some(48),
        sampler: Some("ddim".into()),
        seed: Some(3),
        loras,
        ..draft(CAT)
    };
    draw(device, asked)
}

fn samplings_agree(model: &str) {
    let (reference, dir) = (outputs(), folder(model, "lora-samplings"));
    let source = ModelSource { loras: vec![goldens()], ..ModelSource::new("tiny", &dir) };
    // The folder has files that are for the other model, or are none.
    let refusal = DeviceExecutor::load(std::slice::from_ref(&source), &options()).err().expect("a refusal").to_string();
    assert!(refusal.contains("LoRA") && refusal.contains(".safetensors"), "{refusal}");
    let cases = cases(model);
    let source = ModelSource { loras: cases.iter().map(Case::file).collect(), ..source };
    let mut device = DeviceExecutor::load(std::slice::from_ref(&source), &options()).expect("it loads");
    let latents = |key: &str| numbers(&reference.tensor(key));
    let plain = sampled(&mut device, vec![]);
    assert!(error(&plain.latent, &latents(&format!("none-{model}.latents"))) <= SAMPLED);
    for case in &cases {
        for &strength in &case.strengths {
            let wanted = latents(&format!("{}.latents.{strength:?}", case.name));
            let lora = Lora { name: case.name.clone(), strength };
            let attached = sampled(&mut device, vec![lora]);
            let merge = vec![Merge { path: case.file(), strength }];
            let merged = ModelSource { loras: vec![], merge, ..source.clone() };
            let mut merged = DeviceExecutor::load(&[merged], &options()).expect("it loads");
            let merged = sampled(&mut merged, vec![]);
            let (branch, merge) = (error(&attached.latent, &wanted), error(&merged.latent, &wanted));
            println!("{}.latents: {:.1e}", case.name, branch.max(merge));
            assert!(branch <= SAMPLED && merge <= SAMPLED, "{} {strength}: {branch:.1e}, {merge:.1e}", case.name);
            assert!(error(&plain.latent, &wanted) > 1e-2, "{} {strength} changes nothing", case.name);
        }
    }
    assert!(sampled(&mut device, vec![]) == plain, "a job without adapters is what it was before");
}

#[test]
fn samplings_of_stable_diffusion_are_those_of_the_reference() {
    samplings_agree("sd");
}

#[test]
fn samplings_of_sdxl_are_those_of_the_reference() {
    samplings_agree("sdxl");
}
