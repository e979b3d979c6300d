/// A number of bytes as people read it: `374.3 MB`. Thousands, not 1024s, as the Hub's pages have it.
pub fn readable(bytes: u64) -> String {
    let b = bytes as f64;
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{:.1} kB", b / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", b / 1e6),
        _ => format!("{:.2} GB", b / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        assert_eq!(readable(999), "999 B");
        assert_eq!(readable(1500), "1.5 kB");
        assert_eq!(readable(374_255_640), "374.3 MB");
        assert_eq!(readable(7_393_819_690), "7.39 GB");
    }
}
