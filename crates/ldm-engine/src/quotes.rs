//! What a request will cost, guessed from what requests like it cost: for admission, which cannot ask the device.

use std::collections::HashMap;

use ldm_core::Request;

use crate::executor::{BatchKey, Price};

/// Shapes that are remembered.
const MOST_SHAPES: usize = 512;
/// Pixels of a picture's side per cell of a latent that nobody has seen yet.
const FACTOR: u32 = 8;

/// What makes two requests cost the same per call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shape {
    model: String,
    size: [u32; 2],
    guided: bool,
}

impl Shape {
    fn of(request: &Request) -> Self {
        let size = [request.height, request.width];
        Self { model: request.model.clone(), size, guided: request.guidance > 1.0 }
    }
}

/// What the device said of a shape.
#[derive(Clone, Debug)]
struct Known {
    key: BatchKey,
    rows: u32,
    working: Option<u64>,
}

/// Prices of requests that came before.
#[derive(Debug, Default)]
pub(crate) struct Quotes {
    shapes: HashMap<Shape, Known>,
    /// Network calls per step of a sampler.
    per_step: HashMap<String, f64>,
}

impl Quotes {
    /// The device has said what the request costs, and how much memory it needs.
    pub(crate) fn learn(&mut self, request: &Request, price: &Price, working: Option<u64>) {
        if self.shapes.len() >= MOST_SHAPES {
            self.shapes.clear();
        }
        self.shapes.insert(Shape::of(request), Known { key: price.key.clone(), rows: price.rows, working });
        if price.evaluations > 0 {
            self.per_step.insert(request.sampler.clone(), f64::from(price.evaluations) / steps(request));
        }
    }

    /// What the request will cost, about.
    pub(crate) fn quote(&self, request: &Request) -> Price {
        let shape = Shape::of(request);
        let known = self.shapes.get(&shape).map(|known| (known.key.clone(), known.rows));
        let (key, rows) = known.unwrap_or_else(|| self.guess(shape));
        let per_step = self.per_step.get(&request.sampler).copied().unwrap_or(1.0);
        Price { key, rows, evaluations: (steps(request) * per_step).round().max(1.0) as u32 }
    }

    /// Memory that it needs beside the weights, in bytes: as the device said of such a request, or of another size of the model.
    pub(crate) fn working(&self, request: &Request) -> Option<u64> {
        let shape = Shape::of(request);
        let area = |[height, width]: [u32; 2]| f64::from(height) * f64::from(width);
        if let Some(known) = self.shapes.get(&shape) {
            return known.working;
        }
        let relatives = self.shapes.iter().filter(|(known, _)| known.model == shape.model);
        let scaled = |(known, told): (&Shape, &Known)| {
            let ratio = area(shape.size) / area(known.size).max(1.0);
            told.working.map(|bytes| (known.guided == shape.guided, ratio, (bytes as f64 * ratio) as u64))
        };
        let nearness = |(is_same, ratio, _): &(bool, f64, u64)| (!is_same, ratio.ln().abs());
        let order = |a: &(bool, f64, u64), b: &(bool, f64, u64)| {
            let (a, b) = (nearness(a), nearness(b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        };
        relatives.filter_map(scaled).min_by(order).map(|(_, _, bytes)| bytes)
    }

    /// The key as another size of the same model lets expect it.
    fn guess(&self, shape: Shape) -> (BatchKey, u32) {
        let rows = if shape.guided { 2 } else { 1 };
        let Shape { model, size: [height, width], .. } = shape;
        let relative = self.shapes.iter().find(|(known, _)| known.model == model);
        let key = match relative {
            Some((known, Known { key, .. })) => {
                let scaled =
                    |cells: u32, now: u32, then: u32| (u64::from(cells) * u64::from(now) / u64::from(then.max(1))) as u32;
                let [channels, rows, columns] = key.latent;
                let latent = [channels, scaled(rows, height, known.size[0]), scaled(columns, width, known.size[1])];
                BatchKey { latent, ..key.clone() }
            }
            None => BatchKey { model, latent: [4, height / FACTOR, width / FACTOR], cross: [0, 0] },
        };
        (key, rows)
    }
}

/// Steps that are run.
fn steps(request: &Request) -> f64 {
    (f64::from(request.steps) * request.work.strength().unwrap_or(1.0)).max(1.0)
}
