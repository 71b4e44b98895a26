//! What is asked for: kinds of requests with their weights, and the tenants that send them.

use std::collections::BTreeMap;
use std::sync::Arc;

use ldm_core::Task;
use serde::Deserialize;

use crate::pictures::{self, Drawn};
use crate::random::Random;

/// The mix that is used when none is given: small pictures, as the demo model makes them.
const BUILT_IN: &str = include_str!("mix.toml");
/// Kinds that a mix may have: each has its own histograms.
const MAX_KINDS: usize = 64;
/// Who sends a kind that names no tenant.
const NOBODY: &str = "anonymous";

/// Why a mix cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MixError(String);

/// A mix as its file spells it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MixFile {
    #[serde(default)]
    tenant: Vec<TenantFile>,
    #[serde(default)]
    kind: Vec<KindFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantFile {
    name: String,
    api_key: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KindFile {
    name: Option<String>,
    weight: Option<f64>,
    task: Option<String>,
    tenant: Option<String>,
    model: Option<String>,
    prompt: Option<String>,
    prompts: Option<Vec<String>>,
    negative_prompt: Option<String>,
    width: Option<u32>,
    height: Option<u32>,
    steps: Option<u32>,
    sampler: Option<String>,
    schedule: Option<String>,
    guidance: Option<f64>,
    strength: Option<f64>,
    images: Option<u32>,
    priority: Option<String>,
    raw: Option<bool>,
    #[serde(default)]
    body: BTreeMap<String, serde_json::Value>,
}

/// One kind of request. Fields that are `None` are not sent: the server's default is taken.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Its name in reports.
    pub name: String,
    /// Its share of all requests, relative to the other kinds' weights.
    pub weight: f64,
    /// The task, and with it the route.
    pub task: Task,
    /// Index into [`Mix::tenants`].
    pub tenant: usize,
    /// The model's id.
    pub model: Option<String>,
    /// One of them is drawn for each request; empty where the task takes none.
    pub prompts: Vec<String>,
    /// What the picture shall not show.
    pub negative_prompt: Option<String>,
    /// Pixels from left to right.
    pub width: Option<u32>,
    /// Pixels from top to bottom.
    pub height: Option<u32>,
    /// Steps.
    pub steps: Option<u32>,
    /// Sampler.
    pub sampler: Option<String>,
    /// Sigma schedule.
    pub schedule: Option<String>,
    /// Guidance scale.
    pub guidance: Option<f64>,
    /// How much of the schedule img2img runs.
    pub strength: Option<f64>,
    /// Pictures per request.
    pub images: u32,
    /// `interactive` or `batch`.
    pub priority: Option<String>,
    /// Whether the picture itself is accepted instead of JSON; such an answer tells no stages.
    pub raw: bool,
    /// Other fields of the body, sent as they stand.
    pub body: BTreeMap<String, serde_json::Value>,
    /// Pictures that go along, drawn by the generator.
    pub drawn: Vec<Drawn>,
}

/// Who sends.
#[derive(Clone, PartialEq, Eq)]
pub struct Sender {
    /// Its name in reports.
    pub name: String,
    /// Sent as `authorization: Bearer …`.
    pub api_key: Option<String>,
}

/// Keys are not shown.
impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What is asked for, by whom.
#[derive(Clone, Debug)]
pub struct Mix {
    /// The kinds, in the file's order.
    pub kinds: Vec<Arc<Kind>>,
    /// The tenants, in the order in which kinds name them.
    pub tenants: Vec<Sender>,
}

impl Mix {
    /// The built-in mix.
    ///
    /// # Errors
    /// Never, unless the file in the source is wrong, which a test sees.
    pub fn built_in() -> Result<Self, MixError> {
        Self::parse(BUILT_IN)
    }

    /// Reads a mix in TOML.
    ///
    /// # Errors
    /// The first field that is wrong, by name, with its limit and its value.
    pub fn parse(text: &str) -> Result<Self, MixError> {
        let file: MixFile = toml::from_str(text).map_err(|error| MixError(error.to_string().trim_end().to_owned()))?;
        if file.kind.is_empty() || file.kind.len() > MAX_KINDS {
            return Err(MixError(format!("`kind` must be given from 1 to {MAX_KINDS} times, not {}", file.kind.len())));
        }
        check_tenants(&file.tenant)?;
        let mut tenants = Vec::new();
        let mut kinds: Vec<Arc<Kind>> = Vec::new();
        for (index, kind) in file.kind.into_iter().enumerate() {
            let tenant = tenant_of(&kind, &file.tenant, &mut tenants, index)?;
            let kind = Kind::check(kind, tenant, index)?;
            if kinds.iter().any(|other| other.name == kind.name) {
                return Err(wrong(index, "name", "different for each kind", format!("{:?} twice", kind.name)));
            }
            kinds.push(Arc::new(kind));
        }
        Ok(Self { kinds, tenants })
    }

    /// The weights of all kinds of each tenant together.
    pub(crate) fn tenant_weights(&self) -> Vec<f64> {
        let of = |tenant| self.kinds.iter().filter(|kind| kind.tenant == tenant).map(|kind| kind.weight).sum();
        (0..self.tenants.len()).map(of).collect()
    }
}

