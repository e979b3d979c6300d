//! Numbers for people.

use std::fmt::Display;

/// A number of bytes with a unit: `374.3 MB`. Units are powers of 1000, as on the pages of the Hugging Face Hub.
pub fn human_size(bytes: u64) -> String {
    let b = bytes as f64;
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{:.1} kB", b / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", b / 1e6),
        _ => format!("{:.2} GB", b / 1e9),
    }
}

/// A number and what it counts: `1 image`, `2 images`.
pub fn plural<N: Copy + Display + PartialEq + From<u8>>(n: N, one: &str, many: &str) -> String {
    format!("{n} {}", if n == N::from(1) { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_not_many() {
        let of = |n: u64| plural(n, "image", "images");
        assert_eq!([0, 1, 2].map(of), ["0 images", "1 image", "2 images"]);
    }

    #[test]
    fn a_size_has_the_largest_unit_that_it_reaches() {
        assert_eq!(human_size(999), "999 B");
        assert_eq!(human_size(1500), "1.5 kB");
        assert_eq!(human_size(374_255_640), "374.3 MB");
        assert_eq!(human_size(7_393_819_690), "7.39 GB");
    }
}
