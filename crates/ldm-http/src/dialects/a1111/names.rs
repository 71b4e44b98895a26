//! Names as the web UI's clients write them: checkpoints with their hashes, schedulers, `<lora:…>` in prompts.

use ldm_core::{Catalogue, Lora, Model};

/// Digits of a short hash.
const SHORT: usize = 10;

/// The short hash of a model's weights, if it is known.
pub(super) fn hash(model: &Model) -> Option<&str> {
    model.weights.get(..SHORT)
}

/// As lists of checkpoints call it.
pub(super) fn title(model: &Model) -> String {
    hash(model).map_or_else(|| model.id.clone(), |hash| format!("{} [{hash}]", model.id))
}

/// As if it were a file; where it is, is nobody's business.
pub(super) fn filename(model: &Model) -> String {
    format!("{}.safetensors", model.id)
}

/// The model of that title, name, file name or hash.
pub(super) fn model<'a>(catalogue: &'a Catalogue, name: &str) -> Option<&'a Model> {
    let name = name.trim();
    let bare = name.split_once(" [").map_or(name, |(bare, _)| bare);
    let is = |model: &&Model| {
        model.id == name
            || model.id == bare
            || filename(model) == bare
            || (name.len() >= SHORT && !model.weights.is_empty() && model.weights.starts_with(name))
    };
    catalogue.models.iter().find(is)
}

/// A scheduler by label or name as our schedule; `None` leaves the choice to the sampler. An unknown one is an error.
pub(super) fn schedule(catalogue: &Catalogue, scheduler: Option<&str>) -> Result<Option<String>, String> {
    let Some(scheduler) = scheduler.map(str::trim).filter(|name| !name.is_empty()) else { return Ok(None) };
    let folded = scheduler.to_ascii_lowercase();
    match folded.as_str() {
        "automatic" | "use same scheduler" => Ok(None),
        "uniform" | "normal" => Ok(Some("default".to_owned())),
        name if catalogue.samplers.iter().any(|sampler| sampler.schedules.iter().any(|known| known == name)) => Ok(Some(folded)),
        _ => Err(scheduler.to_owned()),
    }
}

/// The prompt without its `<lora:name:strength>`, and what they say. Of a LoRA that is named twice the strengths add up, as in the
/// web UI. A strength that is no number counts as 1.
pub(super) fn loras(prompt: &str) -> (String, Vec<Lora>) {
    let (mut text, mut loras): (String, Vec<Lora>) = (String::with_capacity(prompt.len()), Vec::new());
    let mut rest = prompt;
    while let Some(start) = rest.find("<lora:") {
        let Some(end) = rest[start..].find('>').map(|end| start + end) else { break };
        text += &rest[..start];
        let mut words = rest[start + "<lora:".len()..end].split(':');
        let name = words.next().unwrap_or_default().trim().to_owned();
        let strength = words.next().and_then(|strength| strength.trim().parse().ok()).unwrap_or(1.0);
        match loras.iter_mut().find(|lora| lora.name == name) {
            Some(lora) => lora.strength += strength,
            None => loras.push(Lora { name, strength }),
        }
        rest = &rest[end + 1..];
    }
    (text + rest, loras)
}

#[cfg(test)]
mod tests {
    use ldm_engine::fake::FakeExecutor;

    use super::*;

    #[test]
    fn loras_are_taken_out_of_prompts() {
        let lora = |name: &str, strength| Lora { name: name.to_owned(), strength };
        let table = [
            ("a cat", "a cat", vec![]),
            ("a cat <lora:ink:0.8>, moss", "a cat , moss", vec![lora("ink", 0.8)]),
            ("<lora:ink><lora:moss:-1:2>x", "x", vec![lora("ink", 1.0), lora("moss", -1.0)]),
            ("<lora:ink:0.5> <lora:ink:0.25>", " ", vec![lora("ink", 0.75)]),
            ("a <lora:never closed", "a <lora:never closed", vec![]),
            ("<lora:ink:much>", "", vec![lora("ink", 1.0)]),
            ("Möwe <b> <lora:é:1>", "Möwe <b> ", vec![lora("é", 1.0)]),
        ];
        for (prompt, text, expected) in table {
            assert_eq!(loras(prompt), (text.to_owned(), expected), "{prompt}");
        }
    }

    #[test]
    fn models_are_found_by_all_their_names() {
        let mut catalogue = FakeExecutor::catalogue_example();
        catalogue.models[0].weights = "0123456789abcdef".to_owned();
        assert_eq!(title(&catalogue.models[0]), "fake [0123456789]");
        for name in ["fake", "fake [0123456789]", "fake.safetensors", "0123456789", "0123456789abcdef", "fake [other]"] {
            assert_eq!(model(&catalogue, name).map(|model| model.id.as_str()), Some("fake"), "{name}");
        }
        for name in ["", "0123", "none", "[0123456789]"] {
            assert_eq!(model(&catalogue, name), None, "{name}");
        }
    }

    #[test]
    fn schedulers_have_many_names() {
        let catalogue = FakeExecutor::catalogue_example();
        for (name, expected) in [
            (None, Ok(None)),
            (Some("Automatic"), Ok(None)),
            (Some(""), Ok(None)),
            (Some("Karras"), Ok(Some("karras".to_owned()))),
            (Some("uniform"), Ok(Some("default".to_owned()))),
            (Some("Align Your Steps"), Err("Align Your Steps".to_owned())),
        ] {
            assert_eq!(schedule(&catalogue, name), expected, "{name:?}");
        }
    }
}
