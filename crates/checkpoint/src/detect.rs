//! Recognises kinds of files by their content.

use crate::error::Result;
use crate::input::Input;
use crate::safetensors_file;
use crate::state::Container;

/// The kind of a file, by its content.
pub(crate) fn detect(input: &mut Input<'_>) -> Result<Container> {
    if input.len == 0 {
        return Err(input.bad("the file is empty"));
    }
    let head = input.range(0, input.len.min(512))?;
    let starts = |magic: &[u8]| head.starts_with(magic);
    if starts(b"PK\x03\x04") {
        return Ok(Container::TorchZip);
    }
    if is_legacy(&head) {
        return Ok(Container::TorchLegacy);
    }
    let text = String::from_utf8_lossy(&head).to_lowercase();
    let text = text.trim_start();
    let problem = if text.starts_with("version https://git-lfs") {
        "this is a Git LFS pointer, not the weights: fetch the file itself (git lfs pull)"
    } else if text.starts_with("<!doctype") || text.starts_with("<html") {
        "this is a web page, not the weights: the download went to an error or log-in page"
    } else if starts(b"\x1f\x8b") {
        "this is a gzip archive; unpack it first"
    } else if head.get(257..262) == Some(b"ustar") {
        "this is a tar archive; unpack it first"
    } else {
        let mut length = [0; 8];
        if head.len() > 8 {
            length.copy_from_slice(&head[..8]);
            let length = u64::from_le_bytes(length);
            let fits = length <= safetensors_file::MOST_HEADER && head[8] == b'{';
            if fits && 8 + length <= input.len {
                return Ok(Container::Safetensors);
            }
            if fits {
                return Err(input.bad(format!("a safetensors file whose header should take {length} bytes: the file is cut off")));
            }
        }
        let named = input.path.to_string_lossy().ends_with(".index.json");
        if text.starts_with('{') && (named || text.contains("\"weight_map\"")) {
            return Ok(Container::Shards);
        }
        // The length of a header may begin with the same bytes, so this comes after safetensors.
        if matches!(head[..], [0x80, 2..=5, ..]) {
            return Ok(Container::Pickle);
        }
        "expected a PyTorch checkpoint (.pt, .pth), a snapshot (.pkl) or a .safetensors file, found something else"
    };
    Err(input.bad(problem))
}

/// The magic number of PyTorch's old files, pickled with any protocol; newer protocols put it into a frame.
pub(crate) fn is_legacy(head: &[u8]) -> bool {
    let [0x80, 2..=5, rest @ ..] = head else {
        return false;
    };
    let rest = match rest {
        [0x95, _, _, _, _, _, _, _, _, rest @ ..] => rest,
        rest => rest,
    };
    rest.starts_with(b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19")
}
