//! A reader of Thrift's compact protocol for parquet's metadata, which checks every length against the bytes that exist.

/// Why metadata cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The bytes are truncated.
    Short,
    /// The content is invalid.
    Wrong(String),
}

impl Problem {
    pub(crate) fn wrong(text: impl Into<String>) -> Self {
        Self::Wrong(text.into())
    }

    pub(crate) fn into_reason(self) -> String {
        match self {
            Self::Short => "it is truncated".to_owned(),
            Self::Wrong(text) => text,
        }
    }
}

pub(crate) type Read<T> = std::result::Result<T, Problem>;

/// Maximum nesting of structs; parquet has five levels.
const MAX_DEPTH: usize = 24;

/// The types of a field, as numbered by the protocol.
pub(crate) mod kind {
    pub(crate) const TRUE: u8 = 1;
    pub(crate) const FALSE: u8 = 2;
    pub(crate) const BYTE: u8 = 3;
    pub(crate) const I16: u8 = 4;
    pub(crate) const I32: u8 = 5;
    pub(crate) const I64: u8 = 6;
    pub(crate) const DOUBLE: u8 = 7;
    pub(crate) const BINARY: u8 = 8;
    pub(crate) const LIST: u8 = 9;
    pub(crate) const SET: u8 = 10;
    pub(crate) const STRUCT: u8 = 12;
    pub(crate) const UUID: u8 = 13;
}

/// A position in bytes of the protocol.
#[derive(Clone, Debug)]
pub(crate) struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Thrift<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            depth: 0,
        }
    }

    /// Number of bytes read so far.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    fn take(&mut self, n: usize) -> Read<&'a [u8]> {
        let end = self.at.checked_add(n).ok_or(Problem::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(Problem::Short)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Read<u8> {
        Ok(self.take(1)?[0])
    }

    fn varint(&mut self) -> Read<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Problem::wrong("a number of more than 64 bits"))
    }

    /// An integer of any width.
    pub(crate) fn int(&mut self) -> Read<i64> {
        let raw = self.varint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// An integer that must not be negative.
    pub(crate) fn size(&mut self) -> Read<u64> {
        let n = self.int()?;
        u64::try_from(n).map_err(|_| Problem::wrong(format!("{n} where a size is expected")))
    }

    pub(crate) fn binary(&mut self) -> Read<&'a [u8]> {
        let n = self.varint()?;
        self.take(usize::try_from(n).map_err(|_| Problem::Short)?)
    }

    /// Type and number of a list's elements. Each element takes at least one byte, so there are no more than bytes.
    pub(crate) fn list(&mut self) -> Read<(u8, usize)> {
        let head = self.byte()?;
        let n = match head >> 4 {
            15 => self.varint()?,
            n => u64::from(n),
        };
        let n = usize::try_from(n).map_err(|_| Problem::Short)?;
        if n > self.bytes.len() - self.at {
            return Err(Problem::Short);
        }
        Ok((head & 15, n))
    }

    /// Iterates over the elements of a list of structs.
    pub(crate) fn structs(
        &mut self,
        mut each: impl FnMut(&mut Self, usize) -> Read<()>,
    ) -> Read<()> {
        let (kind, n) = self.list()?;
        if kind != kind::STRUCT && n > 0 {
            return Err(Problem::wrong("expected a list of structs"));
        }
        (0..n).try_for_each(|i| each(self, i))
    }

    /// Iterates over the fields of a struct. `each` gets the field's number and type and returns whether it read the value; others are skipped.
    pub(crate) fn fields(
        &mut self,
        mut each: impl FnMut(&mut Self, i64, u8) -> Read<bool>,
    ) -> Read<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Problem::wrong(format!(
                "structs are nested more than {MAX_DEPTH} deep"
            )));
        }
        let mut id = 0;
        loop {
            let head = self.byte()?;
            let kind = head & 15;
            if kind == 0 {
                break;
            }
            id = match head >> 4 {
                0 => self.int()?,
                by => id + i64::from(by),
            };
            if !each(self, id, kind)? {
                self.skip(kind)?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn skip(&mut self, kind: u8) -> Read<()> {
        match kind {
            kind::TRUE | kind::FALSE => {}
            kind::BYTE => drop(self.byte()?),
            kind::I16 | kind::I32 | kind::I64 => drop(self.varint()?),
            kind::DOUBLE => drop(self.take(8)?),
            kind::UUID => drop(self.take(16)?),
            kind::BINARY => drop(self.binary()?),
            kind::STRUCT => self.fields(|_, _, _| Ok(false))?,
            kind::LIST | kind::SET => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return Err(Problem::wrong("lists are nested too deep"));
                }
                let (kind, n) = self.list()?;
                for _ in 0..n {
                    match kind {
                        // A boolean element is a byte; a boolean field is encoded in its type.
                        kind::TRUE | kind::FALSE => drop(self.byte()?),
                        kind => self.skip(kind)?,
                    }
                }
                self.depth -= 1;
            }
            other => {
                return Err(Problem::wrong(format!(
                    "a field has the unknown type {other}"
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_or_skipped() {
        // 1: i32 -3, 3: list of two bools, 4: binary "ab", 20: struct {1: true}
        let bytes = [
            0x15, 0x05, 0x29, 0x21, 1, 2, 0x18, 2, b'a', b'b', 0x0C, 40, 0x11, 0, 0,
        ];
        let mut seen = Vec::new();
        let mut thrift = Thrift::new(&bytes);
        let read = thrift.fields(|at, id, kind| {
            seen.push((id, kind));
            match id {
                1 => assert_eq!(at.int()?, -3),
                4 => assert_eq!(at.binary()?, b"ab"),
                _ => return Ok(false),
            }
            Ok(true)
        });
        assert_eq!(read, Ok(()));
        assert_eq!(seen, [(1, 5), (3, 9), (4, 8), (20, 12)]);
        assert_eq!(thrift.position(), bytes.len());
        for n in 0..bytes.len() {
            let read = Thrift::new(&bytes[..n]).fields(|_, _, _| Ok(false));
            assert_eq!(read, Err(Problem::Short), "{n}");
        }
    }

    #[test]
    fn lengths_beyond_the_bytes_and_deep_nesting_are_refused() {
        let skip = |bytes: &[u8]| Thrift::new(bytes).fields(|_, _, _| Ok(false));
        assert_eq!(skip(&[0x18, 0xFF, 0xFF, 0xFF, 0x7F]), Err(Problem::Short));
        assert_eq!(skip(&[0x19, 0xF1, 0xFF, 0xFF, 0x7F]), Err(Problem::Short));
        assert!(matches!(skip(&[0x1C; 1000]), Err(Problem::Wrong(_))));
        assert!(matches!(skip(&[0x19; 1000]), Err(Problem::Wrong(_))));
        assert!(matches!(skip(&[0x15; 12]), Err(Problem::Short)));
        let mut long = vec![0x15];
        long.extend([0xFF; 11]);
        assert!(matches!(skip(&long), Err(Problem::Wrong(_))));
    }
}
