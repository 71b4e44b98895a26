//! Draws scenes: analytic coverage from signed distances, flat colours, one picture or a batch.

use super::{Object, Rng, Scene, Shape};

/// Half a square's side, half a triangle's side, a star's outer radius and half a cross's arm width, all in radii;
/// chosen so that shapes of one radius look equally large.
const SQUARE: f32 = 0.88;
const TRIANGLE: f32 = 1.1;
const STAR: f32 = 1.2;
const CROSS: f32 = 0.36;
const SQRT_3: f32 = 1.732_050_8;
const COS_36: f32 = 0.809_017;
const SIN_36: f32 = 0.587_785_25;
const COS_18: f32 = 0.951_056_5;

impl Shape {
    /// Half the bounding box's width and height at radius 1.
    pub fn half_extent(self) -> [f32; 2] {
        match self {
            Self::Circle | Self::Cross | Self::Ring => [1.0, 1.0],
            Self::Square => [SQUARE, SQUARE],
            Self::Triangle => [TRIANGLE, TRIANGLE * SQRT_3 / 2.0],
            Self::Star => [STAR * COS_18, STAR * (1.0 + COS_36) / 2.0],
        }
    }

    /// Signed distance from (x, y) to the outline at `radius`, negative inside. The origin is the middle of the
    /// bounding box, y points down. Formulas: Inigo Quilez, "2D distance functions".
    pub fn distance(self, x: f32, y: f32, radius: f32) -> f32 {
        match self {
            Self::Circle => length(x, y) - radius,
            Self::Ring => (length(x, y) - 0.75 * radius).abs() - 0.25 * radius,
            Self::Square => rectangle(x, y, SQUARE * radius, SQUARE * radius),
            Self::Cross => rectangle(x, y, radius, CROSS * radius).min(rectangle(x, y, CROSS * radius, radius)),
            Self::Triangle => triangle(x, y, TRIANGLE * radius),
            Self::Star => star(x, y, STAR * radius),
        }
    }
}

/// Plainly rounded, where `f32::hypot` is slower and differs between platforms.
fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

fn rectangle(x: f32, y: f32, half_width: f32, half_height: f32) -> f32 {
    let (dx, dy) = (x.abs() - half_width, y.abs() - half_height);
    length(dx.max(0.0), dy.max(0.0)) + dx.max(dy).min(0.0)
}

fn triangle(x: f32, y: f32, half_side: f32) -> f32 {
    // `v` is the height above the base.
    let (mut u, mut v) = (x.abs() - half_side, half_side * SQRT_3 / 2.0 - y);
    if u + SQRT_3 * v > 0.0 {
        (u, v) = ((u - SQRT_3 * v) / 2.0, (-SQRT_3 * u - v) / 2.0);
    }
    u -= u.clamp(-2.0 * half_side, 0.0);
    if v > 0.0 { -length(u, v) } else { length(u, v) }
}

fn star(x: f32, y: f32, outer: f32) -> f32 {
    const INNER: f32 = 0.5;
    let (mut u, mut v) = (x.abs(), outer * (1.0 - COS_36) / 2.0 - y);
    for (a, b) in [(COS_36, -SIN_36), (-COS_36, -SIN_36)] {
        let fold = 2.0 * (a * u + b * v).max(0.0);
        (u, v) = (u - fold * a, v - fold * b);
    }
    (u, v) = (u.abs(), v - outer);
    let (edge_u, edge_v) = (INNER * SIN_36, INNER * COS_36 - 1.0);
    let along = (u * edge_u + v * edge_v) / (edge_u * edge_u + edge_v * edge_v);
    let along = along.clamp(0.0, outer);
    let distance = length(u - edge_u * along, v - edge_v * along);
    if v * edge_u > u * edge_v { distance } else { -distance }
}

impl Scene {
    /// The picture: `size` × `size` pixels of RGB8, row by row (H W C).
    pub fn render(&self, size: usize) -> Vec<u8> {
        let mut pixels = self.background_rgb.repeat(size * size);
        for object in &self.objects {
            paint(&mut pixels, size, object);
        }
        pixels
    }
}

/// Blends one object over the picture, touching only the pixels of its bounding box.
fn paint(pixels: &mut [u8], size: usize, object: &Object) {
    let side = size as f32;
    let radius = object.radius * side;
    let [cx, cy] = object.center.map(|v| v * side);
    let [half_x, half_y] = object.shape.half_extent().map(|v| v * radius + 1.0);
    let span = |center: f32, half: f32| ((center - half).max(0.0) as usize)..((center + half + 1.0).max(0.0) as usize).min(size);
    for row in span(cy, half_y) {
        for column in span(cx, half_x) {
            let (x, y) = (column as f32 + 0.5 - cx, row as f32 + 0.5 - cy);
            let coverage = (0.5 - object.shape.distance(x, y, radius)).clamp(0.0, 1.0);
            if coverage > 0.0 {
                let at = (row * size + column) * 3;
                for (below, over) in pixels[at..at + 3].iter_mut().zip(object.rgb) {
                    let (from, to) = (f32::from(*below), f32::from(over));
                    *below = (from + (to - from) * coverage).round() as u8;
                }
            }
        }
    }
}

/// The caption of training item `index` under `seed`: the same that [`render_batch`] gives.
pub fn caption(seed: u64, index: u64) -> String {
    let mut rng = Rng::at(seed, index);
    Scene::sample(&mut rng).caption(&mut rng)
}

/// Training items `start`..`start + n` under `seed`: pixels B 3 H W in [-1, 1], one after another, and a caption each.
///
/// Item i is the same whatever the batch it comes in. Uses up to the machine's number of threads.
pub fn render_batch(seed: u64, start: u64, n: usize, size: usize) -> (Vec<f32>, Vec<String>) {
    let plane = size * size;
    let mut pixels = vec![0.0; n * 3 * plane];
    let mut captions = vec![String::new(); n];
    if plane == 0 || n == 0 {
        return (pixels, captions);
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // A thread costs about as much as a few pictures.
    let share = n.div_ceil(threads).max(16);
    std::thread::scope(|scope| {
        let shares = pixels.chunks_mut(share * 3 * plane).zip(captions.chunks_mut(share));
        for (first, (pixels, captions)) in (start..).step_by(share).zip(shares) {
            let work = move || {
                let items = pixels.chunks_exact_mut(3 * plane).zip(captions);
                for (index, (picture, caption)) in (first..).zip(items) {
                    let mut rng = Rng::at(seed, index);
                    let scene = Scene::sample(&mut rng);
                    *caption = scene.caption(&mut rng);
                    planes(&scene.render(size), picture);
                }
            };
            if n <= share {
                work();
            } else {
                scope.spawn(work);
            }
        }
    });
    (pixels, captions)
}

/// H W C bytes to C H W floats in [-1, 1].
fn planes(bytes: &[u8], floats: &mut [f32]) {
    let plane = floats.len() / 3;
    for (channel, floats) in floats.chunks_exact_mut(plane).enumerate() {
        for (float, byte) in floats.iter_mut().zip(bytes.iter().skip(channel).step_by(3)) {
            *float = f32::from(*byte) / 127.5 - 1.0;
        }
    }
}
