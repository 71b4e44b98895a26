//! Procedural scenes: flat shapes on flat grounds, with captions, a held-out split, and a checker that reads pixels.

mod check;
mod grammar;
mod parts;
mod render;
mod rng;
#[cfg(test)]
mod tests;

pub use check::{Found, Match, Verdict, inspect};
pub use grammar::{Mention, Prompt, Reading, vocabulary, words};
pub use parts::{Color, Position, Relation, Shape, Size};
pub use render::{caption, render_batch};
pub use rng::Rng;

/// Least distance of an object from the picture's edge and from the other object, as a fraction of the side.
const MARGIN: f32 = 0.03;
/// Share of scenes with two objects.
const TWO_OBJECTS: f32 = 0.25;
/// Most levels by which a painted channel strays from its palette entry.
const COLOR_JITTER: usize = 4;
/// Most by which a radius strays from its size's nominal one, as a ratio.
const RADIUS_JITTER: f32 = 0.05;

/// A background and one or two objects that do not touch.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// The background's colour.
    pub background: Color,
    /// The background as painted, a few levels off its palette entry.
    pub background_rgb: [u8; 3],
    /// The objects, all of different colours, none of the background's.
    pub objects: Vec<Object>,
}

/// One flat shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its shape.
    pub shape: Shape,
    /// Its colour.
    pub color: Color,
    /// Its colour as painted, a few levels off its palette entry.
    pub rgb: [u8; 3],
    /// Its size.
    pub size: Size,
    /// The middle of its bounding box, in fractions of the picture's side, y downwards.
    pub center: [f32; 2],
    /// Its radius as a fraction of the picture's side.
    pub radius: f32,
}

/// What the held-out split is made of: an object of a shape and colour on a background.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Triple {
    /// The background's colour.
    pub background: Color,
    /// The object's colour.
    pub color: Color,
    /// The object's shape.
    pub shape: Shape,
}

impl Triple {
    /// Every triple whose object can be told from its background.
    pub fn all() -> impl Iterator<Item = Self> {
        let pairs = Color::ALL.iter().flat_map(|&background| Color::ALL.iter().map(move |&color| (background, color)));
        pairs
            .filter(|(background, color)| background != color)
            .flat_map(|(background, color)| Shape::ALL.iter().map(move |&shape| Self { background, color, shape }))
    }

    /// Whether training never sees this triple; true of about one in ten, the same ones for every seed.
    pub fn is_held_out(self) -> bool {
        let index = (self.background as u64 * 64 + self.color as u64) * 64 + self.shape as u64;
        rng::mix(index ^ 0x6c61_7465_6e74_6421).is_multiple_of(10)
    }
}

impl Scene {
    /// A training scene; none of its objects forms a held-out triple with the background.
    pub fn sample(rng: &mut Rng) -> Self {
        if rng.chance(TWO_OBJECTS) { Self::sample_two(rng) } else { Self::sample_one(rng) }
    }

    /// A training scene of one object.
    pub fn sample_one(rng: &mut Rng) -> Self {
        let background = rng.pick(Color::ALL);
        let triple = seen(background, &[], rng);
        Self::of(triple, rng)
    }

    /// A training scene of two objects, side by side or one above the other.
    pub fn sample_two(rng: &mut Rng) -> Self {
        let background = rng.pick(Color::ALL);
        let first = seen(background, &[], rng);
        let second = seen(background, &[first.color], rng);
        let axis = rng.below(2);
        let mut objects = [first, second].map(|triple| Object::unplaced(triple, &[Size::Small, Size::Medium], rng));
        // Each keeps to its half of the one axis; on the other both stay near one line, so that the relation is plain.
        let line = rng.between(0.42, 0.58);
        for (half, object) in objects.iter_mut().enumerate() {
            // The widest outlines are made as small as a half has room for.
            let widest = object.half_extent().into_iter().fold(0.0, f32::max);
            object.radius *= ((0.25 - MARGIN) / widest).min(1.0);
            let extent = object.half_extent();
            let start = 0.5 * half as f32;
            object.center[axis] = rng.between(start + extent[axis] + MARGIN, start + 0.5 - extent[axis] - MARGIN);
            object.center[1 - axis] = line + rng.between(-0.06, 0.06);
        }
        Self { background, background_rgb: stray(background, rng), objects: objects.into() }
    }

