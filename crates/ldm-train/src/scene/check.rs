//! Reads a picture back: which background, which objects, judged from the pixels alone.

use super::{Color, Position, Prompt, Reading, Relation, Shape, Size};

/// How far in RGB a pixel must be from the measured background to belong to an object; half the palette's least distance.
const FOREGROUND: f32 = 48.0;
/// Least area of an object, as a fraction of the picture; a small star covers about 0.03.
const LEAST_AREA: f32 = 0.006;
/// Least overlap with a shape's outline at which the object counts as that shape.
const LEAST_FIT: f32 = 0.6;
/// Width of a template's edge in pixels; wider than a render's, because decoded pictures are soft.
const EDGE: f32 = 1.6;

/// One object as the pixels show it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The palette colour nearest to its median colour, the background's excluded.
    pub color: Color,
    /// The best-fitting shape, or `None` when no shape fits.
    pub shape: Option<Shape>,
    /// Its size, by the fitted radius.
    pub size: Size,
    /// Its place, by the fitted middle.
    pub position: Position,
    /// The fitted middle, in fractions of the side, y downwards.
    pub center: [f32; 2],
    /// Overlap (intersection over union) of the object with the best-fitting shape, 0 to 1.
    pub confidence: f32,
    /// By how much the best shape's overlap exceeds the next one's.
    pub margin: f32,
}

/// What a picture shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The background: the commonest palette colour along the border.
    pub background: Color,
    /// The objects, largest first.
    pub objects: Vec<Found>,
}

/// In which points a picture agrees with a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// The background has the colour asked for.
    pub background: bool,
    /// The largest object has the colour asked for.
    pub color: bool,
    /// The largest object has the shape asked for.
    pub shape: bool,
    /// It has the size asked for; `None` when the prompt leaves it open.
    pub size: Option<bool>,
    /// It is at the place asked for; `None` when the prompt leaves it open.
    pub position: Option<bool>,
    /// There is exactly one object.
    pub alone: bool,
}

impl Match {
    /// Background, colour and shape all agree.
    pub fn all(self) -> bool {
        self.background && self.color && self.shape
    }
}

impl Verdict {
    /// The largest object.
    pub fn main(&self) -> Option<&Found> {
        self.objects.first()
    }

    /// Holds the picture's largest object against a prompt of one object.
    pub fn matches(&self, prompt: &Prompt) -> Match {
        let main = self.main();
        Match {
            background: self.background == prompt.background,
            color: main.is_some_and(|m| m.color == prompt.color),
            shape: main.is_some_and(|m| m.shape == Some(prompt.shape)),
            size: prompt.size.map(|size| main.is_some_and(|m| m.size == size)),
            position: prompt.position.map(|place| main.is_some_and(|m| m.position == place)),
            alone: self.objects.len() == 1,
        }
    }

    /// Whether background, every mentioned colour with its shape, and the relation are there. Sizes and places are not
    /// asked for.
    pub fn shows(&self, reading: &Reading) -> bool {
        let found: Option<Vec<&Found>> = (reading.objects.iter())
            .map(|m| self.objects.iter().find(|f| f.color == m.color && f.shape == Some(m.shape)))
            .collect();
        let Some(found) = found else { return false };
        let related = match (reading.relation, found.as_slice()) {
            (Some(relation), [a, b, ..]) => Relation::between(a.center, b.center) == relation,
            (relation, _) => relation.is_none(),
        };
        self.background == reading.background && related
    }
}

/// Reads a square picture of RGB8 pixels (H W C). Panics when `pixels` is not `size` × `size` × 3 bytes.
pub fn inspect(pixels: &[u8], size: usize) -> Verdict {
    assert_eq!(pixels.len(), size * size * 3, "a square RGB picture of side {size}");
    let pixels: Vec<[f32; 3]> = pixels.as_chunks().0.iter().map(|p: &[u8; 3]| p.map(f32::from)).collect();
    let (background, ground) = ground(&pixels, size);
    let far = pixels.iter().map(|&p| distance(p, ground) > FOREGROUND).collect();
    let least = (LEAST_AREA * (size * size) as f32).ceil() as usize;
    let objects = components(far, size).into_iter().filter(|c| c.len() >= least);
    let objects = objects.map(|c| identify(&pixels, size, &c, background, ground)).collect();
    Verdict { background, objects }
}

