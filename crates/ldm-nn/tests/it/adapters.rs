//! LoRA files: spellings that are the same, what is refused and how, and layers against the definition.

use std::path::{Path, PathBuf};

use ldm_nn::adapters::{AdapterError, Part};
use ldm_nn::weights::save;
use ldm_nn::{Adapter, Attachment, Checkpoint, ClipTextConfig, Layout, Targets, UNet, UNet2DConditionConfig, Weights};
use tch::{Device, Kind, Tensor};

use crate::goldens::{directory, scratch};

const TO_Q: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
const FLAT: &str = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q";
const CONV: &str = "lora_unet_down_blocks_0_downsamplers_0_conv";

fn config() -> UNet2DConditionConfig {
    UNet2DConditionConfig::read(&directory().join("tiny-sd/unet/config.json")).expect("a configuration")
}

fn targets() -> Targets {
    let text = ClipTextConfig::read(&directory().join("tiny-sd/text_encoder/config.json")).expect("a configuration");
    Targets::new(&config().architecture().expect("supported"), [Some(&text), None])
}

fn noise(shape: &[i64], seed: f64) -> Tensor {
    let count = shape.iter().product::<i64>();
    ((Tensor::arange(count, (Kind::Float, Device::Cpu)) + seed) * 12.9898).sin().view(shape) * 0.2
}

type Tensors = Vec<(String, Tensor)>;

fn entry(name: impl Into<String>, shape: &[i64]) -> (String, Tensor) {
    let name = name.into();
    let tensor = noise(shape, name.len() as f64);
    (name, tensor)
}

/// Down and up of one linear layer 32 → 32, in kohya's spelling.
fn pair() -> Tensors {
    vec![entry(format!("{FLAT}.lora_down.weight"), &[4, 32]), entry(format!("{FLAT}.lora_up.weight"), &[32, 4])]
}

fn written(name: &str, tensors: &[(String, Tensor)]) -> PathBuf {
    let path = scratch(&format!("adapters-{name}")).join("lora.safetensors");
    save(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), Kind::Float, &path).expect("saved");
    path
}

fn read(name: &str, tensors: &[(String, Tensor)]) -> Result<Adapter, AdapterError> {
    Adapter::open(&written(name, tensors), &targets())
}

fn refusal(name: &str, tensors: &[(String, Tensor)]) -> String {
    read(name, tensors).expect_err("a refusal").to_string()
}

