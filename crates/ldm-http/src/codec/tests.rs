//! Files in the shapes that pictures come in, and in shapes that no program gives them.

use std::fs;
use std::path::Path;

use ldm_core::Raster;
use serde_json::Value;

use super::*;
use crate::testing::png_chunk;

/// The pictures of `tools/goldens/pictures.py`, and what Pillow reads in them.
fn goldens() -> Vec<(String, Vec<u8>, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/pictures");
    let expected: Value = serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let files = expected.as_object().unwrap().iter();
    files.map(|(name, expected)| (name.clone(), fs::read(folder.join(name)).unwrap(), expected.clone())).collect()
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap().as_bytes();
    hex.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn pictures_are_read_as_pillow_reads_them() {
    let goldens = goldens();
    assert!(goldens.len() > 20);
    for (name, file, expected) in goldens {
        let Picture { colours, alpha } = read_with_alpha(&file, 13 * 7).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            [colours.width(), colours.height()].map(Value::from),
            *expected["size"].as_array().unwrap().as_slice(),
            "{name}"
        );
        // How chroma is spread and cosines are rounded is the decoder's own.
        let tolerance = match name.as_str() {
            "lossy.webp" | "alpha.webp" => 6,
            name if name.ends_with(".jpg") => 3,
            _ => 0,
        };
        let apart = bytes(&expected["colours"]).iter().zip(colours.data()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(apart <= tolerance, "{name} differs by {apart}");
        assert_eq!(
            alpha.map(|alpha| alpha.data().to_vec()),
            expected["alpha"].is_string().then(|| bytes(&expected["alpha"])),
            "{name}"
        );
    }
}

/// A PNG of that type with those samples.
fn png(colour: png::ColorType, depth: png::BitDepth, (width, height): (u32, u32), data: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(colour);
    encoder.set_depth(depth);
    if colour == png::ColorType::Indexed {
        encoder.set_palette(vec![10, 20, 30, 40, 50, 60]);
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(data).unwrap();
    writer.finish().unwrap();
    file
}

#[test]
fn every_type_and_depth_of_png_is_read() {
    use png::BitDepth::{Eight, Four, One, Sixteen, Two};
    use png::ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};
    let table = [
        (Grayscale, One, &[0b0100_0000][..], [[0; 3], [255; 3]], None),
        (Grayscale, Two, &[0b0110_0000], [[85; 3], [170; 3]], None),
        (Grayscale, Four, &[0x1f], [[17; 3], [255; 3]], None),
        (Grayscale, Eight, &[1, 2], [[1; 3], [2; 3]], None),
        (Grayscale, Sixteen, &[0x80, 0, 0xff, 0xff], [[128; 3], [255; 3]], None),
        (GrayscaleAlpha, Eight, &[1, 2, 3, 4], [[1; 3], [3; 3]], Some([2, 4])),
        (GrayscaleAlpha, Sixteen, &[1, 1, 2, 2, 3, 3, 4, 4], [[1; 3], [3; 3]], Some([2, 4])),
        (Indexed, One, &[0b0100_0000], [[10, 20, 30], [40, 50, 60]], None),
        (Indexed, Four, &[0x10], [[40, 50, 60], [10, 20, 30]], None),
        (Indexed, Eight, &[1, 0], [[40, 50, 60], [10, 20, 30]], None),
        (Rgb, Sixteen, &[1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6], [[1, 2, 3], [4, 5, 6]], None),
        (Rgba, Sixteen, &[1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8], [[1, 2, 3], [5, 6, 7]], Some([4, 8])),
    ];
    for (colour, depth, data, colours, alpha) in table {
        let picture = read_with_alpha(&png(colour, depth, (2, 1), data), 2).unwrap();
        assert_eq!(picture.colours, Raster::new(2, 1, colours.concat()).unwrap(), "{colour:?} {depth:?}");
        assert_eq!(picture.alpha.map(|alpha| alpha.data().to_vec()), alpha.map(|alpha| alpha.to_vec()), "{colour:?} {depth:?}");
    }
}

#[test]
fn a_file_that_is_cut_short_is_refused() {
    for (name, file, _) in goldens() {
        let whole = read_with_alpha(&file, 91).unwrap();
        for end in 0..file.len() {
            match read_with_alpha(&file[..end], 91) {
                Err(Unreadable::Picture(_)) => {}
                // What follows a PNG's pixels, and a last chunk's padding, says nothing of them.
                Ok(picture) => {
                    assert!(picture == whole && !name.ends_with(".jpg"), "{name} of {end} bytes");
                }
                Err(other) => panic!("{name} of {end} bytes: {other}"),
            }
        }
    }
}

#[test]
fn damaged_files_are_refused_or_read_and_break_nothing() {
    for (_, file, _) in goldens() {
        for at in 0..file.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = file.clone();
                damaged[at] ^= flip;
                // Damage may hide in pixels; it must not make more of them than are allowed.
                if let Ok(picture) = read_with_alpha(&damaged, 1000) {
                    assert!(picture.colours.width() * picture.colours.height() <= 1000);
                }
                let _ = crate::metadata::read(&damaged);
            }
        }
    }
}

