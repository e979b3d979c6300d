//! Plain mutations: bits, lengths, cuts, repeats, splices, and in text numbers and brackets.

/// A seeded generator of numbers (SplitMix64).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 {
            return 0;
        }
        (self.next_u64() % n as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Lengths and counts at which readers often fail.
const ODD_NUMBERS: [u64; 14] = [
    0,
    1,
    7,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 40,
    i64::MAX as u64,
    i64::MIN as u64,
    u64::MAX,
];

/// The same, written as text.
const ODD_TEXT_NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1e309",
    "nan",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775807",
    "4294967296",
    "0.5",
    "\"x\"",
    "[]",
    "null",
];

/// Tokens of text formats.
const MARKS: [&str; 13] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'''",
    "\n",
    ",",
    "=",
    "\\ud800",
    "null",
    "../../../x",
    "a.b.c=",
];

/// The longest result of [`mutate`].
const LONGEST: usize = 1 << 20;

/// One of `seeds` with one to twelve changes. In text, numbers and brackets change too.
pub fn mutate(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = rng.pick(seeds).clone();
    let is_text = bytes
        .iter()
        .take(64)
        .all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace());
    let changes = match rng.below(4) {
        0 => 1 + rng.below(12),
        _ => 1 + rng.below(3),
    };
    for _ in 0..changes {
        if bytes.is_empty() {
            break;
        }
        change(rng, seeds, &mut bytes, is_text);
        bytes.truncate(LONGEST);
    }
    bytes
}

fn change(rng: &mut Rng, seeds: &[Vec<u8>], bytes: &mut Vec<u8>, is_text: bool) {
    let at = rng.below(bytes.len());
    let rest = bytes.len() - at;
    match rng.below(if is_text { 11 } else { 9 }) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[at] = rng.next_u64() as u8,
        2 => put_number(rng, bytes, at),
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(at..at + rng.below(rest.min(64) + 1))),
        5 => {
            let part = bytes[at..at + rng.below(rest.min(256) + 1)].to_vec();
            let times = if rng.below(10) == 0 { 50 } else { 1 };
            let to = rng.below(bytes.len() + 1);
            bytes.splice(to..to, part.repeat(times));
        }
        6 => {
            let other = rng.pick(seeds).clone();
            let from = rng.below(other.len());
            let len = rng.below(other.len() - from + 1);
            let end = if rng.below(2) == 0 {
                bytes.len()
            } else {
                (at + len).min(bytes.len())
            };
            bytes.splice(at..end, other[from..from + len].iter().copied());
        }
        7 => {
            let noise: Vec<u8> = (0..1 + rng.below(16))
                .map(|_| rng.next_u64() as u8)
                .collect();
            bytes.splice(at..at, noise);
        }
        8 => {
            let end = at + rng.below(rest.min(32));
            bytes[at..end].fill(*rng.pick(&[0, 255, b'0', b'9']));
        }
        9 => {
            let Some(start) = (at..bytes.len()).find(|&i| bytes[i].is_ascii_digit()) else {
                return;
            };
            let digits = bytes[start..].iter().take_while(|b| b.is_ascii_digit());
            let end = start + digits.count();
            bytes.splice(start..end, rng.pick(&ODD_TEXT_NUMBERS).bytes());
        }
        _ => {
            let times = if rng.below(20) == 0 { 2000 } else { 1 };
            let mark = rng.pick(&MARKS).repeat(times);
            bytes.splice(at..at, mark.bytes());
        }
    }
}

/// Writes an odd number of 1, 2, 4 or 8 bytes, in either byte order, where a length may be.
fn put_number(rng: &mut Rng, bytes: &mut [u8], at: usize) {
    let width = *rng.pick(&[1, 2, 4, 8]);
    let value = match rng.below(3) {
        0 => *rng.pick(&ODD_NUMBERS),
        1 => (bytes.len() as u64)
            .wrapping_add(rng.below(6) as u64)
            .wrapping_sub(3),
        _ => rng.next_u64() >> rng.below(64),
    };
    let encoded = if rng.below(2) == 0 {
        value.to_le_bytes()[..width].to_vec()
    } else {
        value.to_be_bytes()[8 - width..].to_vec()
    };
    for (to, byte) in bytes[at..].iter_mut().zip(encoded) {
        *to = byte;
    }
}

/// Corrects the checksums of the headers of tar files, so that mutations reach what is behind them.
pub fn fix_tar_checksums(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if block[257..262] == *b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

/// Corrects the checksums of stored zip entries, so that mutations reach the reader behind them.
pub fn fix_zip_checksums(bytes: &mut [u8]) {
    let number = |bytes: &[u8], at: usize, width: usize| -> usize {
        let digits = bytes.get(at..at + width).unwrap_or_default();
        digits.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b))
    };
    let mut at = 0;
    while at + 46 <= bytes.len() {
        if !bytes[at..].starts_with(b"PK\x01\x02") {
            at += 1;
            continue;
        }
        let (method, length, entry) = (
            number(bytes, at + 10, 2),
            number(bytes, at + 20, 4),
            number(bytes, at + 42, 4),
        );
        let data = entry + 30 + number(bytes, entry + 26, 2) + number(bytes, entry + 28, 2);
        if method == 0
            && let Some(stored) = bytes.get(data..data + length)
        {
            let crc = crc32fast::hash(stored).to_le_bytes();
            bytes[at + 16..at + 20].copy_from_slice(&crc);
            bytes[entry + 14..entry + 18].copy_from_slice(&crc);
        }
        at += 46;
    }
}

/// Corrects the checksums of a PNG's chunks.
pub fn fix_png_checksums(bytes: &mut [u8]) {
    let mut at = 8;
    while at + 12 <= bytes.len() {
        let length = u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let end = at + 8 + length as usize;
        if end + 4 > bytes.len() {
            break;
        }
        let crc = crc32fast::hash(&bytes[at + 4..end]).to_be_bytes();
        bytes[end..end + 4].copy_from_slice(&crc);
        at = end + 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_mutations() {
        let seeds = [b"{\"a\": 12}".to_vec(), vec![0; 40]];
        let all = |seed| {
            let mut rng = Rng::new(seed);
            (0..50)
                .map(|_| mutate(&mut rng, &seeds))
                .collect::<Vec<_>>()
        };
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
        assert!(all(1).iter().filter(|bytes| !seeds.contains(bytes)).count() > 40);
    }

    #[test]
    fn checksums_hold_after_a_change() {
        let picture = sdft_imaging::Rgb8::new(2, 2, vec![7; 12]).unwrap();
        let mut png = sdft_imaging::encode_png(&picture).unwrap();
        let whole = png.clone();
        let last = png.len() - 1;
        png[last] ^= 1;
        assert_ne!(png, whole);
        fix_png_checksums(&mut png);
        assert_eq!(png, whole);
    }
}
