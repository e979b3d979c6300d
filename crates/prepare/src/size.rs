//! Sizes as text.

/// A size from `256` or `192x256`: height and width in pixels, as everywhere in this field. `None` for any other text.
#[must_use]
pub fn parse_size(text: &str) -> Option<[usize; 2]> {
    let side = |text: &str| {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|side| is_number && *side > 0)
    };
    match text.split_once(['x', 'X']) {
        Some((height, width)) => Some([side(height)?, side(width)?]),
        None => side(text).map(|side| [side; 2]),
    }
}

/// A size as [`parse_size`] reads it: `256`, or `192x256`.
#[must_use]
pub fn size_text([height, width]: [usize; 2]) -> String {
    match height == width {
        true => height.to_string(),
        false => format!("{height}x{width}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_a_side_or_height_and_width() {
        for (text, size) in [
            ("256", Some([256, 256])),
            ("192x256", Some([192, 256])),
            ("16X24", Some([16, 24])),
            ("0", None),
            ("16x0", None),
            ("+16", None),
            ("16x", None),
            ("x", None),
            ("16x24x3", None),
        ] {
            assert_eq!(parse_size(text), size, "{text}");
        }
        assert_eq!([[8, 8], [8, 9]].map(size_text), ["8", "8x9"]);
    }
}
