//! What a picture shows, from the emoji's name and code, and from looking at both pictures of every role and gesture.

use crate::Described;

/// The value of an attribute that differs between the two styles.
const DIFFERS: &str = "differs";

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

/// A value and the codes that have it. A code is a whole emoji without tones, or one part of a person's, such as `1f393` of all students.
type Table = &'static [(&'static str, &'static [&'static str])];

/// Kinds that do not follow from the subcategory.
const KINDS: Table = &[
    ("figure", &["1f930", "1fac3", "1fac4", "1f9da", "1f9dc"]),
    ("group", &["1f931", "1f37c", "1f46f", "1f93c"]),
    ("portrait", &["1f486", "1f487", "1f9d6", "1f939"]),
    // Whole figures in Noto, busts in Fluent.
    (DIFFERS, &["1f9b8", "1f9b9", "1f9de", "1f9cc"]),
    ("object", &["1f47e", "2603-fe0f", "26c4"]),
];

/// Genders that do not follow from a sign in the code. Everyone else is drawn neutral.
const GENDERS: Table = &[
    (
        "man",
        &[
            "1f466", "1f474", "1f934", "1f385", "1fac3", "1f57a", "1f574", "1f472",
        ],
    ),
    (
        "woman",
        &[
            "1f467", "1f475", "1f478", "1f936", "1f930", "1f931", "1f483", "1f9d5", "1f46d",
        ],
    ),
    ("man", &["1f46c"]),
    ("mixed", &["1f46b"]),
];
/// The deaf man and woman are exchanged in Fluent; the dancers with bunny ears are women in Noto only.
const GENDER_DIFFERS: [&str; 3] = ["1f9cf-200d-2642-fe0f", "1f9cf-200d-2640-fe0f", "1f46f"];

const AGES: Table = &[
    ("child", &["1f476", "1f9d2", "1f466", "1f467", "1f47c"]),
    (
        "old",
        &[
            "1f9d3", "1f474", "1f475", "1f385", "1f936", "1f384", "1f9d9",
        ],
    ),
];

const HAIR: Table = &[
    ("red", &["1f9b0"]),
    ("curly", &["1f9b1"]),
    (
        "white",
        &[
            "1f9b3", "1f9d3", "1f474", "1f475", "1f385", "1f936", "1f384", "1f9d9",
        ],
    ),
    ("bald", &["1f9b2"]),
    ("blond", &["1f471"]),
    // Hidden, or hardly any.
    (
        "none",
        &[
            "1f476", "1f473", "1f9d5", "1f977", "1f93a", "26f7", "1f3c2", "1f3ca", "1f3cc", "1f3c7",
        ],
    ),
    (
        DIFFERS,
        &[
            "1f47c", "1f9da", "1f9dc", "1f9dd", "1f9de", "1f9cc", "1f482",
        ],
    ),
];

const BEARDS: Table = &[
    ("yes", &["1f9d4", "1f385", "1f9d9-200d-2642-fe0f"]),
    (DIFFERS, &["1f9de-200d-2642-fe0f", "1f9cc"]),
];

const GLASSES: Table = &[
    (
        "yes",
        &["1f3eb", "1f52c", "1f936", "1f3ca", "1f3c2", "1f574"],
    ),
    // Goggles in one style only, masks around the eyes, a magnifying glass before one eye.
    (DIFFERS, &["26f7", "1f9b8", "1f9b9", "1f575"]),
];
const GLASSES_OF_SMILEYS: Table = &[("yes", &["1f60e", "1f913", "1f9d0", "1f978"])];

