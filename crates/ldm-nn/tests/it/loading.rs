//! Loading: strict about names and shapes, and no file, however broken, does more than fail.

use std::collections::BTreeMap;
use std::path::Path;

use ldm_nn::weights::{CheckpointError, save};
use ldm_nn::{
    AutoencoderKl, Checkpoint, ClipTextConfig, ClipTextModel, Layout, LoadError, Mapped, Report, UNet2DCondition,
    UNet2DConditionConfig, Weights,
};
use tch::{Device, Kind, Tensor};

use crate::goldens::{STEM, directory, scratch};

/// The tiny text encoder's tensors by name.
fn tensors() -> BTreeMap<String, Tensor> {
    let file = Checkpoint::open(&directory().join("tiny-sd/text_encoder"), "model").expect("the file");
    file.names().map(|name| (name.to_owned(), file.tensor(name))).collect()
}

fn load(tensors: &BTreeMap<String, Tensor>, name: &str) -> Result<Report, LoadError> {
    let dir = scratch(name);
    save(tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), Kind::Float, &dir.join("model.safetensors"))
        .expect("saved");
    let config = ClipTextConfig::read(&directory().join("tiny-sd/text_encoder/config.json")).expect("the configuration");
    let checkpoint = Checkpoint::open(&dir, "model").expect("the file").rename(ClipTextModel::canonical_name);
    let weights = Weights::from_checkpoint(checkpoint, Kind::Float, Device::Cpu, Layout::Contiguous);
    ClipTextModel::new(&weights, &config);
    weights.finish()
}

#[test]
fn a_file_that_fits_is_reported_clean() {
    let tensors = tensors();
    let report = load(&tensors, "clean").expect("it fits");
    assert!(report.is_clean());
    assert_eq!(report.parameters, tensors.values().map(|tensor| tensor.numel() as u64).sum::<u64>());
}

