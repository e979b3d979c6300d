use candle_core::DType;
use half::{bf16, f16};
use std::fmt;

/// The type of the numbers in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = format!("{self:?}").to_lowercase();
        f.write_str(&name)
    }
}

impl Dtype {
    /// Bytes of one number.
    pub(crate) fn size(self) -> u64 {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }

    /// By the name of a storage class of PyTorch.
    pub(crate) fn of_storage(class: &str) -> Option<Self> {
        Some(match class.rsplit('.').next()? {
            "DoubleStorage" => Self::F64,
            "FloatStorage" => Self::F32,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::BF16,
            "LongStorage" => Self::I64,
            "IntStorage" => Self::I32,
            "ShortStorage" => Self::I16,
            "CharStorage" => Self::I8,
            "ByteStorage" => Self::U8,
            "BoolStorage" => Self::Bool,
            _ => return None,
        })
    }

    /// By its name in a safetensors header.
    pub(crate) fn of_safetensors(name: &str) -> Option<Self> {
        Some(match name {
            "F64" => Self::F64,
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            "I64" => Self::I64,
            "I32" => Self::I32,
            "I16" => Self::I16,
            "I8" => Self::I8,
            "U64" => Self::U64,
            "U32" => Self::U32,
            "U16" => Self::U16,
            "U8" => Self::U8,
            "BOOL" => Self::Bool,
            _ => return None,
        })
    }

    /// The type of the tensor that such numbers become: f32 unless `keep`, integers as i64, except those that candle has itself.
    pub(crate) fn tensor_dtype(self, keep: bool) -> DType {
        match self {
            Self::F64 if keep => DType::F64,
            Self::F16 if keep => DType::F16,
            Self::BF16 if keep => DType::BF16,
            Self::F64 | Self::F32 | Self::F16 | Self::BF16 => DType::F32,
            Self::U32 => DType::U32,
            Self::U8 | Self::Bool => DType::U8,
            Self::I64 | Self::I32 | Self::I16 | Self::I8 | Self::U64 | Self::U16 => DType::I64,
        }
    }

    /// One number as f64; exact for everything but the largest 64-bit integers, which [`Self::integer`] reads.
    pub(crate) fn float(self, b: &[u8]) -> f64 {
        match self {
            Self::F64 => f64::from_le_bytes(fixed(b)),
            Self::F32 => f32::from_le_bytes(fixed(b)).into(),
            Self::F16 => f16::from_le_bytes(fixed(b)).into(),
            Self::BF16 => bf16::from_le_bytes(fixed(b)).into(),
            _ => self.integer(b) as f64,
        }
    }

    /// One integer.
    pub(crate) fn integer(self, b: &[u8]) -> i64 {
        match self {
            Self::I64 | Self::U64 => i64::from_le_bytes(fixed(b)),
            Self::I32 => i32::from_le_bytes(fixed(b)).into(),
            Self::I16 => i16::from_le_bytes(fixed(b)).into(),
            Self::I8 => i8::from_le_bytes(fixed(b)).into(),
            Self::U32 => u32::from_le_bytes(fixed(b)).into(),
            Self::U16 => u16::from_le_bytes(fixed(b)).into(),
            Self::U8 | Self::Bool => u8::from_le_bytes(fixed(b)).into(),
            Self::F64 | Self::F32 | Self::F16 | Self::BF16 => 0,
        }
    }
}

/// The first `N` bytes; callers pass slices of exactly that length.
fn fixed<const N: usize>(b: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&b[..N]);
    out
}
