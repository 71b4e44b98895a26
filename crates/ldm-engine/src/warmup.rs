//! One tiny picture before the first job, so that the first client does not pay for lazy initialisation, and a model that
//! cannot make a picture never becomes ready.

use std::sync::Arc;

use ldm_core::{Catalogue, Draft, Failure, FailureKind, Model, Raster, Request, Task};

use crate::Executor;
use crate::guard::guarded;

/// The most steps that are tried: multistep samplers may refuse fewer than their order.
const MOST_STEPS: u32 = 4;

/// Makes the smallest picture of the default model, with the fewest steps that its default sampler takes.
pub(crate) fn run<E: Executor>(executor: &mut E, catalogue: &Catalogue) -> Result<(), Failure> {
    let Some(model) = catalogue.models.first() else {
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
    let side = model.sizes.min.next_multiple_of(model.sizes.multiple.max(1));
    let task = if model.tasks.contains(&Task::Txt2Img) { Task::Txt2Img } else { Task::Img2Img };
    let from_picture = task == Task::Img2Img;
    let draft = Draft {
        model: Some(model.id.clone()),
        prompt: Some("warm-up".to_owned()),
        width: Some(i64::from(side)),
        height: Some(i64::from(side)),
        steps: Some(i64::from(steps)),
        seed: Some(0),
        init_image: from_picture.then(|| Raster::filled(side, side, [128; 3])),
        strength: from_picture.then_some(1.0),
        ..Draft::new(task)
    };
    let checked = draft.check(catalogue).map(|mut requests| requests.pop());
    match checked {
        Ok(Some(request)) => Ok(Arc::new(request)),
        Ok(None) => Err(Failure::new(FailureKind::Device, "the warm-up asked for no picture")),
        Err(violations) => Err(Failure::new(FailureKind::Device, format!("the catalogue contradicts itself: {violations}"))),
    }
}

fn picture<E: Executor>(executor: &mut E, request: &Arc<Request>) -> Result<(), Failure> {
    executor.price(request)?;
    let mut run = executor.prepare(request)?;
    loop {
        match executor.evaluate(&mut [&mut run]).pop() {
            Some(advance) if advance.clone()?.finished => break,
            Some(_) => {}
            None => return Err(Failure::new(FailureKind::Device, "evaluate gave no answer")),
        }
    }
    executor.decode(run).map(drop)
}
