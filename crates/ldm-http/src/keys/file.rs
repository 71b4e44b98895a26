//! The file of keys: TOML, a `[[keys]]` table each; read strictly, with everything that is wrong said at once.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::time::SystemTime;

use ldm_core::{Priority, Tenant};
use serde::Deserialize;
use toml::value::Datetime;

use super::rate::Rate;
use crate::caller::Role;

/// Keys of a file at most.
const MOST_KEYS: usize = 10_000;
/// Letters of a name at most.
const MOST_LETTERS: usize = 64;
/// The largest rate, burst and concurrency: so large that it stands for no limit.
const MANY: u32 = 1_000_000;
/// Requests at once, where a rate says nothing of them.
const BURST: u32 = 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    keys: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    sha256: OneOrMore,
    role: Option<String>,
    rate: Option<u32>,
    burst: Option<u32>,
    concurrency: Option<u32>,
    priority: Option<String>,
    models: Option<Vec<String>>,
    expires: Option<Datetime>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// One entry, checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) name: String,
    /// Of every secret that is this key.
    pub(super) digests: Vec<[u8; 32]>,
    pub(super) role: Role,
    pub(super) rate: Option<Rate>,
    pub(super) concurrency: Option<usize>,
    pub(super) priority: Priority,
    pub(super) models: Option<Vec<String>>,
    pub(super) expires: Option<SystemTime>,
}

/// Reads a file's text, or says everything that is wrong with it, a line each.
pub(super) fn read(text: &str) -> Result<Vec<Record>, Vec<String>> {
    let file: File = toml::from_str(text).map_err(|error| {
        // The error's own text quotes the file.
        let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        vec![format!("{place}{}", error.message())]
    })?;
    if file.keys.len() > MOST_KEYS {
        return Err(vec![format!("there are {} keys, and at most {MOST_KEYS} are taken", file.keys.len())]);
    }
    let (mut bad, mut names, mut digests) = (Vec::new(), HashSet::new(), HashSet::new());
    let mut records = Vec::with_capacity(file.keys.len());
    for entry in file.keys {
        let record = check(entry, &mut bad);
        if !names.insert(record.name.clone()) {
            bad.push(format!("two keys are called {:?}", record.name));
        }
        for digest in &record.digests {
            if !digests.insert(*digest) {
                bad.push(format!("key {:?}: its `sha256` stands there more than once", record.name));
            }
        }
        records.push(record);
    }
    if bad.is_empty() { Ok(records) } else { Err(bad) }
}

fn check(entry: Entry, bad: &mut Vec<String>) -> Record {
    let name = entry.name;
    let mut wrong = |what: String| bad.push(format!("key {name:?}: {what}"));
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !(1..=MOST_LETTERS).contains(&name.len()) || !name.chars().all(plain) {
        wrong(format!("`name` must be 1 to {MOST_LETTERS} letters, digits and . _ -"));
    }
    if name == Tenant::default().name() {
        wrong("`name` must be another: this is who shows no key".to_owned());
    }
    let texts = match entry.sha256 {
        OneOrMore::One(text) => vec![text],
        OneOrMore::More(texts) => texts,
    };
    let digests: Vec<_> = texts.iter().filter_map(|text| digest(text)).collect();
    if digests.len() != texts.len() || texts.is_empty() {
        wrong("`sha256` must be 64 hexadecimal digits, or a list of such".to_owned());
    }
    let role = match entry.role.as_deref() {
        None | Some("user") => Role::User,
        Some("admin") => Role::Admin,
        Some(other) => {
            wrong(format!("`role` must be user or admin, not {other:?}"));
            Role::User
        }
    };
    let priority = match entry.priority.as_deref() {
        None => Priority::Interactive,
        Some(said) => Priority::ALL.into_iter().find(|known| known.name() == said).unwrap_or_else(|| {
            let known = Priority::ALL.map(Priority::name).join(" or ");
            wrong(format!("`priority` must be {known}, not {said:?}"));
            Priority::Batch
        }),
    };
    let mut number = |field: &str, value: Option<u32>| {
        let value = value?;
        if !(1..=MANY).contains(&value) {
            wrong(format!("`{field}` must be from 1 to {MANY}, not {value}"));
        }
        NonZeroU32::new(value)
    };
    let (rate, burst) = (number("rate", entry.rate), number("burst", entry.burst));
    let concurrency = number("concurrency", entry.concurrency).map(|most| most.get() as usize);
    if burst.is_some() && entry.rate.is_none() {
        wrong("`burst` means nothing without `rate`".to_owned());
    }
    let rate = rate.map(|per_minute| {
        let usual = NonZeroU32::new(BURST).map_or(per_minute, |usual| usual.min(per_minute));
        Rate { per_minute, burst: burst.unwrap_or(usual) }
    });
    if entry.models.as_ref().is_some_and(Vec::is_empty) {
        wrong("`models` must name a model; without it the key may use every one".to_owned());
    }
    let expires = entry.expires.and_then(|at| {
        let at = at.to_string();
        let read = chrono::DateTime::parse_from_rfc3339(&at).map(SystemTime::from);
        read.map_err(|_| {
            wrong(format!("`expires` must be a date with a time and a zone, such as 2030-01-01T00:00:00Z, not {at}"))
        })
        .ok()
    });
    Record { name, digests, role, rate, concurrency, priority, models: entry.models, expires }
}

