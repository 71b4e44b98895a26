//! Denoisers of every system against the original classes and diffusers' (`tools/goldens/unets.py`), under both kinds of names.
//! Weights are made by the same formula as there.

use std::path::PathBuf;
use std::sync::OnceLock;

use ldm_nn::formats::unet::{self as format, Ema, FormatError, PREFIX};
use ldm_nn::unet::{Architecture, Conditioning, ConditioningError, Context, Labels, OpenAiConfig, UNet};
use ldm_nn::weights::save;
use ldm_nn::{Checkpoint, ConfigError, Layout, Weights};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::goldens::{LAYOUTS, close, directory, scratch};

/// Absolute, on outputs of about ±2. A wrong ε changes outputs by 6e-5 (`spec/models.md`, 4), two orders of summation by 3e-6.
const TOLERANCE: f64 = 1e-5;

fn json_file(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(directory().join("unets").join(name)).expect("a file")).expect("JSON")
}

fn goldens() -> &'static Value {
    static FILE: OnceLock<Value> = OnceLock::new();
    FILE.get_or_init(|| json_file("unets.json"))
}

fn tensors() -> &'static Checkpoint {
    static FILE: OnceLock<Checkpoint> = OnceLock::new();
    FILE.get_or_init(|| Checkpoint::open_files([directory().join("unets/unets.safetensors")]).expect("the goldens"))
}

fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// Numbers of variance 1: splitmix64 seeded with the name's hash, the upper 24 bits of each output.
fn uniform(name: &str, shape: &[i64], made: impl Fn(f64) -> f64) -> Tensor {
    let count = shape.iter().product::<i64>() as u64;
    let seed = fnv1a(name);
    let number = |i: u64| {
        let z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let z = z ^ (z >> 31);
        made(((z >> 40) as f64 / (1u64 << 23) as f64 - 1.) * 3f64.sqrt()) as f32
    };
    Tensor::from_slice(&(1..=count).map(number).collect::<Vec<f32>>()).view(shape)
}

/// A weight: variance 1/fan_in, norms 1 ± 0.1, biases 0.1.
fn weight(name: &str, shape: &[i64]) -> Tensor {
    weight_of(name, shape, 1.)
}

/// What stays as it is in a quiet network, besides norms; the rest is a tenth, so that the ε of every norm shows.
const LOUD: [&str; 6] = ["qkv", "to_q", "to_k", "net.0.proj", "time_embed", "out.2."];

fn quiet_weight(name: &str, shape: &[i64]) -> Tensor {
    let norm = shape.len() == 1 && name.ends_with("weight");
    weight_of(name, shape, if norm || LOUD.iter().any(|part| name.contains(part)) { 1. } else { 0.1 })
}

