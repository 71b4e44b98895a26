//! What a picture's file says of itself, read back: its infotext, our own JSON, and every other text.

use std::collections::BTreeMap;
use std::io::Cursor;

use image::codecs::{jpeg::JpegDecoder, webp::WebPDecoder};
use image::{ImageDecoder, ImageResult};
use serde_json::{Map, Value};

use super::{LATENTD, MADE, PARAMETERS, exif};
use crate::codec::{Format, Unreadable, container, format_of};

/// Bytes of text that are unpacked from one file at most.
const TEXT: usize = 4 << 20;

/// What a file says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) format: Format,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// The infotext.
    pub(crate) parameters: Option<String>,
    /// What can be posted back, if this service made the picture.
    pub(crate) latentd: Option<Map<String, Value>>,
    /// What made it beside the request.
    pub(crate) made: Option<Map<String, Value>>,
    /// Every other text by its name.
    pub(crate) items: BTreeMap<String, String>,
}

/// Reads what a PNG, JPEG or WebP file says. Its pixels are not unpacked, and need not be whole.
pub(crate) fn read(file: &[u8]) -> Result<Found, Unreadable> {
    let bad = |error: image::ImageError| Unreadable::Picture(error.to_string());
    let format = format_of(file)?;
    let (size, items) = match format {
        Format::Png => png(file)?,
        Format::Jpeg => JpegDecoder::new(Cursor::new(file)).and_then(texts).map_err(bad)?,
        Format::WebP => {
            let decoder = WebPDecoder::new(Cursor::new(file)).map_err(bad)?;
            container::check(format, file, decoder.dimensions())?;
            texts(decoder).map_err(bad)?
        }
    };
    Ok(sorted(format, size, items))
}

/// A picture's size, and its texts by name.
type Said = ((u32, u32), BTreeMap<String, String>);

/// The texts of a PNG, before and after its pixels.
fn png(file: &[u8]) -> Result<Said, Unreadable> {
    let bad = |error: png::DecodingError| Unreadable::Picture(error.to_string());
    // As much as a text may have, and more than any row.
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(file), png::Limits { bytes: file.len() + (64 << 20) });
    decoder.set_ignore_iccp_chunk(true);
    let mut reader = decoder.read_info().map_err(bad)?;
    // Pixels that are cut short take nothing from what was said before them.
    let _ = reader.finish();
    let info = reader.info();
    let mut texts = Texts { left: TEXT, items: BTreeMap::new() };
    if let Some(block) = &info.exif_metadata {
        exif::read(block.to_vec()).into_iter().try_for_each(|(name, text)| texts.keep(&name, Some(text)))?;
    }
    for chunk in &info.uncompressed_latin1_text {
        texts.keep(&chunk.keyword, Some(chunk.text.clone()))?;
    }
    for mut chunk in info.compressed_latin1_text.iter().cloned() {
        let unpacked = chunk.decompress_text_with_limit(texts.left).and_then(|()| chunk.get_text());
        texts.keep(&chunk.keyword, unpacked.ok())?;
    }
    for mut chunk in info.utf8_text.iter().cloned() {
        let unpacked = chunk.decompress_text_with_limit(texts.left).and_then(|()| chunk.get_text());
        texts.keep(&chunk.keyword, unpacked.ok())?;
    }
    Ok((info.size(), texts.items))
}

/// The texts of a PNG, and how many bytes there may still be of them.
struct Texts {
    left: usize,
    items: BTreeMap<String, String>,
}

impl Texts {
    /// Keeps a text, `None` if it could not be unpacked. Of those with the same name the last one stays, as in Pillow.
    fn keep(&mut self, name: &str, text: Option<String>) -> Result<(), Unreadable> {
        let fits = text.and_then(|text| Some((self.left.checked_sub(text.len())?, text)));
        let cannot =
            || Unreadable::Picture(format!("its text {name:?} does not unpack, or all texts are more than {TEXT} bytes"));
        let (left, text) = fits.ok_or_else(cannot)?;
        self.left = left;
        self.items.insert(name.to_owned(), text);
        Ok(())
    }
}

/// The texts of another file.
fn texts(mut decoder: impl ImageDecoder) -> ImageResult<Said> {
    let mut items = BTreeMap::new();
    if let Some(block) = decoder.exif_metadata()? {
        items.extend(exif::read(block));
    }
    if let Some(xmp) = decoder.xmp_metadata()?.and_then(|xmp| String::from_utf8(xmp).ok()) {
        items.insert("XMP".to_owned(), xmp);
    }
    Ok((decoder.dimensions(), items))
}

/// The texts that are known apart from the others.
fn sorted(format: Format, (width, height): (u32, u32), mut items: BTreeMap<String, String>) -> Found {
    let parameters = items.remove(PARAMETERS).or_else(|| items.remove(exif::COMMENT));
    let object = |text: &str| serde_json::from_str::<Map<String, Value>>(text).ok();
    let mut latentd = taken(&mut items, LATENTD, object);
    let mut made = taken(&mut items, MADE, object);
    let ours = |text: &str| object(text).filter(|object| object.contains_key(LATENTD));
    if let Some(mut described) = taken(&mut items, exif::DESCRIPTION, ours) {
        let mut part = |name| match described.remove(name) {
            Some(Value::Object(part)) => Some(part),
            _ => None,
        };
        latentd = latentd.or_else(|| part(LATENTD));
        made = made.or_else(|| part(MADE));
    }
    Found { format, width, height, parameters, latentd, made, items }
}

/// Takes the text of that name, if it is what is looked for.
fn taken<T>(items: &mut BTreeMap<String, String>, name: &str, look: impl Fn(&str) -> Option<T>) -> Option<T> {
    let found = look(items.get(name)?)?;
    items.remove(name);
    Some(found)
}
