//! What the operations of a network cost, next to what the machine could do: a roofline in numbers.

use serde_json::Value;

/// One line for each kind of operation, the most expensive first; empty if they were not measured.
///
/// `floor` is the time that the products of an operation take at the measured speed of matrix products, or its inputs and results through
/// memory, whichever is longer. `peak` is infinite where that speed was not measured.
pub(crate) fn table(measured: &Value, peak: f64, bandwidth: f64) -> String {
    let (Some(total), Some(parts)) = (measured["seconds"].as_f64(), measured["parts"].as_object())
    else {
        return String::new();
    };
    let number = |part: &Value, name: &str| part[name].as_f64().unwrap_or_default();
    let mut parts: Vec<_> = parts.iter().collect();
    parts.sort_by(|a, b| number(b.1, "seconds").total_cmp(&number(a.1, "seconds")));
    let mut text = format!(
        "\n    {:<24} {:>6} {:>9} {:>6} {:>7} {:>6} {:>9}",
        "part", "calls", "ms", "share", "GF/s", "GB/s", "floor ms"
    );
    let mut rest = total;
    for (name, part) in parts {
        let (seconds, flops, bytes) = (
            number(part, "seconds"),
            number(part, "flops"),
            number(part, "bytes"),
        );
        rest -= seconds;
        let rate = if flops > 0.0 {
            format!("{:.0}", flops / seconds / 1e9)
        } else {
            "-".to_owned()
        };
        text += &format!(
            "\n    {name:<24} {:>6} {:>9.2} {:>5.1}% {rate:>7} {:>6.1} {:>9.2}",
            number(part, "calls"),
            1e3 * seconds,
            100.0 * seconds / total,
            bytes / seconds / 1e9,
            1e3 * (number(part, "flops_of_products") / peak).max(bytes / bandwidth),
        );
    }
    text + &format!(
        "\n    {:<24} {:>6} {:>9.2} {:>5.1}%",
        "the rest",
        "",
        1e3 * rest,
        100.0 * rest / total
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_floor_is_that_of_the_products_or_of_memory() {
        let measured = json!({
            "seconds": 0.010,
            "parts": {
                "add": { "calls": 3, "seconds": 0.002, "flops": 0.0, "bytes": 8e6 },
                "conv2d": { "calls": 2, "seconds": 0.006, "flops": 6e8, "flops_of_products": 2e8, "bytes": 1e6 },
            },
        });
        let text = table(&measured, 1e11, 8e9);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[2],
            ["conv2d", "2", "6.00", "60.0%", "100", "0.2", "2.00"]
        );
        assert_eq!(lines[3], ["add", "3", "2.00", "20.0%", "-", "4.0", "1.00"]);
        assert_eq!(lines[4], ["the", "rest", "2.00", "20.0%"]);
        assert_eq!(table(&Value::Null, 1e11, 8e9), "");
    }
}
