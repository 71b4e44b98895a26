//! The table of settings: one entry per setting, its name, its comment, how it is read and how it is written.

use ldm_pipeline::Device;
use toml::Value;
use tracing_subscriber::EnvFilter;

use super::Config;
use super::edge;
use super::given::{Expected, Given};

/// One setting.
pub(super) struct Setting {
    /// `section.key`.
    pub(super) name: &'static str,
    /// What it means, in a line.
    pub(super) comment: &'static str,
    /// Takes a value over, or says what it must be.
    pub(super) set: fn(&mut Config, Given<'_>) -> Result<(), Expected>,
    /// The value now.
    pub(super) get: fn(&Config) -> Value,
}

/// Sections in the order of the file, with what they are about.
pub(super) const SECTIONS: [(&str, &str); 8] = [
    ("server", "The HTTP edge."),
    ("engine", "The queue and the batches."),
    ("jobs", "Named jobs (/v1/jobs): what is remembered of them, and where."),
    ("webhooks", "Webhooks: the end of a named job is told to who asked for that (docs/operations.md)."),
    ("device", "Where models live, and how."),
    ("limits", "What one request may ask for. What a model cannot do is refused besides."),
    ("log", "Logs go to stderr."),
    ("telemetry", "Traces; docs/operations.md says what is in them."),
];

/// The largest count of anything: so large that it stands for no limit, and safe to multiply.
pub(super) const MANY: u32 = 1_000_000;

/// Every setting but those of the edge, section by section in the order of the file.
const OTHERS: [Setting; 28] = [
    Setting {
        name: "engine.queue",
        comment: "Pictures that may be unfinished at once, waiting and in work together; beyond that the answer is 429.",
        set: |config, given| put(&mut config.engine.queue, given.whole(1..=MANY)),
        get: |config| whole(config.engine.queue),
    },
    Setting {
        name: "engine.running",
        comment: "Pictures that may be in work on the device at once.",
        set: |config, given| put(&mut config.engine.running, given.whole(1..=MANY)),
        get: |config| whole(config.engine.running),
    },
    Setting {
        name: "engine.row_cap",
        comment: "Rows that one network call may hold; a picture takes two under guidance, else one.",
        set: |config, given| put(&mut config.engine.row_cap, given.whole(2..=4096)),
        get: |config| whole(config.engine.row_cap),
    },
    Setting {
        name: "engine.prompt_cache",
        comment: "Encoded prompts that are kept.",
        set: |config, given| put(&mut config.engine.prompt_cache, given.whole(1..=MANY)),
        get: |config| whole(config.engine.prompt_cache),
    },
    Setting {
        name: "engine.per_tenant",
        comment: "Pictures of one client that may be unfinished at once; 0 is no bound but engine.queue.",
        set: |config, given| put(&mut config.engine.per_tenant, given.whole(0..=MANY)),
        get: |config| whole(config.engine.per_tenant),
    },
    Setting {
        name: "engine.picture_memory_mb",
        comment: "Memory that unfinished requests and pictures may hold, MiB; beyond that the answer is 429.",
        set: |config, given| put(&mut config.engine.picture_memory_mb, given.whole(1..=MANY)),
        get: |config| whole(config.engine.picture_memory_mb),
    },
    Setting {
        name: "engine.model_memory_mb",
        comment: "Memory that a device's models may take, MiB: beyond it the model that was used longest ago is let go of; 0 is no bound.",
        set: |config, given| put(&mut config.engine.model_memory_mb, given.whole(0..=MANY)),
        get: |config| whole(config.engine.model_memory_mb),
    },
    Setting {
        name: "engine.rehearsal_seconds",
        comment: "For how long a model's calls are measured while nothing else is to be done, once; 0 learns from real calls alone.",
        set: |config, given| put(&mut config.engine.rehearsal_seconds, given.whole(0..=3600)),
        get: |config| whole(config.engine.rehearsal_seconds),
    },
    Setting {
        name: "engine.mode",
        comment: "\"fast\", or \"batch_invariant\": no picture depends on its company, and no network call is shared (docs/determinism.md).",
        set: |config, given| put(&mut config.engine.mode, given.parsed("fast or batch_invariant")),
        get: |config| text(config.engine.mode),
    },
    Setting {
        name: "jobs.state_dir",
        comment: "Folder for named jobs, which then outlive the process, each process its own; \"\" keeps them in memory.",
        set: |config, given| put(&mut config.jobs.state_dir, given.words()),
        get: |config| text(&config.jobs.state_dir),
    },
    Setting {
        name: "jobs.kept_hours",
        comment: "Hours for which a job and its pictures are kept after its end.",
        set: |config, given| put(&mut config.jobs.kept_hours, given.whole(1..=8760)),
        get: |config| whole(config.jobs.kept_hours),
    },
    Setting {
        name: "jobs.memory_mb",
        comment: "Ended jobs and their pictures that are kept in memory, MiB; beyond that the oldest go. Unfinished jobs have as much.",
        set: |config, given| put(&mut config.jobs.memory_mb, given.whole(1..=MANY)),
        get: |config| whole(config.jobs.memory_mb),
    },
    Setting {
        name: "jobs.disk_mb",
        comment: "The same in jobs.state_dir, MiB; unfinished jobs have 4 GiB there.",
        set: |config, given| put(&mut config.jobs.disk_mb, given.whole(1..=MANY)),
        get: |config| whole(config.jobs.disk_mb),
    },
    Setting {
        name: "webhooks.allow",
        comment: "Origins that may be called, such as \"https://example.org\", \"https://*.example.org\" or \"http://10.0.0.7:9000\"; [] calls none.",
        set: |config, given| {
            const KNOWN: &str = "a list of origins such as https://example.org or https://*.example.org";
            put(&mut config.webhooks.allow, given.list(KNOWN, ldm_http::WebhookOptions::is_origin))
        },
        get: |config| Value::Array(config.webhooks.allow.iter().map(text).collect()),
    },
    Setting {
        name: "webhooks.allow_private",
        comment: "Whether names may lead to private, loopback and link-local addresses; such an address that is listed itself may be called anyway.",
        set: |config, given| put(&mut config.webhooks.allow_private, given.flag()),
        get: |config| Value::Boolean(config.webhooks.allow_private),
    },
    Setting {
        name: "webhooks.secret_file",
        comment: "File with what signs, one secret a line, the newest first: \"whsec_...\" or 24 to 64 characters; must be there when webhooks.allow lists any.",
        set: |config, given| put(&mut config.webhooks.secret_file, given.words()),
        get: |config| text(&config.webhooks.secret_file),
    },
    Setting {
        name: "device.device",
        comment: "\"cpu\" or \"cuda:N\".",
        set: |config, given| put(&mut config.device.device, given.parsed("cpu or cuda:N")),
        get: |config| text(config.device.device),
    },
    Setting {
        name: "device.devices",
        comment: "Several devices, one worker each, such as [\"cuda:0\", \"cuda:1\"] or [\"cpu\", \"cpu\"]; in place of device.device when there are any.",
        set: |config, given| {
            const KNOWN: &str = "a list of cpu and cuda:N";
            let names = given.list(KNOWN, |name| name.parse::<Device>().is_ok())?;
            config.device.devices = names.iter().filter_map(|name| name.parse().ok()).collect();
            Ok(())
        },
        get: |config| Value::Array(config.device.devices.iter().map(text).collect()),
    },
    Setting {
        name: "device.dtype",
        comment: "Number format of the networks: \"f32\", \"bf16\" or \"f16\".",
        set: |config, given| put(&mut config.device.dtype, given.parsed("f32, bf16 or f16")),
        get: |config| text(config.device.dtype),
    },
    Setting {
        name: "device.threads",
        comment: "Threads that compute on a CPU; 0 leaves the choice to libtorch.",
        set: |config, given| put(&mut config.device.threads, given.whole(0..=4096)),
        get: |config| whole(config.device.threads),
    },
    Setting {
        name: "limits.steps",
        comment: "Steps at most.",
        set: |config, given| put(&mut config.limits.bounds.steps, given.whole(1..=1000)),
        get: |config| whole(config.limits.bounds.steps),
    },
    Setting {
        name: "limits.guidance",
        comment: "Guidance scale at most.",
        set: |config, given| put(&mut config.limits.bounds.guidance, given.real(1.0..=1000.0)),
        get: |config| Value::Float(config.limits.bounds.guidance),
    },
    Setting {
        name: "limits.images",
        comment: "Pictures per request at most.",
        set: |config, given| put(&mut config.limits.bounds.images, given.whole(1..=1000)),
        get: |config| whole(config.limits.bounds.images),
    },
    Setting {
        name: "limits.prompt_chars",
        comment: "Characters of a prompt at most.",
        set: |config, given| put(&mut config.limits.bounds.prompt_chars, given.whole(1..=MANY)),
        get: |config| whole(config.limits.bounds.prompt_chars),
    },
    Setting {
        name: "limits.max_side",
        comment: "Width and height at most, pixels; 0 takes what the model says.",
        set: |config, given| put(&mut config.limits.max_side, given.whole(0..=16_384)),
        get: |config| whole(config.limits.max_side),
    },
    Setting {
        name: "log.format",
        comment: "\"text\" for people, \"json\" for machines.",
        set: |config, given| put(&mut config.log.format, given.parsed("text or json")),
        get: |config| text(config.log.format),
    },
    Setting {
        name: "log.filter",
        comment: "What is logged: a level, or levels by crate such as \"info,ldm_engine=debug\".",
        set: |config, given| {
            let filter: String = given.parsed(FILTERS)?;
            let good = !filter.trim().is_empty() && EnvFilter::try_new(&filter).is_ok();
            put(&mut config.log.filter, if good { Ok(filter) } else { Err(FILTERS.to_owned()) })
        },
        get: |config| text(&config.log.filter),
    },
    Setting {
        name: "telemetry.otlp_endpoint",
        comment: "Where spans are sent over OTLP (HTTP, protobuf), such as \"http://127.0.0.1:4318\"; \"\" sends none.",
        set: |config, given| {
            let endpoint: String = given.parsed(ENDPOINTS)?;
            let good = endpoint.is_empty() || ldm_http::Otlp::is_endpoint(&endpoint);
            put(&mut config.telemetry.otlp_endpoint, if good { Ok(endpoint) } else { Err(ENDPOINTS.to_owned()) })
        },
        get: |config| text(&config.telemetry.otlp_endpoint),
    },
];

const ENDPOINTS: &str = "empty, or a collector's address such as http://127.0.0.1:4318";

const FILTERS: &str = "a level or levels by crate, such as info or warn,ldm_engine=debug";

/// Every setting, section by section in the order of the file.
pub(super) fn all() -> impl Iterator<Item = &'static Setting> + Clone {
    edge::SETTINGS.iter().chain(&OTHERS)
}

/// The setting of that name.
pub(super) fn named(name: &str) -> Option<&'static Setting> {
    all().find(|setting| setting.name == name)
}

impl Setting {
    /// The section, and the key in it.
    pub(super) fn parts(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').unwrap_or(("", self.name))
    }

    /// The environment variable: `LATENTD_<SECTION>_<KEY>`.
    pub(super) fn variable(&self) -> String {
        format!("LATENTD_{}", self.name.replace('.', "_").to_uppercase())
    }
}

pub(super) fn put<T>(place: &mut T, value: Result<T, Expected>) -> Result<(), Expected> {
    *place = value?;
    Ok(())
}

pub(super) fn text(value: impl ToString) -> Value {
    Value::String(value.to_string())
}

pub(super) fn whole(value: u32) -> Value {
    Value::Integer(value.into())
}
