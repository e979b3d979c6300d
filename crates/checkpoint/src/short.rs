//! Names from a file, short enough for a message.

const MOST: usize = 80;

/// `text`, or its beginning and its length if it is long.
pub(crate) fn short(text: &str) -> String {
    if text.len() <= MOST {
        return text.to_owned();
    }
    format!("{}… ({} bytes)", start(text, MOST - 20), text.len())
}

/// At most the first `len` bytes.
pub(crate) fn start(text: &str, len: usize) -> &str {
    let mut end = len.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The first names of a list, and how many more there are.
pub(crate) fn list<T: AsRef<str>>(names: &[T], most: usize) -> String {
    let shown: Vec<String> = names.iter().take(most).map(|n| short(n.as_ref())).collect();
    let rest = names.len().saturating_sub(most);
    match rest {
        0 => shown.join(", "),
        _ => format!("{} and {rest} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_between_characters() {
        assert_eq!(short("conv.weight"), "conv.weight");
        let long = "ü".repeat(500);
        let shown = short(&long);
        assert!(
            shown.len() < 90 && shown.ends_with("(1000 bytes)"),
            "{shown}"
        );
        assert_eq!(list(&["a", "b", "c"], 2), "a, b and 1 more");
    }
}
