//! What a pickle holds, as plain data in an arena.

use crate::Dtype;

/// The place of a value in [`Pickle::values`].
pub type Id = u32;

/// A function or class that is known; calling one makes data, never runs anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callable {
    /// `torch._utils._rebuild_tensor`: storage, offset, size, stride.
    RebuildTensor,
    /// `torch._utils._rebuild_tensor_v2`: and requires_grad, hooks, metadata.
    RebuildTensorV2,
    /// `torch._utils._rebuild_tensor_v3`: and dtype before metadata, over bytes.
    RebuildTensorV3,
    /// `torch._utils._rebuild_parameter`: tensor, requires_grad, hooks.
    RebuildParameter,
    /// `collections.OrderedDict`.
    OrderedDict,
    /// A storage class: of a dtype, or of bytes.
    StorageClass(Option<Dtype>),
    /// `torch.float32` and its kin.
    Dtype(Dtype),
}

/// A run of numbers somewhere in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageRef<'d> {
    /// Its name: digits.
    pub key: &'d str,
    /// What it holds; bytes when nothing is said.
    pub dtype: Option<Dtype>,
    /// Numbers of that dtype.
    pub numel: u64,
}

/// A tensor: a view of a storage. Nothing is checked against the file yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorRef<'d> {
    /// Where its numbers are.
    pub storage: StorageRef<'d>,
    /// Its dtype.
    pub dtype: Dtype,
    /// Numbers of the storage before its first.
    pub offset: u64,
    /// Its shape.
    pub size: Vec<u64>,
    /// Numbers from one index to the next, by dimension.
    pub stride: Vec<u64>,
}

/// One value. References to others are indices, so that sharing costs nothing and nothing recurses.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'d> {
    /// `None`.
    None,
    /// `True`, `False`.
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// A longer integer, little-endian two's complement.
    Long(&'d [u8]),
    /// A float.
    Float(f64),
    /// A string.
    Str(&'d str),
    /// Bytes.
    Bytes(&'d [u8]),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A list.
    List(Vec<Id>),
    /// A dictionary in the order of writing; a key may come twice, the last counts.
    Dict(Vec<(Id, Id)>),
    /// A known function or class.
    Known(Callable),
    /// A storage.
    Storage(StorageRef<'d>),
    /// A tensor.
    Tensor(Box<TensorRef<'d>>),
    /// Anything else, by the module and name of what it is or was made with. It can be skipped and never be used.
    Opaque(&'d str, &'d str),
}

/// A pickle that was read.
#[derive(Debug)]
pub struct Pickle<'d> {
    /// All values that it made on the way.
    pub values: Vec<Value<'d>>,
    /// The one it is about.
    pub root: Id,
    /// Its length in bytes.
    pub length: usize,
}

impl<'d> Pickle<'d> {
    /// The value at an index.
    ///
    /// # Panics
    /// With an index that this pickle did not give.
    pub fn value(&self, id: Id) -> &Value<'d> {
        &self.values[id as usize]
    }

    /// What it is about.
    pub fn root(&self) -> &Value<'d> {
        self.value(self.root)
    }

    /// The pairs of a dictionary whose keys are strings, each key once (the last value, in the first place), as Python has it;
    /// pairs with other keys are left out.
    pub fn entries(&self, pairs: &[(Id, Id)]) -> Vec<(&'d str, Id)> {
        let mut place: std::collections::HashMap<&str, usize> = std::collections::HashMap::new();
        let mut entries: Vec<(&'d str, Id)> = Vec::new();
        for &(key, value) in pairs {
            let Value::Str(key) = *self.value(key) else { continue };
            match place.entry(key) {
                std::collections::hash_map::Entry::Occupied(at) => entries[*at.get()].1 = value,
                std::collections::hash_map::Entry::Vacant(free) => {
                    free.insert(entries.len());
                    entries.push((key, value));
                }
            }
        }
        entries
    }

    /// A value in a few words, for messages.
    pub fn describe(&self, id: Id) -> String {
        match self.value(id) {
            Value::None => "None".to_owned(),
            Value::Bool(_) => "a bool".to_owned(),
            Value::Int(_) | Value::Long(_) => "an integer".to_owned(),
            Value::Float(_) => "a float".to_owned(),
            Value::Str(_) => "a string".to_owned(),
            Value::Bytes(_) => "bytes".to_owned(),
            Value::Tuple(items) => format!("a tuple of {}", items.len()),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Dict(pairs) => format!("a dictionary of {}", pairs.len()),
            Value::Known(_) => "a torch class".to_owned(),
            Value::Storage(_) => "a storage".to_owned(),
            Value::Tensor(_) => "a tensor".to_owned(),
            Value::Opaque(module, name) => format!("{}.{}", shown(module), shown(name)),
        }
    }
}

/// A name from a file, cut and without control characters.
pub(crate) fn shown(name: &str) -> String {
    const LONGEST: usize = 100;
    let cut = name.chars().take(LONGEST).flat_map(char::escape_debug).collect::<String>();
    if name.chars().nth(LONGEST).is_some() { format!("{cut}…") } else { cut }
}
