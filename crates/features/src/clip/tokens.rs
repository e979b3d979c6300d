use std::path::Path;
use tokenizers::Tokenizer;

/// CLIP's tokens for the start and the end of a text.
const START: u32 = 49406;
const END: u32 = 49407;

/// CLIP's file has 2 to 4 MB.
const LONGEST: u64 = 32 << 20;

/// Cuts texts into CLIP's tokens, as the `tokenizer.json` next to a model says.
#[derive(Clone, Debug)]
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    context: usize,
}

impl ClipTokenizer {
    /// Reads a `tokenizer.json`; texts may have up to `context` tokens.
    ///
    /// # Errors
    /// A message that names the file.
    pub fn open(path: &Path, context: usize) -> Result<Self, String> {
        let bytes = sdft_files::read_regular(path, LONGEST)
            .map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        // The library panics on some damaged files.
        let read = sdft_files::guarded(|| Tokenizer::from_bytes(&bytes));
        let mut tokenizer = match read {
            Some(Ok(tokenizer)) => tokenizer,
            Some(Err(e)) => return Err(format!("{}: not a tokenizer.json: {e}", path.display())),
            None => {
                return Err(format!(
                    "{}: not a tokenizer.json that can be read: it is damaged or cut off; fetch it again",
                    path.display()
                ));
            }
        };
        // Too long a text is an error here, not something to cut silently.
        tokenizer
            .with_truncation(None)
            .map_err(|e| format!("{}: {e}", path.display()))?;
        tokenizer.with_padding(None);
        Ok(Self { tokenizer, context })
    }

    /// The tokens of a text with those for its start and end, not padded.
    ///
    /// # Errors
    /// A text of more tokens than the context.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        let encoding = sdft_files::guarded(|| self.tokenizer.encode(text, true))
            .ok_or_else(|| {
                format!("the tokenizer fails on {text:?}: its tokenizer.json is damaged")
            })?
            .map_err(|e| format!("{text:?}: {e}"))?;
        let ids = encoding.get_ids().to_vec();
        let ends = [ids.first(), ids.last()].map(|id| id.copied().unwrap_or(0));
        if ends != [START, END] {
            return Err(format!(
                "the tokenizer gives {text:?} the first and last tokens {ends:?}, expected CLIP's {START} and {END}"
            ));
        }
        // What a tokenizer does not know becomes its end token, and the text would end there.
        if ids[1..ids.len() - 1]
            .iter()
            .any(|id| [START, END].contains(id))
        {
            return Err(format!(
                "the text {text:?} has a part that the tokenizer does not know, or one of its own marks"
            ));
        }
        if ids.len() > self.context {
            return Err(format!(
                "the text {text:?} has {} tokens with start and end, expected at most {}",
                ids.len(),
                self.context
            ));
        }
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tokenizer of three words with CLIP's marks.
    const SMALL: &str = r#"{
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "decoder": null,
        "added_tokens": [
            {"id": 49406, "content": "<|startoftext|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
            {"id": 49407, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}
        ],
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "RobertaProcessing", "sep": ["<|endoftext|>", 49407], "cls": ["<|startoftext|>", 49406], "trim_offsets": false, "add_prefix_space": false},
        "model": {"type": "WordLevel", "vocab": {"a": 1, "smiling": 2, "face": 3, "<|startoftext|>": 49406, "<|endoftext|>": 49407}, "unk_token": "<|endoftext|>"}
    }"#;

    /// The start of CLIP's own file, which makes the library panic.
    const CUT: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":49406,"content":"<|startoftext|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":true,"special":false},{"id":49407,"content":"<|endoftext|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Replace","pattern":{"Regex":"\\s+"},"content":" "},{"type":"Lowercase"}]},"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"},"behavior":"Removed","invert":true},{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true}]},"post_processor":{"type":"RobertaProcessing","sep":["<|endoftext|>",49407],"cls":["<|startoftext|>",49406],"trim_offsets":false,"add_prefix_space":false},"decoder":{"type":"ByteLevel""#;

    #[test]
    fn a_file_that_was_cut_off_anywhere_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        for text in [CUT, SMALL] {
            for n in (0..text.len() - 1).step_by(7).chain([text.len() - 1]) {
                std::fs::write(&path, &text[..n]).unwrap();
                let error = ClipTokenizer::open(&path, 6).unwrap_err();
                assert!(error.contains("tokenizer.json"), "{n}: {error}");
            }
        }
        std::fs::write(&path, CUT).unwrap();
        let error = ClipTokenizer::open(&path, 6).unwrap_err();
        assert!(error.contains("not a tokenizer.json"), "{error}");
        assert!(
            ClipTokenizer::open(dir.path(), 6)
                .unwrap_err()
                .contains("a folder")
        );
    }

    #[test]
    fn texts_become_tokens_and_what_cannot_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        std::fs::write(&path, SMALL).unwrap();
        let tokenizer = ClipTokenizer::open(&path, 6).unwrap();
        let encode = |text: &str| tokenizer.encode(text);
        assert_eq!(encode("a smiling face").unwrap(), [START, 1, 2, 3, END]);
        assert_eq!(encode("").unwrap(), [START, END]);
        let long = encode("a a smiling smiling face").unwrap_err();
        assert!(
            long.contains("has 7 tokens") && long.contains("at most 6"),
            "{long}"
        );
        for text in ["a grinning face", "face <|endoftext|> a"] {
            let unknown = encode(text).unwrap_err();
            assert!(
                unknown.contains("does not know") && unknown.contains(text),
                "{unknown}"
            );
        }
        std::fs::write(&path, "{}").unwrap();
        let broken = ClipTokenizer::open(&path, 6).unwrap_err();
        assert!(broken.contains("not a tokenizer.json"), "{broken}");
    }
}
