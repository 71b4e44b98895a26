//! A card as the text of a TOML file, which [`Card::from_toml`] reads back.

use serde_json::{Map, Value, json};

use super::{Card, Diffusion, FirstStage, Model};

impl Card {
    /// The card's file.
    pub fn to_toml(&self) -> String {
        let serving = &self.serving;
        let mut card = json!({
            "name": self.name,
            "title": self.title,
            "source": self.source,
            "tasks": serving.tasks,
            "size_multiple": serving.size_multiple,
            "rounding": serving.rounding,
            "unconditional_class": serving.unconditional_class,
            "defaults": serving.defaults,
        });
        let model = match &self.model {
            Model::Diffusion(diffusion) => of_diffusion(diffusion),
            Model::FirstStage(stage) => json!({ "first_stage": of_stage(stage) }),
        };
        if let (Value::Object(card), Value::Object(model)) = (&mut card, model) {
            card.extend(model);
        }
        drop_nulls(&mut card);
        // Plain data with names for keys always becomes TOML.
        toml::to_string(&card).unwrap_or_default()
    }
}

fn of_diffusion(diffusion: &Diffusion) -> Value {
    json!({
        "scale_factor": diffusion.scale,
        "conditioning_key": diffusion.conditioning_key,
        "parameterization": diffusion.parameterization,
        "ema": diffusion.ema,
        "channels": diffusion.channels,
        "image_size": diffusion.image_size,
        "concat": diffusion.concat,
        "schedule": diffusion.schedule,
        "first_stage": of_stage(&diffusion.first_stage),
        "unet": diffusion.unet,
        "conditioner": diffusion.conditioners,
    })
}

/// With the word that files have for a middle without attention.
fn of_stage(stage: &FirstStage) -> Value {
    let mut value = stage.params();
    if let Some(Value::Object(dd)) = value.get_mut("ddconfig")
        && dd.remove("attention") == Some(Value::Bool(false))
    {
        dd.insert("attn_type".to_owned(), json!("none"));
    }
    value
}

/// TOML has no null: what is none is left out.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            *map = std::mem::take(map).into_iter().filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>();
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(values) => values.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
