//! `latentd generate` with maps and tensors, `reconstruct`, `convert` and `inspect` of single files.

use std::path::Path;

use crate::support::{TINY, folder, png_size, run};

const FORMATS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/goldens/formats");

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The numbers of a float32 .npy file (version 1: a header of that many bytes follows the length at 8).
fn numbers(path: &Path) -> (String, Vec<f32>) {
    let file = std::fs::read(path).unwrap();
    assert_eq!(&file[..6], b"\x93NUMPY");
    let start = 10 + usize::from(u16::from_le_bytes([file[8], file[9]]));
    let values = file[start..].chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    (String::from_utf8_lossy(&file[10..start]).into_owned(), values)
}

#[test]
fn a_hole_is_painted_and_numbers_are_written() {
    let folder = folder("files-inpaint");
    let (picture, mask) = (folder.join("picture.png"), folder.join("mask.png"));
    image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8 * 3, y as u8 * 3, 90])).save(&picture).unwrap();
    image::GrayImage::from_fn(64, 64, |x, _| image::Luma([if x < 32 { 255 } else { 0 }])).save(&mask).unwrap();
    let (out, latents, numbers_out) = (folder.join("out.png"), folder.join("latents.npy"), folder.join("image.npy"));
    let common = ["generate", "--model", TINY, "--prompt", "a cat", "--threads", "1", "--steps", "3", "--quiet"];
    let asked = [
        "--init-image",
        text(&picture),
        "--mask",
        text(&mask),
        "--out",
        text(&out),
        "--latents-out",
        text(&latents),
        "--image-out",
        text(&numbers_out),
    ];
    let made = run(&[&common[..], &asked].concat());
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert_eq!(png_size(&std::fs::read(&out).unwrap()), (64, 64));
    let (header, values) = numbers(&latents);
    assert!(header.contains("'<f4'") && header.contains("(1,4,16,16,)"), "{header}");
    assert_eq!(values.len(), 4 * 16 * 16);
    // The picture's bytes are its numbers, rounded, where it was painted; elsewhere they are those that came.
    let (header, values) = numbers(&numbers_out);
    assert!(header.contains("(1,3,64,64,)"), "{header}");
    let bytes = image::open(&out).unwrap().into_rgb8();
    let red = |x: u32, y: u32| ((values[(y * 64 + x) as usize] * 0.5 + 0.5).clamp(0., 1.) * 255.).round() as u8;
    assert!((0..32).all(|i| bytes.get_pixel(i, 63 - i)[0] == red(i, 63 - i)));
    let given = image::open(&picture).unwrap().into_rgb8();
    assert!(given.enumerate_pixels().all(|(x, y, pixel)| x < 32 || bytes.get_pixel(x, y) == pixel));

    let wrong = run(&[&common[..], &["--mask", text(&mask), "--out", text(&out)]].concat());
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("--init-image"), "{}", wrong.stderr);
    let wrong = run(&[&common[..], &["--task", "class", "--class", "3", "--out", text(&out)]].concat());
    assert!(wrong.code == Some(2) && wrong.stderr.contains("does not do class"), "{}", wrong.stderr);
    let wrong = run(&[&common[..], &["--latents-out", "latents.txt"]].concat());
    assert!(wrong.code == Some(2) && wrong.stderr.contains(".npy or .safetensors"), "{}", wrong.stderr);
}

#[test]
fn only_the_transparent_part_of_a_picture_is_drawn() {
    let folder = folder("files-transparent");
    let (picture, out) = (folder.join("picture.png"), folder.join("out.png"));
    let alpha = |x: u32, y: u32| if (60..80).contains(&x) && (40..50).contains(&y) { 0 } else { 255 };
    image::RgbaImage::from_fn(150, 90, |x, y| image::Rgba([x as u8, y as u8, 90, alpha(x, y)])).save(&picture).unwrap();
    let common =
        ["generate", "--model", TINY, "--prompt", "a cat", "--threads", "1", "--steps", "3", "--quiet", "--task", "inpaint"];
    let asked = ["--init-image", text(&picture), "--out", text(&out), "--width", "64", "--height", "64"];
    let only = ["--only-masked", "--mask-padding", "8", "--mask-blur", "1", "--mask-fill", "latent_noise", "--strength", "0.8"];
    let made = run(&[&common[..], &asked, &only].concat());
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let bytes = image::open(&out).unwrap().into_rgb8();
    assert_eq!(bytes.dimensions(), (150, 90));
    // The blur reaches three pixels.
    let near = |x: u32, y: u32| (57..83).contains(&x) && (37..53).contains(&y);
    assert!(bytes.enumerate_pixels().all(|(x, y, pixel)| near(x, y) || pixel.0 == [x as u8, y as u8, 90]));
    assert!((61..79).any(|x| bytes.get_pixel(x, 45).0 != [x as u8, 45, 90]));

    let wrong = run(&[&common[..], &asked, &["--only-masked", "--mask-padding", "257", "--mask-blur", "65"]].concat());
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("--mask-padding") && wrong.stderr.contains("--mask-blur"), "{}", wrong.stderr);
    let wrong = run(&[&common[..], &asked, &["--mask-padding", "3"]].concat());
    assert!(wrong.code == Some(2) && wrong.stderr.contains("--only-masked"), "{}", wrong.stderr);
}

