use std::path::Path;
use tokenizers::Tokenizer;

/// CLIP's tokens for the start and the end of a text.
const START: u32 = 49406;
const END: u32 = 49407;

/// Cuts texts into CLIP's tokens, as the `tokenizer.json` beside a model says.
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
        let mut tokenizer = Tokenizer::from_file(path)
            .map_err(|e| format!("{}: not a tokenizer.json: {e}", path.display()))?;
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
        let encoding = self
            .tokenizer
            .encode(text, true)
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
