//! Whether the network may be used.

/// Whether `HF_HUB_OFFLINE` forbids the network.
pub fn is_offline() -> bool {
    let value = std::env::var_os("HF_HUB_OFFLINE");
    value.is_some_and(|value| says_yes(&value.to_string_lossy()))
}

/// Whether the value of a variable of the environment means yes: `1`, `on`, `yes` or `true`, as the Python client reads it.
pub fn says_yes(value: &str) -> bool {
    let value = value.trim().to_ascii_lowercase();
    ["1", "on", "yes", "true"].contains(&value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_yes_are_those_of_the_python_client() {
        for (value, expected) in [
            ("1", true),
            ("TRUE", true),
            (" Yes ", true),
            ("0", false),
            ("", false),
            ("off", false),
        ] {
            assert_eq!(says_yes(value), expected, "{value}");
        }
    }
}