    /// A scene of one object that forms a held-out triple, for evaluation only.
    pub fn sample_held_out(rng: &mut Rng) -> Self {
        let held_out: Vec<_> = Triple::all().filter(|t| t.is_held_out()).collect();
        let triple = rng.pick(&held_out);
        Self::of(triple, rng)
    }

    /// A scene of one object, its triple given, of any size and at any place.
    pub fn of(triple: Triple, rng: &mut Rng) -> Self {
        let mut object = Object::unplaced(triple, Size::ALL, rng);
        let cell = rng.pick(Position::ALL).cell();
        let extent = object.half_extent();
        for axis in [0, 1] {
            let near = extent[axis] + MARGIN;
            let near = rng.between(near, 0.34f32.max(near + 0.02));
            object.center[axis] = [near, rng.between(0.45, 0.55), 1.0 - near][cell[axis]];
        }
        Self { background: triple.background, background_rgb: stray(triple.background, rng), objects: vec![object] }
    }
}

impl Object {
    fn unplaced(triple: Triple, sizes: &[Size], rng: &mut Rng) -> Self {
        let size = rng.pick(sizes);
        let radius = size.radius() * rng.between(1.0 - RADIUS_JITTER, 1.0 + RADIUS_JITTER);
        let Triple { color, shape, .. } = triple;
        Self { shape, color, rgb: stray(color, rng), size, center: [0.5, 0.5], radius }
    }

    /// Half the bounding box's width and height, as fractions of the picture's side.
    pub fn half_extent(&self) -> [f32; 2] {
        self.shape.half_extent().map(|v| v * self.radius)
    }
}

/// A triple that training may show on `background`, its colour none of `taken`.
fn seen(background: Color, taken: &[Color], rng: &mut Rng) -> Triple {
    loop {
        let triple = Triple { background, color: rng.pick(Color::ALL), shape: rng.pick(Shape::ALL) };
        if triple.color != background && !taken.contains(&triple.color) && !triple.is_held_out() {
            return triple;
        }
    }
}

/// The palette entry, each channel moved by a few levels.
fn stray(color: Color, rng: &mut Rng) -> [u8; 3] {
    color.rgb().map(|channel| channel - COLOR_JITTER as u8 + rng.below(2 * COLOR_JITTER + 1) as u8)
}

/// `n` prompts of one object each whose triples training never shows, evenly over those triples; no text twice, unless
/// `n` exceeds what the grammar can say.
pub fn held_out_prompts(n: usize, seed: u64) -> Vec<Prompt> {
    prompts(Triple::all().filter(|t| t.is_held_out()).collect(), n, seed)
}

/// Like [`held_out_prompts`], over the triples that training does show: the yardstick to hold those against.
pub fn seen_prompts(n: usize, seed: u64) -> Vec<Prompt> {
    prompts(Triple::all().filter(|t| !t.is_held_out()).collect(), n, seed)
}

fn prompts(mut triples: Vec<Triple>, n: usize, seed: u64) -> Vec<Prompt> {
    const TRIES: usize = 50;
    let mut rng = Rng::at(seed, 0);
    rng.shuffle(&mut triples);
    let mut texts = std::collections::HashSet::new();
    let mut prompts = Vec::with_capacity(n);
    for &triple in triples.iter().cycle().take(n) {
        let mut text = String::new();
        for _ in 0..TRIES {
            text = Scene::of(triple, &mut rng).caption(&mut rng);
            if texts.insert(text.clone()) {
                break;
            }
        }
        prompts.push(Prompt::parse(&text).expect("the grammar reads its own captions"));
    }
    prompts
}
