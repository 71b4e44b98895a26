//! Adapters that a job is drawn with (LoRA, Hu et al. 2021), and what may be asked of them.

use crate::{Model, Violation, Violations};

/// An adapter of the model, with its strength.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// Its name among the model's.
    pub name: String,
    /// What its changes are multiplied by; 1 is as it was trained.
    pub strength: f64,
}

impl Lora {
    /// Adapters of one job at most.
    pub const MOST: usize = 8;
    /// The largest strength, either way.
    pub const STRONGEST: f64 = 4.0;

    /// At full strength.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), strength: 1.0 }
    }
}

/// Checks the adapters of a draft; their names only when the `model` that was asked for is known.
pub(crate) fn check(loras: &[Lora], model: Option<&Model>, bad: &mut Violations) {
    let most = Lora::MOST;
    if loras.len() > most {
        let message = format!("`loras` must hold at most {most}, not {}", loras.len());
        bad.push(Violation::new("loras", message, format!("at most {most}"), loras.len()));
    }
    for (index, Lora { name, strength }) in loras.iter().enumerate().take(most) {
        let limit = Lora::STRONGEST;
        if !(-limit..=limit).contains(strength) {
            let field = format!("loras[{index}].strength");
            let message = format!("`{field}` must be from -{limit} to {limit}, not {strength}");
            bad.push(Violation::new(&field, message, format!("-{limit}..={limit}"), strength));
        }
        let field = format!("loras[{index}].name");
        if let Some(model) = model.filter(|model| !model.loras.contains(name)) {
            let known = if model.loras.is_empty() { "none".to_owned() } else { model.loras.join(", ") };
            let message = format!("`{field}` names no LoRA of model {:?}: {name:?}", model.id);
            bad.push(Violation::new(&field, message, known, name));
        }
        if loras[..index].iter().any(|other| other.name == *name) {
            bad.push(Violation::new(&field, format!("`{field}` stands twice: {name:?}"), "each LoRA once", name));
        }
    }
}
