//! Pictures in files: read for `--init-image`, written for `--out`.

use std::io::Cursor;
use std::path::Path;

use anyhow::Result;
use image::codecs::{jpeg::JpegEncoder, webp::WebPEncoder};
use image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageReader};
use ldm_core::task::Work;
use ldm_core::{Raster, Request};
use serde_json::json;

/// JPEG quality, as over HTTP when a request does not say.
const QUALITY: u8 = 90;

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Png,
    Jpeg,
    WebP,
}

impl Format {
    /// The format that a file's name says.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_ascii_lowercase().to_str()? {
            "png" => Some(Format::Png),
            "jpg" | "jpeg" => Some(Format::Jpeg),
            "webp" => Some(Format::WebP),
            _ => None,
        }
    }
}

/// Reads a PNG, JPEG or WebP file: upright, on white where it is transparent.
pub(crate) fn read(bytes: &[u8]) -> Result<Raster> {
    let mut decoder = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?.into_decoder()?;
    let orientation = decoder.orientation()?;
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    let (width, height) = (picture.width(), picture.height());
    let over = |colour: u8, alpha: u8| {
        let (colour, alpha) = (u32::from(colour), u32::from(alpha));
        ((colour * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    let pixels = picture.into_rgba8();
    let data: Vec<u8> = pixels.pixels().flat_map(|&image::Rgba([r, g, b, a])| [over(r, a), over(g, a), over(b, a)]).collect();
    Ok(Raster::new(width, height, data)?)
}

/// The picture's file. A PNG says what made it: its text `latentd` can be posted to the service.
pub(crate) fn write(picture: &Raster, format: Format, request: &Request) -> Result<Vec<u8>> {
    let (width, height, data) = (picture.width(), picture.height(), picture.data());
    let mut out = Vec::new();
    match format {
        Format::Png => {
            let mut encoder = png::Encoder::new(&mut out, width, height);
            encoder.set_color(png::ColorType::Rgb);
            encoder.set_depth(png::BitDepth::Eight);
            encoder.set_compression(png::Compression::Fast);
            encoder.add_itxt_chunk("latentd".to_owned(), parameters(request))?;
            let mut writer = encoder.write_header()?;
            writer.write_image_data(data)?;
            writer.finish()?;
        }
        Format::Jpeg => {
            JpegEncoder::new_with_quality(&mut out, QUALITY).write_image(data, width, height, ExtendedColorType::Rgb8)?;
        }
        Format::WebP => WebPEncoder::new_lossless(&mut out).write_image(data, width, height, ExtendedColorType::Rgb8)?,
    }
    Ok(out)
}

/// The request as a body of the native dialect.
fn parameters(request: &Request) -> String {
    let mut body = json!({
        "model": request.model,
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "width": request.width,
        "height": request.height,
        "steps": request.steps,
        "sampler": request.sampler,
        "schedule": request.schedule,
        "guidance": request.guidance,
        "eta": request.eta,
        "seed": request.seed,
        "images": 1,
        "format": "png",
    });
    if let Work::Img2Img(work) = &request.work {
        body["strength"] = work.strength.into();
    }
    body.to_string()
}

#[cfg(test)]
mod tests {
    use ldm_core::{Draft, Task};
    use ldm_engine::fake::FakeExecutor;

    use super::*;

    fn request() -> Request {
        let draft = Draft { prompt: Some("käse\n猫".to_owned()), seed: Some(7), ..Draft::new(Task::Txt2Img) };
        draft.check(&FakeExecutor::catalogue_example()).unwrap().remove(0)
    }

    #[test]
    fn names_say_the_format() {
        let of = |name: &str| Format::of(Path::new(name));
        assert_eq!((of("a.png"), of("a/b.JPG"), of("c.d.jpeg")), (Some(Format::Png), Some(Format::Jpeg), Some(Format::Jpeg)));
        assert_eq!((of("a.webp"), of("png"), of("a.gif")), (Some(Format::WebP), None, None));
    }

    #[test]
    fn lossless_files_read_back_and_a_png_says_what_made_it() {
        let picture = Raster::new(3, 2, (0..18).map(|i| i * 14).collect::<Vec<u8>>()).unwrap();
        for format in [Format::Png, Format::WebP] {
            assert_eq!(read(&write(&picture, format, &request()).unwrap()).unwrap(), picture);
        }
        let jpeg = read(&write(&picture, Format::Jpeg, &request()).unwrap()).unwrap();
        assert_eq!((jpeg.width(), jpeg.height()), (3, 2));
        let file = write(&picture, Format::Png, &request()).unwrap();
        let reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
        let chunk = &reader.info().utf8_text[0];
        let said: serde_json::Value = serde_json::from_str(&chunk.get_text().unwrap()).unwrap();
        assert_eq!((chunk.keyword.as_str(), &said["prompt"], &said["seed"]), ("latentd", &json!("käse\n猫"), &json!(7)));
        assert!(read(b"no picture").is_err());
    }
}
