//! Precedence, complaints, and the police of `config/latentd.toml`.

use std::collections::HashSet;

use super::settings::{SECTIONS, all};
use super::sources::{File, Flag, Problems, Sources, resolve};
use super::{Config, print};

fn file(text: &str) -> Result<Config, Problems> {
    resolve(&Sources { file: Some(File { name: "f.toml", text }), ..Sources::default() })
}

fn environment(variables: &[(&str, &str)]) -> Result<Config, Problems> {
    let environment = variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    resolve(&Sources { environment, ..Sources::default() })
}

fn complaint(outcome: Result<Config, Problems>) -> String {
    outcome.unwrap_err().to_string()
}

#[test]
fn the_file_in_the_repository_is_the_defaults_with_every_setting_and_its_comment() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/latentd.toml");
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text, print(&Config::default()), "run: latentd serve --print-config > config/latentd.toml");
    assert_eq!(file(&text), Ok(Config::default()));
    let lines: Vec<_> = text.lines().collect();
    for setting in all() {
        let key = format!("{} = ", setting.parts().1);
        let at = lines.iter().position(|line| line.starts_with(&key)).unwrap_or_else(|| panic!("{} is missing", setting.name));
        assert!(lines[at - 1].starts_with("# ") && lines[at - 1].ends_with('.'), "{} has no comment", setting.name);
    }
}

#[test]
fn the_table_is_in_order() {
    let names: HashSet<_> = all().map(|setting| setting.name).collect();
    assert_eq!(names.len(), all().count(), "a name stands twice");
    let order: Vec<_> = all().map(|setting| setting.parts().0).collect();
    let mut sections = order.clone();
    sections.dedup();
    assert_eq!(sections, SECTIONS.map(|(section, _)| section));
    assert!(all().all(|setting| !setting.comment.contains('\n')));
}

