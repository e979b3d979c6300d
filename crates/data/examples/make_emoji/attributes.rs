//! What a picture shows, from the emoji's name and code, and from tables.

use crate::{Described, tables::*};

/// The value of an attribute that differs between the two styles.
pub(crate) const DIFFERS: &str = "differs";

/// What a picture shows, in the columns of the index.
pub(crate) struct Attributes {
    kind: &'static str,
    tone: &'static str,
    gender: &'static str,
    age: &'static str,
    hair: &'static str,
    beard: &'static str,
    glasses: &'static str,
    hat: &'static str,
    mood: &'static str,
}

impl Attributes {
    /// The names of the columns.
    pub(crate) const COLUMNS: [&str; 9] = [
        "kind", "tone", "gender", "age", "hair", "beard", "glasses", "hat", "mood",
    ];

    /// The values, in the order of [`Self::COLUMNS`].
    pub(crate) fn values(&self) -> [&'static str; 9] {
        [
            self.kind,
            self.tone,
            self.gender,
            self.age,
            self.hair,
            self.beard,
            self.glasses,
            self.hat,
            self.mood,
        ]
    }
}

/// The value that a table gives a code or one of its parts.
fn find(table: Table, code: &str) -> Option<&'static str> {
    let has = |known: &str| known == code || code.split('-').any(|part| part == known);
    let row = table
        .iter()
        .find(|(_, codes)| codes.split_whitespace().any(has));
    row.map(|(value, _)| *value)
}

/// The value that a table gives a whole code.
fn exactly(table: Table, code: &str) -> Option<&'static str> {
    let has = |known: &str| known == code;
    let row = table
        .iter()
        .find(|(_, codes)| codes.split_whitespace().any(has));
    row.map(|(value, _)| *value)
}

/// What the pictures of an emoji show in the given tone.
pub(crate) fn attributes(emoji: &Described, tone: &'static str) -> Attributes {
    let code = emoji.code();
    let of_people = emoji.category == "People & Body";
    let is_person = of_people
        && emoji.subcategory.starts_with("person-")
        && emoji.subcategory != "person-symbol"
        || emoji.subcategory == "person";
    let is_family = of_people && emoji.name.starts_with("FAMILY");
    let is_couple = emoji.subcategory == "family" && !is_family;
    let mut out = Attributes {
        kind: kind(emoji, is_person || is_couple, is_family),
        tone,
        gender: "none",
        age: "none",
        hair: "none",
        beard: "no",
        glasses: "no",
        hat: exactly(HATS_OF_OTHERS, &code)
            .filter(|_| !of_people)
            .unwrap_or("no"),
        mood: "none",
    };
    // Noto's families are silhouettes on a key.
    if is_family {
        (out.gender, out.age, out.hair, out.mood) = (DIFFERS, DIFFERS, DIFFERS, DIFFERS);
        return out;
    }
    if is_person || is_couple {
        out.gender = gender(&code);
        out.age = find(AGES, &code).unwrap_or("adult");
        out.hair = find(HAIR, &code).unwrap_or("usual");
        out.beard = find(BEARDS, &code).unwrap_or("no");
        out.glasses = find(GLASSES, &code).unwrap_or("no");
        out.hat = find(HATS, &code).unwrap_or("no");
        let smiles = if out.kind == "figure" {
            "none"
        } else {
            "happy"
        };
        out.mood = find(MOODS, &code).unwrap_or(smiles);
        // Hardly any skin, or none, can be seen.
        if tone != "none" && ["1f3c2", "1f6cc"].contains(&code.as_str()) {
            out.tone = DIFFERS;
        }
    } else if emoji.subcategory.starts_with("face-") || emoji.subcategory == "cat-face" {
        out.glasses = exactly(GLASSES_OF_SMILEYS, &code).unwrap_or("no");
        out.mood = exactly(MOODS_OF_SMILEYS, &code).unwrap_or("other");
    }
    out
}

fn kind(emoji: &Described, is_person: bool, is_family: bool) -> &'static str {
    let code = emoji.code();
    if is_family {
        return DIFFERS;
    }
    let special = if is_person {
        find(KINDS, &code)
    } else {
        exactly(KINDS_OF_OTHERS, &code)
    };
    if let Some(kind) = special {
        return kind;
    }
    match emoji.subcategory.as_str() {
        "person" | "person-gesture" | "person-role" | "person-fantasy" => "portrait",
        "person-activity" | "person-sport" | "person-resting" => "figure",
        "family" => "group",
        "body-parts" => "hand",
        "cat-face" | "monkey-face" => "animal",
        "dishware" | "hotel" => "object",
        name if name.starts_with("face-") => "smiley",
        name if name.starts_with("hand") => "hand",
        name if name.starts_with("animal") => "animal",
        name if name.starts_with("plant") => "plant",
        _ => match emoji.category.as_str() {
            "Food & Drink" => "food",
            "Travel & Places" => "place",
            _ => "object",
        },
    }
}

fn gender(code: &str) -> &'static str {
    if GENDER_DIFFERS.split_whitespace().any(|known| known == code) {
        return DIFFERS;
    }
    let signs = |man: &str, woman: &str| {
        let has = |sign: &str| code.split('-').any(|part| part == sign);
        match (has(man), has(woman)) {
            (true, true) => Some("mixed"),
            (true, false) => Some("man"),
            (false, true) => Some("woman"),
            (false, false) => None,
        }
    };
    signs("2642", "2640")
        .or_else(|| signs("1f468", "1f469"))
        .or_else(|| find(GENDERS, code))
        .unwrap_or("person")
}

/// What a person is or does, the same for all genders: `farmer`, `running`; empty for everything else, and for people as such.
pub(crate) fn role(emoji: &Described, all: &[Described]) -> String {
    let is_role = emoji.subcategory.starts_with("person-") && emoji.subcategory != "person-symbol";
    if !is_role {
        return String::new();
    }
    // The name of the man, because older names of the neutral ones say something else: `happy person raising one hand`.
    let code = emoji.code();
    let neutral = code
        .replace("-200d-2640-fe0f", "")
        .replace("-200d-2642-fe0f", "")
        .replace("1f469", "1f9d1")
        .replace("1f468", "1f9d1");
    let (base, facing) = match neutral.strip_suffix("-200d-27a1-fe0f") {
        Some(base) => (base, "-200d-27a1-fe0f"),
        None => (neutral.as_str(), ""),
    };
    let man = [
        format!("{base}-200d-2642-fe0f{facing}"),
        format!("{}{facing}", base.replace("1f9d1", "1f468")),
    ];
    let named = |code: &str| all.iter().find(|other| other.code() == code);
    let names = [named(&man[0]), named(&man[1]), named(&neutral), Some(emoji)];
    let mut names = names
        .into_iter()
        .flatten()
        .map(|emoji| emoji.name.to_lowercase());
    let first = names.next().unwrap_or_default();
    let plain = match first.strip_prefix("man ") {
        // A name such as `merman` is that of the man alone.
        None => names.next().unwrap_or(first),
        Some(role) => return role.to_owned(),
    };
    for person in ["man", "woman", "person"] {
        let cut = plain
            .strip_prefix(&format!("{person} "))
            .or_else(|| plain.strip_suffix(&format!(" {person}")));
        if let Some(role) = cut {
            return role.to_owned();
        }
    }
    plain
}
