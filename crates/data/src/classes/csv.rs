//! Reads tables of labels: comma-separated values, and what spreadsheets write instead.

use super::{Reading, Row, problem};

/// Column names of files and labels, the usual ones first. Case does not matter.
const FILE: [&str; 9] = [
    "file",
    "filename",
    "file_name",
    "path",
    "filepath",
    "image",
    "image_id",
    "name",
    "id",
];
const LABEL: [&str; 8] = [
    "label",
    "class",
    "class_name",
    "category",
    "target",
    "labels",
    "classes",
    "y",
];

/// The files and labels of a table, separated by `,`, `;` or tabs. Rows without a label are left out.
///
/// # Errors
/// The text is not such a table; the message has the line.
pub(super) fn parse(text: &str) -> Reading<Vec<Row>> {
    let mut records = Records {
        rest: text,
        line: 1,
        separator: separator(text),
    };
    let Some((_, first)) = records.next().transpose()? else {
        return Ok(Vec::new());
    };
    let column = |names: &[&str]| {
        let at = |name| {
            first
                .iter()
                .position(|cell| cell.trim().eq_ignore_ascii_case(name))
        };
        names.iter().copied().find_map(at)
    };
    let mut rows = Vec::new();
    let (n, file, label) = match (column(&FILE), column(&LABEL)) {
        (Some(file), Some(label)) => (first.len(), file, label),
        _ if first.len() == 2 => {
            push(&mut rows, first, 0, 1);
            (2, 0, 1)
        }
        _ => {
            return Err(problem!(
                "line 1: expected two columns, or a header with the columns file and label, found {:?}",
                first.join(", ")
            ));
        }
    };
    for record in records {
        let (line, cells) = record?;
        if cells.len() != n {
            return Err(problem!(
                "line {line}: expected {n} columns, found {}; put quotes around names that contain the separator",
                cells.len()
            ));
        }
        push(&mut rows, cells, file, label);
    }
    Ok(rows)
}

fn push(rows: &mut Vec<Row>, mut cells: Vec<String>, file: usize, label: usize) {
    let (file, label) = (
        std::mem::take(&mut cells[file]),
        cells[label].trim().to_owned(),
    );
    if !label.is_empty() {
        rows.push(Row { file, label });
    }
}

/// The separator of the first line: the one of which it has the most.
fn separator(text: &str) -> char {
    let line = text.lines().next().unwrap_or_default();
    let count = |separator: char| {
        let mut quoted = false;
        let outside = line.chars().filter(|&c| {
            quoted ^= c == '"';
            c == separator && !quoted
        });
        outside.count()
    };
    // The last of equal ones counts.
    [';', '\t', ',']
        .into_iter()
        .max_by_key(|&c| count(c))
        .unwrap_or(',')
}

/// The records of a table that are not empty lines, each with its first line's number.
struct Records<'a> {
    rest: &'a str,
    line: usize,
    separator: char,
}

impl Iterator for Records<'_> {
    type Item = Reading<(usize, Vec<String>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let line = self.line;
            match self.record() {
                Ok(cells) if cells == [""] => {}
                Ok(cells) => return Some(Ok((line, cells))),
                Err(problem) => {
                    self.rest = "";
                    return Some(Err(problem!("line {line}: {problem}")));
                }
            }
        }
    }
}

impl Records<'_> {
    fn record(&mut self) -> Reading<Vec<String>> {
        let (mut cells, mut cell, mut quoted) = (Vec::new(), String::new(), false);
        let mut chars = self.rest.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let next = chars.peek().map(|&(_, c)| c);
            match c {
                '"' if quoted && next == Some('"') => {
                    chars.next();
                    cell.push('"');
                }
                '"' if quoted || cell.is_empty() => quoted = !quoted,
                '\n' if !quoted => {
                    self.line += 1;
                    self.rest = &self.rest[at + 1..];
                    cells.push(cell);
                    return Ok(cells);
                }
                '\r' if !quoted && next == Some('\n') => {}
                c if c == self.separator && !quoted => cells.push(std::mem::take(&mut cell)),
                c => {
                    self.line += usize::from(c == '\n');
                    cell.push(c);
                }
            }
        }
        if quoted {
            return Err(problem!("a quote is not closed"));
        }
        self.rest = "";
        cells.push(cell);
        Ok(cells)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let rows = parse(text).unwrap();
        rows.into_iter().map(|row| (row.file, row.label)).collect()
    }

    fn expected(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|&(f, l)| (f.to_owned(), l.to_owned()))
            .collect()
    }

    #[test]
    fn two_columns_need_no_header() {
        let table = expected(&[("a.png", "cat"), ("b/c.png", "dog")]);
        for text in [
            "a.png,cat\nb/c.png,dog\n",
            "a.png,cat\r\nb/c.png,dog",
            "a.png;cat\n\nb/c.png;dog\n",
            "a.png\tcat\r\nb/c.png\tdog\r\n\r\n",
            "\"a.png\",\"cat\"\n\"b/c.png\",\"dog\"\n",
            "file,label\na.png,cat\nb/c.png,dog\n",
            "Class; id; File\ncat;1;a.png\ndog;2;b/c.png\n",
        ] {
            assert_eq!(pairs(text), table, "{text:?}");
        }
    }

    #[test]
    fn quotes_hold_separators_lines_and_quotes() {
        let text = "path,label\n\"a, \"\"b\"\".png\",\"two\nlines\"\nc.png,\n";
        assert_eq!(pairs(text), expected(&[("a, \"b\".png", "two\nlines")]));
        assert!(pairs("").is_empty() && pairs("\n\n").is_empty());
    }

    #[test]
    fn errors_have_their_line() {
        for (text, part) in [
            ("a.png,cat,x\n", "line 1: expected two columns"),
            ("a.png\n", "line 1: expected two columns"),
            ("a.png,cat\nb.png\n", "line 2: expected 2 columns, found 1"),
            (
                "a.png,\"two\nlines\"\nb.png,\"c\n\n",
                "line 3: a quote is not closed",
            ),
        ] {
            let error = parse(text).err().unwrap().to_string();
            assert!(error.starts_with(part), "{error}");
        }
    }
}