fn distance(a: [f32; 3], b: [f32; 3]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt()
}

/// The median of each channel.
fn median(pixels: &[[f32; 3]]) -> [f32; 3] {
    [0, 1, 2].map(|channel| {
        let mut values: Vec<f32> = pixels.iter().map(|p| p[channel]).collect();
        let middle = values.len() / 2;
        *values.select_nth_unstable_by(middle, f32::total_cmp).1
    })
}

/// The commonest palette colour within a thirtieth of the border, and the median of the pixels that voted for it.
fn ground(pixels: &[[f32; 3]], size: usize) -> (Color, [f32; 3]) {
    let width = (size / 30).max(1);
    let inner = width..size.saturating_sub(width);
    let mut votes = vec![Vec::new(); Color::ALL.len()];
    for (at, &pixel) in pixels.iter().enumerate() {
        if !(inner.contains(&(at / size)) && inner.contains(&(at % size))) {
            votes[Color::nearest(pixel) as usize].push(pixel);
        }
    }
    let (winner, voters) = votes.iter().enumerate().max_by_key(|(_, voters)| voters.len()).expect("the palette is not empty");
    let color = Color::ALL[winner];
    (color, if voters.is_empty() { color.rgb().map(f32::from) } else { median(voters) })
}

/// The 4-connected parts of the mask as pixel indices, largest first.
fn components(mut mask: Vec<bool>, size: usize) -> Vec<Vec<usize>> {
    let mut parts = Vec::new();
    for start in 0..mask.len() {
        if !std::mem::take(&mut mask[start]) {
            continue;
        }
        let mut part = vec![start];
        let mut done = 0;
        while let Some(&at) = part.get(done) {
            done += 1;
            for next in neighbours(at, size) {
                if std::mem::take(&mut mask[next]) {
                    part.push(next);
                }
            }
        }
        parts.push(part);
    }
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
    parts
}

/// The up to four pixels beside `at`.
fn neighbours(at: usize, size: usize) -> impl Iterator<Item = usize> {
    let (row, column) = (at / size, at % size);
    let sides = [
        (row > 0).then(|| at - size),
        (row + 1 < size).then(|| at + size),
        (column > 0).then(|| at - 1),
        (column + 1 < size).then(|| at + 1),
    ];
    sides.into_iter().flatten()
}

/// Names one component's colour, from its inside, and its shape, by the outline that covers it best.
fn identify(pixels: &[[f32; 3]], size: usize, component: &[usize], background: Color, ground: [f32; 3]) -> Found {
    let mut member = vec![false; size * size];
    component.iter().for_each(|&at| member[at] = true);
    let inside = |at: &usize| neighbours(*at, size).filter(|&n| member[n]).count() == 4;
    let mut paint: Vec<[f32; 3]> = component.iter().filter(|at| inside(at)).map(|&at| pixels[at]).collect();
    if paint.len() < 8 {
        paint = component.iter().map(|&at| pixels[at]).collect();
    }
    // In a soft picture the ground seeps in, so the half furthest from it is the truer one.
    paint.sort_by(|&a, &b| distance(b, ground).total_cmp(&distance(a, ground)));
    let paint = median(&paint[..paint.len().div_ceil(2)]);
    let color = nearest_other(paint, background);

    let mask = Mask::of(pixels, size, component, ground, paint);
    let mut fits: Vec<(Shape, Fit)> = Shape::ALL.iter().map(|&shape| (shape, mask.fit(shape))).collect();
    fits.sort_by(|a, b| b.1.overlap.total_cmp(&a.1.overlap));
    let (shape, best) = fits[0];
    let side = size as f32;
    let center = [best.x / side, best.y / side];
    Found {
        color,
        shape: (best.overlap >= LEAST_FIT).then_some(shape),
        size: Size::of_radius(best.radius / side),
        position: Position::of_center(center),
        center,
        confidence: best.overlap,
        margin: best.overlap - fits[1].1.overlap,
    }
}

/// The palette colour nearest to `rgb` other than `except`.
fn nearest_other(rgb: [f32; 3], except: Color) -> Color {
    let away = |color: Color| distance(color.rgb().map(f32::from), rgb);
    let others = Color::ALL.iter().copied().filter(|&color| color != except);
    others.min_by(|&a, &b| away(a).total_cmp(&away(b))).expect("the palette has more than one colour")
}

