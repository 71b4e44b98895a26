//! Files of torch become the safetensors that torch itself makes of them.

use std::collections::BTreeMap;
use std::path::Path;

use half::{bf16, f16};
use ldm_formats::convert::{self, Cast, ConvertError, Options};
use ldm_formats::header;
use ldm_formats::torch::{self, TorchError, TorchFile};
use safetensors::SafeTensors;

use super::{Folder, golden};

type Tensors = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

fn tensors(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter();
    tensors.map(|(name, view)| (name, (format!("{:?}", view.dtype()), view.shape().to_vec(), view.data().to_vec()))).collect()
}

fn converted(name: &str, options: Options) -> (Folder, std::path::PathBuf, convert::Summary) {
    let folder = Folder::new(&format!("{name}-{:?}", options.cast));
    let to = folder.0.join("out.safetensors");
    let summary = convert::convert(&golden(name), &to, &torch::Options::default(), options, |_| {}).unwrap();
    (folder, to, summary)
}

#[test]
fn every_form_of_torch_gives_the_tensors_that_torch_reads() {
    for name in ["lightning.ckpt", "legacy.pt", "protocol4.pt", "module.bin", "parameters.bin", "v3.pt"] {
        let (_folder, to, summary) = converted(name, Options::default());
        let expected = tensors(&golden(name).with_extension("safetensors"));
        assert!(expected.len() > 1, "{name}");
        assert_eq!(tensors(&to), expected, "{name}");
        assert_eq!(summary.tensors, expected.len(), "{name}");
        header::open(&to).unwrap();
    }
}

#[test]
fn the_order_of_the_state_dict_and_the_numbers_beside_it_are_kept() {
    for name in ["lightning.ckpt", "legacy.pt"] {
        let (_folder, to, summary) = converted(name, Options::default());
        let header = header::open(&to).unwrap();
        let names: Vec<&str> = header.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names[..2], ["model.diffusion_model.out.2.weight", "model.diffusion_model.out.2.bias"], "{name}");
        assert_eq!(names[names.len() - 2..], ["scale_factor", "empty"], "{name}");
        assert_eq!(header.metadata["global_step"], "875000");
        assert_eq!(header.metadata["epoch"], "3");
        assert_eq!(header.metadata["pytorch-lightning_version"], "1.4.2");
        assert_eq!(header.metadata["format"], "pt");
        let skipped: Vec<&str> = summary.skipped.iter().map(|skipped| skipped.key.as_str()).collect();
        assert_eq!(skipped, ["loops", "callbacks", "optimizer_states", "lr_schedulers", "hparams"], "{name}");
    }
}

#[test]
fn data_are_aligned_to_their_dtype() {
    let (_folder, to, _) = converted("lightning.ckpt", Options::default());
    let header = header::open(&to).unwrap();
    assert_eq!(header.data_start % 8, 0);
    for tensor in &header.tensors {
        assert_eq!(tensor.offsets.0 % tensor.dtype.size(), 0, "{}", tensor.name);
    }
}

#[test]
fn float_tensors_are_cast_and_others_are_kept() {
    let kept = tensors(&golden("lightning.safetensors"));
    for cast in [Cast::F16, Cast::Bf16, Cast::F32] {
        let (_folder, to, _) = converted("lightning.ckpt", Options { cast: Some(cast), ..Options::default() });
        let new = tensors(&to);
        assert_eq!(new["cond_stage_model.position_ids"], kept["cond_stage_model.position_ids"]);
        assert_eq!(new["cond_stage_model.mask"], kept["cond_stage_model.mask"]);
        assert_eq!(new["model_ema.num_updates"], kept["model_ema.num_updates"]);
        let (_, shape, old) = &kept["cond_stage_model.transposed"];
        let (dtype, new_shape, bytes) = &new["cond_stage_model.transposed"];
        assert_eq!(shape, new_shape);
        let singles = old.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap()));
        let (wanted, expected): (_, Vec<u8>) = match cast {
            Cast::F16 => ("F16", singles.flat_map(|value| f16::from_f32(value).to_le_bytes()).collect()),
            Cast::Bf16 => ("BF16", singles.flat_map(|value| bf16::from_f32(value).to_le_bytes()).collect()),
            Cast::F32 => ("F32", old.clone()),
        };
        assert_eq!((dtype.as_str(), bytes), (wanted, &expected));
        assert_eq!(new["scale_factor"].0, wanted);
    }
}

#[test]
fn a_number_beyond_the_dtype_is_an_error_and_leaves_no_file() {
    let folder = Folder::new("range");
    let from = folder.0.join("large.pt");
    // A one-dimensional float32 tensor [1e6], as `legacy.pt` would have it.
    std::fs::write(
        &from,
        super::attacks::legacy(&super::attacks::state(b"FloatStorage", 1, &[1], &[1], 0), 1, &1e6f32.to_le_bytes()),
    )
    .unwrap();
    let to = folder.0.join("out.safetensors");
    let options = Options { cast: Some(Cast::F16), overwrite: false };
    let error = convert::convert(&from, &to, &torch::Options::default(), options, |_| {}).unwrap_err();
    assert_eq!(error.to_string(), "tensor `w` holds 1000000, which F16 cannot: keep the dtype or choose another");
    assert!(!to.exists());
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1, "only the source is left");
    convert::convert(&from, &to, &torch::Options::default(), Options { cast: Some(Cast::Bf16), overwrite: false }, |_| {})
        .unwrap();
}

#[test]
fn a_file_that_is_there_is_replaced_only_when_asked() {
    let folder = Folder::new("there");
    let to = folder.0.join("out.safetensors");
    std::fs::write(&to, "mine").unwrap();
    let from = golden("module.bin");
    let reading = torch::Options::default();
    let error = convert::convert(&from, &to, &reading, Options::default(), |_| {}).unwrap_err();
    assert!(matches!(error, ConvertError::Exists { .. }), "{error}");
    assert_eq!(std::fs::read(&to).unwrap(), b"mine");
    convert::convert(&from, &to, &reading, Options { overwrite: true, cast: None }, |_| {}).unwrap();
    assert_eq!(tensors(&to), tensors(&golden("module.safetensors")));
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1);
}

#[test]
fn progress_counts_every_tensor_to_the_end() {
    let folder = Folder::new("progress");
    let mut seen = Vec::new();
    let to = folder.0.join("out.safetensors");
    let summary = convert::convert(&golden("lightning.ckpt"), &to, &torch::Options::default(), Options::default(), |progress| {
        seen.push((progress.tensors, progress.tensors_total, progress.bytes, progress.bytes_total));
    })
    .unwrap();
    assert_eq!(seen.len(), summary.tensors);
    assert!(seen.is_sorted());
    assert_eq!(seen.last(), Some(&(summary.tensors, summary.tensors, summary.bytes, summary.bytes)));
}

#[test]
fn tensors_under_another_key_are_found_when_it_is_named() {
    let error = TorchFile::open(&golden("nested.pt"), &torch::Options::default()).unwrap_err();
    let expected = "the file has no tensors where a state dict would have them; its keys are `model`, `step`; tensors lie under \
                    `model`: name that key";
    assert_eq!(error.to_string(), expected);
    let named =
        |key: &str| TorchFile::open(&golden("nested.pt"), &torch::Options { key: Some(key.to_owned()), ..Default::default() });
    let file = named("model").unwrap();
    assert_eq!(file.tensors().len(), 16);
    assert_eq!(file.metadata()["step"], "1");
    assert!(matches!(named("params").unwrap_err(), TorchError::State(_)));
}
