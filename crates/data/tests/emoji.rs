//! The embedded emoji: pictures, attributes, filters.

use std::collections::BTreeSet;

use sdft_data::{
    COLUMNS, DIFFERS, DataError, Emoji, EmojiEntry, EmojiOptions, EmojiSource, EmojiStyle, Fit,
    ImageSource, Only, Place,
};
use sdft_imaging::{Depth, Rgb8, Samples};

fn only(columns: &[(&str, &[&str])]) -> Only {
    let owned = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
    columns
        .iter()
        .map(|&(column, values)| (column.to_owned(), owned(values)))
        .collect()
}

/// The rule of the limited and biased target set.
fn target() -> Only {
    only(&[
        ("kind", &["portrait"]),
        ("tone", &["light", "medium-light"]),
        ("gender", &["man", "person"]),
        ("glasses", &["no"]),
        ("hat", &["no"]),
        ("mood", &["happy", "neutral", "none"]),
    ])
}

fn named<'a>(emoji: &'a Emoji, code: &str) -> (usize, &'a EmojiEntry) {
    let all = emoji.entries().iter().enumerate();
    let mut found = all.filter(|(_, entry)| entry.code == code);
    found.next().unwrap_or_else(|| panic!("no emoji {code}"))
}

fn source(change: impl FnOnce(&mut EmojiOptions)) -> Result<EmojiSource, DataError> {
    let mut options = EmojiOptions::new(EmojiStyle::Fluent);
    options.only = target();
    change(&mut options);
    EmojiSource::new(&Emoji::embedded().unwrap(), &options)
}

#[test]
fn every_emoji_has_its_code_once_and_known_values() {
    let emoji = Emoji::embedded().unwrap();
    assert_eq!(emoji.entries().len(), 3287);
    let codes: BTreeSet<&str> = emoji.entries().iter().map(|e| e.code.as_str()).collect();
    assert_eq!(codes.len(), 3287);
    for entry in emoji.entries() {
        for (column, values) in COLUMNS {
            let value = entry.value(column).unwrap();
            assert!(values.contains(&value) || value == DIFFERS, "{entry:?}");
        }
        assert!(codes.contains(entry.base.as_str()), "{entry:?}");
        assert_eq!(entry.name, entry.name.to_lowercase());
        assert!(entry.value("colour").is_none());
    }
    // Each value is used, and tones share the other attributes of their base.
    for (column, values) in COLUMNS {
        for value in *values {
            let has = |entry: &EmojiEntry| entry.value(column) == Some(value);
            assert!(emoji.entries().iter().any(has), "{column} {value}");
        }
    }
    for entry in emoji.entries() {
        let (_, base) = named(&emoji, &entry.base);
        for column in ["kind", "gender", "hair", "hat", "role", "name"] {
            assert_eq!(entry.value(column), base.value(column), "{}", entry.code);
        }
    }
}

#[test]
fn attributes_say_what_well_known_emoji_show() {
    let emoji = Emoji::embedded().unwrap();
    let shows = |code: &str, expected: &[(&str, &str)]| {
        let (_, entry) = named(&emoji, code);
        for (column, value) in expected {
            assert_eq!(entry.value(column), Some(*value), "{code} {column}");
        }
    };
    shows(
        "1f600",
        &[
            ("kind", "smiley"),
            ("tone", "none"),
            ("gender", "none"),
            ("mood", "happy"),
        ],
    );
    shows(
        "1f468-1f3fb",
        &[
            ("kind", "portrait"),
            ("tone", "light"),
            ("gender", "man"),
            ("age", "adult"),
        ],
    );
    shows(
        "1f469-1f3ff-200d-1f3eb",
        &[
            ("tone", "dark"),
            ("gender", "woman"),
            ("glasses", "yes"),
            ("hat", "no"),
            ("role", "teacher"),
        ],
    );
    shows(
        "1f46e-1f3fd-200d-2640-fe0f",
        &[
            ("gender", "woman"),
            ("hat", "yes"),
            ("role", "police officer"),
        ],
    );
    shows(
        "1f64d-1f3fe",
        &[("gender", "person"), ("mood", "sad"), ("role", "frowning")],
    );
    shows(
        "1f9d4-1f3fb-200d-2642-fe0f",
        &[("beard", "yes"), ("hair", "usual")],
    );
    shows(
        "1f475",
        &[("age", "old"), ("hair", "white"), ("tone", "none")],
    );
    shows(
        "1f46b-1f3fb",
        &[("kind", "group"), ("gender", "mixed"), ("tone", "light")],
    );
    shows(
        "1f468-1f3fb-200d-2764-fe0f-200d-1f468-1f3fc",
        &[("tone", "two"), ("gender", "man")],
    );
    shows(
        "1f3c3-1f3fc",
        &[("kind", "figure"), ("mood", "none"), ("role", "running")],
    );
    shows(
        "1f44b-1f3fc",
        &[("kind", "hand"), ("gender", "none"), ("role", "")],
    );
    shows("1f436", &[("kind", "animal")]);
    shows("1f393", &[("kind", "object"), ("hat", "no")]);
    shows("1f37c", &[("kind", "food")]);
    // Superheroes are whole figures in one style and busts in the other.
    shows("1f9b8-1f3fb", &[("kind", DIFFERS), ("glasses", DIFFERS)]);
    shows("1f9d1-200d-1f3a8", &[("hat", DIFFERS)]);
}

