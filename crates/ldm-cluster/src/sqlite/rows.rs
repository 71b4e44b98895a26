//! Rows to the ledger's types and back. Lists of objects and outcomes lie in columns of JSON.

use ldm_core::{JobId, Priority, Tenant};
use ldm_engine::ledger::{Claim, Fence, JobState, JobView, NodeId, ObjectRef, Outcome, Phase, Timestamp};
use rusqlite::types::Type;
use rusqlite::{Row, ToSql};
use serde_json::{Value, json};

pub(super) const QUEUED: i64 = 0;
pub(super) const RUNNING: i64 = 1;
const SUCCEEDED: i64 = 2;
const FAILED: i64 = 3;
pub(super) const CANCELED: i64 = 4;
pub(super) const EXPIRED: i64 = 5;

/// A number as SQLite keeps it.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn time(at: Timestamp) -> i64 {
    int(at.0)
}

pub(super) fn class(priority: Priority) -> i64 {
    match priority {
        Priority::Interactive => 0,
        Priority::Batch => 1,
    }
}

pub(super) fn priority(class: i64) -> Priority {
    if class == 0 { Priority::Interactive } else { Priority::Batch }
}

/// A column that does not hold what this program writes.
fn damaged(column: &'static str, what: impl std::fmt::Display) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, format!("column {column}: {what}").into())
}

pub(super) fn number(row: &Row<'_>, column: &'static str) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|error| damaged(column, error))
}

pub(super) fn small(row: &Row<'_>, column: &'static str) -> rusqlite::Result<u32> {
    let value: i64 = row.get(column)?;
    u32::try_from(value).map_err(|error| damaged(column, error))
}

pub(super) fn moment(row: &Row<'_>, column: &'static str) -> rusqlite::Result<Option<Timestamp>> {
    let value: Option<i64> = row.get(column)?;
    value.map(|value| u64::try_from(value).map(Timestamp).map_err(|error| damaged(column, error))).transpose()
}

pub(super) fn id(row: &Row<'_>) -> rusqlite::Result<JobId> {
    let text: String = row.get("id")?;
    text.parse().map_err(|error| damaged("id", error))
}

fn one(object: &ObjectRef) -> Value {
    json!([object.key, object.bytes, object.digest])
}

fn many(objects: &[ObjectRef]) -> Value {
    objects.iter().map(one).collect()
}

/// Objects as a column.
pub(super) fn objects(objects: &[ObjectRef]) -> impl ToSql {
    many(objects).to_string()
}

fn read_object(value: &Value) -> Option<ObjectRef> {
    let [key, bytes, digest] = value.as_array()?.as_slice() else { return None };
    Some(ObjectRef { key: key.as_str()?.to_owned(), bytes: bytes.as_u64()?, digest: digest.as_str()?.to_owned() })
}

fn read_objects(value: &Value) -> Option<Vec<ObjectRef>> {
    value.as_array()?.iter().map(read_object).collect()
}

fn json(row: &Row<'_>, column: &'static str) -> rusqlite::Result<Value> {
    let text: Option<String> = row.get(column)?;
    text.map_or(Ok(Value::Null), |text| serde_json::from_str(&text).map_err(|error| damaged(column, error)))
}

pub(super) fn column_objects(row: &Row<'_>, column: &'static str) -> rusqlite::Result<Vec<ObjectRef>> {
    match json(row, column)? {
        Value::Null => Ok(Vec::new()),
        value => read_objects(&value).ok_or_else(|| damaged(column, "no list of objects")),
    }
}

/// An ending as its state and its column.
pub(super) fn ending(outcome: &Outcome) -> (i64, String) {
    match outcome {
        Outcome::Succeeded { outputs, detail } => (SUCCEEDED, json!({"outputs": many(outputs), "detail": detail}).to_string()),
        Outcome::Failed { reason, message } => (FAILED, json!({"reason": reason, "message": message}).to_string()),
        Outcome::Canceled => (CANCELED, "{}".to_owned()),
    }
}

/// The state of a row; a waiting job's position is filled in by whoever counts it.
pub(super) fn state(row: &Row<'_>) -> rusqlite::Result<JobState> {
    let outcome = json(row, "outcome")?;
    let text = |name: &str| outcome[name].as_str().map(str::to_owned).ok_or_else(|| damaged("outcome", "a text is missing"));
    Ok(match row.get("state")? {
        QUEUED => JobState::Queued { position: 0 },
        RUNNING => JobState::Running { node: NodeId::stored(row.get("owner")?), step: small(row, "step")? },
        SUCCEEDED => {
            let outputs = read_objects(&outcome["outputs"]).ok_or_else(|| damaged("outcome", "no list of objects"))?;
            JobState::Ended(Outcome::Succeeded { outputs, detail: text("detail")? })
        }
        FAILED => JobState::Ended(Outcome::Failed { reason: text("reason")?, message: text("message")? }),
        CANCELED => JobState::Ended(Outcome::Canceled),
        EXPIRED => JobState::Expired,
        other => return Err(damaged("state", other)),
    })
}

/// The same in a word: states are numbered as phases are.
pub(super) fn phase(row: &Row<'_>) -> rusqlite::Result<Phase> {
    let state = number(row, "state")?;
    let phase = usize::try_from(state).ok().and_then(|state| Phase::ALL.get(state).copied());
    phase.ok_or_else(|| damaged("state", state))
}

pub(super) fn view(row: &Row<'_>) -> rusqlite::Result<JobView> {
    let state = state(row)?;
    Ok(JobView {
        id: id(row)?,
        tenant: Tenant::new(&row.get::<_, String>("tenant")?),
        priority: priority(row.get("class")?),
        model: row.get("model")?,
        name: row.get("name")?,
        cost_ms: number(row, "cost_ms")?,
        spec: row.get("spec")?,
        epoch: number(row, "epoch")?,
        crashes: small(row, "crashes")?,
        cancel: row.get::<_, bool>("cancel")? && !state.is_terminal(),
        created: moment(row, "created")?.unwrap_or_default(),
        started: moment(row, "started")?,
        ended: moment(row, "ended")?,
        deadline: moment(row, "deadline")?,
        note: row.get("note")?,
        state,
    })
}

pub(super) fn claim(row: &Row<'_>) -> rusqlite::Result<Claim> {
    let crashes = small(row, "crashes")?;
    Ok(Claim {
        fence: Fence { id: id(row)?, epoch: number(row, "epoch")? },
        tenant: Tenant::new(&row.get::<_, String>("tenant")?),
        priority: priority(row.get("class")?),
        model: row.get("model")?,
        bucket: row.get("bucket")?,
        spec: row.get("spec")?,
        inputs: column_objects(row, "inputs")?,
        ckpt: column_objects(row, "ckpt")?.pop(),
        step: small(row, "step")?,
        crashes,
        alone: crashes > 0,
        deadline: moment(row, "deadline")?,
    })
}
