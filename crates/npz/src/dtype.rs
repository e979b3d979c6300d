//! Types of numbers as NumPy writes them, and how they are read.

use crate::array::Values;
use half::f16;
use std::io::{self, Read};

/// The supported types, for messages.
pub(crate) const KNOWN: &str = "u1, u2, u4, i1, i2, i4, i8, f2, f4, f8";

/// Bytes that are converted at once.
const BLOCK: usize = 1 << 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    U8,
    U16,
    U32,
    I8,
    I16,
    I32,
    I64,
    F16,
    F32,
    F64,
}

/// A type this crate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dtype {
    kind: Kind,
    /// Whether the first byte is the most significant one.
    is_big_endian: bool,
}

impl Dtype {
    /// Reads `"<f8"`, `"|u1"`, ..; the error is an explanation, or empty.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (order, name) = match text.split_at_checked(1) {
            Some((order @ ("<" | ">" | "|"), name)) => (order, name),
            _ => return Err(""),
        };
        let kind = match name {
            "u1" => Kind::U8,
            "u2" => Kind::U16,
            "u4" => Kind::U32,
            "i1" => Kind::I8,
            "i2" => Kind::I16,
            "i4" => Kind::I32,
            "i8" => Kind::I64,
            "f2" => Kind::F16,
            "f4" => Kind::F32,
            "f8" => Kind::F64,
            _ if name.starts_with('O') => {
                return Err(
                    " (pickled Python objects, which only Python can make by executing them)",
                );
            }
            _ => return Err(""),
        };
        let dtype = Self {
            kind,
            is_big_endian: order == ">",
        };
        if order == "|" && dtype.size() > 1 {
            return Err(" (without a byte order)");
        }
        Ok(dtype)
    }

    /// Bytes of one value.
    pub(crate) fn size(self) -> usize {
        match self.kind {
            Kind::U8 | Kind::I8 => 1,
            Kind::U16 | Kind::I16 | Kind::F16 => 2,
            Kind::U32 | Kind::I32 | Kind::F32 => 4,
            Kind::I64 | Kind::F64 => 8,
        }
    }

    /// Bytes of one value as it is kept; see [`Values`].
    pub(crate) fn size_in_memory(self) -> usize {
        match self.kind {
            Kind::U8 => 1,
            Kind::U16 => 2,
            Kind::F16 | Kind::F32 => 4,
            Kind::U32 | Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64 | Kind::F64 => 8,
        }
    }

    /// Reads `count` values and puts them in order.
    ///
    /// # Errors
    /// The input cannot be read or ends early, or there is not enough memory for the values.
    pub(crate) fn read(
        self,
        input: &mut impl Read,
        count: usize,
        order: impl Order,
    ) -> io::Result<Values> {
        let big = self.is_big_endian;
        Ok(match self.kind {
            Kind::U8 => Values::U8(order.put(values(input, count, |[byte]: [u8; 1]| byte)?)),
            Kind::I8 => Values::I64(order.put(values(input, count, |[byte]| {
                i64::from(i8::from_ne_bytes([byte]))
            })?)),
            Kind::U16 => Values::U16(order.put(values(input, count, |bytes| {
                u16::from_le_bytes(little(bytes, big))
            })?)),
            Kind::U32 => Values::I64(order.put(values(input, count, |bytes| {
                i64::from(u32::from_le_bytes(little(bytes, big)))
            })?)),
            Kind::I16 => Values::I64(order.put(values(input, count, |bytes| {
                i64::from(i16::from_le_bytes(little(bytes, big)))
            })?)),
            Kind::I32 => Values::I64(order.put(values(input, count, |bytes| {
                i64::from(i32::from_le_bytes(little(bytes, big)))
            })?)),
            Kind::I64 => Values::I64(order.put(values(input, count, |bytes| {
                i64::from_le_bytes(little(bytes, big))
            })?)),
            Kind::F16 => Values::F32(order.put(values(input, count, |bytes| {
                f16::from_le_bytes(little(bytes, big)).to_f32()
            })?)),
            Kind::F32 => Values::F32(order.put(values(input, count, |bytes| {
                f32::from_le_bytes(little(bytes, big))
            })?)),
            Kind::F64 => Values::F64(order.put(values(input, count, |bytes| {
                f64::from_le_bytes(little(bytes, big))
            })?)),
        })
    }
}