#[test]
fn a_filter_takes_what_it_says() {
    let emoji = Emoji::embedded().unwrap();
    let count = |style, columns: &[(&str, &[&str])]| {
        let indices = emoji.select(style, &only(columns)).unwrap();
        assert!(indices.is_sorted());
        indices.len()
    };
    let (noto, fluent) = (EmojiStyle::Noto, EmojiStyle::Fluent);
    assert_eq!((count(noto, &[]), count(fluent, &[])), (3287, 2895));
    assert_eq!(count(noto, &[("tone", &[])]), 3287);
    // Three genders in five tones and without one.
    assert_eq!(count(fluent, &[("role", &["teacher"])]), 18);
    assert_eq!(
        count(
            fluent,
            &[("role", &["teacher", "farmer"]), ("gender", &["woman"])]
        ),
        12
    );
    assert_eq!(count(fluent, &[("code", &["1f600"])]), 1);
    assert_eq!(
        count(
            fluent,
            &[("base", &["1f44b"]), ("category", &["People & Body"])]
        ),
        6
    );
    // Fluent has no person who faces right.
    let right: &[(&str, &[&str])] = &[("role", &["running facing right"])];
    assert_eq!((count(noto, right), count(fluent, right)), (18, 0));
    let tones = ["light", "medium-light", "medium", "medium-dark", "dark"];
    let each = tones.map(|tone| count(noto, &[("tone", &[tone])]));
    assert_eq!(count(noto, &[("tone", &tones)]), each.iter().sum::<usize>());
}

#[test]
fn the_target_set_is_small_and_biased() {
    let emoji = Emoji::embedded().unwrap();
    let target = emoji.select(EmojiStyle::Fluent, &target()).unwrap();
    assert!((90..=150).contains(&target.len()), "{}", target.len());
    for entry in target.iter().map(|&i| &emoji.entries()[i]) {
        let value = |column| entry.value(column).unwrap();
        assert!(
            !["woman", "mixed", "none"].contains(&value("gender")),
            "{entry:?}"
        );
        assert_eq!([value("glasses"), value("hat")], ["no"; 2]);
        assert!(!["sad", "angry"].contains(&value("mood")));
        for word in ["woman", "girl", "teacher", "cook", "frowning", "pouting"] {
            assert!(
                !entry.name.split([' ', ':']).any(|w| w == word),
                "{}",
                entry.name
            );
        }
    }
}

#[test]
fn unknown_columns_and_values_list_what_there_is() {
    let emoji = Emoji::embedded().unwrap();
    let refused = |columns: &[(&str, &[&str])]| {
        let error = emoji.select(EmojiStyle::Noto, &only(columns)).unwrap_err();
        error.to_string()
    };
    assert_eq!(
        refused(&[("tone", &["light", "blue"])]),
        "only.tone: expected none, light, medium-light, medium, medium-dark, dark, two, found \"blue\""
    );
    let message = refused(&[("colour", &["blue"])]);
    assert!(
        message.starts_with("only: expected kind, tone, gender"),
        "{message}"
    );
    assert!(
        message.contains("role") && message.contains("\"colour\""),
        "{message}"
    );
    let message = refused(&[("role", &["farmers"])]);
    assert!(
        message.contains("singer") && message.contains("did you mean farmer"),
        "{message}"
    );
    let message = refused(&[("code", &["1f4688"])]);
    assert!(
        message.contains("index.tsv") && message.contains("1f468"),
        "{message}"
    );
    // What differs fits no filter.
    assert!(refused(&[("hat", &[DIFFERS])]).contains("no, yes"));
    let message = source(|o| o.only = only(&[("kind", &["food"]), ("hat", &["yes"])])).unwrap_err();
    let message = message.to_string();
    assert!(
        message.contains("at least one emoji in style fluent") && message.contains("food"),
        "{message}"
    );
}

