//! Number formats of stored tensors, by their names in safetensors and in torch.

/// How one number of a tensor is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Dtype {
    Bool,
    U8,
    I8,
    F8E4M3,
    F8E5M2,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    I64,
    U64,
    F64,
}

/// Dtype, name in safetensors, name in torch, torch's storage class where it has one.
const TABLE: [(Dtype, &str, &str, Option<&str>); 15] = [
    (Dtype::Bool, "BOOL", "bool", Some("BoolStorage")),
    (Dtype::U8, "U8", "uint8", Some("ByteStorage")),
    (Dtype::I8, "I8", "int8", Some("CharStorage")),
    (Dtype::F8E4M3, "F8_E4M3", "float8_e4m3fn", None),
    (Dtype::F8E5M2, "F8_E5M2", "float8_e5m2", None),
    (Dtype::I16, "I16", "int16", Some("ShortStorage")),
    (Dtype::U16, "U16", "uint16", None),
    (Dtype::F16, "F16", "float16", Some("HalfStorage")),
    (Dtype::BF16, "BF16", "bfloat16", Some("BFloat16Storage")),
    (Dtype::I32, "I32", "int32", Some("IntStorage")),
    (Dtype::U32, "U32", "uint32", None),
    (Dtype::F32, "F32", "float32", Some("FloatStorage")),
    (Dtype::I64, "I64", "int64", Some("LongStorage")),
    (Dtype::U64, "U64", "uint64", None),
    (Dtype::F64, "F64", "float64", Some("DoubleStorage")),
];

impl Dtype {
    /// Bytes of one number.
    pub const fn size(self) -> u64 {
        match self {
            Self::Bool | Self::U8 | Self::I8 | Self::F8E4M3 | Self::F8E5M2 => 1,
            Self::I16 | Self::U16 | Self::F16 | Self::BF16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    /// Whether it is one of the formats that a cast applies to.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::BF16 | Self::F32 | Self::F64)
    }

    /// As safetensors writes it.
    pub fn name(self) -> &'static str {
        TABLE.iter().find(|row| row.0 == self).map_or("?", |row| row.1)
    }

    /// From the name in safetensors.
    pub fn named(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// From the attribute of the module `torch`: `float32`.
    pub(crate) fn of_torch(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.2 == name).map(|row| row.0)
    }

    /// From the storage class: `FloatStorage`.
    pub(crate) fn of_storage(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.3 == Some(name)).map(|row| row.0)
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