/// Reorders values of any type after reading.
pub(crate) trait Order {
    /// The values in their final order.
    fn put<T: Copy>(&self, values: Vec<T>) -> Vec<T>;
}

fn little<const N: usize>(mut bytes: [u8; N], is_big_endian: bool) -> [u8; N] {
    if is_big_endian {
        bytes.reverse();
    }
    bytes
}

/// Reads `count` values of `N` bytes each through one block, so that memory holds no second copy.
fn values<T, const N: usize>(
    input: &mut impl Read,
    count: usize,
    convert: impl Fn([u8; N]) -> T,
) -> io::Result<Vec<T>> {
    let mut out = Vec::new();
    out.try_reserve_exact(count)
        .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    let mut block = vec![0; (BLOCK / N).min(count) * N];
    while out.len() < count {
        let n = (count - out.len()).min(block.len() / N);
        let (bytes, _) = block.split_at_mut(n * N);
        input.read_exact(bytes)?;
        out.extend(bytes.as_chunks().0.iter().map(|&value| convert(value)));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Keep;

    impl Order for Keep {
        fn put<T: Copy>(&self, values: Vec<T>) -> Vec<T> {
            values
        }
    }

    fn read(dtype: &str, bytes: &[u8]) -> Values {
        let dtype = Dtype::parse(dtype).unwrap();
        dtype
            .read(&mut &*bytes, bytes.len() / dtype.size(), Keep)
            .unwrap()
    }

    #[test]
    fn every_type_is_read_in_both_byte_orders() {
        assert_eq!(read("|u1", &[0, 255]), Values::U8(vec![0, 255]));
        assert_eq!(read("|i1", &[255, 127]), Values::I64(vec![-1, 127]));
        assert_eq!(read("<u2", &[1, 2]), Values::U16(vec![513]));
        assert_eq!(read(">u2", &[1, 2]), Values::U16(vec![258]));
        assert_eq!(read("<u4", &[255; 4]), Values::I64(vec![4_294_967_295]));
        assert_eq!(read(">i2", &[255, 254]), Values::I64(vec![-2]));
        assert_eq!(read("<i4", &[254, 255, 255, 255]), Values::I64(vec![-2]));
        assert_eq!(read(">i4", &[0, 0, 1, 2]), Values::I64(vec![258]));
        assert_eq!(read(">i8", &(-5i64).to_be_bytes()), Values::I64(vec![-5]));
        assert_eq!(
            read("<f2", &[0, 0x3c, 0, 0xc0]),
            Values::F32(vec![1.0, -2.0])
        );
        assert_eq!(read(">f2", &[0x3c, 0]), Values::F32(vec![1.0]));
        for value in [0.1f32, f32::INFINITY] {
            assert_eq!(read("<f4", &value.to_le_bytes()), Values::F32(vec![value]));
            assert_eq!(read(">f4", &value.to_be_bytes()), Values::F32(vec![value]));
        }
        assert_eq!(read("<f8", &0.1f64.to_le_bytes()), Values::F64(vec![0.1]));
        assert_eq!(read(">f8", &0.1f64.to_be_bytes()), Values::F64(vec![0.1]));
    }

    #[test]
    fn many_values_cross_blocks() {
        let numbers: Vec<f64> = (0..20_000).map(f64::from).collect();
        let bytes: Vec<u8> = numbers
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        assert_eq!(read("<f8", &bytes), Values::F64(numbers));
    }

    #[test]
    fn other_types_are_refused() {
        for text in ["<u8", "|b1", "<c16", "<U5", "f8", "=f8", "", "é", "<f16"] {
            assert_eq!(Dtype::parse(text), Err(""), "{text}");
        }
        assert!(Dtype::parse("|O").unwrap_err().contains("pickled"));
        assert!(
            Dtype::parse("|f4")
                .unwrap_err()
                .contains("without a byte order")
        );
    }

    #[test]
    fn an_early_end_is_an_error() {
        let dtype = Dtype::parse("<f4").unwrap();
        let error = dtype.read(&mut &[0u8; 7][..], 2, Keep).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
