//! The line of text at the start of a `.npy` file: a Python dictionary of three keys.

use crate::array::MAX_AXES;
use crate::error::Problem;
use std::io::{self, Read};

/// The first bytes of every `.npy` file.
pub(crate) const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// NumPy itself stops at 10 000 bytes.
const MAX_HEADER: u64 = 1 << 16;

/// The fields of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The type, as in the file.
    pub(crate) descr: String,
    /// Whether the first axis runs fastest.
    pub(crate) is_fortran: bool,
    pub(crate) shape: Vec<usize>,
    /// Bytes up to the first value.
    pub(crate) len: u64,
}

/// Reads magic, version and line.
///
/// # Errors
/// What was expected and what was found, without the place.
pub(crate) fn read_header(input: &mut impl Read) -> Result<Header, Problem> {
    let short = |what: &'static str| {
        move |e: io::Error| match e.kind() {
            io::ErrorKind::UnexpectedEof => format!("it ends within {what}"),
            _ => format!("reading {what}: {e}"),
        }
    };
    let mut start = [0; 8];
    input
        .read_exact(&mut start)
        .map_err(short("the first 8 bytes of an array"))?;
    let [magic @ .., major, minor] = start;
    if magic != *MAGIC {
        return Err(Problem(format!(
            "not a NumPy array: it begins with {:?}, expected {:?}",
            magic.escape_ascii().to_string(),
            MAGIC.escape_ascii().to_string()
        )));
    }
    let what = "the length of the header";
    let (field, len) = match (major, minor) {
        (1, 0) => {
            let mut len = [0; 2];
            input.read_exact(&mut len).map_err(short(what))?;
            (2, u64::from(u16::from_le_bytes(len)))
        }
        (2 | 3, 0) => {
            let mut len = [0; 4];
            input.read_exact(&mut len).map_err(short(what))?;
            (4, u64::from(u32::from_le_bytes(len)))
        }
        _ => {
            return Err(Problem(format!(
                "version {major}.{minor} of the array format, expected 1.0, 2.0 or 3.0"
            )));
        }
    };
    if len > MAX_HEADER {
        return Err(Problem(format!(
            "a header of {len} bytes, expected at most {MAX_HEADER}"
        )));
    }
    let mut text = Vec::new();
    let n_read = input
        .by_ref()
        .take(len)
        .read_to_end(&mut text)
        .map_err(short("the header"))?;
    if n_read as u64 != len {
        return Err(Problem(format!(
            "a header of {len} bytes, found only {n_read}"
        )));
    }
    let mut header = parse(&text)
        .map_err(|Problem(problem)| format!("header {:?}: {problem}", excerpt(&text)))?;
    header.len = 8 + field + len;
    Ok(header)
}

/// The start of the header, for a message.
fn excerpt(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.trim_end().chars().take(200).collect()
}

