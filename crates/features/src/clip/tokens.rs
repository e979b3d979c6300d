//! CLIP's tokenizer.

use crate::Error;
use std::path::Path;
use tokenizers::Tokenizer;

/// CLIP's tokens for the start and the end of a text.
const START: u32 = 49406;
const END: u32 = 49407;

/// CLIP's file has 2 to 4 MB.
const LONGEST: u64 = 32 << 20;

/// Splits texts into CLIP's tokens by the `tokenizer.json` of the model.
#[derive(Clone, Debug)]
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    context: usize,
}

impl ClipTokenizer {
    /// Reads a `tokenizer.json`; texts may have up to `context` tokens.
    ///
    /// # Errors
    /// A file that cannot be read or is not a tokenizer.
    pub fn open(path: &Path, context: usize) -> Result<Self, Error> {
        let problem = |problem: String| Error::Tokenizer {
            path: path.to_owned(),
            problem,
        };
        let bytes = sdft_files::read_regular(path, LONGEST)
            .map_err(|e| problem(format!("cannot be read: {e}")))?;
        // The library panics on some damaged files.
        let read = sdft_files::guarded(|| Tokenizer::from_bytes(&bytes));
        let mut tokenizer = match read {
            Some(Ok(tokenizer)) => tokenizer,
            Some(Err(e)) => return Err(problem(format!("not a tokenizer.json: {e}"))),
            None => {
                return Err(problem(
                    "not a tokenizer.json: it is damaged or truncated; fetch it again".to_owned(),
                ));
            }
        };
        // A text that is too long is an error, and not truncated silently.
        tokenizer
            .with_truncation(None)
            .map_err(|e| problem(e.to_string()))?;
        tokenizer.with_padding(None);
        Ok(Self { tokenizer, context })
    }

    /// The tokens of a text, with the start and end tokens and without padding.
    ///
    /// # Errors
    /// A text of more tokens than the context.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let problem = |problem: String| Error::Text {
            text: text.to_owned(),
            problem,
        };
        let encoding = sdft_files::guarded(|| self.tokenizer.encode(text, true))
            .ok_or_else(|| {
                problem("makes the tokenizer fail: its tokenizer.json is damaged".to_owned())
            })?
            .map_err(|e| problem(format!("has no tokens: {e}")))?;
        let ids = encoding.get_ids().to_vec();
        let ends = [ids.first(), ids.last()].map(|id| id.copied().unwrap_or(0));
        if ends != [START, END] {
            return Err(problem(format!(
                "has {ends:?} as its first and last tokens, expected CLIP's {START} and {END}: this is the tokenizer.json of another model"
            )));
        }
        // The tokenizer maps unknown parts to the end token, where the text would end.
        if ids[1..ids.len() - 1]
            .iter()
            .any(|id| [START, END].contains(id))
        {
            return Err(problem(
                "has a part that the tokenizer does not know, or one of its special tokens"
                    .to_owned(),
            ));
        }
        if ids.len() > self.context {
            return Err(problem(format!(
                "has {} tokens with start and end, expected at most {}",
                ids.len(),
                self.context
            )));
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
                let error = ClipTokenizer::open(&path, 6).unwrap_err().to_string();
                assert!(error.contains("tokenizer.json"), "{n}: {error}");
            }
        }
        std::fs::write(&path, CUT).unwrap();
        let error = ClipTokenizer::open(&path, 6).unwrap_err().to_string();
        assert!(error.contains("not a tokenizer.json"), "{error}");
        assert!(
            ClipTokenizer::open(dir.path(), 6)
                .unwrap_err()
                .to_string()
                .contains("a folder")
        );
    }

    #[test]
    fn texts_become_tokens_or_errors_that_quote_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        std::fs::write(&path, SMALL).unwrap();
        let tokenizer = ClipTokenizer::open(&path, 6).unwrap();
        let encode = |text: &str| tokenizer.encode(text);
        assert_eq!(encode("a smiling face").unwrap(), [START, 1, 2, 3, END]);
        assert_eq!(encode("").unwrap(), [START, END]);
        let long = encode("a a smiling smiling face").unwrap_err().to_string();
        assert!(
            long.contains("has 7 tokens") && long.contains("at most 6"),
            "{long}"
        );
        for text in ["a grinning face", "face <|endoftext|> a"] {
            let unknown = encode(text).unwrap_err().to_string();
            assert!(
                unknown.contains("does not know") && unknown.contains(text),
                "{unknown}"
            );
        }
        std::fs::write(&path, "{}").unwrap();
        let broken = ClipTokenizer::open(&path, 6).unwrap_err().to_string();
        assert!(broken.contains("not a tokenizer.json"), "{broken}");
    }
}
