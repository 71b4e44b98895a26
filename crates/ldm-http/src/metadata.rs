//! What a PNG says about how it was made: `parameters` as people's tools read it, `latentd` to post back, and `latentd-made` with
//! what made it beside the request.

use std::fmt::Write;

use ldm_core::Request;

/// The texts that go into a picture's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notes {
    parameters: String,
    latentd: String,
    made: String,
}

impl Notes {
    /// Of a resolved request, its sampler's label, and the wire's parameters as JSON.
    pub(crate) fn new(request: &Request, sampler: &str, parameters: String) -> Self {
        // A text chunk ends at NUL. JSON has it escaped.
        Self { parameters: infotext(request, sampler).replace('\0', " "), latentd: parameters, made: String::new() }
    }

    /// With what made the picture beside its request, as JSON.
    pub(crate) fn made(self, made: String) -> Self {
        Self { made, ..self }
    }

    /// Keywords and texts.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let texts = [("parameters", &self.parameters), ("latentd", &self.latentd), ("latentd-made", &self.made)];
        texts.into_iter().map(|(keyword, text)| (keyword, text.as_str())).filter(|(_, text)| !text.is_empty())
    }
}

/// The request as AUTOMATIC1111's web UI writes it (`modules/processing.py`, `create_infotext`), which dozens of tools read.
fn infotext(request: &Request, sampler: &str) -> String {
    let mut text = request.prompt.clone();
    if !request.negative_prompt.is_empty() {
        text += "\nNegative prompt: ";
        text += &request.negative_prompt;
    }
    let mut rest = format!("\nSteps: {}, Sampler: {}", request.steps, quoted(sampler));
    let mut add = |name: &str, value: &dyn std::fmt::Display| {
        // Writing to a string does not fail.
        let _ = write!(rest, ", {name}: {value}");
    };
    add("Schedule type", &schedule_type(&request.schedule));
    add("CFG scale", &request.guidance);
    add("Seed", &request.seed);
    add("Size", &format_args!("{}x{}", request.width, request.height));
    add("Model", &quoted(&request.model));
    if let Some(strength) = request.work.strength() {
        add("Denoising strength", &strength);
    }
    if request.eta > 0.0 {
        add(if request.sampler == "ddim" { "Eta DDIM" } else { "Eta" }, &request.eta);
    }
    if !request.loras.is_empty() {
        let loras: Vec<_> = request.loras.iter().map(|lora| format!("{}: {}", lora.name, lora.strength)).collect();
        add("Loras", &quoted(&loras.join(", ")));
    }
    add("Version", &concat!("latentd ", env!("CARGO_PKG_VERSION")));
    text + &rest
}

/// The schedule by the web UI's name.
fn schedule_type(schedule: &str) -> String {
    let mut letters = schedule.chars();
    match (schedule, letters.next()) {
        ("default", _) | (_, None) => "Automatic".to_owned(),
        (_, Some(first)) => first.to_uppercase().chain(letters).collect(),
    }
}

/// Values with separators in them stand in quotes, as in `modules/infotext_utils.py`.
fn quoted(value: &str) -> String {
    let plain = !value.contains([',', '\n', ':']);
    if plain { value.to_owned() } else { serde_json::Value::from(value).to_string() }
}

#[cfg(test)]
mod tests {
    use ldm_core::{Draft, Lora, Raster, Task};
    use ldm_engine::fake::FakeExecutor;

    use super::*;

    fn request(change: impl FnOnce(&mut Draft)) -> Request {
        let mut draft = Draft::new(Task::Txt2Img);
        draft.prompt = Some("a cat".to_owned());
        draft.seed = Some(1);
        change(&mut draft);
        draft.check(&FakeExecutor::catalogue_example()).unwrap().remove(0)
    }

    #[test]
    fn infotext_reads_like_the_web_uis() {
        let plain = request(|draft| draft.sampler = Some("euler_a".to_owned()));
        let end = concat!(", Version: latentd ", env!("CARGO_PKG_VERSION"));
        assert_eq!(
            infotext(&plain, "Euler a"),
            format!(
                "a cat\nSteps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7.5, Seed: 1, Size: 64x64, Model: fake{end}"
            )
        );
        let full = request(|draft| {
            draft.task = Task::Img2Img;
            draft.init_image = Some(Raster::filled(8, 8, [0; 3]));
            draft.negative_prompt = Some("dogs".to_owned());
            draft.sampler = Some("DPM++ 2M Karras".to_owned());
            draft.guidance = Some(7.0);
        });
        assert_eq!(
            infotext(&full, "DPM++ 2M"),
            format!(
                "a cat\nNegative prompt: dogs\nSteps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, \
                 Size: 64x64, Model: fake, Denoising strength: 0.75{end}"
            )
        );
        let inked = request(|draft| draft.loras = vec![Lora { name: "ink".to_owned(), strength: 0.8 }, Lora::new("moss")]);
        assert!(infotext(&inked, "DPM++ 2M").contains(r#", Loras: "ink: 0.8, moss: 1","#));
        let eta = request(|draft| (draft.sampler, draft.eta) = (Some("ddim".to_owned()), Some(0.5)));
        assert!(infotext(&eta, "DDIM").contains(", Eta DDIM: 0.5,"));
        assert_eq!(quoted("a:b, \"c\""), r#""a:b, \"c\"""#);
    }
}
