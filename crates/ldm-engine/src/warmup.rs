//! One tiny picture before the first job, so that the first client does not pay for lazy initialisation, and a model that
//! cannot make a picture never becomes ready.

use std::sync::Arc;

use ldm_core::{Catalogue, Draft, Failure, FailureKind, Model, Request};

use crate::guard::guarded;
use crate::{Decoding, Executor};

/// The most steps that are tried: multistep samplers may refuse fewer than their order.
const MOST_STEPS: u32 = 4;

/// Makes the smallest picture of the first model that is loaded, with the fewest steps that its default sampler takes.
pub(crate) fn run<E: Executor>(executor: &mut E, catalogue: &Catalogue) -> Result<(), Failure> {
    let loaded: Vec<String> = executor.residents().into_iter().filter(|model| model.loaded).map(|model| model.id).collect();
    if loaded.is_empty() && !catalogue.models.is_empty() {
        // All are loaded when somebody asks for them.
        return Ok(());
    }
    let Some(model) = catalogue.models.iter().find(|model| loaded.contains(&model.id)) else {
        return Err(Failure::new(FailureKind::Device, "no model was loaded"));
    };
    let mut steps = 1;
    loop {
        let request = request(catalogue, model, steps)?;
        match guarded(|| picture(executor, &request)) {
            Err(failure) if failure.kind == FailureKind::Unsupported && steps < MOST_STEPS => steps += 1,
            Err(failure) => return Err(Failure::new(failure.kind, format!("the warm-up failed: {}", failure.message))),
            Ok(()) => return Ok(()),
        }
    }
}

fn request(catalogue: &Catalogue, model: &Model, steps: u32) -> Result<Arc<Request>, Failure> {
    let draft = Draft { steps: Some(i64::from(steps)), ..Draft::smallest(model) };
    let checked = draft.check(catalogue).map(|mut requests| requests.pop());
    match checked {
        Ok(Some(request)) => Ok(Arc::new(request)),
        Ok(None) => Err(Failure::new(FailureKind::Device, "the warm-up asked for no picture")),
        Err(violations) => Err(Failure::new(FailureKind::Device, format!("the catalogue contradicts itself: {violations}"))),
    }
}

/// A request of the model's default size, if its first task takes a size.
pub(crate) fn usual(catalogue: &Catalogue, model: &Model) -> Option<Request> {
    let (width, height) = model.sizes.default;
    let smallest = Draft::smallest(model);
    let sides = smallest.lr_image.is_none().then_some((i64::from(width), i64::from(height)));
    let draft = Draft { width: sides.map(|sides| sides.0), height: sides.map(|sides| sides.1), steps: None, ..smallest };
    draft.check(catalogue).ok()?.pop()
}

fn picture<E: Executor>(executor: &mut E, request: &Arc<Request>) -> Result<(), Failure> {
    executor.price(request)?;
    let mut run = executor.prepare(request)?.run;
    loop {
        match executor.evaluate(&mut [&mut run]).pop() {
            Some(advance) if advance.clone()?.left == 0 => break,
            Some(_) => {}
            None => return Err(Failure::new(FailureKind::Device, "evaluate gave no answer")),
        }
    }
    executor.decode(&mut run, Decoding::Usual).map(drop)
}
