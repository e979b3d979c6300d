//! Phrases that the documentation, comments and messages of this project avoid.

/// Each phrase (whole words, any case) and what to write instead.
const PHRASES: [(&str, &str); 62] = [
    ("a look at", "name the action: reads, checks, measures"),
    ("a number that is none", "NaN"),
    ("anew", "again"),
    ("are told", "name the call or message"),
    ("as none", "as missing"),
    ("as was said", "leave it out"),
    ("asks for nothing", "requests nothing"),
    ("at leisure", "leave it out"),
    ("became of", "the result, or what happened to"),
    ("becomes of", "the result, or what happens to"),
    ("beside", "next to, or compared with"),
    ("breaks off", "is interrupted"),
    ("broken off", "interrupted"),
    ("brought here", "fetched"),
    ("can be had", "can be read, or exists"),
    ("cannot be had", "cannot be read, or does not exist"),
    ("comes of it", "the result"),
    ("counts as gone", "counts as disconnected"),
    ("everybody", "every process, or every user"),
    ("for ever", "forever, or without end"),
    ("gives back", "returns"),
    ("gives out", "returns"),
    ("go on", "continue"),
    ("goes on", "continues"),
    ("going on", "continuing"),
    ("handed back", "returned"),
    ("handed on", "passed, or forwarded"),
    ("handed out", "returned"),
    ("hands back", "returns"),
    ("hands on", "passes, or forwards"),
    ("has gone", "is disconnected, or exited"),
    ("have gone", "are disconnected, or exited"),
    ("hears", "is called with, or receives"),
    ("in any company", "regardless of batch"),
    ("in few words", "briefly"),
    ("in vain", "without effect"),
    ("is put up with", "is accepted"),
    ("is told", "name the call or message"),
    ("keeps silent", "prints nothing, or sends nothing"),
    ("left as it is", "unchanged"),
    ("look at", "inspect, check, read or measure"),
    ("looked at", "inspected, checked, read or measured"),
    ("looks at", "inspects, checks, reads or measures"),
    ("makes no sense", "is invalid"),
    ("mean harm", "hostile"),
    ("must be said", "state it"),
    ("nobody", "no process, no user, or nothing"),
    ("not here", "not in the cache, or missing"),
    ("once more", "again"),
    ("other people's code", "third-party code"),
    ("said so", "reported it"),
    ("say so", "report it"),
    ("says so", "reports it"),
    ("settled", "resolved"),
    ("settles", "resolves"),
    ("somebody", "a process, a user, or something"),
    ("that are none", "name what they are not, or invalid"),
    ("that is none", "name what it is not, or invalid"),
    ("to be had", "available"),
    ("what is not there", "what is missing"),
    ("whoever", "the caller, the process, or code that"),
    ("worth telling", "to report"),
];

/// One line for each phrase in a text file. Phrases across a line break are not found.
pub(super) fn check(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.to_lowercase();
        for (phrase, instead) in PHRASES.iter().filter(|(phrase, _)| has(&line, phrase)) {
            problems.push(format!(
                "{path}:{}: \"{phrase}\"; say instead: {instead}",
                i + 1
            ));
        }
    }
    problems
}

/// Whether `phrase` is in `line` as whole words.
fn has(line: &str, phrase: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(phrase).any(|(at, _)| {
        !line[..at].ends_with(is_word) && !line[at + phrase.len()..].starts_with(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_found_as_whole_words_in_any_case() {
        let text =
            "//! Besides, it looks ate.\n/// Nobody hears.\nlet text = \"a value that is none\";\n";
        assert_eq!(
            check("crates/a/src/a.rs", text),
            [
                "crates/a/src/a.rs:2: \"hears\"; say instead: is called with, or receives",
                "crates/a/src/a.rs:2: \"nobody\"; say instead: no process, no user, or nothing",
                "crates/a/src/a.rs:3: \"that is none\"; say instead: name what it is not, or invalid",
            ]
        );
        assert!(check("a.md", "let nobody_else = 1; // beside_it").is_empty());
    }

    #[test]
    fn the_list_is_sorted_and_in_lower_case() {
        assert!(PHRASES.is_sorted_by(|(a, _), (b, _)| a < b));
        assert!(
            PHRASES
                .iter()
                .all(|(phrase, _)| *phrase == phrase.to_lowercase())
        );
    }
}