const HATS: Table = &[
    (
        "yes",
        &[
            "1f393", "1f33e", "1f373", "1f527", "1f3ed", "2708", "1f680", "1f692", "1f46e",
            "1f575", "1f482", "1f977", "1f477", "1fac5", "1f934", "1f478", "1f473", "1f472",
            "1f9d5", "1f470", "1f385", "1f936", "1f384", "1f9d9", "1f9d7", "1f93a", "1f3c7",
            "26f7", "1f3c2", "1f3cc", "1f3ca", "1f6b4", "1f6b5", "1f93d", "1f939", "1f574",
        ],
    ),
    // A beret in Fluent only, circlets, a turban, bunny ears, head bands, head guards, foam.
    (
        DIFFERS,
        &["1f3a8", "1f9dd", "1f9de", "1f46f", "26f9", "1f93c", "1f6c0"],
    ),
];
const HATS_OF_OTHERS: Table = &[
    ("yes", &["1f920", "1f973", "2603-fe0f", "26c4"]),
    (DIFFERS, &["1f915", "1fa86"]),
];

/// Moods of people. All other portraits and groups smile.
const MOODS: Table = &[
    ("sad", &["1f64d"]),
    ("angry", &["1f64e"]),
    ("neutral", &["1f647"]),
    (
        "other",
        &[
            "1f645", "1f926", "1f937", "1f9db", "1f9df", "1f9b9", "1f9cc", "1f48f", "1f48b",
        ],
    ),
    // The mouth is hidden.
    ("none", &["1f977", "1f93c"]),
    // Serious in Noto only.
    (DIFFERS, &["2696"]),
];

/// Moods of smileys and cats. All others look otherwise: surprised, ill, thinking.
const MOODS_OF_SMILEYS: Table = &[
    (
        "happy",
        &[
            "1f600",
            "1f603",
            "1f604",
            "1f601",
            "1f606",
            "1f605",
            "1f923",
            "1f602",
            "1f642",
            "1f643",
            "1f609",
            "1f60a",
            "1f607",
            "1f970",
            "1f60d",
            "1f929",
            "263a-fe0f",
            "1f60b",
            "1f61b",
            "1f61c",
            "1f92a",
            "1f61d",
            "1f911",
            "1f917",
            "1f92d",
            "1f60c",
            "1f924",
            "1f920",
            "1f973",
            "1f60e",
            "1f913",
            "1f4a9",
            "1f921",
            "1f47b",
            "1f63a",
            "1f638",
            "1f639",
            "1f63b",
        ],
    ),
    (
        "neutral",
        &["1f610", "1f611", "1f636", "1fae5", "1f636-200d-1f32b-fe0f"],
    ),
    (
        "sad",
        &[
            "1f614",
            "1f615",
            "1f61f",
            "1f641",
            "2639-fe0f",
            "1f97a",
            "1f626",
            "1f627",
            "1f625",
            "1f622",
            "1f62d",
            "1f616",
            "1f623",
            "1f61e",
            "1f613",
            "1f629",
            "1f62b",
            "1f63f",
        ],
    ),
    (
        "angry",
        &[
            "1f624", "1f621", "1f620", "1f92c", "1f47f", "1f479", "1f47a", "1f63e",
        ],
    ),
    ("none", &["1f480", "2620-fe0f", "1f47e", "1f916"]),
    (DIFFERS, &["1fae1", "1f47d"]),
];

/// The value that a table gives a code or one of its parts.
fn find(table: Table, code: &str) -> Option<&'static str> {
    let has = |known: &&str| *known == code || code.split('-').any(|part| part == *known);
    let row = table
        .iter()
        .find(|(_, codes)| codes.iter().any(|known| has(&known)));
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
        hat: find(HATS_OF_OTHERS, &code)
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
        out.glasses = find(GLASSES_OF_SMILEYS, &code).unwrap_or("no");
        out.mood = exactly(MOODS_OF_SMILEYS, &code).unwrap_or("other");
    }
    out
}

/// The value that a table gives a whole code.
fn exactly(table: Table, code: &str) -> Option<&'static str> {
    let row = table.iter().find(|(_, codes)| codes.contains(&code));
    row.map(|(value, _)| *value)
}

fn kind(emoji: &Described, is_person: bool, is_family: bool) -> &'static str {
    let code = emoji.code();
    if is_family {
        return DIFFERS;
    }
    let special = if is_person {
        find(KINDS, &code)
    } else {
        exactly(KINDS, &code)
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
    if GENDER_DIFFERS.contains(&code) {
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
