//! What needs no model: flags, the configuration, `inspect`, `train`.

use crate::support::{TINY, ended, folder, latentd, run};

#[test]
fn flags_that_are_none_are_refused() {
    for args in
        [&["serve", "--nonsense"][..], &["generate"], &["generate", "--prompt", "x", "--dtype", "f8"], &["paint"], &["train"]]
    {
        let refused = run(args);
        assert_eq!(refused.code, Some(2), "{args:?}: {}", refused.stderr);
        assert!(!refused.stderr.is_empty());
    }
    let version = run(&["--version"]);
    assert_eq!((version.code, version.stdout.as_str()), (Some(0), concat!("latentd ", env!("CARGO_PKG_VERSION"), "\n")));
}

#[test]
fn the_configuration_in_force_is_printed() {
    let defaults = run(&["serve", "--print-config"]);
    assert_eq!((defaults.code, defaults.stderr.as_str()), (Some(0), ""));
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/latentd.toml")).unwrap();
    assert_eq!(defaults.stdout, file);

    let mut command = latentd(&["serve", "--print-config", "--config", "config/latentd.toml", "--queue", "3", "--model", "a=x"]);
    command.args(["--model", "b=y"]).envs([("LATENTD_ENGINE_QUEUE", "2"), ("LATENTD_ENGINE_RUNNING", "1")]);
    let mixed = ended(command);
    assert_eq!(mixed.code, Some(0), "{}", mixed.stderr);
    for line in ["queue = 3", "running = 1", "id = \"a\"", "id = \"b\"", "path = \"y\""] {
        assert!(mixed.stdout.lines().any(|printed| printed == line), "{line} is not in\n{}", mixed.stdout);
    }
}

#[test]
fn configurations_that_are_wrong_say_where() {
    let path = folder("wrong-config").join("latentd.toml");
    std::fs::write(&path, "[server]\nlisen = \"127.0.0.1:1\"\n[engine]\nqueue = \"many\"\n").unwrap();
    let file = path.to_str().unwrap();
    let mut command = latentd(&["serve", "--device", "gpu"]);
    command.envs([("LATENTD_CONFIG", file), ("LATENTD_SERVER_LISTN", "x")]);
    let refused = ended(command);
    assert_eq!(refused.code, Some(2));
    assert_eq!(
        refused.stderr,
        format!(
            "error: {file}:2: `server.lisen` is no setting; did you mean `server.listen`?\n\
             error: {file}:4: `engine.queue` must be a whole number from 1 to 1000000, not \"many\"\n\
             error: environment: `LATENTD_SERVER_LISTN` is no setting; did you mean `LATENTD_SERVER_LISTEN`?\n\
             error: --device: `device.device` must be cpu or cuda:N, not \"gpu\"\n"
        )
    );
    let missing = run(&["serve", "--config", "no/such/file.toml"]);
    assert_eq!(missing.code, Some(2));
    assert!(missing.stderr.starts_with("error: no/such/file.toml: "), "{}", missing.stderr);
}

#[test]
fn a_service_without_its_model_ends() {
    let empty = folder("serve-empty");
    let model = format!("none={}", empty.display());
    let failed = run(&["serve", "--listen", "127.0.0.1:0", "--model", &model]);
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    assert!(
        failed.stderr.contains("the models cannot be served") && failed.stderr.contains("model_index.json"),
        "{}",
        failed.stderr
    );
}

#[test]
fn inspect_says_what_is_there_and_what_is_wrong() {
    let nothing = run(&["inspect", folder("inspect-empty").to_str().unwrap()]);
    assert_eq!(nothing.code, Some(1));
    assert!(nothing.stdout.contains("model_index.json"), "{}", nothing.stdout);

    let tiny = run(&["inspect", TINY]);
    assert_eq!(tiny.code, Some(0), "{}{}", tiny.stdout, tiny.stderr);
    for word in ["stable-diffusion", "text_encoder", "unet", "vae", "UNet2DConditionModel", "f16", "txt2img", "img2img"] {
        assert!(tiny.stdout.contains(word), "{word} is not in\n{}", tiny.stdout);
    }
}

#[test]
fn training_wants_its_file() {
    for part in ["autoencoder", "diffusion"] {
        let failed = run(&["train", part, "--config", "no/such/file.toml"]);
        assert_eq!(failed.code, Some(1));
        assert!(failed.stderr.contains("no/such/file.toml"), "{}", failed.stderr);
    }
}