/// The largest difference.
fn apart(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn every_spelling_is_the_same_layer() {
    let [down, up] = [noise(&[4, 32], 1.), noise(&[32, 4], 2.)];
    let spellings = [
        (format!("{FLAT}.lora_down.weight"), format!("{FLAT}.lora_up.weight"), format!("{FLAT}.alpha")),
        (
            "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_down.weight".into(),
            "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_up.weight".into(),
            "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.alpha".into(),
        ),
        (format!("unet.{TO_Q}.lora_A.weight"), format!("unet.{TO_Q}.lora_B.weight"), format!("unet.{TO_Q}.alpha")),
        (format!("{TO_Q}.lora_A.weight"), format!("{TO_Q}.lora_B.weight"), format!("{TO_Q}.alpha")),
        (
            format!("base_model.model.{TO_Q}.lora_A.default.weight"),
            format!("base_model.model.{TO_Q}.lora_B.default.weight"),
            format!("base_model.model.{TO_Q}.alpha"),
        ),
        (
            format!("unet.base_model.model.{TO_Q}.lora.down.weight"),
            format!("unet.{TO_Q}.lora.up.weight"),
            format!("unet.{TO_Q}.lora.alpha"),
        ),
        (
            format!("unet.{}.processor.to_q_lora.down.weight", &TO_Q[..TO_Q.len() - 5]),
            format!("{}.processor.to_q_lora.up.weight", &TO_Q[..TO_Q.len() - 5]),
            format!("unet.{}.processor.to_q_lora.alpha", &TO_Q[..TO_Q.len() - 5]),
        ),
    ];
    for (index, (d, u, alpha)) in spellings.into_iter().enumerate() {
        let plain = vec![(d.clone(), down.copy()), (u, up.copy())];
        let adapter = read(&format!("spelling-{index}"), &plain).unwrap_or_else(|error| panic!("{d}: {error}"));
        assert_eq!(adapter.unet.keys().collect::<Vec<_>>(), [TO_Q], "{d}");
        assert!(apart(&adapter.unet[TO_Q].delta(), &up.matmul(&down)) < 1e-6, "{d}");
        // alpha / rank.
        let with = [plain, vec![(alpha, Tensor::from(3f32))]].concat_tensors();
        let adapter = read(&format!("scaled-{index}"), &with).unwrap_or_else(|error| panic!("{d}: {error}"));
        assert!(apart(&adapter.unet[TO_Q].delta(), &(up.matmul(&down) * 0.75)) < 1e-6, "{d}");
    }
    let layer = "encoder.layers.1.self_attn.out_proj";
    for name in
        [format!("lora_te_text_model_{}", layer.replace('.', "_")), format!("lora_te1_text_model_{}", layer.replace('.', "_"))]
    {
        let tensors = [entry(format!("{name}.lora_down.weight"), &[2, 32]), entry(format!("{name}.lora_up.weight"), &[32, 2])];
        assert!(read("text", &tensors).expect("it is read").text[0].contains_key(&format!("text_model.{layer}")), "{name}");
    }
    for (down, up) in [("lora_linear_layer.down", "lora_linear_layer.up"), ("lora_A", "lora_B")] {
        for prefix in ["text_encoder.text_model.", "text_encoder."] {
            let name = format!("{prefix}{layer}");
            let tensors = [entry(format!("{name}.{down}.weight"), &[2, 32]), entry(format!("{name}.{up}.weight"), &[32, 2])];
            assert!(read("text", &tensors).expect("it is read").text[0].contains_key(&format!("text_model.{layer}")), "{name}");
        }
    }
}

trait Concat {
    fn concat_tensors(self) -> Tensors;
}

impl Concat for [Tensors; 2] {
    fn concat_tensors(self) -> Tensors {
        self.into_iter().flatten().collect()
    }
}

#[test]
fn what_cannot_be_used_is_refused_by_its_key() {
    let with = |extra: Tensors| [pair(), extra].concat_tensors();
    let one = |name: &str, shape: &[i64]| vec![entry(name, shape)];
    let broken = pair();
    let _ = broken[1].1.get(3).fill_(f64::NAN);
    let endless = pair();
    let _ = endless[0].1.get(0).fill_(f64::INFINITY);
    let linear = |down: &[i64], up: &[i64]| {
        vec![entry(format!("{FLAT}.lora_down.weight"), down), entry(format!("{FLAT}.lora_up.weight"), up)]
    };
    let strange =
        |count: usize| (0..count).map(|i| entry(format!("lora_unet_x{i}.lora_down.weight"), &[1, 1])).collect::<Tensors>();
    let conv = |kernel: i64| {
        vec![
            entry(format!("{CONV}.lora_down.weight"), &[2, 32, kernel, kernel]),
            entry(format!("{CONV}.lora_up.weight"), &[32, 2, 1, 1]),
        ]
    };
    let table: Vec<(&str, Tensors, Vec<String>)> = vec![
        ("dora", with(one(&format!("{FLAT}.dora_scale"), &[32, 1])), vec![format!("`{FLAT}.dora_scale`"), "DoRA".into()]),
        ("magnitude", with(one(&format!("unet.{TO_Q}.lora_magnitude_vector"), &[32])), vec!["DoRA".into()]),
        ("loha", one(&format!("{FLAT}.hada_w1_a"), &[32, 4]), vec![format!("`{FLAT}.hada_w1_a`"), "LoHa".into()]),
        ("lokr", one(&format!("{FLAT}.lokr_w1"), &[4, 4]), vec![format!("`{FLAT}.lokr_w1`"), "LoKr".into()]),
        ("bias", with(one(&format!("unet.{TO_Q}.lora_B.bias"), &[32])), vec!["LoRA with biases".into()]),
        ("stranger", with(strange(1)), vec!["1 keys fit no layer of this model: lora_unet_x0.lora_down.weight".into()]),
        ("strangers", strange(9), vec!["9 keys fit no layer".into(), "lora_unet_x4.lora_down.weight, …".into()]),
        ("words", with(one("position_ids", &[2])), vec!["1 keys fit no layer of this model: position_ids".into()]),
        ("second", one("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", &[64, 2]), vec!["lora_te2_".into()]),
        ("input", linear(&[4, 31], &[32, 4]), vec!["[4, 31]".into(), "unet".into(), TO_Q.into(), "[4, 32]".into()]),
        ("output", linear(&[4, 32], &[31, 4]), vec!["[31, 4]".into(), "[32, 4]".into()]),
        ("ranks", linear(&[4, 32], &[32, 3]), vec![".lora_up.weight` has rank 3".into(), "has rank 4".into()]),
        ("rank", linear(&[1025, 32], &[32, 1025]), vec!["has rank 1025, more than 1024".into()]),
        ("kernel", conv(5), vec!["[2, 32, 5, 5]".into(), "[2, 32, 3, 3]".into()]),
        ("convolved", linear(&[4, 32, 3, 3], &[32, 4, 1, 1]), vec!["[4, 32, 3, 3]".into()]),
        ("alone", linear(&[4, 32], &[32, 4]).split_off(1), vec![".lora_up.weight` has no partner".into()]),
        ("only", vec![(format!("{FLAT}.alpha"), Tensor::from(1f32))], vec![".alpha` has no partner".into()]),
        ("nan", broken, vec![".lora_up.weight` holds NaN or infinity".into()]),
        ("infinite", endless, vec![".lora_down.weight` holds NaN or infinity".into()]),
        ("alphas", with(one(&format!("{FLAT}.alpha"), &[2])), vec![".alpha` must be one number".into()]),
        ("twice", with(one(&format!("unet.{TO_Q}.lora_A.weight"), &[4, 32])), vec!["is for the same layer as".into()]),
        ("middle", with(one(&format!("{FLAT}.lora_mid.weight"), &[4, 4])), vec!["is no convolution".into()]),
        ("nothing", vec![], vec!["has no LoRA layer".into()]),
    ];
    for (name, tensors, expected) in table {
        let message = refusal(name, &tensors);
        assert!(message.contains("lora.safetensors: "), "{message}");
        assert!(expected.iter().all(|part| message.contains(part)), "{name}: {message}");
    }
}

#[test]
fn files_that_are_no_safetensors_are_refused() {
    let dir = scratch("adapters-files");
    let refused = |name: &str, bytes: &[u8]| {
        std::fs::write(dir.join(name), bytes).expect("a file");
        Adapter::open(&dir.join(name), &targets()).expect_err("a refusal").to_string()
    };
    for bytes in [b"PK\x03\x04rest of an archive".as_slice(), b"\x80\x02}q\x00(rest of a pickle"] {
        assert!(refused("a.pt", bytes).contains("pickle"));
    }
    assert!(refused("b.safetensors", b"").contains("no safetensors file"));
    assert!(refused("c.safetensors", b"<html>not found</html>").contains("no safetensors file"));
    let whole = std::fs::read(written("whole", &pair())).expect("a file");
    assert!(refused("d.safetensors", &whole[..whole.len() - 4]).contains("no safetensors file"));
    assert!(Adapter::open(&dir.join("absent"), &targets()).expect_err("a refusal").to_string().contains("absent"));
    let long = std::fs::File::create(dir.join("long.safetensors")).expect("a file");
    long.set_len(ldm_nn::adapters::MAX_BYTES + 1).expect("a hole");
    let message = Adapter::open(&dir.join("long.safetensors"), &targets()).expect_err("a refusal").to_string();
    assert!(message.contains("more than"), "{message}");
}

fn network(merged: Option<(&Adapter, f64)>) -> UNet {
    let file = Checkpoint::open(Path::new(&directory().join("tiny-sd/unet")), "diffusion_pytorch_model").expect("weights");
    let merged = merged.iter().map(|(adapter, strength)| (adapter.part(Part::Unet).clone(), *strength)).collect();
    UNet::new(&Weights::merging(file, merged, Kind::Float, Device::Cpu, Layout::ChannelsLast), &config())
}

fn forward(unet: &UNet, rows: i64) -> Tensor {
    let x = noise(&[1, 4, 16, 16], 5.).expand([rows, -1, -1, -1], false);
    let t = Tensor::full([rows], 500f32 as f64, (Kind::Float, Device::Cpu));
    let tokens = noise(&[1, 77, 32], 7.).expand([rows, -1, -1], false);
    unet.forward(&x, &t, &unet.context(&tokens))
}

#[test]
fn a_middle_convolution_is_a_product_of_three() {
    let _no_grad = tch::no_grad_guard();
    let adapter = read(
        "cp",
        &[
            entry(format!("{CONV}.lora_down.weight"), &[2, 32, 1, 1]),
            entry(format!("{CONV}.lora_mid.weight"), &[2, 2, 3, 3]),
            entry(format!("{CONV}.lora_up.weight"), &[32, 2, 1, 1]),
        ],
    )
    .expect("it is read");
    let unet = network(None);
    let attached = unet.slots().with(&[Attachment::everywhere(&adapter.unet, 3.)], || forward(&unet, 1));
    let merged = forward(&network(Some((&adapter, 3.))), 1);
    let (error, moved) = (apart(&attached, &merged), apart(&attached, &forward(&unet, 1)));
    assert!(error < 1e-5 && moved > 1e-3, "{error:.1e}, {moved:.1e}");
}

#[test]
fn rows_have_their_own_adapters_and_a_panic_leaves_none() {
    let _no_grad = tch::no_grad_guard();
    let adapter = Adapter::open(&directory().join("lora/sd-kohya.safetensors"), &targets()).expect("it is read");
    let unet = network(None);
    let plain = forward(&unet, 4);
    let attachment = |rows, strength| Attachment { rows, layers: adapter.unet.clone(), strength };
    // Rows 1 and 2, row 2 a second time, and rows that are not there.
    let attached = [attachment(1..3, 0.5), attachment(2..3, 0.5), attachment(4..9, 1.), attachment(0..0, 1.)];
    let found = unet.slots().with(&attached, || forward(&unet, 4));
    let alone = |strength| unet.slots().with(&[Attachment::everywhere(&adapter.unet, strength)], || forward(&unet, 1));
    for (row, wanted) in [forward(&unet, 1), alone(0.5), alone(1.), forward(&unet, 1)].iter().enumerate() {
        let error = apart(&found.narrow(0, row as i64, 1), wanted);
        assert!(error < 1e-5, "row {row}: {error:.1e}");
    }
    assert!(apart(&alone(0.5), &alone(1.)) > 1e-3);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        unet.slots().with(&attached, || -> Tensor { panic!("a step that fails") })
    }));
    assert!(panicked.is_err() && unet.slots().are_empty());
    assert_eq!(apart(&forward(&unet, 4), &plain), 0., "bit for bit");
}
