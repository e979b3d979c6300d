//! Items that failed while the others were made.

use crate::{Error, Result};

/// Number of failures that are listed.
const LISTED: usize = 50;

/// Items that failed, each once, with its first reason.
#[derive(Clone, Debug)]
pub struct Failures {
    /// The plural of the items' name.
    what: &'static str,
    list: Vec<(String, String)>,
}

impl Failures {
    /// None yet, of items with this plural.
    pub fn new(what: &'static str) -> Self {
        Self {
            what,
            list: Vec::new(),
        }
    }

    /// Number of items that failed.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether nothing failed.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds an item and why it failed, unless it is listed already.
    pub fn add(&mut self, id: &str, why: String) {
        if self.list.iter().all(|(known, _)| known != id) {
            // A reason may begin with the item's name, which the list shows anyway.
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

    /// Fails with the list of failures among `all` items, if there are any.
    ///
    /// # Errors
    /// Something failed.
    pub fn check(&self, all: usize) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let listed = self.list.iter().take(LISTED);
        let mut lines: Vec<String> = listed.map(|(id, why)| format!("  {id}: {why}")).collect();
        if self.len() > LISTED {
            lines.push(format!("  and {} more", self.len() - LISTED));
        }
        let (n, what) = (self.len(), self.what);
        let rest = match n < all {
            true => ", the others are done",
            false => "",
        };
        Err(Error::Failures(format!(
            "{n} of {all} {what} failed{rest}:\n{}",
            lines.join("\n")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_listed_once_and_a_long_list_ends() {
        let mut failures = Failures::new("images");
        failures.check(3).unwrap();
        failures.add("a.png", "a.png: broken".into());
        failures.add("a.png", "again".into());
        let error = failures.check(3).unwrap_err().to_string();
        assert_eq!(
            error,
            "1 of 3 images failed, the others are done:\n  a.png: broken"
        );
        let error = failures.check(1).unwrap_err().to_string();
        assert!(error.starts_with("1 of 1 images failed:"), "{error}");
        for i in 0..60 {
            failures.add(&format!("{i}"), "broken".into());
        }
        let error = failures.check(99).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 1 + LISTED + 1);
        assert!(error.ends_with("and 11 more"), "{error}");
    }
}
