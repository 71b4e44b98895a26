//! Keys of `latentd serve`: made, shown, followed; and who is served where there are none.

use serde_json::{Value, json};

use crate::ask::ask;
use crate::support::{Server, ended, folder, latentd, run};

/// A new key and its entry.
fn key(args: &[&str]) -> (String, String) {
    let made = run(&[&["keys", "new"], args].concat());
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let secret = made.stderr.trim_end().rsplit(' ').next().unwrap().to_owned();
    assert!(secret.starts_with("ltd_") && secret.len() == 68, "{}", made.stderr);
    assert!(!made.stdout.contains(&secret), "what is kept is not the key");
    (secret, made.stdout)
}

#[test]
fn callers_show_a_key_and_the_file_is_followed() {
    let file = folder("keys").join("keys.toml");
    let (alice, entry) = key(&["--name", "alice", "--rate", "600", "--concurrency", "4", "--model", "tiny"]);
    let (root, other) = key(&["--name", "root", "--role", "admin", "--expires", "2199-01-01T00:00:00Z"]);
    std::fs::write(&file, format!("{entry}{other}")).unwrap();
    let server = Server::ready(&[("LATENTD_SERVER_KEYS_FILE", file.to_str().unwrap())]);
    let sends = |key: &str, method: &str, path: &str, body: &Value| {
        let lines = format!("authorization: Bearer {key}\r\ncontent-type: application/json\r\n");
        ask(&server.address, method, path, &lines, &body.to_string()).unwrap()
    };
    let body = json!({ "prompt": "a cat", "steps": 1, "width": 32, "height": 32 });
    let without = server.post("/v1/txt2img", "application/json", &body);
    assert_eq!((without.status, &without.json()["error"]["code"]), (401, &json!("unauthorized")));
    let made = sends(&alice, "POST", "/v1/txt2img", &body);
    assert_eq!(made.status, 200, "{}", made.json());
    assert!(made.head.contains("ratelimit-policy: \"requests\";q=600;w=60;burst=10"), "{}", made.head);
    assert_eq!(sends(&alice, "GET", "/v1/admin/models", &Value::Null).status, 403);
    assert_eq!(sends(&root, "GET", "/v1/admin/models", &Value::Null).status, 200);
    assert_eq!(sends(&root, "GET", "/metrics", &Value::Null).status, 200);

    std::fs::write(&file, other).unwrap();
    server.until("the key is good no longer", |_| sends(&alice, "GET", "/v1/models", &Value::Null).status == 401);
    std::fs::write(&file, "keys = 3").unwrap();
    server.signal("HUP");
    assert_eq!(sends(&root, "GET", "/v1/models", &Value::Null).status, 200);
    server.signal("TERM");
    let (status, log) = server.ended();
    assert_eq!(status.code(), Some(0), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("the keys were read again")), "{log:#?}");
    assert!(!log.iter().any(|line| line.contains(&alice) || line.contains(&root)), "keys are not logged");
}

#[test]
fn without_keys_other_machines_are_served_on_purpose_alone() {
    let empty = folder("keys-none");
    let model = format!("none={}", empty.display());
    let serve = |variables: &[(&str, &str)]| {
        let mut command = latentd(&["serve", "--listen", "0.0.0.0:0", "--model", &model]);
        command.envs(variables.iter().copied());
        ended(command)
    };
    let refused = serve(&[]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    for word in ["0.0.0.0:0", "server.keys_file", "server.allow_anonymous = true"] {
        assert!(refused.stderr.contains(word), "{word} is not in {}", refused.stderr);
    }
    let open = serve(&[("LATENTD_SERVER_ALLOW_ANONYMOUS", "true")]);
    assert_eq!(open.code, Some(1), "it gets as far as its model: {}", open.stderr);
    assert!(open.stderr.contains("whoever comes is served"), "{}", open.stderr);

    let missing = serve(&[("LATENTD_SERVER_KEYS_FILE", "no/such/keys.toml")]);
    assert_eq!(missing.code, Some(2));
    assert!(missing.stderr.starts_with("error: server.keys_file: no/such/keys.toml: "), "{}", missing.stderr);
}

#[test]
fn keys_that_cannot_be_are_not_made() {
    for args in [&["keys", "new"][..], &["keys", "new", "--name", "a b"], &["keys", "new", "--name", "a", "--role", "root"]] {
        let refused = run(args);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{args:?}: {}", refused.stderr);
    }
}
