//! What could not be made, while the rest was.

use anyhow::{Result, bail};

/// So many are listed at most.
const LISTED: usize = 50;

/// Items that failed, each once, with the first reason.
pub(crate) struct Failures {
    /// What the items are called.
    what: &'static str,
    list: Vec<(String, String)>,
}

impl Failures {
    pub(crate) fn new(what: &'static str) -> Self {
        Self {
            what,
            list: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn add(&mut self, id: &str, why: String) {
        if self.list.iter().all(|(known, _)| known != id) {
            // A reason that begins with the item's name is not to say it twice.
            let why = match why
                .strip_prefix(id)
                .and_then(|rest| rest.strip_prefix(": "))
            {
                Some(rest) => rest.to_owned(),
                None => why,
            };
            self.list.push((id.to_owned(), why));
        }
    }

    /// Fails with the list of what failed, if anything did.
    ///
    /// # Errors
    /// Something failed.
    pub(crate) fn conclude(&self, all: usize) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let listed = self.list.iter().take(LISTED);
        let mut lines: Vec<String> = listed.map(|(id, why)| format!("  {id}: {why}")).collect();
        if self.len() > LISTED {
            lines.push(format!("  and {} more", self.len() - LISTED));
        }
        bail!(
            "{} of {all} {} failed, the others are done:\n{}",
            self.len(),
            self.what,
            lines.join("\n")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_listed_once_and_a_long_list_ends() {
        let mut failures = Failures::new("images");
        failures.conclude(3).unwrap();
        failures.add("a.png", "a.png: broken".into());
        failures.add("a.png", "again".into());
        let error = failures.conclude(3).unwrap_err().to_string();
        assert_eq!(
            error,
            "1 of 3 images failed, the others are done:\n  a.png: broken"
        );
        for i in 0..60 {
            failures.add(&format!("{i}"), "broken".into());
        }
        let error = failures.conclude(99).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 1 + LISTED + 1);
        assert!(error.ends_with("and 11 more"), "{error}");
    }
}
