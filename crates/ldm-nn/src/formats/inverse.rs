//! From canonical names back to original ones: the maps of the other files here, read backwards. Nothing says a name twice.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::weights::{Checkpoint, Mapped};

/// Original names of a network, and what the map forward makes of each: here, what each is made of.
pub type Originals = BTreeMap<String, Mapped>;

/// The originals among `candidates` whose parts `checkpoint` holds.
pub fn originals(
    candidates: impl IntoIterator<Item = String>,
    forward: impl Fn(&str) -> Mapped,
    checkpoint: &Checkpoint,
) -> Originals {
    let there = |mapped: &Mapped| {
        let parts = parts(mapped);
        !parts.is_empty() && parts.iter().all(|name| checkpoint.shape(name).is_some())
    };
    candidates.into_iter().map(|name| (forward(&name), name)).filter(|(mapped, _)| there(mapped)).map(|(m, n)| (n, m)).collect()
}

/// The canonical names that an original tensor is made of.
pub fn parts(mapped: &Mapped) -> &[String] {
    match mapped {
        Mapped::Drop => &[],
        Mapped::As(name) | Mapped::Transposed(name) => std::slice::from_ref(name),
        Mapped::Rows(names) => names,
        Mapped::Heads { names, .. } => names,
    }
}

/// The original tensor, of canonical ones: what [`Checkpoint::map_names`] would take apart again. `None` when a part is not there,
/// or the parts do not fit each other.
pub fn original(checkpoint: &Checkpoint, mapped: &Mapped) -> Option<Tensor> {
    let names = parts(mapped);
    let shapes: Option<Vec<Vec<i64>>> = names.iter().map(|name| checkpoint.shape(name)).collect();
    let shapes = shapes?;
    let first = shapes.first()?;
    if shapes.iter().any(|shape| shape != first) {
        return None;
    }
    let mut tensors = names.iter().map(|name| checkpoint.tensor(name));
    Some(match mapped {
        Mapped::Drop => return None,
        Mapped::As(_) => tensors.next()?,
        Mapped::Transposed(_) if first.len() == 2 => tensors.next()?.transpose(0, 1),
        Mapped::Transposed(_) => return None,
        Mapped::Rows(_) => Tensor::cat(&tensors.collect::<Vec<_>>(), 0),
        Mapped::Heads { heads, .. } => {
            let rows = *first.first()?;
            if *heads <= 0 || rows % heads != 0 {
                return None;
            }
            let by_head: Vec<Tensor> = tensors.map(|tensor| tensor.view([*heads, rows / heads, -1])).collect();
            let joined: Vec<i64> = std::iter::once(3 * rows).chain(first[1..].iter().copied()).collect();
            Tensor::stack(&by_head, 1).reshape(joined) // [heads, 3, width, …]
        }
    })
}