#[test]
fn what_does_not_fit_is_named_all_at_once() {
    let mut tensors = tensors();
    let lost = "text_model.encoder.layers.1.mlp.fc1.bias";
    let cut = "text_model.encoder.layers.2.self_attn.q_proj.weight";
    let turned = "text_model.encoder.layers.0.mlp.fc2.weight";
    drop(tensors.remove(lost).expect("it was there"));
    tensors.insert("text_model.stray".into(), Tensor::zeros([2], (Kind::Float, Device::Cpu)));
    let narrowed = tensors[cut].narrow(0, 0, 31);
    tensors.insert(cut.into(), narrowed);
    let transposed = tensors[turned].tr();
    tensors.insert(turned.into(), transposed);
    let LoadError(report) = load(&tensors, "unfit").expect_err("it does not fit");
    assert!(!report.is_clean());
    assert_eq!(report.missing, [lost]);
    assert_eq!(report.unexpected, ["text_model.stray"]);
    let shapes = [(turned.to_owned(), vec![32, 64], vec![64, 32]), (cut.to_owned(), vec![32, 32], vec![31, 32])];
    assert_eq!(report.wrong_shape, shapes);
    let message = LoadError(report).to_string();
    for name in [lost, "text_model.stray", cut, turned, "[31, 32]"] {
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn a_whole_network_that_is_missing_is_told_in_one_line() {
    let dir = directory().join("tiny-sd");
    let checkpoint = Checkpoint::open(&dir.join("vae"), STEM).expect("the file");
    let strays = checkpoint.names().count();
    let config = UNet2DConditionConfig::read(&dir.join("unet/config.json")).expect("the configuration");
    let weights = Weights::from_checkpoint(checkpoint, Kind::Float, Device::Cpu, Layout::ChannelsLast);
    UNet2DCondition::new(&weights, &config);
    let LoadError(report) = weights.finish().expect_err("an autoencoder is no denoiser");
    assert!(report.missing.len() > 100 && report.unexpected.len() > strays / 2);
    let message = report.to_string();
    assert!(message.lines().count() == 1 && message.len() < 2000, "{message}");
}

#[test]
fn names_of_older_files_are_understood() {
    let name = |name: &str| AutoencoderKl::canonical_name(name).expect("kept");
    assert_eq!(name("encoder.mid_block.attentions.0.query.weight"), "encoder.mid_block.attentions.0.to_q.weight");
    assert_eq!(name("decoder.mid_block.attentions.0.proj_attn.bias"), "decoder.mid_block.attentions.0.to_out.0.bias");
    assert_eq!(name("decoder.mid_block.attentions.0.to_out.0.bias"), "decoder.mid_block.attentions.0.to_out.0.bias");
    assert_eq!(name("quant_conv.weight"), "quant_conv.weight");
    let name = ClipTextModel::canonical_name;
    assert_eq!(name("embeddings.token_embedding.weight").expect("kept"), "text_model.embeddings.token_embedding.weight");
    assert_eq!(name("text_model.final_layer_norm.bias").expect("kept"), "text_model.final_layer_norm.bias");
    assert_eq!(name("text_model.embeddings.position_ids"), None);
}

#[test]
fn pickles_are_refused_even_beside_nothing_else() {
    for name in [format!("{STEM}.bin"), "pytorch_model.bin".into()] {
        let dir = scratch("pickle");
        std::fs::write(dir.join(&name), b"\x80\x02}q\x00.").expect("a file");
        let error = Checkpoint::open(&dir, STEM).expect_err("refused");
        assert!(matches!(&error, CheckpointError::Pickle { path } if path.ends_with(&name)), "{error}");
        assert!(error.to_string().contains("safetensors"));
    }
}

#[test]
fn an_empty_directory_is_told_what_was_looked_for() {
    let error = Checkpoint::open(&scratch("empty"), STEM).expect_err("refused");
    assert!(matches!(&error, CheckpointError::Absent { .. }));
    assert!(error.to_string().contains("diffusion_pytorch_model.safetensors"), "{error}");
}

#[test]
fn half_precision_variants_are_found() {
    let dir = scratch("fp16");
    std::fs::copy(directory().join("tiny-sd/text_encoder/model.safetensors"), dir.join("model.fp16.safetensors"))
        .expect("a copy");
    let file = Checkpoint::open(&dir, "model").expect("the file");
    assert_eq!(file.stored_kind(), Some(Kind::Half));
    assert_eq!(file.parameters(), tensors().values().map(|tensor| tensor.numel() as u64).sum::<u64>());
}

fn refused(path: &Path, bytes: &[u8], what: &str) {
    std::fs::write(path, bytes).expect("a file");
    match Checkpoint::open_files([path.to_owned()]) {
        Ok(_) => panic!("{what}: taken"),
        Err(error) => assert!(error.to_string().contains("model.safetensors"), "{what}: {error}"),
    }
}

#[test]
fn broken_files_are_errors() {
    let dir = scratch("broken");
    let path = dir.join("model.safetensors");
    let whole = std::fs::read(directory().join("tiny-sd/text_encoder/model.safetensors")).expect("the file");
    let header = u64::from_le_bytes(whole[..8].try_into().expect("eight bytes")) as usize;
    for length in [0, 1, 7, 8, 9, header / 2, header + 7, header + 8, header + 9, whole.len() / 2, whole.len() - 1] {
        refused(&path, &whole[..length], &format!("cut to {length} bytes"));
    }
    refused(&path, &[whole.as_slice(), b"more"].concat(), "with bytes at its end");
    for length in [u64::MAX, u64::MAX - 7, 1 << 40, whole.len() as u64] {
        refused(&path, &[&length.to_le_bytes(), &whole[8..]].concat(), &format!("with a header of {length} bytes"));
    }
    for byte in 8..64 {
        let mut bytes = whole.clone();
        bytes[byte] = 0xff;
        refused(&path, &bytes, &format!("with byte {byte} not UTF-8"));
    }
    let headers = [
        "",
        "[]",
        "null",
        r#"{"a": 1}"#,
        r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}"#,
        r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}"#,
        r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}"#,
        r#"{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}"#,
        r#"{"a": {"dtype": "F32", "shape": [4294967296, 4294967296, 4], "data_offsets": [0, 4]}}"#,
        r#"{"a": {"dtype": "F32", "shape": [9223372036854775808], "data_offsets": [0, 4]}}"#,
        r#"{"a": {"dtype": "Q4", "shape": [1], "data_offsets": [0, 4]}}"#,
        r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}"#,
        r#"{"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}, "a": {"dtype": "U8", "shape": [2], "data_offsets": [2, 4]}}"#,
        r#"{"a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}, "b": {"dtype": "U8", "shape": [2], "data_offsets": [2, 4]}}"#,
        r#"{"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}, "b": {"dtype": "U8", "shape": [1], "data_offsets": [3, 4]}}"#,
        // Read, but not a dtype that networks have.
        r#"{"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}"#,
    ];
    for text in headers {
        let bytes = [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &[0; 4]].concat();
        refused(&path, &bytes, text);
    }
}

