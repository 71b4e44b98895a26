//! EXIF blocks as AUTOMATIC1111's web UI writes them: the infotext in `UserComment`. Our own JSON stands in `ImageDescription`.

use std::fmt::Write;
use std::io::Cursor;

use exif::experimental::Writer;
use exif::{Context, Field, In, Reader, Tag, Value};

/// What stands before a `UserComment` in UTF-16 (EXIF 2.32, table 9).
const UNICODE: &[u8; 8] = b"UNICODE\0";
const ASCII: &[u8; 8] = b"ASCII\0\0\0";
const UNDEFINED: &[u8; 8] = &[0; 8];

/// JSON objects by name as one object, in ASCII, as the field is.
pub(super) fn described(parts: &[(&str, &str)]) -> String {
    let parts = parts.iter().filter(|(_, json)| !json.is_empty());
    let parts: Vec<_> = parts.map(|(name, json)| format!("\"{name}\":{json}")).collect();
    if parts.is_empty() {
        return String::new();
    }
    let mut text = String::new();
    // JSON has letters beyond ASCII in strings alone, where they may be escaped.
    for c in format!("{{{}}}", parts.join(",")).chars() {
        match c.is_ascii() {
            true => text.push(c),
            false => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a string does not fail.
                    let _ = write!(text, "\\u{unit:04x}");
                }
            }
        }
    }
    text
}

/// A block with a comment and a description; what is empty is left out. Empty if it could not be written.
pub(super) fn write(comment: &str, description: &str) -> Vec<u8> {
    let field = |tag, value| Field { tag, ifd_num: In::PRIMARY, value };
    let ascii = |text: &str| Value::Ascii(vec![text.as_bytes().to_vec()]);
    // Big-endian, as `piexif` has it and readers expect, whatever the block's own order is.
    let units = comment.encode_utf16().flat_map(u16::to_be_bytes);
    let comment_field = field(Tag::UserComment, Value::Undefined(UNICODE.iter().copied().chain(units).collect(), 0));
    let description_field = field(Tag::ImageDescription, ascii(description));
    let software = field(Tag::Software, ascii(concat!("latentd ", env!("CARGO_PKG_VERSION"))));
    let mut writer = Writer::new();
    writer.push_field(&software);
    if !comment.is_empty() {
        writer.push_field(&comment_field);
    }
    if !description.is_empty() {
        writer.push_field(&description_field);
    }
    let mut block = Cursor::new(Vec::new());
    writer.write(&mut block, false).map(|()| block.into_inner()).unwrap_or_default()
}

/// The texts of a block by the names of their fields; damaged fields are passed over.
pub(super) fn read(block: Vec<u8>) -> Vec<(String, String)> {
    let mut reader = Reader::new();
    let parsed = reader.continue_on_error(true).read_raw(block);
    let Ok(parsed) = parsed.or_else(|error| error.distill_partial_result(|_| ())) else { return Vec::new() };
    let fields = parsed.fields().filter(|field| field.ifd_num == In::PRIMARY);
    let texts = fields.filter_map(|field| {
        let text = match &field.value {
            Value::Ascii(lines) => lines.iter().map(|line| String::from_utf8_lossy(line)).collect::<Vec<_>>().join("\n"),
            // Pillow writes it as bytes.
            Value::Undefined(bytes, _) | Value::Byte(bytes) if field.tag == Tag::UserComment => comment(bytes)?,
            _ => return None,
        };
        let Tag(context, number) = field.tag;
        let known = field.tag.description().is_some() && matches!(context, Context::Tiff | Context::Exif);
        let name = if known { field.tag.to_string() } else { format!("{context:?} 0x{number:04x}") };
        Some((name, text))
    });
    texts.filter(|(_, text)| !text.trim().is_empty()).collect()
}

/// The name of the field that has the comment.
pub(super) const COMMENT: &str = "UserComment";
/// The name of the field that has our JSON.
pub(super) const DESCRIPTION: &str = "ImageDescription";

/// The text of a `UserComment`.
fn comment(bytes: &[u8]) -> Option<String> {
    let (kind, text) = bytes.split_first_chunk::<8>()?;
    let text = match kind {
        UNICODE => utf16(text),
        ASCII | UNDEFINED => String::from_utf8_lossy(text).into_owned(),
        _ => return None,
    };
    Some(text.trim_end_matches('\0').to_owned())
}

/// UTF-16 in the order that a mark says, or else the one in which more of its letters are Latin.
fn utf16(bytes: &[u8]) -> String {
    let (pairs, _) = bytes.as_chunks::<2>();
    let little = match pairs.first() {
        Some([0xff, 0xfe]) => true,
        Some([0xfe, 0xff]) => false,
        _ => {
            let zeros = |at: usize| pairs.iter().filter(|pair| pair[at] == 0 && pair[1 - at] != 0).count();
            zeros(1) > zeros(0)
        }
    };
    let units: Vec<_> =
        pairs.iter().map(|&pair| if little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) }).collect();
    String::from_utf16_lossy(&units).trim_start_matches('\u{feff}').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(block: Vec<u8>) -> Vec<(String, String)> {
        let mut found = read(block);
        found.retain(|(name, _)| name != "Software");
        found.sort();
        found
    }

    #[test]
    fn texts_of_every_script_come_back() {
        for text in ["a cat\nSteps: 1", "кошка, 猫, قطة 🐈", "猫", "e\u{301}", "\u{10ffff}"] {
            let json = described(&[("latentd", &serde_json::json!({ "prompt": text }).to_string()), ("latentd-made", "")]);
            assert!(json.is_ascii());
            let back: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(back["latentd"]["prompt"], text);
            let block = write(text, &json);
            assert!(block.starts_with(b"MM\0*"));
            assert_eq!(found(block), [(DESCRIPTION.to_owned(), json), (COMMENT.to_owned(), text.to_owned())]);
        }
        assert_eq!(found(write("", "")), []);
        assert_eq!(described(&[("latentd", "")]), "");
    }

    #[test]
    fn comments_of_other_programs_are_read() {
        let little = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        let marked = [&[0xff, 0xfe][..], &little("猫")].concat();
        let table: [(&[u8; 8], &[u8], Option<&str>); 7] = [
            (UNICODE, &little("a cat, 猫"), Some("a cat, 猫")),
            (UNICODE, &marked, Some("猫")),
            (UNICODE, b"\0a\0b\0\0\0", Some("ab")),
            (UNICODE, b"", Some("")),
            (ASCII, b"a cat\0\0", Some("a cat")),
            (UNDEFINED, "gr\u{fc}n".as_bytes(), Some("grün")),
            (b"JIS\0\0\0\0\0", b"x", None),
        ];
        for (kind, text, expected) in table {
            assert_eq!(comment(&[kind, text].concat()).as_deref(), expected, "{kind:?} {text:?}");
        }
        assert_eq!(comment(b"UNICODE"), None);
    }

    #[test]
    fn damaged_blocks_are_read_as_far_as_they_go() {
        let whole = write("a cat", "{}");
        for end in 0..whole.len() {
            read(whole[..end].to_vec());
            let mut damaged = whole.clone();
            damaged[end] ^= 0xff;
            read(damaged);
        }
        // A field that claims four gibibytes, and one that is whole.
        let block =
            b"MM\0*\0\0\0\x08\0\x02\x01\x0e\0\x02\xff\xff\xff\xff\0\0\0\x08\x01\x31\0\x02\0\0\0\x03hi\0\0\0\0\0\0".to_vec();
        assert_eq!(read(block), [("Software".to_owned(), "hi".to_owned())]);
    }
}
