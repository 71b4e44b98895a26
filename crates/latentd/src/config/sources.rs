//! Where settings come from, and everything that is wrong with them at once.

use std::collections::HashMap;
use std::fmt;

use toml::de::{DeTable, DeValue};

use super::given::Given;
use super::settings::{SECTIONS, Setting, all, named};
use super::{Config, models};
use crate::nearest::nearest;

/// Environment variables that are no settings of the table.
const CONFIG_VARIABLE: &str = "LATENTD_CONFIG";
const MODELS_VARIABLE: &str = "LATENTD_MODELS";
const PREFIX: &str = "LATENTD_";

/// A configuration file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct File<'a> {
    /// Its name, for complaints.
    pub(crate) name: &'a str,
    /// What it says.
    pub(crate) text: &'a str,
}

/// A flag that sets a setting (or `models`).
#[derive(Clone, Debug)]
pub(crate) struct Flag {
    /// As it is typed, for example `--listen`.
    pub(crate) flag: &'static str,
    /// What it sets, for example `server.listen`.
    pub(crate) setting: &'static str,
    /// The value.
    pub(crate) value: String,
}

/// All that is said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources<'a> {
    /// The file.
    pub(crate) file: Option<File<'a>>,
    /// Environment variables by name; those of others are ignored.
    pub(crate) environment: HashMap<String, String>,
    /// The flags.
    pub(crate) flags: Vec<Flag>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem(String);

impl Problem {
    pub(super) fn new(message: String) -> Self {
        Self(message)
    }

    pub(super) fn unknown(name: &str, nearest: Option<&str>) -> Self {
        let hint = nearest.map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default();
        Self(format!("`{name}` is no setting{hint}"))
    }
}

/// Everything that is wrong, a line each: where, what, and what it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub(crate) struct Problems(Vec<String>);

impl Problems {
    fn push(&mut self, place: impl fmt::Display, problem: &Problem) {
        self.0.push(format!("{place}: {}", problem.0));
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// This process's environment; variables that are no text belong to others.
pub(crate) fn environment() -> HashMap<String, String> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// The configuration in force, or everything that is wrong with what was said.
pub(crate) fn resolve(sources: &Sources<'_>) -> Result<Config, Problems> {
    let (mut config, mut bad) = (Config::default(), Problems::default());
    if let Some(file) = sources.file {
        read_file(&mut config, file, &mut bad);
    }
    read_environment(&mut config, &sources.environment, &mut bad);
    for flag in &sources.flags {
        if let Err(problem) = set_text(&mut config, flag.setting, &flag.value) {
            bad.push(flag.flag, &problem);
        }
    }
    if bad.0.is_empty() { Ok(config) } else { Err(bad) }
}

fn read_file(config: &mut Config, file: File<'_>, bad: &mut Problems) {
    let mut found = match DeTable::parse(file.text) {
        Ok(parsed) => read_table(config, parsed.get_ref()),
        Err(error) => {
            vec![(error.span().map_or(0, |span| span.start), Problem::new(error.message().to_owned()))]
        }
    };
    // The parser hands keys over by name; people read from the top.
    found.sort_by_key(|(offset, _)| *offset);
    for (offset, problem) in found {
        let before = &file.text.as_bytes()[..offset.min(file.text.len())];
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        bad.push(format_args!("{}:{line}", file.name), &problem);
    }
}

/// Takes the file's settings over; what is wrong comes with its offset in the file.
fn read_table(config: &mut Config, table: &DeTable<'_>) -> Vec<(usize, Problem)> {
    let mut bad = Vec::new();
    for (section, content) in table {
        let name = section.get_ref().as_ref();
        match content.get_ref() {
            DeValue::Array(entries) if name == "models" => match models::from_file(entries) {
                Ok(models) => config.models = models,
                Err(problems) => bad.extend(problems),
            },
            DeValue::Table(keys) if SECTIONS.iter().any(|(known, _)| *known == name) => {
                for (key, value) in keys {
                    let full = format!("{name}.{}", key.get_ref());
                    let outcome = match named(&full) {
                        Some(setting) => set(config, setting, Given::Toml(value.get_ref())),
                        None => Err(Problem::unknown(&full, nearest(&full, all().map(|setting| setting.name)))),
                    };
                    bad.extend(outcome.err().map(|problem| (key.span().start, problem)));
                }
            }
            _ => bad.push((section.span().start, misplaced(name, content.get_ref()))),
        }
    }
    bad
}

/// What is at the top of the file and does not belong there.
fn misplaced(name: &str, content: &DeValue<'_>) -> Problem {
    let sections = || SECTIONS.iter().map(|(section, _)| *section).chain(["models"]);
    if name == "models" {
        return Problem::new("`models` must be a list of tables, `[[models]]` with `id` and `path`".to_owned());
    }
    if sections().any(|section| section == name) {
        return Problem::new(format!("`{name}` must be a table, `[{name}]`, not {}", Given::Toml(content)));
    }
    let table = matches!(content, DeValue::Table(_) | DeValue::Array(_));
    let meant = if table { nearest(name, sections()) } else { nearest(name, all().map(|setting| setting.name)) };
    Problem::unknown(name, meant)
}

fn read_environment(config: &mut Config, environment: &HashMap<String, String>, bad: &mut Problems) {
    let get = |name: &str| environment.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let others = [("RUST_LOG".to_owned(), "log.filter"), (MODELS_VARIABLE.to_owned(), "models")];
    let own = all().map(|setting| (setting.variable(), setting.name));
    // In this order, so that a setting's own variable has the last word.
    let known: Vec<(String, &str)> = others.into_iter().chain(own).collect();
    for (variable, setting) in &known {
        if let Some(value) = get(variable)
            && let Err(problem) = set_text(config, setting, value)
        {
            bad.push(variable, &problem);
        }
    }
    let names = || known.iter().map(|(name, _)| name.as_str()).chain([CONFIG_VARIABLE]);
    let mut unknown: Vec<_> =
        environment.keys().filter(|name| name.starts_with(PREFIX) && !names().any(|known| known == *name)).collect();
    unknown.sort();
    for name in unknown {
        bad.push("environment", &Problem::unknown(name, nearest(name, names().filter(|name| name.starts_with(PREFIX)))));
    }
}

fn set_text(config: &mut Config, setting: &str, value: &str) -> Result<(), Problem> {
    match named(setting) {
        Some(setting) => set(config, setting, Given::Text(value)),
        None => models::from_text(value).map(|models| config.models = models),
    }
}

fn set(config: &mut Config, setting: &Setting, given: Given<'_>) -> Result<(), Problem> {
    (setting.set)(config, given).map_err(|expected| Problem::new(format!("`{}` must be {expected}, not {given}", setting.name)))
}