#[test]
fn tensors_that_are_not_aligned_are_read() {
    // A header of odd length, as other writers make them: the tensor starts at an odd address.
    let text = r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}} "#;
    let text = if text.len().is_multiple_of(2) { format!("{text} ") } else { text.to_owned() };
    let values = [1.5f32.to_le_bytes(), (-2f32).to_le_bytes()].concat();
    let path = scratch("unaligned").join("model.safetensors");
    std::fs::write(&path, [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &values].concat()).expect("a file");
    let file = Checkpoint::open_files([path]).expect("the file");
    assert_eq!(Vec::<f32>::try_from(file.tensor("a")).expect("numbers"), [1.5, -2.]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_stays_mapped_for_as_long_as_a_tensor_points_into_it() {
    let path = scratch("mapped").join("model.safetensors");
    let numbers = Tensor::arange(1 << 16, (Kind::Float, Device::Cpu)).view([256, 256]);
    save([("a", &numbers), ("b", &numbers)], Kind::Float, &path).expect("saved");
    // As the system calls it, whatever links lead there.
    let path = path.canonicalize().expect("it is there");
    let is_mapped = || std::fs::read_to_string("/proc/self/maps").expect("maps").contains(path.to_str().expect("a name"));
    let file = Checkpoint::open_files([path.clone()]).expect("the file");
    let (a, b) = (file.tensor("a"), file.tensor("b"));
    drop(file);
    drop(a);
    let row = b.narrow(0, 255, 1);
    drop(b);
    // The pages that the dropped tensor gave back are read again.
    assert!(is_mapped());
    assert_eq!(row, numbers.narrow(0, 255, 1));
    drop(row);
    assert!(!is_mapped());
}

#[test]
fn numbers_that_are_none_are_seen_without_reading_everything() {
    let dir = scratch("damaged");
    let path = dir.join("model.safetensors");
    let fill = |value: f64| Tensor::full([300, 300], value, (Kind::Float, Device::Cpu));
    let damaged = |kind: Kind, tensor: &Tensor| {
        save([("fine", &fill(1.)), ("last", tensor)], kind, &path).expect("saved");
        Checkpoint::open_files([path.clone()]).expect("the file").damaged().map(str::to_owned)
    };
    for kind in [Kind::Float, Kind::Half, Kind::BFloat16] {
        assert_eq!(damaged(kind, &fill(-1e4)), None);
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(damaged(kind, &fill(value)).as_deref(), Some("last"), "{kind:?} {value}");
        }
        // One of a hundred in a small tensor.
        let small = fill(0.).narrow(0, 0, 1).contiguous();
        drop(small.get(0).get(77).fill_(f64::NAN));
        assert_eq!(damaged(kind, &small).as_deref(), Some("last"), "{kind:?}");
    }
}

#[test]
fn a_survey_reports_what_loading_would() {
    let dir = directory().join("tiny-sd");
    let config = UNet2DConditionConfig::read(&dir.join("unet/config.json")).expect("the configuration");
    for (part, fits) in [("unet", true), ("vae", false)] {
        let checkpoint = Checkpoint::open(&dir.join(part), STEM).expect("the file");
        let survey = Weights::survey(&checkpoint);
        UNet2DCondition::new(&survey, &config);
        let weights = Weights::from_checkpoint(checkpoint, Kind::Float, Device::Cpu, Layout::ChannelsLast);
        UNet2DCondition::new(&weights, &config);
        let (survey, loaded) = (survey.finish(), weights.finish());
        assert_eq!(survey.is_ok(), fits);
        assert_eq!(survey.map_err(|LoadError(report)| report), loaded.map_err(|LoadError(report)| report));
    }
}