#[test]
fn what_is_printed_reads_back() {
    let text = r#"
        models = [{ id = "a", path = "x/y" }, { id = "b/c:1", path = "quo\"ted", preview_decoder = "p", first_stage = "f/g", loras = ["l", "m.safetensors"], merge = ["n", "o=0.5"], embeddings = ["e"], lazy = true }]
        server = { listen = "[::1]:9", body_limit_mb = 1, pixel_limit = 4096, cors_origins = ["*", "https://a.example"], shutdown_grace_seconds = 0, admin_token = "sixteen-letters-or-more", keys_file = "k.toml", allow_anonymous = true, open_metrics = true, anonymous_rate = 6, anonymous_burst = 7, tls_cert = "c.pem", tls_key = "k.pem", max_connections = 8, header_limit_kb = 9, header_timeout_seconds = 11, idle_timeout_seconds = 12, body_timeout_seconds = 13, write_timeout_seconds = 14 }
        engine = { queue = 2, running = 3, row_cap = 4, prompt_cache = 5, per_tenant = 1, picture_memory_mb = 6, model_memory_mb = 7, rehearsal_seconds = 8, mode = "batch_invariant" }
        jobs = { state_dir = "state", kept_hours = 2, memory_mb = 3, disk_mb = 4 }
        webhooks = { allow = ["https://a.example", "*.b.example:8443"], allow_private = true, secret_file = "secret" }
        device = { device = "cuda:1", devices = ["cpu", "cuda:0"], dtype = "bf16", threads = 6 }
        limits = { steps = 7, guidance = 8, images = 9, prompt_chars = 10, max_side = 11 }
        log = { format = "json", filter = "warn,ldm_engine=debug" }
        telemetry = { otlp_endpoint = "http://collector:4318" }
    "#;
    let config = file(text).unwrap();
    for setting in all() {
        assert_ne!((setting.get)(&config), (setting.get)(&Config::default()), "{} was not set", setting.name);
    }
    let model = &config.models[1];
    assert_eq!((model.loras.len(), model.merge[1].strength, model.embeddings.len()), (2, 0.5, 1));
    assert_eq!(file(&print(&config)), Ok(config.clone()));
    let paths = |at: usize| (config.models[at].preview.clone(), config.models[at].first_stage.clone());
    assert_eq!((paths(0), paths(1)), ((None, None), (Some("p".into()), Some("f/g".into()))));
    let limits = config.engine_limits();
    assert_eq!((limits.per_tenant, limits.bytes, limits.model_memory), (1, 6 << 20, 7 << 20));
    assert_eq!(Config::default().engine_limits(), ldm_engine::Limits::default(), "no bound is no bound");
    let devices: Vec<String> = config.placements().iter().map(|options| options.device.to_string()).collect();
    assert_eq!((devices, config.models[1].lazy), (vec!["cpu".to_owned(), "cuda:0".to_owned()], true));
    assert_eq!((config.kept_bytes(), Config::default().kept_bytes()), (4 << 20, 256 << 20), "on disk, and in memory");
    assert_eq!(Config::default().placements().len(), 1);
    let empty = file("[[models]]\nid = \"a\"\npath = \"b\"\npreview_decoder = \"\"").unwrap();
    assert_eq!(empty.models[0].preview, None);
    assert_eq!((config.load_options().threads, config.load_options().max_side), (Some(6), Some(11)));
    assert_eq!((Config::default().load_options().threads, Config::default().load_options().max_side), (None, None));
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let flag = |setting, value: &str| Flag { flag: "--flag", setting, value: value.to_owned() };
    let text =
        "[engine]\nqueue = 11\nrunning = 12\nrow_cap = 13\n[log]\nfilter = \"error\"\n[[models]]\nid = \"f\"\npath = \"f\"";
    let mut sources = Sources {
        file: Some(File { name: "f.toml", text }),
        environment: [("LATENTD_ENGINE_QUEUE", "21"), ("LATENTD_ENGINE_RUNNING", "22"), ("LATENTD_ENGINE_ROW_CAP", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        flags: vec![flag("engine.queue", "31")],
    };
    let config = resolve(&sources).unwrap();
    let (engine, default) = (&config.engine, Config::default().engine);
    assert_eq!((engine.queue, engine.running, engine.row_cap, engine.prompt_cache), (31, 22, 13, default.prompt_cache));
    assert_eq!((config.models[0].id.as_str(), config.log.filter.as_str()), ("f", "error"));

    sources.environment.insert("RUST_LOG".to_owned(), "debug".to_owned());
    sources.environment.insert("LATENTD_MODELS".to_owned(), "e=x, e2=y=z".to_owned());
    let config = resolve(&sources).unwrap();
    assert_eq!(config.log.filter, "debug");
    assert_eq!(config.models.iter().map(|model| model.id.as_str()).collect::<Vec<_>>(), ["e", "e2"]);
    assert_eq!(config.models[1].dir.to_str(), Some("y=z"));

    sources.environment.insert("LATENTD_LOG_FILTER".to_owned(), "trace".to_owned());
    sources.flags.push(flag("models", "g=dir"));
    let config = resolve(&sources).unwrap();
    assert_eq!((config.models.len(), config.models[0].id.as_str(), config.log.filter.as_str()), (1, "g", "trace"));
}

#[test]
fn unknown_names_are_errors_that_name_the_nearest_and_the_line() {
    let table = [
        (
            "\n[server]\nlisten = \"127.0.0.1:1\"\nbody_limit = 3",
            "f.toml:4: `server.body_limit` is no setting; did you mean `server.body_limit_mb`?",
        ),
        ("[server]\nqueue = 3", "f.toml:2: `server.queue` is no setting; did you mean `engine.queue`?"),
        ("[sever]\nlisten = 3", "f.toml:1: `sever` is no setting; did you mean `server`?"),
        ("\nlisten = 3", "f.toml:2: `listen` is no setting; did you mean `server.listen`?"),
        ("[[model]]\nid = \"x\"", "f.toml:1: `model` is no setting; did you mean `models`?"),
        ("[[models]]\nfirst_stag = \"y\"", "f.toml:2: `models.first_stag` is no setting; did you mean `models.first_stage`?"),
        ("[[models]]\nid = \"x\"\npth = \"y\"", "f.toml:3: `models.pth` is no setting; did you mean `models.path`?"),
    ];
    for (text, expected) in table {
        assert_eq!(complaint(file(text)), expected, "{text}");
    }
    assert_eq!(
        complaint(environment(&[
            ("LATENTD_SERVER__LISTEN", "x"),
            ("LATENTD_QUEUE", "1"),
            ("LATENTD_CONFIG", "f"),
            ("PATH", "x")
        ])),
        "environment: `LATENTD_QUEUE` is no setting; did you mean `LATENTD_ENGINE_QUEUE`?\n\
         environment: `LATENTD_SERVER__LISTEN` is no setting; did you mean `LATENTD_SERVER_LISTEN`?"
    );
}

#[test]
fn wrong_values_name_the_setting_the_limit_and_the_value() {
    let table = [
        ("[engine]\nqueue = 0", "f.toml:2: `engine.queue` must be a whole number from 1 to 1000000, not 0"),
        ("[engine]\nqueue = -1", "f.toml:2: `engine.queue` must be a whole number from 1 to 1000000, not -1"),
        ("[engine]\nqueue = \"many\"", "f.toml:2: `engine.queue` must be a whole number from 1 to 1000000, not \"many\""),
        ("[engine]\nqueue = 1.5", "f.toml:2: `engine.queue` must be a whole number from 1 to 1000000, not 1.5"),
        ("[limits]\nguidance = nan", "f.toml:2: `limits.guidance` must be a number from 1 to 1000, not nan"),
        ("[limits]\nguidance = true", "f.toml:2: `limits.guidance` must be a number from 1 to 1000, not true"),
        (
            "[server]\nlisten = 8080",
            "f.toml:2: `server.listen` must be an address and port such as 127.0.0.1:8080 or [::]:8080, not 8080",
        ),
        (
            "[server]\ncors_origins = [\"example.org\"]",
            "f.toml:2: `server.cors_origins` must be a list of origins such as https://example.org, or *, not [\"example.org\"]",
        ),
        ("[device]\ndevice = \"gpu\"", "f.toml:2: `device.device` must be cpu or cuda:N, not \"gpu\""),
        ("[log]\nformat = \"xml\"", "f.toml:2: `log.format` must be text or json, not \"xml\""),
        ("server = 3", "f.toml:1: `server` must be a table, `[server]`, not 3"),
        ("models = []", "f.toml:1: `models` must name at least one model"),
        ("models = [3]", "f.toml:1: a model must be `[[models]]` with `id` and `path`"),
        ("[models]", "f.toml:1: `models` must be a list of tables, `[[models]]` with `id` and `path`"),
        ("\n[[models]]\nid = \"x\"", "f.toml:2: `models.path` is required in `[[models]]` with `id` and `path`"),
        ("[[models]]\nid = 3\npath = \"x\"", "f.toml:2: `models.id` must be a text, not 3"),
        (
            "[[models]]\nid = \"a\"\npath = \"x\"\nloras = \"y\"",
            "f.toml:4: `models.loras` must be a list of files and folders, not \"y\"",
        ),
        (
            "[[models]]\nid = \"a\"\npath = \"x\"\nmerge = [\"y=strong\"]",
            "f.toml:4: `models.merge` must be a list of files or of file=strength with a number, not [\"y=strong\"]",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(complaint(file(text)), expected, "{text}");
    }
    let table = [
        (
            ("LATENTD_ENGINE_QUEUE", "x"),
            "LATENTD_ENGINE_QUEUE: `engine.queue` must be a whole number from 1 to 1000000, not \"x\"",
        ),
        (("LATENTD_MODELS", "x"), "LATENTD_MODELS: a model must be ID=DIR, several of them with commas between, not \"x\""),
        (("LATENTD_MODELS", "a=x,a=y"), "LATENTD_MODELS: two models are called \"a\""),
        (("LATENTD_MODELS", "a b=x"), "LATENTD_MODELS: a model's id must be letters, digits and . _ - / : alone, not \"a b\""),
        (
            ("RUST_LOG", "info,ldm_engine=loud"),
            "RUST_LOG: `log.filter` must be a level or levels by crate, such as info or warn,ldm_engine=debug, \
             not \"info,ldm_engine=loud\"",
        ),
    ];
    for (variable, expected) in table {
        assert_eq!(complaint(environment(&[variable])), expected);
    }
}

#[test]
fn everything_that_is_wrong_comes_at_once_and_syntax_names_its_line() {
    let all = complaint(file("[engine]\nqueue = 0\nrunning = 0\n[lgo]\nx = 1"));
    assert_eq!(all.lines().count(), 3, "{all}");
    let syntax = complaint(file("[engine]\nqueue = \n"));
    assert!(syntax.starts_with("f.toml:2: "), "{syntax}");
    let twice = complaint(file("[engine]\nqueue = 1\nqueue = 2\n"));
    assert!(twice.starts_with("f.toml:3: "), "{twice}");
}

#[test]
fn lists_in_the_environment_stand_between_commas() {
    let config = environment(&[("LATENTD_SERVER_CORS_ORIGINS", "https://a.example, https://b.example")]).unwrap();
    assert_eq!(config.server.cors_origins, ["https://a.example", "https://b.example"]);
}

#[test]
fn what_cannot_be_together_is_said_before_anything_is_done() {
    let said = |text: &str| file(text).unwrap().problem();
    let open = said("[server]\nlisten = \"0.0.0.0:8080\"").unwrap();
    for word in ["0.0.0.0:8080", "server.keys_file", "latentd keys new", "server.allow_anonymous = true", "127.0.0.1"] {
        assert!(open.contains(word), "{word} is not in {open}");
    }
    for (text, fine) in [
        ("", true),
        ("[server]\nlisten = \"[::1]:8080\"", true),
        ("[server]\nlisten = \"[::]:8080\"", false),
        ("[server]\nlisten = \"10.0.0.1:80\"\nallow_anonymous = true", true),
        ("[server]\nlisten = \"10.0.0.1:80\"\nkeys_file = \"k\"", true),
        ("[server]\nlisten = \"10.0.0.1:80\"\nadmin_token = \"sixteen-letters-or-more\"", false),
        ("[server]\ntls_cert = \"c\"", false),
        ("[server]\ntls_key = \"k\"", false),
        ("[server]\ntls_cert = \"c\"\ntls_key = \"k\"", true),
    ] {
        assert_eq!(said(text).is_none(), fine, "{text}: {:?}", said(text));
    }
}
