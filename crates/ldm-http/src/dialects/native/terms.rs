//! On which terms a request is taken: how urgent it is, and until when its pictures are of use.

use std::time::Duration;

use ldm_core::{Priority, Terms, Violation};

use super::fields::Fields;

/// The latest deadline: a day.
const LATEST_MS: i64 = 24 * 60 * 60 * 1000;

/// Reads `priority` and `deadline_ms`.
pub(super) fn read(fields: &mut Fields) -> Terms {
    Terms { priority: priority(fields).unwrap_or_default(), deadline: deadline(fields), ..Terms::default() }
}

fn priority(fields: &mut Fields) -> Option<Priority> {
    let name = fields.text("priority")?;
    let priority = Priority::ALL.into_iter().find(|priority| priority.name() == name);
    if priority.is_none() {
        let known = Priority::ALL.map(Priority::name).join(", ");
        fields.bad.push(Violation::new("priority", format!("`priority` must be one of {known}, not {name:?}"), known, name));
    }
    priority
}

fn deadline(fields: &mut Fields) -> Option<Duration> {
    let ms = fields.whole("deadline_ms")?;
    if (1..=LATEST_MS).contains(&ms) {
        return u64::try_from(ms).ok().map(Duration::from_millis);
    }
    let message = format!("`deadline_ms` must be from 1 to {LATEST_MS}, not {ms}");
    fields.bad.push(Violation::new("deadline_ms", message, format!("1..={LATEST_MS}"), ms));
    None
}
