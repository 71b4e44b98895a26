//! The settings of the HTTP edge: `[server]`, part of the table in `settings.rs`.

use toml::Value;

use super::settings::{MANY, Setting, put, text, whole};

const TOKENS: &str = "empty, or at least 16 visible ASCII characters";

/// In the order of the file.
pub(super) const SETTINGS: [Setting; 19] = [
    Setting {
        name: "server.listen",
        comment: "Address and port; port 0 takes a free one. 0.0.0.0 listens on every interface, which wants keys_file or allow_anonymous.",
        set: |config, given| {
            put(&mut config.server.listen, given.parsed("an address and port such as 127.0.0.1:8080 or [::]:8080"))
        },
        get: |config| text(config.server.listen),
    },
    Setting {
        name: "server.body_limit_mb",
        comment: "Largest body of a request, MiB.",
        set: |config, given| put(&mut config.server.body_limit_mb, given.whole(1..=1024)),
        get: |config| whole(config.server.body_limit_mb),
    },
    Setting {
        name: "server.pixel_limit",
        comment: "Largest picture in a request, pixels.",
        set: |config, given| put(&mut config.server.pixel_limit, given.whole(1..=1 << 30)),
        get: |config| Value::Integer(i64::try_from(config.server.pixel_limit).unwrap_or(i64::MAX)),
    },
    Setting {
        name: "server.cors_origins",
        comment: "Origins whose pages may call the service from a browser, such as \"https://example.org\"; \"*\" lets every page.",
        set: |config, given| {
            let good = |origin: &str| {
                let visible = origin.bytes().all(|byte| byte.is_ascii_graphic());
                visible && (origin == "*" || (origin.contains("://") && !origin.ends_with('/')))
            };
            put(&mut config.server.cors_origins, given.list("a list of origins such as https://example.org, or *", good))
        },
        get: |config| Value::Array(config.server.cors_origins.iter().map(|origin| Value::from(origin.as_str())).collect()),
    },
    Setting {
        name: "server.shutdown_grace_seconds",
        comment: "After SIGTERM, how long accepted jobs may take to finish.",
        set: |config, given| put(&mut config.server.shutdown_grace_seconds, given.whole(0..=86_400)),
        get: |config| whole(config.server.shutdown_grace_seconds),
    },
    Setting {
        name: "server.admin_token",
        comment: "What /v1/admin takes as a bearer token beside admins' keys; without either it is open to this machine alone, if the service listens on loopback.",
        set: |config, given| {
            let token: String = given.parsed(TOKENS)?;
            let good = token.is_empty() || (token.len() >= 16 && token.bytes().all(|byte| byte.is_ascii_graphic()));
            put(&mut config.server.admin_token, if good { Ok(token) } else { Err(TOKENS.to_owned()) })
        },
        get: |config| text(&config.server.admin_token),
    },
    Setting {
        name: "server.keys_file",
        comment: "File of the keys that callers must show (docs/operations.md), followed while the service runs; \"\" is none.",
        set: |config, given| put(&mut config.server.keys_file, given.words()),
        get: |config| text(&config.server.keys_file),
    },
    Setting {
        name: "server.allow_anonymous",
        comment: "Whether those without a key are served: beside a keys file, or on other addresses than loopback where there is none.",
        set: |config, given| put(&mut config.server.allow_anonymous, given.flag()),
        get: |config| Value::Boolean(config.server.allow_anonymous),
    },
    Setting {
        name: "server.open_metrics",
        comment: "Whether /metrics is there without a key; else it is for admins, where there are keys.",
        set: |config, given| put(&mut config.server.open_metrics, given.flag()),
        get: |config| Value::Boolean(config.server.open_metrics),
    },
    Setting {
        name: "server.anonymous_rate",
        comment: "Requests for work per minute of one address without a key; 0 is no bound.",
        set: |config, given| put(&mut config.server.anonymous_rate, given.whole(0..=MANY)),
        get: |config| whole(config.server.anonymous_rate),
    },
    Setting {
        name: "server.anonymous_burst",
        comment: "How many of them may come at once.",
        set: |config, given| put(&mut config.server.anonymous_burst, given.whole(1..=MANY)),
        get: |config| whole(config.server.anonymous_burst),
    },
    Setting {
        name: "server.tls_cert",
        comment: "Certificate chain of the service, a file in PEM, read again at SIGHUP; \"\" is plain HTTP.",
        set: |config, given| put(&mut config.server.tls_cert, given.words()),
        get: |config| text(&config.server.tls_cert),
    },
    Setting {
        name: "server.tls_key",
        comment: "Its private key, a file in PEM.",
        set: |config, given| put(&mut config.server.tls_key, given.words()),
        get: |config| text(&config.server.tls_key),
    },
    Setting {
        name: "server.max_connections",
        comment: "Connections that may be open at once; beyond it the one that is idle for longest is closed, or else the new one.",
        set: |config, given| put(&mut config.server.max_connections, given.whole(1..=MANY)),
        get: |config| whole(config.server.max_connections),
    },
    Setting {
        name: "server.header_limit_kb",
        comment: "Largest head of a request, KiB.",
        set: |config, given| put(&mut config.server.header_limit_kb, given.whole(8..=1024)),
        get: |config| whole(config.server.header_limit_kb),
    },
    Setting {
        name: "server.header_timeout_seconds",
        comment: "How long the head of a request may take to come.",
        set: |config, given| put(&mut config.server.header_timeout_seconds, given.whole(1..=3600)),
        get: |config| whole(config.server.header_timeout_seconds),
    },
    Setting {
        name: "server.idle_timeout_seconds",
        comment: "How long a connection may be open without a request.",
        set: |config, given| put(&mut config.server.idle_timeout_seconds, given.whole(1..=86400)),
        get: |config| whole(config.server.idle_timeout_seconds),
    },
    Setting {
        name: "server.body_timeout_seconds",
        comment: "How long a body may pause, and in all; every 16 KiB win it another second.",
        set: |config, given| put(&mut config.server.body_timeout_seconds, given.whole(1..=3600)),
        get: |config| whole(config.server.body_timeout_seconds),
    },
    Setting {
        name: "server.write_timeout_seconds",
        comment: "How long an answer may wait for its reader, until the connection is cut and its jobs are cancelled.",
        set: |config, given| put(&mut config.server.write_timeout_seconds, given.whole(1..=3600)),
        get: |config| whole(config.server.write_timeout_seconds),
    },
];
