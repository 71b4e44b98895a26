//! The infotext of AUTOMATIC1111's web UI, which dozens of tools read: written, and read back.

use std::fmt;

/// What an infotext says: two prompts, and settings by name.
///
/// Written it is the prompt, `Negative prompt: …` if there is one, and a line of settings, `Steps: 20, Sampler: "a, b"`
/// (`modules/infotext_utils.py`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Infotext {
    pub(crate) prompt: String,
    pub(crate) negative_prompt: String,
    /// In the order of the text; a name may stand there twice.
    pub(crate) settings: Vec<(String, String)>,
}

/// A last line with fewer settings than this is one of the prompt's.
const SETTINGS: usize = 3;
const NEGATIVE: &str = "Negative prompt:";

impl Infotext {
    /// Adds a setting.
    pub(crate) fn set(&mut self, name: &str, value: impl fmt::Display) {
        self.settings.push((name.to_owned(), value.to_string()));
    }

    /// Reads an infotext as the web UI does. Every text is one: what has no settings is a prompt.
    pub(crate) fn parse(text: &str) -> Self {
        let text = text.trim();
        let (before, last) = text.rsplit_once('\n').map_or(("", text), |(before, last)| (before, last));
        let settings = settings(last);
        let (prompts, settings) = if settings.len() < SETTINGS { (text, Vec::new()) } else { (before, settings) };
        let mut parts = [Vec::new(), Vec::new()];
        let mut part = 0;
        for line in prompts.split('\n').map(str::trim) {
            let rest = line.strip_prefix(NEGATIVE);
            if rest.is_some() {
                part = 1;
            }
            let line = rest.map_or(line, str::trim);
            // Empty lines before a text are not part of it.
            if !(parts[part].is_empty() && line.is_empty()) {
                parts[part].push(line);
            }
        }
        let [prompt, negative_prompt] = parts.map(|lines| lines.join("\n"));
        Self { prompt, negative_prompt, settings }
    }
}

impl fmt::Display for Infotext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.prompt)?;
        if !self.negative_prompt.is_empty() {
            write!(f, "\n{NEGATIVE} {}", self.negative_prompt)?;
        }
        for (i, (name, value)) in self.settings.iter().enumerate() {
            write!(f, "{}{name}: {}", if i == 0 { "\n" } else { ", " }, quoted(value))?;
        }
        Ok(())
    }
}

/// A value that would not be read as it is stands in quotes, as JSON.
fn quoted(value: &str) -> String {
    let plain = !value.contains([',', '\n', ':']) && !value.starts_with('"') && !value.is_empty() && value.trim() == value;
    if plain { value.to_owned() } else { serde_json::Value::from(value).to_string() }
}

fn unquoted(value: &str) -> String {
    let said = if value.starts_with('"') { serde_json::from_str(value).ok() } else { None };
    said.unwrap_or_else(|| value.to_owned())
}

/// The settings of a line, `name: value, …`. What is none is passed over.
fn settings(line: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(start) = rest.find(|c: char| c.is_alphanumeric() || c == '_') {
        rest = &rest[start..];
        let end = rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | ' ' | '-' | '/'))).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        // A name has two characters or more.
        match after.strip_prefix(':').filter(|_| name.chars().nth(1).is_some()) {
            None => rest = after,
            Some(after) => {
                let (value, after) = value(after.trim_start());
                if !value.is_empty() {
                    found.push((name.to_owned(), unquoted(value)));
                }
                rest = after;
            }
        }
    }
    found
}

