//! The field `webhook`: a URL, or an object with the URL and the endings that are to be told.

use ldm_core::Violation;
use ldm_engine::ledger::{Hook, Phase};
use serde_json::{Map, Value};

use crate::dialects::native::fields::Fields;
use crate::webhooks::{self, Webhooks};

/// Reads it; what is wrong with it is noted in `fields`.
pub(in crate::dialects::native) fn read(fields: &mut Fields, webhooks: Option<&Webhooks>) -> Option<Hook> {
    let said = fields.take("webhook")?;
    let Some(webhooks) = webhooks else {
        fields.bad.push(webhooks::off(&said));
        return None;
    };
    let hook = asked(said).and_then(|(url, endings)| webhooks.hook(url, endings));
    hook.map_err(|bad| fields.bad.push(bad)).ok()
}

fn asked(said: Value) -> Result<(String, Vec<Phase>), Violation> {
    const SHAPE: &str = "a URL, or an object with `url` and `events`";
    let wrong =
        |field: &str, limit: &str, value: &Value| Violation::new(field, format!("`{field}` must be {limit}"), limit, value);
    let mut left: Map<String, Value> = match said {
        Value::String(url) => return Ok((url, Phase::ENDINGS.to_vec())),
        Value::Object(left) => left,
        other => return Err(wrong("webhook", SHAPE, &other)),
    };
    let url = match left.remove("url") {
        Some(Value::String(url)) => url,
        Some(other) => return Err(wrong("webhook.url", "a string", &other)),
        None => return Err(Violation::missing("webhook.url")),
    };
    let known = Phase::ENDINGS.map(Phase::name).join(", ");
    let endings = match left.remove("events") {
        None | Some(Value::Null) => Phase::ENDINGS.to_vec(),
        Some(Value::Array(names)) if !names.is_empty() => {
            let ending = |name: &Value| name.as_str().and_then(Phase::named).filter(|phase| Phase::ENDINGS.contains(phase));
            let limit = format!("one of {known}");
            let read = names.iter().map(|name| ending(name).ok_or_else(|| wrong("webhook.events", &limit, name)));
            read.collect::<Result<_, _>>()?
        }
        Some(other) => return Err(wrong("webhook.events", &format!("a list of {known}"), &other)),
    };
    match left.into_iter().next() {
        None => Ok((url, endings)),
        Some((field, value)) => {
            let field = format!("webhook.{field}");
            Err(Violation::new(&field, format!("there is no field `{field}`"), "url, events", value))
        }
    }
}
