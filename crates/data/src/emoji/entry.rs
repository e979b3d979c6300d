//! What an emoji shows, and the index that lists it.

use super::EmojiStyle;
use crate::{DataError, Result};

/// The attributes of emoji and their values. A value may also be [`DIFFERS`].
pub const COLUMNS: &[(&str, &[&str])] = &[
    (
        "kind",
        &[
            "smiley", "portrait", "figure", "group", "hand", "animal", "plant", "food", "place",
            "object",
        ],
    ),
    (
        "tone",
        &[
            "none",
            "light",
            "medium-light",
            "medium",
            "medium-dark",
            "dark",
            "two",
        ],
    ),
    ("gender", &["none", "man", "woman", "person", "mixed"]),
    ("age", &["none", "child", "adult", "old"]),
    (
        "hair",
        &["none", "usual", "blond", "red", "curly", "white", "bald"],
    ),
    ("beard", &["no", "yes"]),
    ("glasses", &["no", "yes"]),
    ("hat", &["no", "yes"]),
    (
        "mood",
        &["none", "happy", "neutral", "sad", "angry", "other"],
    ),
];

/// The value of an attribute that is not the same in both styles, or cannot be decided. It fits no filter.
pub const DIFFERS: &str = "differs";

/// Columns of any text.
pub(super) const TEXTS: [&str; 5] = ["code", "base", "name", "category", "role"];

/// The names of all columns of [`EmojiEntry::value`].
pub const COLUMN_NAMES: &[&str] = &[
    "kind", "tone", "gender", "age", "hair", "beard", "glasses", "hat", "mood", "role", "category",
    "name", "code", "base",
];

/// An emoji and what it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmojiEntry {
    /// The code points with modifiers of tone: `1f468-1f3fb`.
    pub code: String,
    /// The code points of the same emoji without a tone.
    pub base: String,
    /// The name, in lower case, the same for all tones; not always unique.
    pub name: String,
    /// One of seven categories, such as `People & Body`.
    pub category: String,
    /// What a person is or does, the same for all genders: `farmer`, `running`. Empty for others.
    pub role: String,
    /// The values of [`COLUMNS`].
    values: [&'static str; COLUMNS.len()],
    in_fluent: bool,
}

impl EmojiEntry {
    /// The value in a column: one of [`COLUMNS`], `code`, `base`, `name`, `category` or `role`; `None` if there is no such column.
    #[must_use]
    pub fn value(&self, column: &str) -> Option<&str> {
        match column {
            "code" => Some(&self.code),
            "base" => Some(&self.base),
            "name" => Some(&self.name),
            "category" => Some(&self.category),
            "role" => Some(&self.role),
            _ => {
                let at = COLUMNS.iter().position(|(name, _)| *name == column)?;
                Some(self.values[at])
            }
        }
    }

    /// Whether a style has this emoji.
    #[must_use]
    pub fn has(&self, style: EmojiStyle) -> bool {
        style == EmojiStyle::Noto || self.in_fluent
    }
}

/// Parses `index.tsv`.
///
/// # Errors
/// Fails if a column is missing or a value is unknown; the error has the line.
pub(super) fn parse(text: &str) -> Result<Vec<EmojiEntry>> {
    let problem = |line: usize, problem: String| DataError::Embedded {
        file: "emoji/index.tsv".to_owned(),
        problem: format!("line {}: {problem}", line + 1),
    };
    let mut lines = text.lines().enumerate();
    let header: Vec<&str> = lines.next().unwrap_or_default().1.split('\t').collect();
    let find = |name: &str| {
        let at = header.iter().position(|column| *column == name);
        at.ok_or_else(|| {
            problem(
                0,
                format!("expected a column {name}, found {}", header.join(", ")),
            )
        })
    };
    let mut columns = [0; COLUMNS.len()];
    for (at, (name, _)) in columns.iter_mut().zip(COLUMNS) {
        *at = find(name)?;
    }
    let mut texts = [0; TEXTS.len()];
    for (at, name) in texts.iter_mut().zip(TEXTS) {
        *at = find(name)?;
    }
    let in_fluent = find("fluent")?;
    let mut entries = Vec::new();
    for (number, line) in lines {
        let fields: Vec<&str> = line.split('\t').collect();
        if fields.len() != header.len() {
            let text = format!("expected {} fields, found {}", header.len(), fields.len());
            return Err(problem(number, text));
        }
        let mut values = [DIFFERS; COLUMNS.len()];
        for ((value, at), (name, known)) in values.iter_mut().zip(columns).zip(COLUMNS) {
            let found = fields[at];
            if found != DIFFERS {
                let same = known.iter().find(|known| **known == found);
                let wrong = || {
                    problem(
                        number,
                        format!("{name}: expected {}, found {found:?}", known.join(", ")),
                    )
                };
                *value = same.ok_or_else(wrong)?;
            }
        }
        let [code, base, name, category, role] = texts.map(|at| fields[at].to_owned());
        entries.push(EmojiEntry {
            code,
            base,
            name,
            category,
            role,
            values,
            in_fluent: fields[in_fluent] == "yes",
        });
    }
    Ok(entries)
}
