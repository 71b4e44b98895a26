//! What a picture's file says about how it was made: `parameters` as people's tools read it, `latentd` to post back, and
//! `latentd-made` with what made it beside the request.

mod exif;
mod infotext;
mod read;
#[cfg(test)]
mod tests;

pub(crate) use infotext::Infotext;
pub(crate) use read::{Found, read};

use ldm_core::Request;
use ldm_core::task::{Fill, Masking, Work};

/// The infotext.
const PARAMETERS: &str = "parameters";
/// The wire's parameters as JSON.
const LATENTD: &str = "latentd";
/// What made the picture beside its request, as JSON.
const MADE: &str = "latentd-made";

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

    /// What a file says of itself, for another file of the same picture, of that format and quality.
    pub(crate) fn again(found: Found, format: &str, quality: Option<u8>) -> Self {
        let text = |object: Option<serde_json::Map<String, serde_json::Value>>| {
            object.and_then(|object| serde_json::to_string(&object).ok()).unwrap_or_default()
        };
        let latentd = found.latentd.map(|mut said| {
            said.insert("format".to_owned(), format.into());
            quality.map(|quality| said.insert("quality".to_owned(), quality.into()));
            said
        });
        Self { parameters: found.parameters.unwrap_or_default(), latentd: text(latentd), made: text(found.made) }
    }

    /// With what made the picture beside its request, as JSON.
    pub(crate) fn made(self, made: String) -> Self {
        Self { made, ..self }
    }

    /// Keywords and texts, for a PNG.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let texts = [(PARAMETERS, &self.parameters), (LATENTD, &self.latentd), (MADE, &self.made)];
        texts.into_iter().map(|(keyword, text)| (keyword, text.as_str())).filter(|(_, text)| !text.is_empty())
    }

    /// An EXIF block, for a JPEG or a WebP file, of at most `limit` bytes: what does not fit is left out, the JSON first.
    pub(crate) fn exif(&self, limit: usize) -> Vec<u8> {
        let json = exif::described(&[(LATENTD, &self.latentd), (MADE, &self.made)]);
        let blocks = [exif::write(&self.parameters, &json), exif::write(&self.parameters, ""), exif::write("", "")];
        blocks.into_iter().find(|block| block.len() <= limit).unwrap_or_default()
    }
}

/// The request as AUTOMATIC1111's web UI writes it (`modules/processing.py`, `create_infotext`).
fn infotext(request: &Request, sampler: &str) -> String {
    let (prompt, negative_prompt) = (request.prompt.clone(), request.negative_prompt.clone());
    let mut text = Infotext { prompt, negative_prompt, settings: Vec::new() };
    text.set("Steps", request.steps);
    text.set("Sampler", sampler);
    text.set("Schedule type", schedule_type(&request.schedule));
    text.set("CFG scale", request.guidance);
    text.set("Seed", request.seed);
    text.set("Size", format_args!("{}x{}", request.width, request.height));
    text.set("Model", &request.model);
    if let Some(strength) = request.work.strength() {
        text.set("Denoising strength", strength);
    }
    if let Work::Inpaint(work) = &request.work {
        set_masking(&mut text, &work.masking);
    }
    if request.tuning.clip_skip > 0 {
        text.set("Clip skip", request.tuning.clip_skip + 1);
    }
    if request.eta > 0.0 {
        text.set(if request.sampler == "ddim" { "Eta DDIM" } else { "Eta" }, request.eta);
    }
    if !request.loras.is_empty() {
        let loras: Vec<_> = request.loras.iter().map(|lora| format!("{}: {}", lora.name, lora.strength)).collect();
        text.set("Loras", loras.join(", "));
    }
    text.set("Version", concat!("latentd ", env!("CARGO_PKG_VERSION")));
    text.to_string()
}

/// How the mask was taken, where it is not as by default.
fn set_masking(text: &mut Infotext, masking: &Masking) {
    match masking.blur {
        [across, down] if across == down && across > 0.0 => text.set("Mask blur", across),
        [across, down] if across != down => text.set("Mask blur", format_args!("{across}x{down}")),
        _ => {}
    }
    if masking.invert {
        text.set("Mask mode", "Inpaint not masked");
    }
    if let Some(padding) = masking.only_masked {
        text.set("Inpaint area", "Only masked");
        text.set("Masked area padding", padding);
    }
    if masking.fill != Fill::Original {
        text.set("Masked content", masking.fill.name().replace('_', " "));
    }
}

/// The schedule by the web UI's name.
fn schedule_type(schedule: &str) -> String {
    let mut letters = schedule.chars();
    match (schedule, letters.next()) {
        ("default", _) | (_, None) => "Automatic".to_owned(),
        (_, Some(first)) => first.to_uppercase().chain(letters).collect(),
    }
}
