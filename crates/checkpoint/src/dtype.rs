//! Types of numbers in files, and reading one number.

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
    F8E4M3,
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    Complex128,
    Complex64,
    Complex32,
    /// Any other type. A file may have it, but its numbers are not read.
    Other,
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::F8E4M3 => "f8_e4m3".to_owned(),
            Self::F8E5M2 => "f8_e5m2".to_owned(),
            Self::Other => "unknown".to_owned(),
            _ => format!("{self:?}").to_lowercase(),
        };
        f.write_str(&name)
    }
}

impl Dtype {
    /// Bytes of one number; [`Self::Other`] counts bytes.
    pub(crate) fn size(self) -> u64 {
        match self {
            Self::Complex128 => 16,
            Self::F64 | Self::I64 | Self::U64 | Self::Complex64 => 8,
            Self::F32 | Self::I32 | Self::U32 | Self::Complex32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::F8E4M3 | Self::F8E5M2 | Self::I8 | Self::U8 | Self::Bool | Self::Other => 1,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(
            self,
            Self::F64 | Self::F32 | Self::F16 | Self::BF16 | Self::F8E4M3 | Self::F8E5M2
        )
    }

    /// Whether tensors are made of such numbers.
    pub(crate) fn is_read(self) -> bool {
        !matches!(
            self,
            Self::Complex128 | Self::Complex64 | Self::Complex32 | Self::Other
        )
    }

    /// By the name of a storage class of PyTorch.
    pub(crate) fn of_storage(class: &str) -> Self {
        match class.rsplit('.').next().unwrap_or_default() {
            "DoubleStorage" => Self::F64,
            "FloatStorage" => Self::F32,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::BF16,
            "LongStorage" => Self::I64,
            "IntStorage" | "QInt32Storage" => Self::I32,
            "ShortStorage" => Self::I16,
            "CharStorage" | "QInt8Storage" => Self::I8,
            "ByteStorage" | "QUInt8Storage" | "UntypedStorage" => Self::U8,
            "BoolStorage" => Self::Bool,
            "ComplexDoubleStorage" => Self::Complex128,
            "ComplexFloatStorage" => Self::Complex64,
            _ => Self::Other,
        }
    }

    /// By the name of a `torch.dtype`.
    pub(crate) fn of_torch(name: &str) -> Self {
        match name.strip_prefix("torch.").unwrap_or_default() {
            "float64" => Self::F64,
            "float32" => Self::F32,
            "float16" => Self::F16,
            "bfloat16" => Self::BF16,
            "float8_e4m3fn" => Self::F8E4M3,
            "float8_e5m2" => Self::F8E5M2,
            "int64" => Self::I64,
            "int32" => Self::I32,
            "int16" => Self::I16,
            "int8" => Self::I8,
            "uint64" => Self::U64,
            "uint32" => Self::U32,
            "uint16" => Self::U16,
            "uint8" => Self::U8,
            "bool" => Self::Bool,
            "complex128" => Self::Complex128,
            "complex64" => Self::Complex64,
            "complex32" => Self::Complex32,
            _ => Self::Other,
        }
    }

    /// By its type in a safetensors header.
    pub(crate) fn of_safetensors(dtype: safetensors::Dtype) -> Self {
        use safetensors::Dtype as Type;
        match dtype {
            Type::F64 => Self::F64,
            Type::F32 => Self::F32,
            Type::F16 => Self::F16,
            Type::BF16 => Self::BF16,
            Type::F8_E4M3 => Self::F8E4M3,
            Type::F8_E5M2 => Self::F8E5M2,
            Type::I64 => Self::I64,
            Type::I32 => Self::I32,
            Type::I16 => Self::I16,
            Type::I8 => Self::I8,
            Type::U64 => Self::U64,
            Type::U32 => Self::U32,
            Type::U16 => Self::U16,
            Type::U8 => Self::U8,
            Type::BOOL => Self::Bool,
            Type::C64 => Self::Complex64,
            _ => Self::Other,
        }
    }

    /// The type of the tensor that such numbers become: f32 unless `keep`, integers as i64, except those that candle has itself.
    pub(crate) fn tensor_dtype(self, keep: bool) -> DType {
        match self {
            Self::F64 if keep => DType::F64,
            Self::F16 if keep => DType::F16,
            Self::BF16 if keep => DType::BF16,
            Self::U32 => DType::U32,
            Self::U8 | Self::Bool => DType::U8,
            Self::I64 | Self::I32 | Self::I16 | Self::I8 | Self::U64 | Self::U16 => DType::I64,
            _ => DType::F32,
        }
    }

    /// One number as f64; exact for everything but the largest 64-bit integers, which [`Self::integer`] reads.
    pub(crate) fn float(self, b: &[u8]) -> f64 {
        match self {
            Self::F64 => f64::from_le_bytes(fixed(b)),
            Self::F32 => f32::from_le_bytes(fixed(b)).into(),
            Self::F16 => f16::from_le_bytes(fixed(b)).into(),
            Self::BF16 => bf16::from_le_bytes(fixed(b)).into(),
            // The upper half of an f16.
            Self::F8E5M2 => f16::from_bits(u16::from(b[0]) << 8).into(),
            Self::F8E4M3 => e4m3(b[0]),
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
            _ => 0,
        }
    }
}

/// Four bits of exponent with bias 7, three of fraction; no infinities, and NaN where all seven bits are set.
fn e4m3(bits: u8) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 3 & 15), f64::from(bits & 7));
    let size = match (exponent, bits & 7) {
        (15, 7) => f64::NAN,
        (0, _) => fraction / 8.0 * 2f64.powi(-6),
        _ => (1.0 + fraction / 8.0) * 2f64.powi(exponent - 7),
    };
    if bits & 0x80 == 0 { size } else { -size }
}

/// The first `N` bytes; callers pass slices of exactly that length.
fn fixed<const N: usize>(b: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&b[..N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bit_floats_have_their_published_values() {
        let e4m3 = |bits: u8| Dtype::F8E4M3.float(&[bits]);
        assert_eq!(
            [e4m3(0x38), e4m3(0xb8), e4m3(0x01), e4m3(0x7e), e4m3(0x08)],
            [1.0, -1.0, 2f64.powi(-9), 448.0, 2f64.powi(-6)]
        );
        assert!(e4m3(0x7f).is_nan() && e4m3(0xff).is_nan());
        let e5m2 = |bits: u8| Dtype::F8E5M2.float(&[bits]);
        assert_eq!(
            [e5m2(0x3c), e5m2(0x7b), e5m2(0x01), e5m2(0x7c)],
            [1.0, 57344.0, 2f64.powi(-16), f64::INFINITY]
        );
    }
}
