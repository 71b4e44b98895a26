//! What a job of several pictures has behind it: pictures that are finished, checkpoints of those that are not.

use ldm_core::Checkpoint;

use crate::ledger::ObjectRef;

/// The version of the form below.
const VERSION: u8 = 1;

/// One picture of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Not begun, or not kept yet.
    Fresh,
    /// Half done.
    Half(Checkpoint),
    /// It lies in the object store; what is told of it is opaque.
    Done(ObjectRef, String),
}

/// A bundle that cannot be read: of another version, or damaged. Its job starts from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the checkpoint is damaged, or of another version of this program")]
pub(super) struct Damaged;

/// The parts as bytes: a version, a count, then for each a tag and its fields, lengths before texts.
pub(super) fn write(parts: &[Part]) -> Vec<u8> {
    let mut out = vec![VERSION];
    number(&mut out, parts.len() as u64);
    for part in parts {
        match part {
            Part::Fresh => out.push(0),
            Part::Half(checkpoint) => {
                out.push(1);
                number(&mut out, checkpoint.step.into());
                bytes(&mut out, &checkpoint.bytes);
            }
            Part::Done(object, detail) => {
                out.push(2);
                bytes(&mut out, object.key.as_bytes());
                number(&mut out, object.bytes);
                bytes(&mut out, object.digest.as_bytes());
                bytes(&mut out, detail.as_bytes());
            }
        }
    }
    out
}

/// The parts of a job of `count` pictures.
pub(super) fn read(mut from: &[u8], count: usize) -> Result<Vec<Part>, Damaged> {
    let input = &mut from;
    if take(input, 1)? != [VERSION] || take_number(input)? != count as u64 {
        return Err(Damaged);
    }
    let parts: Result<Vec<Part>, Damaged> = (0..count).map(|_| take_part(input)).collect();
    if input.is_empty() { parts } else { Err(Damaged) }
}

fn take_part(input: &mut &[u8]) -> Result<Part, Damaged> {
    match take(input, 1)? {
        [0] => Ok(Part::Fresh),
        [1] => {
            let step = u32::try_from(take_number(input)?).map_err(|_| Damaged)?;
            Ok(Part::Half(Checkpoint { step, bytes: take_bytes(input)?.into() }))
        }
        [2] => {
            let key = take_text(input)?;
            let bytes = take_number(input)?;
            Ok(Part::Done(ObjectRef { key, bytes, digest: take_text(input)? }, take_text(input)?))
        }
        _ => Err(Damaged),
    }
}

fn number(out: &mut Vec<u8>, value: u64) {
    out.extend(value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    number(out, value.len() as u64);
    out.extend(value);
}

fn take<'a>(input: &mut &'a [u8], count: usize) -> Result<&'a [u8], Damaged> {
    input.split_off(..count).ok_or(Damaged)
}

fn take_number(input: &mut &[u8]) -> Result<u64, Damaged> {
    take(input, 8)?.try_into().map(u64::from_le_bytes).map_err(|_| Damaged)
}

fn take_bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Damaged> {
    let count = usize::try_from(take_number(input)?).map_err(|_| Damaged)?;
    take(input, count)
}

fn take_text(input: &mut &[u8]) -> Result<String, Damaged> {
    String::from_utf8(take_bytes(input)?.to_vec()).map_err(|_| Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Vec<Part> {
        let object = ObjectRef { key: "out/a/0.png".into(), bytes: 7, digest: "ab".into() };
        vec![
            Part::Fresh,
            Part::Half(Checkpoint { step: 9, bytes: vec![1, 2, 3].into() }),
            Part::Done(object, "{\"seed\":1}".into()),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(&write(&parts()), 3), Ok(parts()));
        assert_eq!(read(&write(&[]), 0), Ok(vec![]));
    }

    #[test]
    fn nothing_else_is() {
        let whole = write(&parts());
        assert!((0..whole.len()).all(|end| read(&whole[..end], 3) == Err(Damaged)), "cut off");
        assert_eq!(read(&whole, 2), Err(Damaged), "of another job");
        assert_eq!(read(&[whole.as_slice(), &[0]].concat(), 3), Err(Damaged), "too long");
        for place in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[place] ^= 0xff;
            // Whatever it says, it says it without a panic and without asking for memory that is not there.
            let _ = read(&flipped, 3);
        }
    }
}