/// 64 hexadecimal digits.
fn digest(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "BBbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb0";

    #[test]
    fn an_entry_says_what_its_key_may() {
        let text = format!(
            "[[keys]]\nname = \"a.b\"\nsha256 = \"{A}\"\n[[keys]]\nname = \"c\"\nsha256 = [\"{B}\"]\nrole = \"admin\"\nrate = 60\n\
             concurrency = 4\npriority = \"batch\"\nmodels = [\"m\"]\nexpires = 1970-01-02T01:00:00+01:00"
        );
        let records = read(&text).unwrap();
        let plain = Record {
            name: "a.b".to_owned(),
            digests: vec![[0xaa; 32]],
            role: Role::User,
            rate: None,
            concurrency: None,
            priority: Priority::Interactive,
            models: None,
            expires: None,
        };
        assert_eq!(records[0], plain);
        let rate = Rate { per_minute: NonZeroU32::new(60).unwrap(), burst: NonZeroU32::new(10).unwrap() };
        let full = &records[1];
        assert_eq!((full.role, full.rate, full.concurrency), (Role::Admin, Some(rate), Some(4)));
        assert_eq!((full.priority, full.models.as_deref()), (Priority::Batch, Some(&["m".to_owned()][..])));
        assert_eq!(full.expires, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(86_400)));
        assert_eq!(read("").unwrap(), [], "a file without keys lets nobody in");
    }

    #[test]
    fn everything_that_is_wrong_is_said_and_no_digest_is_quoted() {
        let entry = |more: &str| read(&format!("[[keys]]\nname = \"k\"\nsha256 = \"{A}\"\n{more}")).unwrap_err().join("\n");
        for (more, said) in [
            ("role = \"root\"", "key \"k\": `role` must be user or admin, not \"root\""),
            ("rate = 0", "key \"k\": `rate` must be from 1 to 1000000, not 0"),
            ("burst = 3", "key \"k\": `burst` means nothing without `rate`"),
            ("priority = \"high\"", "key \"k\": `priority` must be interactive or batch, not \"high\""),
            ("models = []", "key \"k\": `models` must name a model; without it the key may use every one"),
            ("expires = 2030-01-01", "such as 2030-01-01T00:00:00Z, not 2030-01-01"),
            ("rates = 1", "line 4: unknown field `rates`"),
            ("rate = -1", "line 4: invalid value: integer `-1`"),
        ] {
            let told = entry(more);
            assert!(told.contains(said) && !told.contains(A), "{more}: {told}");
        }
        let all = read(&format!(
            "[[keys]]\nname = \"a b\"\nsha256 = \"x\"\n[[keys]]\nname = \"k\"\nsha256 = [\"{A}\", \"{A}\"]\n[[keys]]\nname = \"k\"\n\
             sha256 = []\n[[keys]]\nname = \"anonymous\"\nsha256 = \"{B}\""
        ))
        .unwrap_err();
        assert_eq!(all.len(), 6, "{all:#?}");
    }
}
