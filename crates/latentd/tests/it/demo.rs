//! The demo model that ships: it loads, and it draws what prompts say.

use serde_json::Value;

use crate::support::run;

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/demo");

/// Bytes that everything in `assets/demo` may take.
const BUDGET: u64 = 24_000_000;

fn size_of(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| if entry.path().is_dir() { size_of(&entry.path()) } else { entry.metadata().unwrap().len() }).sum()
}

#[test]
fn it_is_small_and_whole() {
    assert!(size_of(DEMO.as_ref()) <= BUDGET);
    let told = run(&["inspect", DEMO]);
    assert_eq!(told.code, Some(0), "{}", told.stdout);
    assert!(told.stdout.contains("txt2img, img2img"), "{}", told.stdout);
}

/// The figures of `docs/demo-model.md`, with room for processors that round differently.
#[test]
fn it_draws_what_held_out_prompts_say() {
    let told = run(&["train", "evaluate", "--model", DEMO, "--prompts", "30", "--scenes", "32"]);
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    let report: Value = serde_json::from_str(&told.stdout).unwrap();
    let score = |what: &str| report["score"][what].as_f64().unwrap();
    assert_eq!(report["score"]["pictures"], 30);
    assert!(report["reconstruction_psnr_db"].as_f64().unwrap() >= 28., "{report}");
    assert!(score("background") >= 0.95 && score("color") >= 0.95 && score("all") >= 0.9, "{report}");
}
