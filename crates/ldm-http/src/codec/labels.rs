//! Maps of classes: a file's grey levels or places in its palette as they are stored.

use std::io::Cursor;

use ldm_core::Plane;
use png::{BitDepth, ColorType, Transformations};

use super::read::{Unreadable, read_with_alpha};
use super::{Format, container, format_of};

/// Reads a map of classes of at most `max_pixels`. A PNG's grey levels and places in a palette are the classes, of 1, 2, 4 or 8 bits as
/// they stand; of other files the grey levels, and colours are refused.
pub(crate) fn read_labels(file: &[u8], max_pixels: u64) -> Result<Plane, Unreadable> {
    if format_of(file)? == Format::Png
        && let Some(labels) = stored(file, max_pixels)?
    {
        return Ok(labels);
    }
    let picture = read_with_alpha(file, max_pixels)?;
    if picture.colours.data().chunks_exact(3).any(|rgb| rgb[0] != rgb[1] || rgb[1] != rgb[2]) {
        return Err(Unreadable::Picture("it has colours; classes are grey levels or places in a palette".to_owned()));
    }
    Ok(picture.grey())
}

/// The samples of a PNG of one channel with 8 bits or less; `None` if it is another.
fn stored(file: &[u8], max_pixels: u64) -> Result<Option<Plane>, Unreadable> {
    let bad = |error: png::DecodingError| Unreadable::Picture(error.to_string());
    if let Some((width, height)) = container::claimed(Format::Png, file)
        && u64::from(width) * u64::from(height) > max_pixels
    {
        return Err(Unreadable::TooLarge { width, height, limit: max_pixels });
    }
    let bytes = usize::try_from(max_pixels.saturating_mul(2).saturating_add(8 << 20)).unwrap_or(usize::MAX);
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(file), png::Limits { bytes });
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(bad)?;
    let (colour, depth) = (reader.info().color_type, reader.info().bit_depth);
    if !matches!(colour, ColorType::Grayscale | ColorType::Indexed) || depth == BitDepth::Sixteen {
        return Ok(None);
    }
    let (width, height) = (reader.info().width, reader.info().height);
    let size = reader.output_buffer_size().ok_or(Unreadable::TooLarge { width, height, limit: max_pixels })?;
    let mut packed = vec![0; size];
    let line = reader.next_frame(&mut packed).map_err(bad)?.line_size.max(1);
    let bits = depth as usize;
    let samples = packed.chunks_exact(line).flat_map(|line| {
        let sample = move |x: usize| {
            let at = x * bits;
            (line[at / 8] >> (8 - bits - at % 8)) & (0xff_u8 >> (8 - bits))
        };
        (0..width as usize).map(sample)
    });
    let labels = Plane::new(width, height, samples.collect::<Vec<u8>>());
    labels.map(Some).map_err(|error| Unreadable::Picture(error.to_string()))
}
