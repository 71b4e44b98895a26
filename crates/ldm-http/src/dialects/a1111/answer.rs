//! From an order to its answer.

use std::sync::Arc;

use ldm_core::{Catalogue, Ending, Request, Terms};
use serde_json::{Map, Value};

use super::fields::Fields;
use super::{progress, wire};
use crate::App;
use crate::calls::{Call, Guest, Press, Submission, Written};
use crate::codec::{Encoding, Format, base64};
use crate::dialects::native;
use crate::error::ApiError;

/// Pictures of this dialect are PNGs.
pub(super) const ENCODING: Encoding = Encoding { format: Format::Png, quality: None };

/// What a body asks for, checked.
pub(super) struct Order {
    pub(super) said: Map<String, Value>,
    pub(super) fields: Fields,
    pub(super) requests: Vec<Request>,
    pub(super) catalogue: Arc<Catalogue>,
}

/// All pictures in one answer; of an interrupted call those that were finished. The first failure is the answer.
pub(super) async fn answer(app: App, guest: Guest, order: Order) -> Result<wire::Images, ApiError> {
    let Order { said, fields, requests, catalogue } = order;
    let Guest { access, caller, leaving } = guest;
    let label = Some(progress::label(fields.force_task_id.as_deref()));
    let submission = Submission { leaving, label, ..Submission::new(requests, Terms::default()) };
    let mut call = Call::start(&app, &access, &caller, submission).await?;
    let at = access.time();
    let press = Press::new(app, access, Arc::clone(&catalogue), ENCODING, &call);
    let mut pictures: Vec<Option<(String, Arc<Request>)>> = vec![None; call.requests().len()];
    while let Some((index, ending)) = call.next_ending().await {
        if matches!(ending, Ending::Cancelled) {
            continue;
        }
        let Written { output, body, .. } = press.written(index, ending, base64).await?;
        pictures[index] = Some((body, output.request));
    }
    let (images, made): (Vec<_>, Vec<_>) = pictures.into_iter().flatten().unzip();
    let made: Vec<&Request> = made.iter().map(AsRef::as_ref).collect();
    let infotexts: Vec<String> = made.iter().map(|request| native::infotext(request, &catalogue)).collect();
    let info = wire::info(&made, &infotexts, &catalogue, fields.batch_size, &at).to_string();
    let images = if fields.send_images { images } else { Vec::new() };
    Ok(wire::Images { images, parameters: parameters(&fields, said), info })
}

/// What was said, with the defaults of what was not. Pictures that came are sent back only where that is asked for.
fn parameters(fields: &Fields, said: Map<String, Value>) -> Map<String, Value> {
    let mut all = match serde_json::to_value(fields) {
        Ok(Value::Object(all)) => all,
        _ => Map::new(),
    };
    all.extend(said);
    if !fields.include_init_images {
        for picture in ["init_images", "mask"] {
            all.insert(picture.to_owned(), Value::Null);
        }
    }
    all
}
