//! `latentd generate` with the tiny model.

use crate::support::{TINY, folder, png_size, run};

/// Runs `latentd generate` with the tiny model and these arguments besides.
fn generate(args: &[&str]) -> crate::support::Run {
    let common = ["generate", "--model", TINY, "--prompt", "a cat", "--threads", "1"];
    run(&[&common, args].concat())
}

#[test]
fn a_seed_names_a_picture() {
    let folder = folder("generate");
    let make = |name: &str, args: &[&str]| {
        let path = folder.join(name);
        let made = generate(&[&["--steps", "2", "--out", path.to_str().unwrap()], args].concat());
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        (std::fs::read(path).unwrap(), made)
    };
    let (first, told) = make("first.png", &["--seed", "5", "--width", "32", "--height", "48"]);
    assert_eq!(png_size(&first), (32, 48));
    assert!(told.stdout.contains("seed 5") && told.stdout.contains(" s "), "{}", told.stdout);
    let (second, told) = make("second.png", &["--seed", "5", "--width", "32", "--height", "48", "--quiet"]);
    assert!(first == second, "the same seed should make the same file");
    assert_eq!((told.stdout.as_str(), told.stderr.as_str()), ("", ""));
    let (other, _) = make("other.png", &["--seed", "6", "--width", "32", "--height", "48"]);
    assert!(first != other, "another seed should make another picture");

    let twice = ["--seed", "5", "--width", "32", "--height", "48", "--hires-steps", "2", "--hires-strength", "0.5"];
    for (hires, upscaler, size) in [("48x64", "latent-nearest", (48, 64)), ("1.5", "latent-bilinear", (48, 72))] {
        let (larger, _) = make("larger.png", &[&twice[..], &["--hires", hires, "--hires-upscaler", upscaler]].concat());
        assert_eq!(png_size(&larger), size);
    }

    let init = folder.join("first.png");
    let from = ["--init-image", init.to_str().unwrap(), "--strength", "0.5", "--width", "32", "--height", "32"];
    let (webp, _) = make("from.webp", &from);
    assert_eq!(&webp[8..12], b"WEBP");
    let (jpeg, _) = make("drawn.jpg", &["--seed", "-1", "--width", "32", "--height", "32", "--sampler", "DPM++ 2M Karras"]);
    assert_eq!(&jpeg[..2], b"\xff\xd8");
}

#[test]
fn what_is_wrong_is_said_all_at_once() {
    let out = folder("generate-wrong").join("picture.png");
    let out = out.to_str().unwrap();
    let refused = generate(&["--out", out, "--steps", "0", "--width", "33", "--guidance", "-1", "--strength", "0.5"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
    let flags: Vec<_> = refused.stderr.lines().map(|line| line.split(": ").nth(1).unwrap()).collect();
    assert_eq!(flags, ["--strength", "--steps", "--guidance", "--width"], "{}", refused.stderr);
    assert!(refused.stderr.contains("(limit: 1..=150; value: 0)"), "{}", refused.stderr);

    let refused = generate(&["--out", out, "--hires", "33x999", "--hires-steps", "0"]);
    let flags: Vec<_> = refused.stderr.lines().map(|line| line.split(": ").nth(1).unwrap()).collect();
    assert_eq!(flags, ["--hires", "--hires", "--hires-steps"], "{}", refused.stderr);
    let refused = generate(&["--out", out, "--hires", "large"]);
    assert!(refused.stderr.contains("1024x768"), "{}", refused.stderr);

    for (args, word) in [
        (["--out", "picture.gif"], "must end in .png"),
        (["--out", "no/such/folder/picture.png"], "no folder"),
        (["--init-image", "no/such/file.png"], "no/such/file.png"),
        (["--init-image", "Cargo.toml"], "Cargo.toml"),
    ] {
        let refused = generate(&args);
        assert_eq!(refused.code, Some(2), "{args:?}");
        assert!(refused.stderr.contains(word), "{}", refused.stderr);
    }
}