#[test]
fn broken_indices_are_errors() {
    let source = directory().join("variant/unet");
    let index = format!("{STEM}.safetensors.index.json");
    let read = |name: &str, text: &str| {
        let dir = scratch(name);
        std::fs::write(dir.join(&index), text).expect("a file");
        Checkpoint::open(&dir, STEM)
    };
    for (name, text) in [("index-broken", "{"), ("index-list", "[]"), ("index-other", r#"{"weights": {}}"#)] {
        let error = read(name, text).expect_err("refused");
        assert!(matches!(error, CheckpointError::Index(_)) && error.to_string().contains("index.json"), "{error}");
    }
    let error = read("index-absent", r#"{"weight_map": {"a": "shard-1.safetensors"}}"#).expect_err("refused");
    assert!(matches!(&error, CheckpointError::Read { .. }) && error.to_string().contains("shard-1"), "{error}");
    // Shards lie beside their index, whatever it says.
    let outside = source.join(format!("{STEM}-00001-of-00002.safetensors"));
    let text = serde_json::json!({"weight_map": {"a": outside}}).to_string();
    assert!(matches!(read("index-outside", &text).expect_err("refused"), CheckpointError::Read { .. }));

    // A shard that the index forgot: its tensors are missing by name.
    let dir = scratch("index-partial");
    let first = format!("{STEM}-00001-of-00002.safetensors");
    std::fs::copy(source.join(&first), dir.join(&first)).expect("a copy");
    std::fs::write(dir.join(&index), serde_json::json!({"weight_map": {"a": first}}).to_string()).expect("a file");
    let config = UNet2DConditionConfig::read(&source.join("config.json")).expect("the configuration");
    let checkpoint = Checkpoint::open(&dir, STEM).expect("half of it");
    let weights = Weights::from_checkpoint(checkpoint, Kind::Float, Device::Cpu, Layout::Contiguous);
    UNet2DCondition::new(&weights, &config);
    let LoadError(report) = weights.finish().expect_err("half of it is missing");
    assert!(report.missing.len() > 10 && report.unexpected.is_empty() && report.wrong_shape.is_empty());
}

#[test]
fn a_map_of_names_renames_drops_turns_and_splits() {
    let dir = scratch("map");
    let counted = Tensor::arange(12 * 2, (Kind::Float, Device::Cpu)).view([12, 2]);
    save([("a", &counted), ("gone", &counted)], Kind::Float, &dir.join("model.safetensors")).expect("saved");
    let open = || Checkpoint::open(&dir, "model").expect("the file");
    let names = || ["q", "k", "v"].map(str::to_owned);
    let map = |mapped: Mapped| open().map_names(|name, _| if name == "a" { mapped.clone() } else { Mapped::Drop });

    let turned = map(Mapped::Transposed("b".into()));
    assert_eq!(turned.names().collect::<Vec<_>>(), ["b"]);
    assert_eq!(turned.shape("b"), Some(vec![2, 12]));
    assert_eq!(turned.tensor("b"), counted.tr());

    let rows = map(Mapped::Rows(names().into()));
    assert_eq!(rows.names().collect::<Vec<_>>(), ["k", "q", "v"]);
    assert_eq!((rows.shape("k"), rows.tensor("k")), (Some(vec![4, 2]), counted.narrow(0, 4, 4)));
    assert_eq!(rows.tensor("v"), counted.narrow(0, 8, 4));

    // Two heads of width 2: the rows of the second head's key are 8 and 9.
    let heads = map(Mapped::Heads { names: names(), heads: 2 });
    let expected = Tensor::cat(&[counted.narrow(0, 2, 2), counted.narrow(0, 8, 2)], 0);
    assert_eq!((heads.shape("k"), heads.tensor("k")), (Some(vec![4, 2]), expected));

    // What does not come out even stays whole, for the strict report to show.
    assert_eq!(map(Mapped::Heads { names: names(), heads: 5 }).shape("q"), Some(vec![12, 2]));
    let five = ["1", "2", "3", "4", "5"].map(str::to_owned).to_vec();
    assert_eq!(map(Mapped::Rows(five)).shape("1"), Some(vec![12, 2]));
}
