//! Captions: how a scene is put into words, and how the words are read back.

use super::{Color, Object, Position, Relation, Rng, Scene, Shape, Size};

/// The words that name no part of a scene; the comma counts as a word of its own.
const GLUE: [&str; 12] = ["a", "an", "and", "at", "background", "corner", "in", "of", "on", "the", "with", ","];

/// Every word a caption can contain, each once, sorted; the comma is one of them.
pub fn vocabulary() -> Vec<&'static str> {
    let mut words = GLUE.to_vec();
    words.extend(Color::ALL.iter().map(|c| c.word()));
    words.extend(Shape::ALL.iter().map(|s| s.word()));
    words.extend(Size::ALL.iter().map(|s| s.word()));
    words.extend(Position::ALL.iter().flat_map(|p| p.word().split(' ')));
    words.extend(Relation::ALL.iter().flat_map(|r| r.word().split(' ')));
    words.sort_unstable();
    words.dedup();
    words
}

/// A caption's words, the comma split off from the word it follows.
pub fn words(caption: &str) -> impl Iterator<Item = &str> {
    caption.split_whitespace().flat_map(|word| {
        let (word, comma) = match word.strip_suffix(',') {
            Some(word) => (word, Some(",")),
            None => (word, None),
        };
        (!word.is_empty()).then_some(word).into_iter().chain(comma)
    })
}

/// What a caption says of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mention {
    /// Its colour.
    pub color: Color,
    /// Its shape.
    pub shape: Shape,
    /// Its size, if the caption gives one.
    pub size: Option<Size>,
    /// Its place, if the caption gives one.
    pub position: Option<Position>,
}

/// What a caption says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The background's colour.
    pub background: Color,
    /// The objects, in the caption's order; never empty.
    pub objects: Vec<Mention>,
    /// How the first object lies to the second, if the caption tells.
    pub relation: Option<Relation>,
}

/// A caption of one object, with what a picture must show to agree with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The words to give to the model.
    pub text: String,
    /// The background's colour.
    pub background: Color,
    /// The object's colour.
    pub color: Color,
    /// The object's shape.
    pub shape: Shape,
    /// The object's size, if the text gives one.
    pub size: Option<Size>,
    /// The object's place, if the text gives one.
    pub position: Option<Position>,
}

impl Prompt {
    /// Reads a caption of exactly one object; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let reading = Reading::parse(text)?;
        let [Mention { color, shape, size, position }] = *reading.objects else { return None };
        Some(Self { text: text.to_owned(), background: reading.background, color, shape, size, position })
    }
}

impl Reading {
    /// Reads a caption of the grammar; `None` when a word is foreign or the background or the object is missing.
    pub fn parse(caption: &str) -> Option<Self> {
        let (mut background, mut relation, mut size) = (None, None, None);
        let mut objects = Vec::<Mention>::new();
        let words: Vec<&str> = words(caption).collect();
        let mut at = 0;
        while let Some(word) = words.get(at) {
            let next = words.get(at + 1).copied().unwrap_or_default();
            let mut used = 1;
            if let Some(color) = find(Color::ALL, Color::word, word) {
                if let Some(shape) = find(Shape::ALL, Shape::word, next) {
                    objects.push(Mention { color, shape, size: size.take(), position: None });
                    used = 2;
                } else if background.replace(color).is_some() {
                    return None;
                }
            } else if let Some(found) = find(Size::ALL, Size::word, word) {
                size = Some(found);
            } else if let Some((found, length)) = phrase(Relation::ALL, Relation::word, word, next) {
                relation = Some(found);
                used = length;
            } else if let Some((found, length)) = phrase(Position::ALL, Position::word, word, next) {
                objects.last_mut()?.position = Some(found);
                used = length;
            } else if !GLUE.contains(word) {
                return None;
            }
            at += used;
        }
        (!objects.is_empty()).then_some(Self { background: background?, objects, relation })
    }
}

fn find<T: Copy>(all: &[T], name: fn(T) -> &'static str, word: &str) -> Option<T> {
    all.iter().copied().find(|&item| name(item) == word)
}

/// The item that the next one or two words name, the longer name first, and how many words that took.
fn phrase<T: Copy>(all: &[T], name: fn(T) -> &'static str, word: &str, next: &str) -> Option<(T, usize)> {
    let both = format!("{word} {next}");
    let two = find(all, name, &both).map(|item| (item, 2));
    two.or_else(|| find(all, name, word).map(|item| (item, 1)))
}

impl Scene {
    /// Describes the scene. Colours and shapes are always told; sizes, places and relations only sometimes.
    pub fn caption(&self, rng: &mut Rng) -> String {
        let (subject, bare) = match self.objects.as_slice() {
            [first, second, ..] => pair(first, second, rng),
            [only] => single(only, rng),
            [] => return format!("a {} background", self.background),
        };
        let background = self.background;
        let ground = article(background.word());
        match rng.below(5) {
            0 => format!("{subject} on {ground} background"),
            1 => format!("{subject} on {background}"),
            2 => format!("{bare}, {background} background"),
            3 => format!("{ground} background with {subject}"),
            _ => format!("{bare} on {background}"),
        }
    }
}

/// One object in words, with its article and without.
fn single(object: &Object, rng: &mut Rng) -> (String, String) {
    let mut bare = noun(object, 0.45, rng);
    if rng.chance(0.4) {
        let place = Position::of_center(object.center);
        bare = match place.cell() {
            [1, 1] => format!("{bare} in the {place}"),
            [1, _] | [_, 1] => format!("{bare} at the {place}"),
            _ => format!("{bare} in the {place} corner"),
        };
    }
    (article(&bare), bare)
}

/// Two objects in words, either one first, with their articles and without.
fn pair(first: &Object, second: &Object, rng: &mut Rng) -> (String, String) {
    let (a, b) = if rng.chance(0.5) { (first, second) } else { (second, first) };
    let link = if rng.chance(0.8) { Relation::between(a.center, b.center).word() } else { "and" };
    let (a, b) = (noun(a, 0.25, rng), noun(b, 0.25, rng));
    (format!("{} {link} {}", article(&a), article(&b)), format!("{a} {link} {b}"))
}

/// Size (sometimes), colour and shape.
fn noun(object: &Object, size_chance: f32, rng: &mut Rng) -> String {
    let Object { size, color, shape, .. } = object;
    if rng.chance(size_chance) { format!("{size} {color} {shape}") } else { format!("{color} {shape}") }
}

/// Puts the article before a phrase; among the words that can follow it, only "orange" starts with a vowel.
fn article(phrase: &str) -> String {
    format!("{} {phrase}", if phrase.starts_with('o') { "an" } else { "a" })
}
