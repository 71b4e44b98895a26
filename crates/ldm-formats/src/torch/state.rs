//! From the structure of a file to its tensors: the state dict is found, each of its entries checked against the file.

use std::collections::BTreeMap;

use super::{Limits, Options, Places, Skipped, StoredTensor, TorchError};
use crate::pickle::{Id, Pickle, TensorRef, Value, shown};

pub(super) struct State {
    pub(super) tensors: Vec<StoredTensor>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) skipped: Vec<Skipped>,
}

impl State {
    pub(super) fn new(pickle: &Pickle<'_>, places: &Places, length: u64, options: &Options) -> Result<Self, TorchError> {
        let limits = &options.limits;
        let Value::Dict(root) = pickle.root() else {
            let what = pickle.describe(pickle.root);
            return Err(TorchError::State(format!("the file holds {what}, not a dictionary with a state dict")));
        };
        let root = pickle.entries(root);
        let key = options.key.as_deref().or_else(|| {
            let wrapped = root.iter().any(|&(key, id)| key == "state_dict" && matches!(pickle.value(id), Value::Dict(_)));
            wrapped.then_some("state_dict")
        });
        let mut state = Self { tensors: Vec::new(), metadata: BTreeMap::new(), skipped: Vec::new() };
        let entries = match key {
            None => root,
            Some(wanted) => {
                let mut found = None;
                for (key, id) in root {
                    match pickle.value(id) {
                        Value::Dict(pairs) if key == wanted => {
                            if pairs.iter().any(|&(key, _)| !matches!(pickle.value(key), Value::Str(_))) {
                                return Err(TorchError::State(format!("`{}` has a key that is no string", shown(wanted))));
                            }
                            found = Some(pickle.entries(pairs));
                        }
                        _ => state.beside(pickle, key, id, limits),
                    }
                }
                let Some(entries) = found else {
                    let there = hint(pickle).unwrap_or_default();
                    return Err(TorchError::State(format!("the file has no dictionary `{}`{there}", shown(wanted))));
                };
                entries
            }
        };
        if entries.len() > limits.tensors {
            let (found, limit) = (entries.len() as u64, limits.tensors as u64);
            return Err(TorchError::Limit { what: "entries in its state dict", found, limit });
        }
        for (name, id) in entries {
            match pickle.value(id) {
                Value::Tensor(tensor) => state.tensors.push(checked(name, tensor, places, limits)?),
                Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_) => {
                    state.beside(pickle, name, id, limits);
                }
                // Without a state dict of its own, the top level also holds what Lightning puts there.
                _ if key.is_none() && !matches!(pickle.value(id), Value::Opaque(..)) => state.beside(pickle, name, id, limits),
                _ => return Err(TorchError::Opaque { name: shown(name), what: pickle.describe(id) }),
            }
        }
        if state.tensors.is_empty() {
            let there = hint(pickle).unwrap_or_default();
            return Err(TorchError::State(format!("the file has no tensors where a state dict would have them{there}")));
        }
        let bytes = state.tensors.iter().map(|tensor| u128::from(tensor.bytes())).sum::<u128>();
        let limit = u128::from(length.max(4096)) * u128::from(limits.expansion);
        if bytes > limit {
            let number = |bytes| u64::try_from(bytes).unwrap_or(u64::MAX);
            let what = "bytes of tensors, many of them shared";
            return Err(TorchError::Limit { what, found: number(bytes), limit: number(limit) });
        }
        Ok(state)
    }

    /// Something that is no tensor: kept as text if it is a number or a short text, else only named.
    fn beside(&mut self, pickle: &Pickle<'_>, key: &str, id: Id, limits: &Limits) {
        let text = match pickle.value(id) {
            Value::Bool(value) => Some(value.to_string()),
            Value::Int(value) => Some(value.to_string()),
            Value::Float(value) => Some(value.to_string()),
            Value::Str(text) if text.len() <= limits.name => Some((*text).to_owned()),
            _ => None,
        };
        let key = shown(key);
        match text {
            Some(text) if self.metadata.len() < limits.metadata => _ = self.metadata.insert(key, text),
            _ if self.skipped.len() < limits.metadata => self.skipped.push(Skipped { key, what: pickle.describe(id) }),
            _ => {}
        }
    }
}

/// The keys of the top level, and which of them hold tensors.
fn hint(pickle: &Pickle<'_>) -> Option<String> {
    const SHOWN: usize = 8;
    let Value::Dict(root) = pickle.root() else { return None };
    let root = pickle.entries(root);
    let holds = |id: Id| match pickle.value(id) {
        Value::Dict(pairs) => pairs.iter().any(|&(_, id)| matches!(pickle.value(id), Value::Tensor(_))),
        _ => false,
    };
    let names = |keys: Vec<&str>| keys.into_iter().take(SHOWN).map(shown).collect::<Vec<_>>().join("`, `");
    let all = names(root.iter().map(|&(key, _)| key).collect());
    let with = names(root.iter().filter(|&&(_, id)| holds(id)).map(|&(key, _)| key).collect());
    let with = if with.is_empty() { String::new() } else { format!("; tensors lie under `{with}`: name that key") };
    Some(format!("; its keys are `{all}`{with}"))
}

/// A tensor whose numbers all lie in its storage, and its storage in the file.
fn checked(name: &str, tensor: &TensorRef<'_>, places: &Places, limits: &Limits) -> Result<StoredTensor, TorchError> {
    let wrong = |what: String| TorchError::Tensor { name: shown(name), what };
    if name.is_empty() || name.len() > limits.name || name == "__metadata__" || name.chars().any(char::is_control) {
        return Err(wrong(format!("names have 1 to {} bytes, no control characters and are not `__metadata__`", limits.name)));
    }
    let storage = &tensor.storage;
    let Some(&(start, length)) = places.get(storage.key) else {
        return Err(wrong(format!("its storage {} is not in the file", storage.key)));
    };
    let declared = storage.numel.checked_mul(storage.dtype.map_or(1, crate::Dtype::size));
    let Some(declared) = declared.filter(|&bytes| bytes <= length) else {
        return Err(wrong(format!(
            "its storage {} says {} numbers, the file has {length} bytes of it",
            storage.key, storage.numel
        )));
    };
    let width = tensor.dtype.size();
    let (shape, strides) = (&tensor.size, &tensor.stride);
    let too_large = || wrong(format!("shape {shape:?} with strides {strides:?} is larger than any file"));
    let product = |total: u64, &size: &u64| total.checked_mul(size);
    let numel =
        shape.iter().try_fold(1, product).and_then(|numel| numel.checked_mul(width).map(|_| numel)).ok_or_else(too_large)?;
    let position = tensor.offset.checked_mul(width).ok_or_else(too_large)?;
    if numel > 0 {
        let steps =
            shape.iter().zip(strides).try_fold(0u64, |sum, (&size, &stride)| sum.checked_add((size - 1).checked_mul(stride)?));
        let last = steps.and_then(|steps| steps.checked_add(1)?.checked_mul(width)?.checked_add(position));
        let last = last.ok_or_else(too_large)?;
        if last > declared {
            return Err(wrong(format!(
                "shape {shape:?} with strides {strides:?} from {} on ends at byte {last}, beyond its storage of {declared} bytes",
                tensor.offset
            )));
        }
    } else if position > declared {
        return Err(wrong(format!("it starts at byte {position}, beyond its storage of {declared} bytes")));
    }
    let (name, shape, strides) = (name.to_owned(), shape.clone(), strides.clone());
    Ok(StoredTensor { name, dtype: tensor.dtype, shape, strides, position: start + position })
}