/// A PNG of header and chunks, as they are said to be.
fn claimed(width: u32, height: u32, chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let chunks: Vec<_> = chunks.iter().flat_map(|(name, body)| png_chunk(name, body)).collect();
    [b"\x89PNG\r\n\x1a\n".to_vec(), png_chunk(b"IHDR", &header), chunks, png_chunk(b"IEND", b"")].concat()
}

/// A WebP file of those chunks.
fn riff(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let body: Vec<u8> = chunks
        .iter()
        .flat_map(|(name, body)| [&name[..], &(body.len() as u32).to_le_bytes(), body, &vec![0; body.len() % 2]].concat())
        .collect();
    [b"RIFF", &(body.len() as u32 + 4).to_le_bytes()[..], b"WEBP", &body].concat()
}

#[test]
fn what_a_header_claims_is_not_believed() {
    let vp8x = |flags: u8, width: u8| [flags, 0, 0, 0, width - 1, 0, 0, 0, 0, 0];
    // Frames of 16383x16383 in pictures of one pixel.
    let frame = b"\x10\0\0\x9d\x01\x2a\xff\x3f\xff\x3f\0\0\0\0";
    let animated = [&[0; 16][..], b"VP8 \x0e\0\0\0", frame].concat();
    let lossless_frame = b"\x2f\xfe\xbf\xff\x0f\0\0\0\0\0";
    let mut endless = riff(&[(b"VP8X", &vp8x(8, 1)), (b"VP8L", b"\x2f\0\0\0\0\0\0\0")]);
    endless.extend(b"EXIF\xfc\xff\xff\xff");
    let end = endless.len() as u32 - 8;
    endless[4..8].copy_from_slice(&end.to_le_bytes());
    let table: [(&str, Vec<u8>, &str); 12] = [
        ("no width", claimed(0, 5, &[(b"IDAT", b"")]), ""),
        ("no height", claimed(5, 0, &[(b"IDAT", b"")]), ""),
        ("no pixels", claimed(1, 1, &[]), ""),
        ("a bad sum", [&claimed(1, 1, &[])[..20], &[0; 40]].concat(), ""),
        ("a frame beyond the picture", riff(&[(b"VP8X", &vp8x(0, 1)), (b"VP8 ", frame)]), "larger than the picture"),
        ("a frame beyond an animation", riff(&[(b"VP8X", &vp8x(2, 1)), (b"ANIM", &[0; 6]), (b"ANMF", &animated)]), "larger"),
        ("a lossless frame beyond the picture", riff(&[(b"VP8X", &vp8x(0, 1)), (b"VP8L", lossless_frame)]), ""),
        ("a chunk of four gibibytes", endless, "cut short"),
        ("no frame", riff(&[(b"VP8X", &vp8x(0, 1))]), ""),
        ("an animation of nothing", riff(&[(b"VP8X", &vp8x(2, 1)), (b"ANIM", &[0; 6])]), ""),
        ("no header", b"RIFF\xff\xff\xff\xffWEBP".to_vec(), ""),
        ("a start of image alone", b"\xff\xd8\xff".to_vec(), ""),
    ];
    for (name, file, said) in table {
        match read_with_alpha(&file, 1000) {
            Err(Unreadable::Picture(message)) => assert!(message.contains(said), "{name}: {message}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    let huge = |width, height| Err(Unreadable::TooLarge { width, height, limit: 1000 });
    assert_eq!(read_picture(&claimed(30_000, 30_000, &[(b"IDAT", &[0x78; 10_000])]), 1000), huge(30_000, 30_000));
    assert_eq!(read_picture(&claimed(1, 0x7fff_ffff, &[(b"IDAT", b"\x78\x9c")]), 1000), huge(1, 0x7fff_ffff));
    assert_eq!(read_picture(&riff(&[(b"VP8 ", frame)]), 1000), huge(16383, 16383));
    assert_eq!(read_picture(&riff(&[(b"VP8L", lossless_frame)]), 1000), huge(16383, 16383));
}

#[test]
fn a_palette_that_ends_within_a_colour_is_refused() {
    let file = png(png::ColorType::Indexed, png::BitDepth::Eight, (2, 1), &[0, 1]);
    let palette = png_chunk(b"PLTE", &[10, 20, 30, 40, 50, 60]);
    let at = file.windows(palette.len()).position(|window| window == palette).unwrap();
    for length in 3..=10 {
        let other = png_chunk(b"PLTE", &[9; 10][..length]);
        let read = read_with_alpha(&[&file[..at], &other, &file[at + palette.len()..]].concat(), 2);
        assert_eq!(read.is_ok(), length % 3 == 0, "{length} bytes: {read:?}");
    }
}

#[test]
fn profiles_and_exif_of_any_size_harm_nothing() {
    let pixel = png(png::ColorType::Rgb, png::BitDepth::Eight, (1, 1), &[1, 2, 3]);
    let with = |name: &[u8; 4], body: &[u8]| [&pixel[..33], &png_chunk(name, body), &pixel[33..]].concat();
    let mut bomb = Vec::new();
    let mut info = png::Info::with_size(1, 1);
    // Gibibytes are not needed to show that it is bounded: 64 MiB are more than a picture of one pixel may take.
    info.icc_profile = Some(vec![0; 64 << 20].into());
    info.color_type = png::ColorType::Rgb;
    png::Encoder::with_info(&mut bomb, info).unwrap().write_header().unwrap().write_image_data(&[1, 2, 3]).unwrap();
    let orientation = |value: u16| {
        let [high, low] = value.to_be_bytes();
        [b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01", &[high, low][..], b"\0\0\0\0\0\0"].concat()
    };
    let files = [
        with(b"eXIf", &vec![0xff; 60_000]),
        with(b"eXIf", b""),
        with(b"eXIf", &orientation(0)),
        with(b"eXIf", &orientation(9)),
        with(b"eXIf", &orientation(0xffff)),
        with(b"iCCP", b"no profile"),
        with(b"iCCP", &[b"name\0\0".to_vec(), vec![0x78; 60_000]].concat()),
        with(b"tEXt", &vec![b'x'; 60_000]),
        with(b"tEXt", b""),
        with(b"iTXt", b"k\0\x01\x07\0\0\xff\xff"),
        with(b"zTXt", b"k\0\0\x78\x9c\xff"),
        bomb,
    ];
    for (i, file) in files.iter().enumerate() {
        assert!(file.len() < 70_000);
        match read_picture(file, 1) {
            Ok(picture) => assert_eq!(picture.data(), [1, 2, 3], "{i}"),
            Err(error) => panic!("{i}: {error}"),
        }
    }
}

#[test]
fn lossy_files_grow_with_their_quality() {
    // A slope with a grain.
    let gradient = |i: u32| [i % 64 * 4, i / 64 * 4, 128].map(|value| (value + i * i % 7) as u8);
    let picture = Raster::new(64, 64, (0..64 * 64).flat_map(gradient).collect::<Vec<_>>()).unwrap();
    let apart = |file: &[u8]| {
        let back = read_picture(file, 64 * 64).unwrap();
        let apart = back.data().iter().zip(picture.data()).map(|(a, b)| u64::from(a.abs_diff(*b)));
        apart.sum::<u64>() as f64 / (64.0 * 64.0 * 3.0)
    };
    for format in [Format::Jpeg, Format::WebP] {
        let files = [1, 30, 60, 90].map(|quality| encode(&picture, Encoding { format, quality: Some(quality) }, None).unwrap());
        assert!(files.windows(2).all(|pair| pair[0].len() < pair[1].len()), "{format:?} {:?}", files.each_ref().map(Vec::len));
        let apart = files.map(|file| apart(&file));
        assert!(apart.windows(2).all(|pair| pair[0] > pair[1]) && apart[3] < 8.0, "{format:?} {apart:?}");
    }
    let lossless = encode(&picture, Encoding { format: Format::WebP, quality: None }, None).unwrap();
    assert_eq!(apart(&lossless), 0.0);
    assert_eq!(encode(&picture, Encoding { format: Format::WebP, quality: Some(100) }, None).unwrap(), lossless);
    let said = |quality| encode(&picture, Encoding { format: Format::Jpeg, quality }, None).unwrap();
    assert_eq!(said(None), said(Some(90)));
    let long = Raster::filled(16_384, 1, [0; 3]);
    let written = encode(&long, Encoding { format: Format::WebP, quality: Some(50) }, None);
    assert!(matches!(written, Err(Unwritable::WebP { width: 16_384, height: 1 })));
}

#[test]
fn classes_are_grey_levels_and_places_in_a_palette_as_they_stand() {
    use png::{BitDepth, ColorType};
    let read =
        |colour, depth, size, data: &[u8]| read_labels(&png(colour, depth, size, data), 16).map(|plane| plane.data().to_vec());
    assert_eq!(read(ColorType::Grayscale, BitDepth::Eight, (3, 1), &[0, 7, 200]), Ok(vec![0, 7, 200]));
    assert_eq!(read(ColorType::Grayscale, BitDepth::Four, (3, 2), &[0x12, 0x30, 0xf0, 0x10]), Ok(vec![1, 2, 3, 15, 0, 1]));
    assert_eq!(read(ColorType::Indexed, BitDepth::One, (3, 1), &[0b0110_0000]), Ok(vec![0, 1, 1]));
    assert_eq!(read(ColorType::Indexed, BitDepth::Two, (5, 1), &[0b0001_0100, 0b0100_0000]), Ok(vec![0, 1, 1, 0, 1]));
    assert_eq!(read(ColorType::Rgb, BitDepth::Eight, (2, 1), &[3, 3, 3, 9, 9, 9]), Ok(vec![3, 9]));
    let colours = read(ColorType::Rgb, BitDepth::Eight, (1, 1), &[3, 3, 4]).unwrap_err();
    assert!(colours.to_string().contains("colours"), "{colours}");
    let large = read(ColorType::Grayscale, BitDepth::Eight, (17, 1), &[0; 17]);
    assert_eq!(large, Err(Unreadable::TooLarge { width: 17, height: 1, limit: 16 }));
    let whole = png(ColorType::Indexed, BitDepth::Eight, (4, 4), &[1; 16]);
    for end in 0..whole.len() - 12 {
        assert!(read_labels(&whole[..end], 16).is_err(), "cut at {end}");
    }
}

#[test]
fn what_is_transparent_is_what_to_paint() {
    let open = png(png::ColorType::Rgba, png::BitDepth::Eight, (2, 1), &[1, 2, 3, 0, 4, 5, 6, 200]);
    let (picture, mask) = read_with_alpha(&open, 4).unwrap().with_mask();
    assert_eq!((picture.data(), mask.unwrap().data()), (&[1, 2, 3, 4, 5, 6][..], &[255, 55][..]));
    let closed = png(png::ColorType::Rgba, png::BitDepth::Eight, (2, 1), &[1, 2, 3, 128, 4, 5, 6, 255]);
    assert_eq!(read_with_alpha(&closed, 4).unwrap().with_mask().1, None);
}