fn parse(text: &[u8]) -> Result<Header, Problem> {
    let mut cursor = Cursor { text, at: 0 };
    let (mut descr, mut is_fortran, mut shape) = (None, None, None);
    cursor.expect(b'{')?;
    while !cursor.take(b'}') {
        let key = cursor.string()?;
        cursor.expect(b':')?;
        let is_new = match key.as_str() {
            "descr" => descr.replace(cursor.descr()?).is_none(),
            "fortran_order" => is_fortran.replace(cursor.boolean()?).is_none(),
            "shape" => shape.replace(cursor.shape()?).is_none(),
            _ => return Err(Problem(format!("unknown key {key:?}"))),
        };
        if !is_new {
            return Err(Problem(format!("{key:?} occurs twice")));
        }
        if !cursor.take(b',') {
            cursor.expect(b'}')?;
            break;
        }
    }
    cursor.end()?;
    let missing = |key: &str| format!("{key:?} is missing");
    Ok(Header {
        descr: descr.ok_or_else(|| missing("descr"))?,
        is_fortran: is_fortran.ok_or_else(|| missing("fortran_order"))?,
        shape: shape.ok_or_else(|| missing("shape"))?,
        len: 0,
    })
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    /// The next byte that is not blank, without taking it.
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Takes `byte` if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, byte: u8) -> Result<(), Problem> {
        if self.take(byte) {
            return Ok(());
        }
        Err(self.unexpected(&format!("{:?}", char::from(byte))))
    }

    fn unexpected(&mut self, expected: &str) -> Problem {
        let text = match self.peek() {
            Some(byte) => {
                let found = char::from(byte);
                format!("expected {expected} at byte {}, found {found:?}", self.at)
            }
            None => format!("expected {expected}, found the end"),
        };
        Problem(text)
    }

    fn end(&mut self) -> Result<(), Problem> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("the end")),
        }
    }

    /// The bytes from here on for which `keep` holds.
    fn run(&mut self, keep: impl Fn(u8) -> bool) -> String {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let len = rest.iter().take_while(|&&byte| keep(byte)).count();
        self.at += len;
        String::from_utf8_lossy(rest.get(..len).unwrap_or_default()).into_owned()
    }

    fn string(&mut self) -> Result<String, Problem> {
        let quote = match self.peek() {
            Some(quote @ (b'\'' | b'"')) => quote,
            _ => return Err(self.unexpected("a quoted word")),
        };
        self.at += 1;
        let text = self.run(|byte| byte != quote && byte != b'\\');
        self.expect(quote)?;
        Ok(text)
    }

    /// The type; that of records is a list, which is returned unparsed and refused later.
    fn descr(&mut self) -> Result<String, Problem> {
        if self.peek() != Some(b'[') {
            return self.string();
        }
        let text = self.run(|byte| byte != b']');
        self.expect(b']')?;
        Ok(text + "]")
    }

    fn boolean(&mut self) -> Result<bool, Problem> {
        self.peek();
        let start = self.at;
        match self.run(|byte| byte.is_ascii_alphabetic()).as_str() {
            "True" => Ok(true),
            "False" => Ok(false),
            _ => {
                self.at = start;
                Err(self.unexpected("True or False"))
            }
        }
    }

    fn shape(&mut self) -> Result<Vec<usize>, Problem> {
        let mut shape = Vec::new();
        self.expect(b'(')?;
        while !self.take(b')') {
            shape.push(self.number()?);
            if shape.len() > MAX_AXES {
                return Err(Problem(format!("more than {MAX_AXES} axes")));
            }
            if !self.take(b',') {
                self.expect(b')')?;
                // (3) is a number in brackets, (3,) a shape.
                if shape.len() == 1 {
                    return Err(Problem(
                        "shape: expected a comma after the only axis".to_owned(),
                    ));
                }
                break;
            }
        }
        Ok(shape)
    }

    fn number(&mut self) -> Result<usize, Problem> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.unexpected("the length of an axis"));
        }
        let digits = self.run(|byte| byte.is_ascii_digit());
        // Python 2 marked long integers.
        self.take(b'L');
        digits
            .parse()
            .map_err(|_| Problem(format!("an axis of {digits} values")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Result<(String, bool, Vec<usize>), Problem> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend(u16::try_from(text.len()).unwrap().to_le_bytes());
        bytes.extend(text.as_bytes());
        let header = read_header(&mut &*bytes)?;
        assert_eq!(header.len, bytes.len() as u64);
        Ok((header.descr, header.is_fortran, header.shape))
    }

    #[test]
    fn what_numpy_writes_is_understood() {
        let expect = |shape: &[usize]| Ok(("<f4".to_owned(), false, shape.to_vec()));
        for (text, shape) in [
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }  \n",
                &[3, 4][..],
            ),
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}",
                &[3],
            ),
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (), }\n",
                &[],
            ),
            (
                "{ \"shape\":(3 , 4,) ,'descr':'<f4','fortran_order':False}",
                &[3, 4],
            ),
            (
                "{'fortran_order': False, 'shape': (7L, 0L), 'descr': '<f4'}",
                &[7, 0],
            ),
        ] {
            assert_eq!(header(text), expect(shape), "{text}");
        }
        let text = "{'descr': '>i8', 'fortran_order': True, 'shape': (2, 2)}";
        assert_eq!(header(text), Ok((">i8".to_owned(), true, vec![2, 2])));
        let text = "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}";
        assert_eq!(header(text).unwrap().0, "[('a', '<f4')]");
    }

    #[test]
    fn later_versions_have_a_longer_length() {
        let text = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1,)}";
        for version in [2, 3] {
            let mut bytes = b"\x93NUMPY".to_vec();
            bytes.extend([version, 0, 55, 0, 0, 0]);
            bytes.extend(text);
            assert_eq!(read_header(&mut &*bytes).unwrap().len, 12 + 55);
        }
    }

    #[test]
    fn anything_else_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "expected '{', found the end"),
            ("{}", "\"descr\" is missing"),
            (
                "{'descr': '<f4', 'shape': (3,)}",
                "\"fortran_order\" is missing",
            ),
            ("{'descr': '<f4', 'descr': '<f4'}", "occurs twice"),
            ("{'color': '<f4'}", "unknown key \"color\""),
            ("{'shape': (3)}", "comma after the only axis"),
            ("{'shape': (-3,)}", "found '-'"),
            ("{'shape': (3,,)}", "found ','"),
            ("{'shape': (3 4)}", "expected ')' at byte 13, found '4'"),
            ("{'shape': (99999999999999999999999,)}", "an axis of 9999"),
            (
                "{'fortran_order': 1}",
                "expected True or False at byte 18, found '1'",
            ),
            ("{'descr': '<f4\\n'}", "found '\\\\'"),
            ("{'descr': '<f4", "found the end"),
            ("{'shape': (3,) 'descr'", "expected '}'"),
            (
                "{'descr': '<f4', 'fortran_order': False, 'shape': (3,)} x",
                "expected the end",
            ),
        ] {
            let Problem(problem) = header(text).unwrap_err();
            assert!(problem.contains(reason), "{text}: {problem}");
        }
        let axes = format!("{{'shape': ({})}}", "1,".repeat(65));
        assert!(header(&axes).unwrap_err().0.contains("more than 64 axes"));
    }

    #[test]
    fn a_damaged_start_is_refused_with_a_reason() {
        for (bytes, reason) in [
            (&b"\x93NUM"[..], "ends within the first 8 bytes"),
            (b"PK\x03\x04abcd", "not a NumPy array"),
            (b"\x93NUMPY\x04\x00", "version 4.0"),
            (b"\x93NUMPY\x01\x00\x05", "ends within the length"),
            (b"\x93NUMPY\x01\x00\x05\x00{'", "5 bytes, found only 2"),
            (
                b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
                "expected at most 65536",
            ),
        ] {
            let Problem(problem) = read_header(&mut &*bytes).unwrap_err();
            assert!(problem.contains(reason), "{problem}");
        }
    }
}