/// A wrong field of the kind with that index.
fn wrong(index: usize, field: &str, limit: &str, value: impl std::fmt::Display) -> MixError {
    MixError(format!("`kind[{index}].{field}` must be {limit}, not {value}"))
}

fn check_tenants(tenants: &[TenantFile]) -> Result<(), MixError> {
    for (index, tenant) in tenants.iter().enumerate() {
        if tenants[..index].iter().any(|other| other.name == tenant.name) {
            return Err(MixError(format!("`tenant[{index}].name` must be given once, not {:?} twice", tenant.name)));
        }
        let sendable = |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
        if !tenant.api_key.as_deref().is_none_or(sendable) {
            return Err(MixError(format!("`tenant[{index}].api_key` must be visible ASCII without blanks")));
        }
    }
    Ok(())
}

/// The index of the kind's tenant among `known`, to which it is added.
fn tenant_of(kind: &KindFile, listed: &[TenantFile], known: &mut Vec<Sender>, index: usize) -> Result<usize, MixError> {
    let name = kind.tenant.as_deref().unwrap_or(NOBODY);
    if let Some(at) = known.iter().position(|sender| sender.name == name) {
        return Ok(at);
    }
    let found = listed.iter().find(|tenant| tenant.name == name);
    if found.is_none() && kind.tenant.is_some() {
        let names: Vec<_> = listed.iter().map(|tenant| tenant.name.as_str()).collect();
        return Err(wrong(index, "tenant", &format!("a `tenant` of this file ({})", names.join(", ")), format!("{name:?}")));
    }
    known.push(Sender { name: name.to_owned(), api_key: found.and_then(|tenant| tenant.api_key.clone()) });
    Ok(known.len() - 1)
}

impl Kind {
    fn check(file: KindFile, tenant: usize, index: usize) -> Result<Self, MixError> {
        let weight = file.weight.unwrap_or(1.0);
        if !(weight > 0.0 && weight.is_finite()) {
            return Err(wrong(index, "weight", "above 0", weight));
        }
        let task: Task = file
            .task
            .as_deref()
            .unwrap_or("txt2img")
            .parse()
            .map_err(|error: ldm_core::task::UnknownTask| MixError(format!("`kind[{index}].task`: {error}")))?;
        let images = file.images.unwrap_or(1);
        let raw = file.raw.unwrap_or(false);
        if images == 0 || (raw && images > 1) {
            return Err(wrong(index, "images", if raw { "1 where `raw` is true" } else { "at least 1" }, images));
        }
        if file.prompt.is_some() && file.prompts.is_some() {
            return Err(wrong(index, "prompts", "absent where `prompt` is given", "both"));
        }
        let prompts = file.prompts.or_else(|| file.prompt.map(|prompt| vec![prompt])).unwrap_or_default();
        if let Some(priority) = file.priority.as_deref().filter(|said| !["interactive", "batch"].contains(said)) {
            return Err(wrong(index, "priority", "interactive or batch", format!("{priority:?}")));
        }
        let drawn = pictures::for_task(task, file.width, file.height)
            .map_err(|(field, error)| MixError(format!("`kind[{index}].{field}` {error}")))?;
        let name = file.name.unwrap_or_else(|| usual_name(task, file.width, file.height, file.steps));
        Ok(Self {
            name,
            weight,
            task,
            tenant,
            model: file.model,
            prompts,
            negative_prompt: file.negative_prompt,
            width: file.width,
            height: file.height,
            steps: file.steps,
            sampler: file.sampler,
            schedule: file.schedule,
            guidance: file.guidance,
            strength: file.strength,
            images,
            priority: file.priority,
            raw,
            body: file.body,
            drawn,
        })
    }

    /// The prompt with that number, if the kind has any.
    pub fn prompt(&self, number: usize) -> Option<&str> {
        self.prompts.get(number % self.prompts.len().max(1)).map(String::as_str)
    }
}

fn usual_name(task: Task, width: Option<u32>, height: Option<u32>, steps: Option<u32>) -> String {
    let mut name = task.name().to_owned();
    if width.is_some() || height.is_some() {
        let side = |side: Option<u32>| side.map_or_else(|| "default".to_owned(), |side| side.to_string());
        name += &format!(" {}x{}", side(width), side(height));
    }
    steps.map_or(name.clone(), |steps| format!("{name} {steps} steps"))
}

/// Draws kinds by their weights.
#[derive(Clone, Debug)]
pub(crate) struct Drawer {
    /// Kinds with the sum of the weights up to and with each.
    until: Vec<(usize, f64)>,
}

impl Drawer {
    /// Of all kinds, or of those of one tenant.
    pub(crate) fn new(mix: &Mix, tenant: Option<usize>) -> Self {
        let mut sum = 0.0;
        let kinds = mix.kinds.iter().enumerate().filter(|(_, kind)| tenant.is_none_or(|tenant| kind.tenant == tenant));
        let until = kinds.map(|(index, kind)| {
            sum += kind.weight;
            (index, sum)
        });
        Self { until: until.collect() }
    }

    /// The index of a kind.
    pub(crate) fn draw(&self, random: &mut Random) -> usize {
        let sum = self.until.last().map_or(0.0, |(_, sum)| *sum);
        let at = random.unit() * sum;
        let found = self.until.iter().find(|(_, until)| at < *until).or(self.until.last());
        found.map_or(0, |(index, _)| *index)
    }
}
