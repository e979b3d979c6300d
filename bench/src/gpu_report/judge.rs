//! The requirements on speed and memory.

use super::Verdict;
use serde_json::Value;

/// What the measured cases show: nothing about a comparison that was not made.
pub(super) fn speed(cases: &Value) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for case in cases.as_array().into_iter().flatten() {
        let name = case["case"].as_str().unwrap_or_default();
        let own = case["wall"]["median"].as_f64();
        let others = case["all"].as_array().cloned().unwrap_or_default();
        let other = |wanted: &str| {
            let found = others.iter().find(|other| other["name"] == wanted)?;
            let theirs = found["wall"]["median"].as_f64();
            theirs.zip(own).map(|(theirs, own)| theirs / own)
        };
        let mut judge = |demand: String, found: Option<f64>, holds: fn(f64) -> bool| {
            if let Some(found) = found {
                verdicts.push(Verdict {
                    demand: format!("{name}: {demand}"),
                    found: format!("{found:.2}"),
                    holds: holds(found),
                });
            }
        };
        let naive = other("naive").map(|ratio| 1.0 / ratio);
        if name.ends_with("sdft step") {
            judge(
                "at most 1.6 times a naive step".to_owned(),
                naive,
                |ratio| ratio <= 1.6,
            );
        }
        judge(
            "at least 1.3 times PyTorch eager".to_owned(),
            other("eager"),
            |ratio| ratio >= 1.3,
        );
        judge(
            "as fast as PyTorch compiled".to_owned(),
            other("compile"),
            |ratio| ratio >= 1.0,
        );
        let theirs = others.iter().filter(|other| other["name"] != "naive");
        let peaks = theirs.filter_map(|other| other["peak_bytes"].as_f64());
        let share = case["peak_bytes"].as_f64().zip(peaks.reduce(f64::min));
        let share = share.map(|(own, least)| own / least);
        judge("at most PyTorch's memory".to_owned(), share, |share| {
            share <= 1.0
        });
    }
    verdicts
}

/// Whether cases are faster as graphs than as single launches; nothing about a case that one of them does not have.
pub(super) fn graphs([launches, graphs]: [Value; 2]) -> Vec<Verdict> {
    let rows = |cases: &Value| cases.as_array().cloned().unwrap_or_default();
    let launches = rows(&launches);
    let compared = rows(&graphs).into_iter().filter_map(|graph| {
        let plain = launches.iter().find(|case| case["case"] == graph["case"])?;
        let median = |case: &Value| case["wall"]["median"].as_f64();
        let ratio = median(plain)? / median(&graph)?;
        Some(Verdict {
            demand: format!(
                "{}: faster with SDFT_CUDA_GRAPHS=1",
                graph["case"].as_str()?
            ),
            found: format!("{ratio:.2}"),
            holds: ratio > 1.0,
        })
    });
    compared.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn graphs_are_compared_with_launches_of_the_same_case() {
        let case = |name: &str, wall: f64| json!({ "case": name, "wall": { "median": wall } });
        let found = graphs([
            json!([case("step", 2.0), case("ddim10", 1.0)]),
            json!([
                case("ddim10", 1.25),
                case("sdft step", 1.0),
                case("step", 1.6)
            ]),
        ]);
        let found = found.iter().map(|v| (&*v.demand, &*v.found, v.holds));
        assert_eq!(
            found.collect::<Vec<_>>(),
            [
                ("ddim10: faster with SDFT_CUDA_GRAPHS=1", "0.80", false),
                ("step: faster with SDFT_CUDA_GRAPHS=1", "1.25", true),
            ]
        );
        assert!(graphs([json!(null), json!([])]).is_empty());
    }

    #[test]
    fn each_comparison_that_was_made_has_a_verdict() {
        let other = |name: &str, wall: f64, peak: f64| json!({ "name": name, "wall": { "median": wall }, "peak_bytes": peak });
        let case = |name: &str, others: &[Value]| json!({ "case": name, "wall": { "median": 1.0 }, "peak_bytes": 5.0, "all": others });
        let found = |cases: &[Value]| -> Vec<(String, bool)> {
            let verdicts = speed(&json!(cases)).into_iter();
            verdicts
                .map(|v| (format!("{} {}", v.demand, v.found), v.holds))
                .collect()
        };
        assert!(found(&[case("light step", &[])]).is_empty());
        let eager = case("light step", &[other("eager", 1.2, 6.0)]);
        assert_eq!(
            found(&[eager]),
            [
                (
                    "light step: at least 1.3 times PyTorch eager 1.20".to_owned(),
                    false
                ),
                ("light step: at most PyTorch's memory 0.83".to_owned(), true),
            ]
        );
        let sdft = case("light sdft step", &[other("naive", 0.8, 4.0)]);
        let compiled = case("light step", &[other("compile", 1.1, 4.0)]);
        assert_eq!(
            found(&[sdft, compiled]),
            [
                (
                    "light sdft step: at most 1.6 times a naive step 1.25".to_owned(),
                    true
                ),
                (
                    "light step: as fast as PyTorch compiled 1.10".to_owned(),
                    true
                ),
                (
                    "light step: at most PyTorch's memory 1.25".to_owned(),
                    false
                ),
            ]
        );
    }
}