/// The value at the start of `text`, and what follows its comma. A quoted one ends with its quote, if a comma or nothing follows.
fn value(text: &str) -> (&str, &str) {
    let quoted = text.strip_prefix('"').and_then(|inner| {
        let mut escaped = false;
        let end = inner.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?;
        let (value, rest) = text.split_at(end + 2);
        if rest.is_empty() { Some((value, rest)) } else { rest.strip_prefix(',').map(|rest| (value, rest)) }
    });
    quoted.or_else(|| text.split_once(',')).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn infotexts_of_other_programs_are_read() {
        let table = [
            // stable-diffusion-webui 1.9.
            (
                "masterpiece, (a cat:1.2)\nsecond line\nNegative prompt: dogs,\nworse dogs\nSteps: 20, Sampler: DPM++ 2M Karras, \
                 CFG scale: 7, Seed: 1, Size: 512x768, Model hash: 6ce0161689, Lora hashes: \"ink: 0a1b, moss: 2c3d\", Version: v1.9.4",
                ("masterpiece, (a cat:1.2)\nsecond line", "dogs,\nworse dogs"),
                pairs(&[
                    ("Steps", "20"),
                    ("Sampler", "DPM++ 2M Karras"),
                    ("CFG scale", "7"),
                    ("Seed", "1"),
                    ("Size", "512x768"),
                    ("Model hash", "6ce0161689"),
                    ("Lora hashes", "ink: 0a1b, moss: 2c3d"),
                    ("Version", "v1.9.4"),
                ]),
            ),
            // Windows' line ends, and space all around.
            (
                "  a cat\r\nNegative prompt: a dog \r\nSteps: 1, Seed: 2, Hires upscaler: Latent (nearest-exact)\r\n\r\n",
                ("a cat", "a dog"),
                pairs(&[("Steps", "1"), ("Seed", "2"), ("Hires upscaler", "Latent (nearest-exact)")]),
            ),
            // Two settings are none: this is a prompt.
            ("portrait: a cat, colour: red", ("portrait: a cat, colour: red", ""), vec![]),
            ("", ("", ""), vec![]),
            ("Negative prompt: dogs", ("", "dogs"), vec![]),
            // No prompt at all.
            ("Steps: 20, Seed: 1, Size: 8x8", ("", ""), pairs(&[("Steps", "20"), ("Seed", "1"), ("Size", "8x8")])),
            // Quotes that are none, values that are none, names that are none.
            (
                "x\nSteps: 20, Seed: \"1, Size: \"8x8\"x, A: 1, Note: , Empty: \"\", ;;Bad: \"\\ud800\", Last/one-two: [a|b]",
                ("x", ""),
                pairs(&[
                    ("Steps", "20"),
                    ("Seed", "\"1"),
                    ("Size", "\"8x8\"x"),
                    ("Empty", ""),
                    ("Bad", "\"\\ud800\""),
                    ("Last/one-two", "[a|b]"),
                ]),
            ),
        ];
        for (text, (prompt, negative), settings) in table {
            let read = Infotext::parse(text);
            assert_eq!(
                (read.prompt.as_str(), read.negative_prompt.as_str(), read.settings),
                (prompt, negative, settings),
                "{text}"
            );
        }
    }

    #[test]
    fn hostile_lines_take_linear_time() {
        // Were names or quotes searched again from every start, these would take minutes.
        for piece in ["a", "a ", "aa: \"\\\",", "\"", "\\", "aa:", "é"] {
            Infotext::parse(&piece.repeat((1 << 20) / piece.len()));
        }
    }

    /// A line of a prompt: trimmed, and no beginning of a negative one.
    fn line() -> impl Strategy<Value = String> {
        let no_prefix = |line: &String| !line.starts_with(NEGATIVE);
        "[^\n]{0,20}[^\\s]".prop_map(|line| line.trim().to_owned()).prop_filter("the negative prompt begins", no_prefix)
    }

    fn text() -> impl Strategy<Value = String> {
        proptest::collection::vec(line(), 0..4).prop_map(|lines| lines.join("\n"))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            prompt in text(),
            negative_prompt in text(),
            settings in proptest::collection::vec(("[a-zA-Z0-9_é中][a-zA-Z0-9_é中 /-]{0,12}[a-z0-9/-]", "\\PC{0,20}|[,:\" \\\\\n\ta]{0,12}|[^\u{0}]{0,8}"), 3..6),
        ) {
            let said = Infotext { prompt, negative_prompt, settings };
            prop_assert_eq!(Infotext::parse(&said.to_string()), said);
        }

        #[test]
        fn any_text_is_read(text in "(?s).{0,80}|([a-z ]{0,4}[:,\"\\\\\n ]){0,20}") {
            let read = Infotext::parse(&text);
            // Reading what was read changes nothing, where a text can say it.
            prop_assert!(read.settings.is_empty() || read.settings.len() >= SETTINGS);
        }
    }
}
