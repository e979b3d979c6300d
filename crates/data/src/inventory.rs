//! What an embedded set holds.

use std::fmt;

use serde::Serialize;

use crate::{COLUMNS, DIFFERS, Digits, Emoji, EmojiStyle, Result, Style};

/// What an embedded set holds, in each of its styles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Inventory {
    /// The name of the set.
    pub name: String,
    /// Width and height of its images in pixels.
    pub size: usize,
    /// Its styles.
    pub styles: Vec<String>,
    /// The number of images in each style.
    pub images: Vec<usize>,
    /// What images show.
    pub columns: Vec<InventoryColumn>,
    /// The name of every image.
    #[serde(skip)]
    pub ids: Vec<String>,
}

/// A property of images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct InventoryColumn {
    /// Its name.
    pub name: String,
    /// Its values, each with the number of images in each style.
    pub values: Vec<(String, Vec<usize>)>,
}

impl Inventory {
    /// Counts the images of the embedded set `emoji` or `digits`; `None` for other names.
    ///
    /// # Errors
    /// Never fails with the files that the program is built with.
    pub fn of(name: &str) -> Result<Option<Self>> {
        Ok(match name {
            "emoji" => Some(Self::of_emoji(&Emoji::embedded()?)),
            "digits" => Some(Self::of_digits(&Digits::embedded()?)),
            _ => None,
        })
    }

    fn of_emoji(emoji: &Emoji) -> Self {
        let entries = emoji.entries();
        let count = |column: Option<(&str, &str)>| {
            let shows = |i: &usize| {
                column.is_none_or(|(name, value)| entries[*i].value(name) == Some(value))
            };
            let of_style = |style| {
                (0..entries.len())
                    .filter(|&i| entries[i].has(style))
                    .filter(shows)
                    .count()
            };
            EmojiStyle::ALL.map(of_style).to_vec()
        };
        let columns = COLUMNS.iter().map(|(name, values)| {
            let values = values.iter().chain([&DIFFERS]);
            let counted = values.map(|value| (String::from(*value), count(Some((name, value)))));
            InventoryColumn {
                name: String::from(*name),
                values: counted
                    .filter(|(_, images)| images.iter().any(|&n| n > 0))
                    .collect(),
            }
        });
        Self {
            name: "emoji".to_owned(),
            size: Emoji::SIZE,
            styles: EmojiStyle::ALL.map(|style| style.to_string()).to_vec(),
            images: count(None),
            columns: columns.collect(),
            ids: entries
                .iter()
                .map(|entry| format!("emoji/{}", entry.code))
                .collect(),
        }
    }

    fn of_digits(digits: &Digits) -> Self {
        let labels = digits.labels();
        let count = |class: u8| labels.iter().filter(|label| **label == class).count();
        let values = (0..10).map(|class| (class.to_string(), vec![count(class); 2]));
        Self {
            name: "digits".to_owned(),
            size: Digits::SIZE,
            styles: Style::ALL.map(|style| style.to_string()).to_vec(),
            images: vec![labels.len(); 2],
            columns: vec![InventoryColumn {
                name: "digit".to_owned(),
                values: values.collect(),
            }],
            ids: (0..labels.len())
                .map(|i| format!("digits/{i:04}"))
                .collect(),
        }
    }
}

impl fmt::Display for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = |images: &[usize]| {
            let [first, rest @ ..] = images else {
                return String::new();
            };
            match rest.iter().all(|n| n == first) {
                true => first.to_string(),
                false => images
                    .iter()
                    .map(usize::to_string)
                    .collect::<Vec<_>>()
                    .join("/"),
            }
        };
        let size = self.size;
        write!(
            f,
            "{}: {} images of {size}x{size} in {}",
            self.name,
            numbers(&self.images),
            self.styles.join("/")
        )?;
        for column in &self.columns {
            let values = column.values.iter();
            let values: Vec<String> = values
                .map(|(value, images)| format!("{value} {}", numbers(images)))
                .collect();
            write!(f, "\n  {:8} {}", column.name, values.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_sets_are_counted_in_each_style() {
        let emoji = Inventory::of("emoji").unwrap().unwrap();
        assert_eq!(emoji.images, [3287, 2895]);
        assert_eq!(emoji.ids.len(), 3287);
        for column in &emoji.columns {
            for (style, all) in emoji.images.iter().enumerate() {
                let sum: usize = column.values.iter().map(|(_, images)| images[style]).sum();
                assert_eq!(sum, *all, "{}", column.name);
            }
        }
        let text = emoji.to_string();
        assert!(
            text.starts_with("emoji: 3287/2895 images of 32x32 in noto/fluent\n  kind     smiley "),
            "{text}"
        );
        assert!(
            text.contains("hat      no ") && text.contains("differs "),
            "{text}"
        );
        let digits = Inventory::of("digits").unwrap().unwrap().to_string();
        assert!(
            digits.contains("1797 images of 16x16 in chalk/ember\n  digit    0 178, 1 182"),
            "{digits}"
        );
        assert_eq!(Inventory::of("photos").unwrap(), None);
    }
}
