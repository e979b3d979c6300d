//! Decodes the two integer encodings of parquet, run-length and delta, one number at a time.

use crate::error::{EntryResult, Reason};

/// Run-length encoding: runs of equal numbers and of packed numbers, each of `width` bits.
#[derive(Clone, Debug)]
pub(super) struct Runs<'a> {
    bytes: &'a [u8],
    width: u32,
    /// Remaining numbers of the current run.
    left: u64,
    run: Run<'a>,
}

#[derive(Clone, Debug)]
enum Run<'a> {
    Equal(u32),
    /// The packed bits, and the position of the next number.
    Packed(&'a [u8], u64),
}

impl<'a> Runs<'a> {
    /// # Errors
    /// Fails if the numbers have more than 32 bits.
    pub(super) fn new(bytes: &'a [u8], width: u32) -> EntryResult<Self> {
        if width > 32 {
            return Err(format!("numbers of {width} bits, expected at most 32").into());
        }
        Ok(Self {
            bytes,
            width,
            left: 0,
            run: Run::Equal(0),
        })
    }

    /// The next number. The encoding does not say how many there are; the caller knows.
    pub(super) fn next(&mut self) -> EntryResult<u32> {
        let short = || Reason::from("packed numbers are truncated");
        while self.left == 0 {
            let header = varint(&mut self.bytes).ok_or_else(short)?;
            if header & 1 == 0 {
                self.left = header >> 1;
                let n = self.width.div_ceil(8) as usize;
                let (value, rest) = self.bytes.split_at_checked(n).ok_or_else(short)?;
                self.bytes = rest;
                let mut whole = [0; 4];
                whole[..n].copy_from_slice(value);
                self.run = Run::Equal(u32::from_le_bytes(whole));
            } else {
                let groups = header >> 1;
                self.left = groups.checked_mul(8).ok_or_else(short)?;
                // The last group may be truncated after the last number in use.
                let n = groups.saturating_mul(u64::from(self.width));
                let n = usize::try_from(n)
                    .unwrap_or(usize::MAX)
                    .min(self.bytes.len());
                let (packed, rest) = self.bytes.split_at(n);
                self.bytes = rest;
                self.run = Run::Packed(packed, 0);
            }
        }
        self.left -= 1;
        match &mut self.run {
            Run::Equal(value) => Ok(*value),
            Run::Packed(bytes, at) => {
                let value = bits(bytes, *at * u64::from(self.width), self.width);
                *at += 1;
                value.map(|value| value as u32).ok_or_else(short)
            }
        }
    }
}

/// Delta encoding: differences from the previous number, in blocks.
#[derive(Clone, Debug)]
pub(super) struct Differences<'a> {
    bytes: &'a [u8],
    /// Remaining numbers.
    left: u64,
    /// Numbers in a miniblock, and miniblocks in a block.
    shape: [u64; 2],
    next: i64,
    least: i64,
    /// Widths of the remaining miniblocks of the block.
    widths: &'a [u8],
    /// The current miniblock: its bits, their width, the index of the next number.
    mini: (&'a [u8], u32, u64),
}

impl<'a> Differences<'a> {
    /// # Errors
    /// Fails if the header is invalid.
    pub(super) fn new(mut bytes: &'a [u8]) -> EntryResult<Self> {
        let short = || Reason::from("differences are truncated");
        let mut number = || varint(&mut bytes).ok_or_else(short);
        let (block, minis, left) = (number()?, number()?, number()?);
        let first = zigzag(number()?);
        let per_mini = block.checked_div(minis).unwrap_or(0);
        if minis > 4096 || per_mini == 0 || per_mini % 8 != 0 || per_mini > 1 << 24 {
            return Err(format!("blocks of {block} differences in {minis} parts").into());
        }
        Ok(Self {
            bytes,
            left,
            shape: [per_mini, minis],
            next: first,
            least: 0,
            widths: &[],
            mini: (&[], 0, per_mini),
        })
    }

    /// Number of remaining numbers.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// The next number, `None` after the last one.
    pub(super) fn next(&mut self) -> EntryResult<Option<i64>> {
        if self.left == 0 {
            return Ok(None);
        }
        let value = self.next;
        self.left -= 1;
        if self.left > 0 {
            if self.mini.2 == self.shape[0] {
                self.open()?;
            }
            let (packed, width, at) = self.mini;
            let difference = bits(packed, at * u64::from(width), width);
            let difference = difference.ok_or("differences are truncated")?;
            self.mini.2 += 1;
            self.next = value
                .wrapping_add(self.least)
                .wrapping_add(difference as i64);
        }
        Ok(Some(value))
    }