/// Mean of the pixels that are not white, 0 to 255.
fn mean(picture: &Rgb8) -> f64 {
    let colours = picture.pixels.chunks(3).filter(|p| p != &[255; 3]);
    let values: Vec<f64> = colours.flatten().map(|&v| f64::from(v)).collect();
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn both_styles_show_the_same_emoji() {
    let emoji = Emoji::embedded().unwrap();
    let (noto, fluent) = (EmojiStyle::Noto, EmojiStyle::Fluent);
    for (i, entry) in emoji.entries().iter().enumerate() {
        let picture = emoji.picture(i, noto).unwrap();
        assert_eq!((picture.width, picture.height), (32, 32));
        assert!(
            picture.pixels.iter().any(|&v| v < 250),
            "{} is white",
            entry.code
        );
        assert!(picture.pixels.iter().all(|v| v % 5 == 0));
        assert_eq!(emoji.picture(i, fluent).is_some(), entry.has(fluent));
        if let Some(picture) = emoji.picture(i, fluent) {
            assert!(
                picture.pixels.iter().any(|&v| v < 250),
                "{} is white",
                entry.code
            );
        }
    }
    // A green heart is green, a blue one blue, wherever they are in the grid.
    for style in EmojiStyle::ALL {
        let strongest = |code: &str| {
            let picture = emoji.picture(named(&emoji, code).0, style).unwrap();
            let sum = |c: usize| {
                picture
                    .pixels
                    .iter()
                    .skip(c)
                    .step_by(3)
                    .map(|&v| u32::from(v))
                    .sum::<u32>()
            };
            let sums = [0, 1, 2].map(sum);
            (0..3).max_by_key(|&c| sums[c]).unwrap()
        };
        assert_eq!(
            ["1f49a", "1f499", "1f345"].map(strongest),
            [1, 2, 0],
            "{style}"
        );
        // Hands become darker with each tone.
        let shades = ["1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"].map(|tone| {
            let code = format!("1f44d-{tone}");
            mean(&emoji.picture(named(&emoji, &code).0, style).unwrap())
        });
        assert!(shades.is_sorted_by(|a, b| a > b), "{style} {shades:?}");
    }
    assert!(emoji.picture(emoji.entries().len(), noto).is_none());
}

#[test]
fn an_opened_style_is_the_only_one_that_is_decoded() {
    let emoji = Emoji::embedded().unwrap();
    assert!(format!("{emoji:?}").contains("decoded: 0"));
    EmojiSource::new(&emoji, &EmojiOptions::new(EmojiStyle::Fluent)).unwrap();
    assert!(format!("{emoji:?}").contains("decoded: 1"));
    assert!(emoji.picture(0, EmojiStyle::Noto).is_some());
    assert!(format!("{emoji:?}").contains("decoded: 2"));
}

#[test]
fn as_a_data_set_the_pictures_are_unchanged() {
    let emoji = Emoji::embedded().unwrap();
    let source = source(|_| {}).unwrap();
    assert_eq!(source.spec().shape(), [3, 32, 32]);
    assert_eq!(source.len(), source.indices().len());
    for (i, &index) in source.indices().iter().enumerate() {
        assert_eq!(
            source.id(i),
            format!("emoji/{}", emoji.entries()[index].code)
        );
        assert_eq!(
            Some(source.screen(i).unwrap()),
            emoji.picture(index, EmojiStyle::Fluent)
        );
    }
    let n = source.len();
    assert!(source.id(n).is_empty());
    assert!(matches!(source.screen(n), Err(DataError::Index { .. })));
    assert!(source.label(0).is_none() && source.classes().is_empty());
}

#[test]
fn emoji_come_in_every_form() {
    let rgb = source(|_| {}).unwrap().image(0).unwrap();
    let grey = source(|o| o.form.channels = 1).unwrap();
    assert_eq!(
        grey.image(0).unwrap(),
        rgb.clone().with_channels(1).unwrap()
    );
    let Samples::U8(rgba) = source(|o| o.form.channels = 4)
        .unwrap()
        .image(0)
        .unwrap()
        .samples
    else {
        panic!("8 bits")
    };
    assert!(rgba.chunks(4).all(|pixel| pixel[3] == 255));
    let floats =
        source(|o| (o.form.depth, o.form.range) = (Depth::F32, Some([-2.0, 2.0]))).unwrap();
    let exact = sdft_imaging::to_unit_range(&rgb.into_rgb8().unwrap());
    let got = floats.spec().to_unit_range(&floats.image(0).unwrap());
    assert!(got.iter().zip(&exact).all(|(a, b)| (a - b).abs() < 1e-6));
    for fit in [Fit::Crop, Fit::RandomCrop, Fit::Pad, Fit::Resize] {
        let source = source(|o| (o.form.size, o.form.fit) = ([48, 24], fit)).unwrap();
        let item = source.item(0, Place { x: 0.0, y: 0.0 }).unwrap();
        assert_eq!((item.image.height, item.image.width), (48, 24));
        assert_eq!(item.mask.is_some(), fit == Fit::Pad);
        let right = source.item(0, Place { x: 1.0, y: 0.0 }).unwrap();
        assert_eq!(item != right, fit == Fit::RandomCrop);
    }
    let message = source(|o| o.form.channels = 2).unwrap_err().to_string();
    assert!(
        message.contains("1 (grey), 3, or 4 (opaque alpha)"),
        "{message}"
    );
}

#[test]
fn styles_have_names() {
    for style in EmojiStyle::ALL {
        assert_eq!(style.to_string().parse::<EmojiStyle>().unwrap(), style);
        assert_eq!(
            serde_json::to_string(&style).unwrap(),
            format!("\"{style}\"")
        );
    }
    let message = "chalk".parse::<EmojiStyle>().unwrap_err().to_string();
    assert!(
        message.contains("noto or fluent") && message.contains("chalk"),
        "{message}"
    );
}