fn weight_of(name: &str, shape: &[i64], gain: f64) -> Tensor {
    let fan_in = shape[1..].iter().product::<i64>() as f64;
    match shape {
        [_] if name.ends_with("weight") => uniform(name, shape, |x| 1. + 0.1 * (gain * x)),
        [_] => uniform(name, shape, |x| 0.1 * (gain * x)),
        _ => uniform(name, shape, |x| gain * x / fan_in.sqrt()),
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

fn floats(key: &str) -> Tensor {
    Tensor::from_slice(&numbers(&goldens()[key])).to_kind(Kind::Float)
}

/// One network of the goldens.
struct Case {
    row: &'static str,
    /// `original` or `diffusers`.
    form: &'static str,
    golden: &'static Value,
    architecture: Architecture,
}

impl Case {
    fn new(row: &'static str, form: &'static str) -> Option<Self> {
        let golden = goldens()["rows"][row].get(form)?;
        let architecture = match form {
            "original" => OpenAiConfig::from_params(&golden["params"]).expect(row).architecture().expect(row),
            _ => read_config(&format!("{row}-config"), &golden["config"]).expect(row),
        };
        Some(Self { row, form, golden, architecture })
    }

    fn all(form: &'static str) -> Vec<Self> {
        let rows = goldens()["rows"].as_object().expect("rows").keys();
        rows.filter_map(|row| Self::new(row, form)).collect()
    }

    fn shapes(&self) -> impl Iterator<Item = (&'static str, Vec<i64>)> {
        let shapes = self.golden["shapes"].as_object().expect("shapes").iter();
        shapes.map(|(name, shape)| (name.as_str(), numbers(shape).iter().map(|&n| n as i64).collect()))
    }

    /// A file of the weights, as `made` names and makes them of name and shape, with what else it gives.
    fn file(&self, name: &str, made: impl Fn(&str, &[i64]) -> Vec<(String, Tensor)>) -> PathBuf {
        let path = scratch(&format!("unets-{name}-{}-{}", self.row, self.form)).join("model.safetensors");
        let tensors: Vec<_> = self.shapes().flat_map(|(name, shape)| made(name, &shape)).collect();
        save(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), Kind::Float, &path).expect("saved");
        path
    }

    fn build(&self, checkpoint: Checkpoint, kind: Kind, layout: Layout) -> UNet {
        let checkpoint = match self.form {
            "original" => format::canonical(checkpoint, &self.architecture, Ema::Auto).expect(self.row),
            _ => checkpoint,
        };
        let weights = Weights::from_checkpoint(checkpoint, kind, Device::Cpu, layout);
        let unet = UNet::build(&weights, &self.architecture);
        let report = weights.finish().unwrap_or_else(|error| panic!("{}: {error}", self.row));
        let parameters = self.shapes().map(|(_, shape)| shape.iter().product::<i64>() as u64).sum::<u64>();
        assert_eq!(report.parameters, parameters, "{}", self.row);
        unet
    }

    /// With the weights of a file that has nothing else.
    fn network(&self, name: &str, kind: Kind, layout: Layout) -> UNet {
        let path = self.file(name, |name, shape| {
            let made = if self.row.ends_with("-quiet") { quiet_weight } else { weight };
            vec![(name.to_owned(), made(name, shape))]
        });
        let unet = self.build(Checkpoint::open_files([path.clone()]).expect("the file"), kind, layout);
        std::fs::remove_file(path).expect("a file");
        unet
    }

    fn input(&self, name: &str, shape: &[i64]) -> Tensor {
        uniform(&format!("{}.{name}", self.row), shape, |x| x)
    }

    fn x(&self) -> Tensor {
        let small = self.architecture.levels.len() < 4 && !self.row.starts_with("churches");
        let side = if small { 8 } else { 16 };
        self.input("x", &[2, self.architecture.in_channels, side, side])
    }

    /// The context of these of both rows.
    fn context(&self, unet: &UNet, rows: &[i64]) -> Context {
        let architecture = &self.architecture;
        let rows_of = |x: Tensor| x.index_select(0, &Tensor::from_slice(rows));
        let cross = architecture.cross_attention_dim;
        let tokens = (cross > 0).then(|| rows_of(self.input("tokens", &[2, 5, cross])).to_kind(unet.kind()));
        let labels = architecture.takes_labels().then(|| match architecture.labels {
            Labels::Table(count) => rows_of(floats("labels").to_kind(Kind::Int64).remainder(count)),
            _ => rows_of(floats("labels")),
        });
        let vector = architecture.vector().map(|width| {
            if !self.row.starts_with("sdxl") {
                return rows_of(self.input("vector", &[2, width]));
            }
            let sizes: Vec<f64> = goldens()["numbers"].as_array().expect("rows").iter().flat_map(numbers).collect();
            let sizes = Tensor::from_slice(&sizes).view([2, 6]).narrow(1, 0, if self.row.contains("refiner") { 5 } else { 6 });
            rows_of(architecture.added_vector(&self.input("pooled", &[2, 16]), &sizes).expect("it fits"))
        });
        let guidance = architecture.guidance.map(|_| rows_of(floats("guidance")));
        let given = Conditioning {
            tokens: tokens.as_ref(),
            labels: labels.as_ref(),
            vector: vector.as_ref(),
            guidance: guidance.as_ref(),
        };
        unet.condition(rows.len() as i64, &given).expect(self.row)
    }

    fn output(&self) -> Tensor {
        tensors().tensor(&format!("{}.{}.output", self.row, self.form))
    }

    /// Compares outputs and what each block gives.
    fn check(&self, unet: &UNet, what: &str) {
        let context = self.context(unet, &[0, 1]);
        let mut seen = Vec::new();
        let output =
            unet.forward_observed(&self.x(), &floats("t"), &context, &mut |name, h| seen.push((name.to_owned(), h.copy())));
        for (name, h) in seen {
            let golden = format!("{}.{}.{name}", self.row, self.form);
            if tensors().shape(&golden).is_some() {
                close(&format!("{what} {golden}"), &h.select(0, 0).narrow(0, 0, 4), &tensors().tensor(&golden), TOLERANCE);
            }
        }
        near(&format!("{what} {} {}", self.row, self.form), &output, &self.output());
        assert!(output.equal(&unet.forward(&self.x(), &floats("t"), &context)), "observing changes nothing");
    }
}

/// Panics when the tensors differ by more than the tolerance anywhere.
fn near(what: &str, found: &Tensor, reference: &Tensor) {
    let error = (found - reference).abs().max().double_value(&[]);
    println!("{what}: {error:.1e}");
    assert!(error <= TOLERANCE, "{what}: off by {error:.2e}");
}

fn read_config(name: &str, config: &Value) -> Result<Architecture, ConfigError> {
    let path = scratch(&format!("unets-{name}")).join("config.json");
    std::fs::write(&path, config.to_string()).expect("a file");
    Architecture::read(&path)
}

#[test]
fn original_networks_are_the_reference() {
    let cases = Case::all("original");
    assert_eq!(cases.len(), 23);
    for case in cases {
        for layout in LAYOUTS {
            case.check(&case.network("parity", Kind::Float, layout), &format!("{layout:?}"));
        }
    }
}

#[test]
fn networks_under_diffusers_names_are_the_reference() {
    let cases = Case::all("diffusers");
    assert_eq!(cases.len(), 22);
    for case in cases {
        for layout in LAYOUTS {
            case.check(&case.network("parity", Kind::Float, layout), &format!("{layout:?}"));
        }
    }
}

#[test]
fn both_kinds_of_configuration_describe_the_same_network() {
    let mut compared = 0;
    for case in Case::all("original") {
        let Some(twin) = Case::new(case.row, "diffusers") else { continue };
        let mut twin = Architecture { sample_size: case.architecture.sample_size, ..twin.architecture };
        // The one thing that they call by two names.
        if let Some(added) = twin.added.take() {
            twin.labels = Labels::Vector(added.width);
        }
        assert_eq!(twin, case.architecture, "{}", case.row);
        compared += 1;
    }
    assert_eq!(compared, 17);
}

#[test]
fn bfloat16_is_near_float32() {
    // Attention blocks, heads of 160, levels without self-attention, scale and shift: what other tests of precision do not have.
    for (row, form) in [("churches", "original"), ("cin256-v2", "original"), ("x4-upscaler", "diffusers"), ("sdxl", "diffusers")]
    {
        let case = Case::new(row, form).expect(row);
        let unet = case.network("half", Kind::BFloat16, Layout::ChannelsLast);
        let context = case.context(&unet, &[0, 1]);
        let output = unet.forward(&case.x().to_kind(Kind::BFloat16), &floats("t"), &context);
        assert_eq!(output.kind(), Kind::BFloat16);
        close(row, &output, &case.output(), 5e-2);
    }
}

#[test]
fn a_row_keeps_what_was_given_for_it() {
    for row in ["x4-upscaler", "unclip", "sdxl", "lcm", "unconditional", "model-options"] {
        let case = Case::new(row, "diffusers").expect(row);
        let unet = case.network("rows", Kind::Float, Layout::ChannelsLast);
        let (x, t) = (case.x(), floats("t"));
        let (first, second) = (case.context(&unet, &[0]), case.context(&unet, &[1]));
        let both = case.context(&unet, &[0, 1]);
        assert_eq!((first.len(), both.len(), both.is_empty()), (1, 2, false));
        near(
            &format!("{row} alone"),
            &unet.forward(&x.narrow(0, 1, 1), &t.narrow(0, 1, 1), &second),
            &case.output().narrow(0, 1, 1),
        );
        near(
            &format!("{row} cut"),
            &unet.forward(&x.narrow(0, 1, 1), &t.narrow(0, 1, 1), &both.rows(1, 1)),
            &case.output().narrow(0, 1, 1),
        );
        let swapped = unet.forward(&x.flip([0]), &t.flip([0]), &Context::cat(&[&second, &first]));
        near(&format!("{row} swapped"), &swapped, &case.output().flip([0]));
        if row == "unconditional" {
            near(row, &unet.forward(&x, &t, &Context::empty(2)), &case.output());
        } else {
            // What is given matters.
            let wrong = unet.forward(&x, &t, &Context::cat(&[&second, &first]));
            let error = (wrong - case.output()).abs().max().double_value(&[]);
            assert!(error > 1e-3, "{row}: {error}");
        }
    }
}

#[test]
fn whole_model_files_are_read_with_or_without_averages() {
    let case = Case::new("layout2img", "original").expect("a row");
    // The averages are the golden weights, the others are not; beside them what a whole model has.
    let path = case.file("whole", |name, shape| {
        let mut both = vec![
            (format!("{PREFIX}{name}"), weight(&format!("raw.{name}"), shape)),
            (format!("model_ema.diffusion_model{}", name.replace('.', "")), weight(name, shape)),
        ];
        if name == "out.2.bias" {
            let one = || Tensor::ones([], (Kind::Float, Device::Cpu));
            let others =
                ["model_ema.decay", "model_ema.num_updates", "first_stage_model.encoder.conv_in.bias", "betas", "scale_factor"];
            both.extend(others.map(|name| (name.to_owned(), one())));
        }
        both
    });
    let open = || Checkpoint::open_files([path.clone()]).expect("the file");
    assert!(format::is_original(&open()) && format::has_ema(&open()));
    let forward = |ema| {
        let checkpoint = format::canonical(open(), &case.architecture, ema).expect("a denoiser");
        let weights = Weights::from_checkpoint(checkpoint, Kind::Float, Device::Cpu, Layout::ChannelsLast);
        let unet = UNet::build(&weights, &case.architecture);
        weights.finish().expect("it fits");
        unet.forward(&case.x(), &floats("t"), &case.context(&unet, &[0, 1]))
    };
    near("auto", &forward(Ema::Auto), &case.output());
    near("on", &forward(Ema::On), &case.output());
    assert!((forward(Ema::Off) - case.output()).abs().max().double_value(&[]) > 0.1, "raw weights are others");

    // Without averages: with the prefix, and without.
    for prefix in [PREFIX, ""] {
        let path = case.file("bare", |name, shape| vec![(format!("{prefix}{name}"), weight(name, shape))]);
        let open = || Checkpoint::open_files([path.clone()]).expect("the file");
        assert!(!format::has_ema(&open()));
        let unet = case.build(open(), Kind::Float, Layout::ChannelsLast);
        near("bare", &unet.forward(&case.x(), &floats("t"), &case.context(&unet, &[0, 1])), &case.output());
        let error = format::canonical(open(), &case.architecture, Ema::On).expect_err("there are none");
        assert_eq!(error, FormatError::NoEma("model_ema.diffusion_modelinput_blocks00weight".into()));
    }
    let twin = Case::new("layout2img", "diffusers").expect("a row");
    let path = twin.file("canonical", |name, shape| vec![(name.to_owned(), weight(name, shape))]);
    let canonical = Checkpoint::open_files([path]).expect("the file");
    assert!(!format::is_original(&canonical));
    assert_eq!(format::canonical(canonical, &case.architecture, Ema::Auto).expect_err("no original"), FormatError::Absent);
}

#[test]
fn a_file_of_another_architecture_is_told_by_its_own_names() {
    let case = Case::new("sd1", "original").expect("a row");
    let other = Case::new("layout2img", "original").expect("a row");
    let path = case.file("other", |name, shape| vec![(format!("{PREFIX}{name}"), weight(name, shape))]);
    let checkpoint = Checkpoint::open_files([path]).expect("the file");
    let checkpoint = format::canonical(checkpoint, &other.architecture, Ema::Auto).expect("a denoiser");
    let weights = Weights::from_checkpoint(checkpoint, Kind::Float, Device::Cpu, Layout::Contiguous);
    UNet::build(&weights, &other.architecture);
    let report = weights.finish().expect_err("it does not fit").0;
    assert!(report.unexpected.iter().any(|name| name == "model.diffusion_model.output_blocks.7.1.proj_in.weight"), "{report}");
    assert!(report.missing.iter().any(|name| name.starts_with("down_blocks.1.attentions.0.transformer_blocks.2.")), "{report}");
}

#[test]
fn averages_of_different_parameters_have_different_names() {
    for (name, row) in json_file("published.json")["originals"].as_object().expect("rows") {
        let architecture = OpenAiConfig::from_params(&row["params"]).expect(name).architecture().expect(name);
        let names = format::names(&architecture).expect(name);
        let averaged: std::collections::BTreeSet<_> = names.keys().map(|name| format::ema_name(name)).collect();
        assert_eq!(averaged.len(), names.len(), "{name}");
    }
}

fn parameters(architecture: &Architecture) -> u64 {
    let weights = Weights::shapes();
    UNet::build(&weights, architecture);
    weights.finish().expect("shapes always fit").parameters
}

#[test]
fn published_networks_have_the_published_parameters_and_names() {
    let published = json_file("published.json");
    let rows = published["originals"].as_object().expect("rows");
    assert_eq!(rows.len(), 25);
    for (name, row) in rows {
        let architecture = OpenAiConfig::from_params(&row["params"]).expect(name).architecture().expect(name);
        assert_eq!(row["parameters"], parameters(&architecture), "{name}");
        let names: Vec<String> = format::names(&architecture).expect(name).into_keys().collect();
        assert_eq!(row["keys"], names.len(), "{name}");
        assert_eq!(row["names"], format!("{:016x}", fnv1a(&names.join("\n"))), "{name}");
    }
    // As the tables of the specification have them.
    let known = [
        ("celeba256", 274_056_163, 368),
        ("lsun_churches256", 294_966_916, 520),
        ("cin256", 394_984_196, 626),
        ("inpainting_big", 387_245_827, 416),
        ("text2img-large", 872_300_484, 686),
        ("sd1", 859_520_964, 686),
        ("sd-x4-upscaler", 473_398_020, 687),
        ("sdxl-base", 2_567_463_684u64, 1680),
    ];
    for (name, parameters, keys) in known {
        assert_eq!((&rows[name]["parameters"], &rows[name]["keys"]), (&json!(parameters), &json!(keys)), "{name}");
    }
    for (name, row) in published["diffusers"].as_object().expect("rows") {
        let architecture = read_config(&format!("published-{name}"), &row["config"]).expect(name);
        assert_eq!(row["parameters"], parameters(&architecture), "{name}");
    }
}

#[test]
fn what_a_network_does_not_take_is_named() {
    let shapes = |architecture: &Architecture| UNet::build(&Weights::shapes(), architecture);
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let (tokens, vector) = (zeros(&[2, 5, 24]), zeros(&[2, 40]));
    let unclip = shapes(&Case::new("unclip", "original").expect("a row").architecture);
    let given = Conditioning { tokens: Some(&tokens), vector: Some(&vector), ..Conditioning::default() };
    let error = |unet: &UNet, rows, given: Conditioning<'_>| unet.condition(rows, &given).expect_err("refused");

    assert_eq!(error(&unclip, 2, Conditioning { vector: None, ..given }), ConditioningError::Missing { what: "vector" });
    assert_eq!(error(&unclip, 2, Conditioning { tokens: None, ..given }), ConditioningError::Missing { what: "context tokens" });
    let labels = Tensor::from_slice(&[0i64, 50]);
    let unwanted = error(&unclip, 2, Conditioning { labels: Some(&labels), ..given });
    assert_eq!(unwanted, ConditioningError::Unwanted { what: "labels" });
    assert!(error(&unclip, 3, given).to_string().contains("[2, 5, 24]"));
    let narrow = zeros(&[2, 39]);
    let message = error(&unclip, 2, Conditioning { vector: Some(&narrow), ..given }).to_string();
    assert!(message.contains("vector") && message.contains("[2, 39]") && message.contains("[2, 40]"), "{message}");
    let none = zeros(&[2, 0, 24]);
    assert!(error(&unclip, 2, Conditioning { tokens: Some(&none), ..given }).to_string().contains("[2, any, 24]"));

    let upscaler = shapes(&Case::new("x4-upscaler", "original").expect("a row").architecture);
    let tokens = zeros(&[2, 5, 128]);
    for (class, labels) in [(50, [0i64, 50]), (-1, [-1, 3])] {
        let labels = Tensor::from_slice(&labels);
        let given = Conditioning { tokens: Some(&tokens), labels: Some(&labels), ..Conditioning::default() };
        assert_eq!(error(&upscaler, 2, given), ConditioningError::Class { class, classes: 50 });
    }

    let sdxl = Case::new("sdxl", "diffusers").expect("a row").architecture;
    for (pooled, count) in [(16, 5), (15, 6), (64, 6), (16, 0)] {
        assert!(sdxl.added_vector(&zeros(&[2, pooled]), &zeros(&[2, count])).is_err(), "{pooled} {count}");
    }
    assert!(sdxl.added_vector(&zeros(&[2, 16]), &zeros(&[1, 6])).is_err());
    assert!(sdxl.added_vector(&zeros(&[2, 16]), &zeros(&[6])).is_err());
}

/// What reading the original parameters of `row` says once `key` is `value`; null takes it away.
fn with(row: &str, key: &str, value: Value) -> Result<OpenAiConfig, ConfigError> {
    let mut params = goldens()["rows"][row]["original"]["params"].clone();
    match value {
        Value::Null => drop(params.as_object_mut().expect("a mapping").remove(key)),
        value => params[key] = value,
    }
    OpenAiConfig::from_params(&params)
}

#[test]
fn original_parameters_that_are_not_supported_are_refused_by_name() {
    let refused = [
        ("sd1", "surprise", json!(1)),
        ("sd1", "in_channels", json!(null)),
        ("sd1", "in_channels", json!(0)),
        ("sd1", "in_channels", json!("four")),
        ("sd1", "out_channels", json!(1i64 << 40)),
        ("sd1", "model_channels", json!(48)),
        ("sd1", "model_channels", json!(i64::MAX)),
        ("sd1", "model_channels", json!(-32)),
        ("sd1", "attention_resolutions", json!("16,8")),
        ("sd1", "num_res_blocks", json!([1, 1])),
        ("sd1", "num_res_blocks", json!(0)),
        ("sd1", "num_res_blocks", json!(i64::MAX)),
        ("sd1", "channel_mult", json!([])),
        ("sd1", "channel_mult", json!([2, 4])),
        ("sd1", "channel_mult", json!(vec![1; 13])),
        ("sd1", "dims", json!(3)),
        ("sd1", "n_embed", json!(8192)),
        ("sd1", "num_classes", json!("mysterious")),
        ("sd1", "num_classes", json!(-3)),
        ("sd1", "num_classes", json!(1.5)),
        ("sd1", "num_heads", json!(-1)),
        ("sd1", "use_spatial_transformer", json!(false)),
        ("sd1", "use_spatial_transformer", json!(null)),
        ("sd1", "context_dim", json!(null)),
        ("sd1", "context_dim", json!([24, 32])),
        ("sd1", "context_dim", json!(0)),
        ("sd1", "transformer_depth", json!([1, 2])),
        ("sd1", "transformer_depth", json!(100_000)),
        ("sdxl", "transformer_depth_middle", json!(0)),
        ("sdxl", "spatial_transformer_attn_type", json!("linear")),
        ("sdxl", "adm_in_channels", json!(null)),
        ("sdxl", "adm_in_channels", json!(0)),
        ("sdxl", "context_dim", json!(null)),
        ("x4-upscaler", "disable_self_attentions", json!([true])),
        ("options", "num_attention_blocks", json!([1, 1])),
        ("options", "num_attention_blocks", json!([1, 1, 4])),
    ];
    let mut wrong = Vec::new();
    for (row, key, value) in refused {
        match with(row, key, value.clone()) {
            Ok(_) => wrong.push(format!("{row} {key} = {value}: taken")),
            Err(error) => {
                let name = if key == "transformer_depth_middle" { "transformer_depth" } else { key };
                // Widths are judged by what must divide them, depths where they are used.
                if !error.to_string().contains(&format!("`{name}`")) {
                    wrong.push(format!("{row} {key} = {value}: {error}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Heads that do not fill the channels.
    for (row, key, value) in [("sd1", "num_heads", 5), ("unconditional", "num_head_channels", 24)] {
        let message = with(row, key, json!(value)).expect_err("refused").to_string();
        assert!(message.contains("heads"), "{message}");
    }
    assert!(OpenAiConfig::from_params(&json!([1])).is_err());
    for (row, key, value) in [("sdxl", "transformer_depth_middle", json!(2)), ("sd1", "dropout", json!(0.1))] {
        with(row, key, value).expect("taken");
    }
}

#[test]
fn diffusers_settings_that_are_not_supported_are_refused_by_name() {
    let refused = [
        ("unconditional", "_class_name", json!("Transformer2DModel")),
        ("unconditional", "down_block_types", json!(["DownBlock2D", "AttnSkipDownBlock2D", "DownBlock2D"])),
        ("unconditional", "up_block_types", json!(["UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"])),
        ("unconditional", "mid_block_type", json!(null)),
        ("unconditional", "time_embedding_type", json!("fourier")),
        ("unconditional", "time_embedding_dim", json!(64)),
        ("unconditional", "downsample_type", json!("pool")),
        ("unconditional", "upsample_type", json!("bilinear")),
        ("unconditional", "downsample_padding", json!(0)),
        ("unconditional", "mid_block_scale_factor", json!(1.4)),
        ("unconditional", "center_input_sample", json!(true)),
        ("unconditional", "act_fn", json!("gelu")),
        ("unconditional", "attn_norm_num_groups", json!(7)),
        ("unconditional", "class_embed_type", json!("projection")),
        ("unconditional", "resnet_time_scale_shift", json!("spatial")),
        ("unconditional", "block_out_channels", json!([32, 64, 80])),
        ("unconditional", "layers_per_block", json!(0)),
        ("unclip", "projection_class_embeddings_input_dim", json!(null)),
        ("unclip", "addition_embed_type", json!("text_time")),
        ("sdxl", "addition_embed_type", json!("image")),
        ("sdxl", "addition_time_embed_dim", json!(7)),
        ("lcm", "time_cond_proj_dim", json!(1)),
        ("lcm", "only_cross_attention", json!([true])),
        ("lcm", "block_out_channels", json!([32, 64, 96, 1 << 20])),
    ];
    let mut wrong = Vec::new();
    for (row, key, value) in refused {
        let mut config = goldens()["rows"][row]["diffusers"]["config"].clone();
        config[key] = value.clone();
        match read_config("refused", &config) {
            Ok(_) => wrong.push(format!("{row} {key} = {value}: taken")),
            Err(error) if error.to_string().contains(&format!("`{key}`")) => {}
            Err(error) => wrong.push(format!("{row} {key} = {value}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // A class that the file does not name is the one with a context.
    let mut config = goldens()["rows"]["lcm"]["diffusers"]["config"].clone();
    config.as_object_mut().expect("a mapping").remove("_class_name");
    assert_eq!(read_config("unnamed", &config).expect("read").guidance, Some(32));
    let names = format::names(&read_config("unnamed", &config).expect("read"));
    assert_eq!(names.expect_err("no original is distilled"), FormatError::NoName("time_cond_proj_dim"));
}
