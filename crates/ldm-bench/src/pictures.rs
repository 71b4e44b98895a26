//! Pictures and masks that go along with requests, drawn: a gradient with a disc.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ldm_core::{Plane, Raster, Task};

/// The side where a kind does not say.
const USUAL: u32 = 64;
/// The largest side that is drawn.
const LARGEST: u32 = 4096;

/// One field of a body that is a picture.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The field.
    pub field: &'static str,
    /// The picture.
    pub content: Content,
    /// Its PNG in base64.
    pub b64: String,
}

/// What was drawn.
#[derive(Clone, Debug)]
pub enum Content {
    /// Colours.
    Picture(Raster),
    /// One channel: a mask, or depths.
    Plane(Plane),
}

/// What the task needs, at that size.
///
/// # Errors
/// The field at fault and what is wrong with it: a side that is not drawn.
pub(crate) fn for_task(task: Task, width: Option<u32>, height: Option<u32>) -> Result<Vec<Drawn>, (&'static str, String)> {
    for (field, side) in [("width", width), ("height", height)] {
        if let Some(side) = side.filter(|side| !(1..=LARGEST).contains(side)) {
            return Err((field, format!("must be from 1 to {LARGEST}, not {side}")));
        }
    }
    let (width, height) = (width.unwrap_or(USUAL), height.unwrap_or(USUAL));
    let drawn = match task {
        Task::Img2Img => vec![picture("init_image", width, height)],
        Task::Inpaint => vec![picture("init_image", width, height), disc("mask", width, height)],
        Task::Depth => vec![picture("init_image", width, height), disc("depth_map", width, height)],
        // A kind's size is that of the small picture: how much larger it comes out is the model's affair.
        Task::SuperResolution => vec![picture("lr_image", width, height)],
        // Classes, boxes and so on are fields like others: the kind's `body` has them.
        Task::Txt2Img | Task::Unconditional | Task::Class | Task::Layout | Task::Semantic | Task::Rdm => Vec::new(),
    };
    let drawn: Result<Vec<_>, png::EncodingError> = drawn.into_iter().collect();
    drawn.map_err(|error| ("task", format!("needs a picture that could not be drawn: {error}")))
}

fn picture(field: &'static str, width: u32, height: u32) -> Result<Drawn, png::EncodingError> {
    let pixel = |x: u32, y: u32| match inside(x, y, width, height) {
        true => [220, 40, 40],
        false => [(x * 255 / width) as u8, (y * 255 / height) as u8, 160],
    };
    let bytes: Vec<u8> = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
    let b64 = STANDARD.encode(file(&bytes, width, height, png::ColorType::Rgb)?);
    // Three bytes were written per pixel.
    let raster = Raster::new(width, height, bytes).unwrap_or_else(|_| Raster::filled(width, height, [0; 3]));
    Ok(Drawn { field, content: Content::Picture(raster), b64 })
}

/// White on a disc in the middle, black elsewhere.
fn disc(field: &'static str, width: u32, height: u32) -> Result<Drawn, png::EncodingError> {
    let value = |x, y| if inside(x, y, width, height) { 255 } else { 0 };
    let bytes: Vec<u8> = (0..height).flat_map(|y| (0..width).map(move |x| value(x, y))).collect();
    let b64 = STANDARD.encode(file(&bytes, width, height, png::ColorType::Grayscale)?);
    let plane = Plane::new(width, height, bytes).unwrap_or_else(|_| Plane::filled(width, height, 255));
    Ok(Drawn { field, content: Content::Plane(plane), b64 })
}

/// Whether a pixel lies on the disc, whose diameter is half the shorter side.
fn inside(x: u32, y: u32, width: u32, height: u32) -> bool {
    let off = |at: u32, side: u32| f64::from(at) + 0.5 - f64::from(side) / 2.0;
    off(x, width).hypot(off(y, height)) <= f64::from(width.min(height)) / 4.0
}

fn file(bytes: &[u8], width: u32, height: u32, colour: png::ColorType) -> Result<Vec<u8>, png::EncodingError> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, width, height);
    encoder.set_color(colour);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(bytes)?;
    writer.finish()?;
    Ok(out)
}