/// How much of each pixel one object covers, over its bounding box and a few pixels around.
struct Mask {
    left: usize,
    top: usize,
    width: usize,
    coverage: Vec<f32>,
    /// Left, top, right and bottom edge of the half-covered pixels, in picture coordinates.
    bounds: [f32; 4],
}

/// A shape laid over a mask: middle and radius in pixels, and intersection over union.
#[derive(Clone, Copy)]
struct Fit {
    x: f32,
    y: f32,
    radius: f32,
    overlap: f32,
}

impl Mask {
    /// Coverage is where a pixel lies on the line from the ground's colour to the object's, which holds for blended
    /// edges too; pixels of other objects count as uncovered.
    fn of(pixels: &[[f32; 3]], size: usize, component: &[usize], ground: [f32; 3], paint: [f32; 3]) -> Self {
        const AROUND: usize = 3;
        let (columns, rows) = (component.iter().map(|at| at % size), component.iter().map(|at| at / size));
        let low = |v: Option<usize>| v.unwrap_or(0).saturating_sub(AROUND);
        let high = |v: Option<usize>| (v.unwrap_or(0) + AROUND + 1).min(size);
        let (left, right) = (low(columns.clone().min()), high(columns.max()));
        let (top, bottom) = (low(rows.clone().min()), high(rows.max()));
        let mut near = vec![false; size * size];
        for &at in component {
            near[at] = true;
            neighbours(at, size).for_each(|n| near[n] = true);
        }
        let line = [0, 1, 2].map(|c| paint[c] - ground[c]);
        let length = line.iter().map(|v| v * v).sum::<f32>().max(1.0);
        let mut coverage = Vec::with_capacity((right - left) * (bottom - top));
        let mut bounds = [right as f32, bottom as f32, left as f32, top as f32];
        for row in top..bottom {
            for column in left..right {
                let at = row * size + column;
                let along: f32 = (0..3).map(|c| (pixels[at][c] - ground[c]) * line[c]).sum();
                let covered = if near[at] { (along / length).clamp(0.0, 1.0) } else { 0.0 };
                coverage.push(covered);
                if covered > 0.5 {
                    let (x, y) = (column as f32, row as f32);
                    bounds = [bounds[0].min(x), bounds[1].min(y), bounds[2].max(x + 1.0), bounds[3].max(y + 1.0)];
                }
            }
        }
        Self { left, top, width: right - left, coverage, bounds }
    }

    /// Climbs from the bounding box to the middle and radius at which `shape` covers the mask best.
    fn fit(&self, shape: Shape) -> Fit {
        const ROUNDS: usize = 5;
        let [left, top, right, bottom] = self.bounds;
        let [half_x, half_y] = shape.half_extent();
        let radius = ((right - left) / half_x + (bottom - top) / half_y) / 4.0;
        let mut best = self.overlap(shape, (left + right) / 2.0, (top + bottom) / 2.0, radius.max(1.0));
        for step in [1.0, 0.5, 0.25] {
            for _ in 0..ROUNDS {
                let Fit { x, y, radius, overlap } = best;
                let moves = [
                    (x - step, y, radius),
                    (x + step, y, radius),
                    (x, y - step, radius),
                    (x, y + step, radius),
                    (x, y, (radius - step).max(1.0)),
                    (x, y, radius + step),
                ];
                for (x, y, radius) in moves {
                    let fit = self.overlap(shape, x, y, radius);
                    if fit.overlap > best.overlap {
                        best = fit;
                    }
                }
                if best.overlap <= overlap {
                    break;
                }
            }
        }
        best
    }

    /// Intersection over union of the coverage and a soft-edged template.
    fn overlap(&self, shape: Shape, x: f32, y: f32, radius: f32) -> Fit {
        let (mut both, mut either) = (0.0, f32::EPSILON);
        for (row, line) in self.coverage.chunks_exact(self.width).enumerate() {
            for (column, &seen) in line.iter().enumerate() {
                let dx = (self.left + column) as f32 + 0.5 - x;
                let dy = (self.top + row) as f32 + 0.5 - y;
                let template = (0.5 - shape.distance(dx, dy, radius) / EDGE).clamp(0.0, 1.0);
                both += seen.min(template);
                either += seen.max(template);
            }
        }
        Fit { x, y, radius, overlap: both / either }
    }
}
