//! Which emoji show what, from looking at both pictures of every role and gesture.

use crate::attributes::DIFFERS;

/// Values and the codes that have them. A code is a whole emoji without tones, or one part of a person's, such as `1f393` of all students.
pub(crate) type Table = &'static [(&'static str, &'static str)];

/// Kinds that do not follow from the subcategory.
pub(crate) const KINDS: Table = &[
    ("figure", "1f930 1fac3 1fac4 1f9da 1f9dc"),
    ("group", "1f931 1f37c 1f46f 1f93c"),
    ("portrait", "1f486 1f487 1f9d6 1f939"),
    // Whole figures in Noto, busts in Fluent.
    (DIFFERS, "1f9b8 1f9b9 1f9de 1f9cc"),
];
pub(crate) const KINDS_OF_OTHERS: Table = &[("object", "1f47e 2603-fe0f 26c4")];

/// Genders that do not follow from a sign in the code. Everyone else is drawn neutral.
pub(crate) const GENDERS: Table = &[
    (
        "man",
        "1f466 1f474 1f934 1f385 1fac3 1f57a 1f574 1f472 1f46c",
    ),
    (
        "woman",
        "1f467 1f475 1f478 1f936 1f930 1f931 1f483 1f9d5 1f46d",
    ),
    ("mixed", "1f46b"),
];
/// The deaf man and woman are exchanged in Fluent; the dancers with bunny ears are women in Noto only.
pub(crate) const GENDER_DIFFERS: &str = "1f9cf-200d-2642-fe0f 1f9cf-200d-2640-fe0f 1f46f";

pub(crate) const AGES: Table = &[
    ("child", "1f476 1f9d2 1f466 1f467 1f47c"),
    ("old", "1f9d3 1f474 1f475 1f385 1f936 1f384 1f9d9"),
];

pub(crate) const HAIR: Table = &[
    ("red", "1f9b0"),
    ("curly", "1f9b1"),
    ("white", "1f9b3 1f9d3 1f474 1f475 1f385 1f936 1f384 1f9d9"),
    ("bald", "1f9b2"),
    ("blond", "1f471"),
    // Hidden, or hardly any.
    (
        "none",
        "1f476 1f473 1f9d5 1f977 1f93a 26f7 1f3c2 1f3ca 1f3cc 1f3c7",
    ),
    (DIFFERS, "1f47c 1f9da 1f9dc 1f9dd 1f9de 1f9cc 1f482"),
];

pub(crate) const BEARDS: Table = &[
    ("yes", "1f9d4 1f385 1f9d9-200d-2642-fe0f"),
    (DIFFERS, "1f9de-200d-2642-fe0f 1f9cc"),
];

pub(crate) const GLASSES: Table = &[
    ("yes", "1f3eb 1f52c 1f936 1f3ca 1f3c2 1f574"),
    // Goggles in one style only, masks around the eyes, a magnifying glass before one eye.
    (DIFFERS, "26f7 1f9b8 1f9b9 1f575"),
];
pub(crate) const GLASSES_OF_SMILEYS: Table = &[("yes", "1f60e 1f913 1f9d0 1f978")];

pub(crate) const HATS: Table = &[
    (
        "yes",
        "1f393 1f33e 1f373 1f527 1f3ed 2708 1f680 1f692 1f46e 1f575 1f482 1f977 1f477 1fac5 1f934 1f478 1f473 \
         1f472 1f9d5 1f470 1f385 1f936 1f384 1f9d9 1f9d7 1f93a 1f3c7 26f7 1f3c2 1f3cc 1f3ca 1f6b4 1f6b5 1f93d \
         1f939 1f574",
    ),
    // A beret in Fluent only, circlets, a turban, bunny ears, head bands, head guards, foam.
    (DIFFERS, "1f3a8 1f9dd 1f9de 1f46f 26f9 1f93c 1f6c0"),
];
pub(crate) const HATS_OF_OTHERS: Table = &[
    ("yes", "1f920 1f973 2603-fe0f 26c4"),
    (DIFFERS, "1f915 1fa86"),
];

/// Moods of people. All other portraits and groups smile.
pub(crate) const MOODS: Table = &[
    ("sad", "1f64d"),
    ("angry", "1f64e"),
    ("neutral", "1f647"),
    (
        "other",
        "1f645 1f926 1f937 1f9db 1f9df 1f9b9 1f9cc 1f48f 1f48b",
    ),
    // The mouth is hidden.
    ("none", "1f977 1f93c"),
    // Serious in Noto only.
    (DIFFERS, "2696"),
];

/// Moods of smileys and cats. All others look otherwise: surprised, ill, thinking.
pub(crate) const MOODS_OF_SMILEYS: Table = &[
    (
        "happy",
        "1f600 1f603 1f604 1f601 1f606 1f605 1f923 1f602 1f642 1f643 1f609 1f60a 1f607 1f970 1f60d 1f929 \
         263a-fe0f 1f60b 1f61b 1f61c 1f92a 1f61d 1f911 1f917 1f92d 1f60c 1f924 1f920 1f973 1f60e 1f913 1f4a9 \
         1f921 1f47b 1f63a 1f638 1f639 1f63b",
    ),
    ("neutral", "1f610 1f611 1f636 1fae5 1f636-200d-1f32b-fe0f"),
    (
        "sad",
        "1f614 1f615 1f61f 1f641 2639-fe0f 1f97a 1f626 1f627 1f625 1f622 1f62d 1f616 1f623 1f61e 1f613 1f629 \
         1f62b 1f63f",
    ),
    ("angry", "1f624 1f621 1f620 1f92c 1f47f 1f479 1f47a 1f63e"),
    ("none", "1f480 2620-fe0f 1f47e 1f916"),
    (DIFFERS, "1fae1 1f47d"),
];