#[test]
fn a_first_stage_reconstructs_alone() {
    let folder = folder("files-reconstruct");
    let (picture, out) = (folder.join("picture.png"), folder.join("out.png"));
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/demo");
    image::RgbImage::from_pixel(64, 64, image::Rgb([40, 70, 220])).save(&picture).unwrap();
    let latents = folder.join("latents.safetensors");
    let of = |picture: &Path| {
        let model = ["reconstruct", "--model", demo, "--threads", "1", "--init-image", text(picture)];
        run(&[&model[..], &["--out", text(&out), "--latents-out", text(&latents)]].concat())
    };
    let told = of(&picture);
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    let psnr: f64 = told.stdout.split("PSNR ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(psnr > 25., "a plain ground comes back: {psnr}");
    assert!(latents.is_file() && png_size(&std::fs::read(&out).unwrap()) == (64, 64));
    image::RgbImage::new(60, 64).save(&picture).unwrap();
    let refused = of(&picture);
    assert!(refused.code == Some(2) && refused.stderr.contains("multiples of 8"), "{}", refused.stderr);
}

#[test]
fn checkpoints_become_safetensors_and_run_nothing() {
    let folder = folder("files-convert");
    let out = folder.join("lightning.safetensors");
    let golden = |name: &str| format!("{FORMATS}/{name}");
    let told = run(&["convert", &golden("lightning.ckpt"), text(&out)]);
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    assert!(told.stdout.contains("tensors"), "{}", told.stdout);
    assert!(std::fs::metadata(&out).unwrap().len() > 100);
    // It is no model, and inspection says what is nearest.
    let told = run(&["inspect", text(&out)]);
    assert_eq!(told.code, Some(1));
    assert!(told.stdout.contains("problem"), "{}", told.stdout);
    let again = run(&["convert", &golden("lightning.ckpt"), text(&out)]);
    assert!(again.code != Some(0) && again.stderr.contains("exists"), "{}", again.stderr);
    for evil in ["evil_inside.ckpt", "bomb.ckpt", "deflated.ckpt"] {
        let out = folder.join("evil.safetensors");
        let refused = run(&["convert", &golden(evil), text(&out)]);
        assert!(refused.code != Some(0) && !refused.stderr.contains("panicked") && !out.exists(), "{evil}: {}", refused.stderr);
    }
    let refused = run(&["inspect", &golden("lightning.ckpt")]);
    assert!(refused.code == Some(1) && refused.stdout.contains("safetensors"), "{}", refused.stdout);
}

#[test]
fn layouts_are_told_by_names_and_refusals_name_the_part() {
    let folder = folder("files-layouts");
    let out = folder.join("out.safetensors");
    let refused = |args: &[&str], code: i32, word: &str| {
        let told = run(&[&["convert"], args].concat());
        assert!(told.code == Some(code) && told.stderr.contains(word), "{args:?}: {:?} {}", told.code, told.stderr);
        assert!(!told.stderr.contains("panicked"), "{}", told.stderr);
    };
    // The tiny model is diffusers' alone: its norms have fewer groups than original ones.
    refused(&[TINY, text(&out)], 1, "vae has no original form");
    refused(&[TINY, text(&folder.join("other"))], 2, "must end in .safetensors");
    refused(&[TINY, text(&folder.join("other.ckpt"))], 2, "not .ckpt");
    refused(&[text(&out), text(&folder.join("again.safetensors"))], 2, "both .safetensors");
    refused(&["no/such.ckpt", text(&folder.join("there"))], 1, "no/such.ckpt");
    assert!(std::fs::read_dir(&folder).unwrap().next().is_none(), "nothing is left");
}

#[test]
fn another_first_stage_must_be_for_the_same_latents() {
    let folder = folder("files-stages");
    let out = folder.join("out.png");
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/demo/vae");
    let common =
        ["generate", "--model", TINY, "--prompt", "a cat", "--threads", "1", "--steps", "2", "--quiet", "--out", text(&out)];
    for (flag, word) in
        [("--first-stage", "16 latent channels, the model's own has 4"), ("--preview-decoder", "no AutoencoderTiny")]
    {
        let told = run(&[&common[..], &[flag, demo]].concat());
        assert!(told.code != Some(0) && told.stderr.contains(word) && !out.exists(), "{flag}: {}", told.stderr);
    }
    let own = format!("{TINY}/vae");
    let told = run(&[&common[..], &["--first-stage", &own]].concat());
    assert!(told.code == Some(0) && out.is_file(), "{}", told.stderr);
}