    /// Opens the next miniblock.
    fn open(&mut self) -> EntryResult<()> {
        let short = || Reason::from("differences are truncated");
        if self.widths.is_empty() {
            self.least = zigzag(varint(&mut self.bytes).ok_or_else(short)?);
            let n = self.shape[1] as usize;
            (self.widths, self.bytes) = self.bytes.split_at_checked(n).ok_or_else(short)?;
        }
        let (&width, rest) = self.widths.split_first().ok_or_else(short)?;
        self.widths = rest;
        if width > 64 {
            return Err(format!("differences of {width} bits").into());
        }
        let n = (self.shape[0] / 8 * u64::from(width)) as usize;
        let (packed, rest) = self.bytes.split_at_checked(n).ok_or_else(short)?;
        self.bytes = rest;
        self.mini = (packed, u32::from(width), 0);
        Ok(())
    }

    /// The bytes after the last number.
    pub(super) fn rest(mut self) -> EntryResult<&'a [u8]> {
        // Skip whole miniblocks at once.
        while self.left > 1 {
            if self.mini.2 == self.shape[0] {
                self.open()?;
            }
            let n = (self.shape[0] - self.mini.2).min(self.left - 1);
            self.mini.2 += n;
            self.left -= n;
        }
        Ok(self.bytes)
    }
}

fn zigzag(raw: u64) -> i64 {
    (raw >> 1) as i64 ^ -((raw & 1) as i64)
}

/// Reads a variable-length number, seven bits for each byte.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Reads `width` bits from bit `at`, least significant first.
fn bits(bytes: &[u8], at: u64, width: u32) -> Option<u64> {
    if width == 0 {
        return Some(0);
    }
    let first = usize::try_from(at / 8).ok()?;
    let last = usize::try_from((at + u64::from(width) - 1) / 8).ok()?;
    let mut whole = [0; 16];
    let part = bytes.get(first..=last)?;
    whole[..part.len()].copy_from_slice(part);
    let value = u128::from_le_bytes(whole) >> (at % 8);
    Some((value & ((1_u128 << width) - 1)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_both_kinds_follow_each_other() {
        // Four times 5; then eight packed numbers 0 to 7, of three bits.
        let bytes = [8, 5, 3, 0b1000_1000, 0b1100_0110, 0b1111_1010];
        let mut runs = Runs::new(&bytes, 3).unwrap();
        let all: Vec<u32> = (0..12).map(|_| runs.next().unwrap()).collect();
        assert_eq!(all, [5, 5, 5, 5, 0, 1, 2, 3, 4, 5, 6, 7]);
        assert!(runs.next().is_err());
        assert!(Runs::new(&[], 33).is_err());
        // A run of 2^60 numbers costs nothing until they are read.
        let mut long = vec![0xFE; 8];
        long.extend([0x7F, 1]);
        assert_eq!(Runs::new(&long, 1).unwrap().next(), Ok(1));
    }

    #[test]
    fn differences_add_up_and_end_where_the_next_bytes_begin() {
        // The specification's example: 7, 5, 3, 1, 2, 3, 4, 5; block 128 of 4 parts.
        let mut bytes = vec![0x80, 0x01, 4, 8, 14, 3, 2, 0, 0, 0];
        // Differences minus the least of -2: 0 0 0 3 3 3 3, in two bits, then padding to 32 numbers.
        bytes.extend([0b1100_0000, 0b0011_1111, 0, 0, 0, 0, 0, 0]);
        bytes.extend(b"rest");
        let mut numbers = Differences::new(&bytes).unwrap();
        assert_eq!(numbers.clone().rest().unwrap(), b"rest");
        let mut all = Vec::new();
        while let Some(n) = numbers.next().unwrap() {
            all.push(n);
        }
        assert_eq!(all, [7, 5, 3, 1, 2, 3, 4, 5]);
        for n in 0..bytes.len() - 4 {
            let cut = Differences::new(&bytes[..n]);
            assert!(cut.is_err() || cut.unwrap().rest().is_err(), "{n}");
        }
        for wrong in [
            &[0, 1, 1, 0][..],
            &[1, 1, 1, 0],
            &[8, 0, 1, 0],
            &[0x80, 0x80, 0x80, 0x80, 0x10, 1, 1, 0],
        ] {
            assert!(Differences::new(wrong).is_err(), "{wrong:?}");
        }
    }
}
