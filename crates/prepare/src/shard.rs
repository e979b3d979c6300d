//! Reads images and their classes from tar files, as WebDataset shards them.

use std::{collections::HashMap, path::Path};

use sdft_imaging::{Kind, Limits, START, is_named_like_a_picture, kind_of_bytes};
use tar::{EntryType, Header, PaxExtensions};

use crate::{
    PrepareError, Result,
    archive::{Entry, is_hidden},
    error::{EntryResult, Reason},
    input::{Content, Input, Item, Passed},
    labels::{self, Label},
    shared::Shared,
};

/// Size of a header, and what contents are padded to.
const BLOCK: u64 = 512;
/// Longest name and list of extended attributes of a member.
const LONGEST: u64 = 1 << 20;
/// Longest text with a class.
const TEXT: u64 = 1 << 20;

/// A member that is not a folder.
struct Member {
    name: String,
    at: u64,
    len: u64,
    /// What it is if it is not a plain file.
    odd: Option<&'static str>,
}

/// What the members of one key say about their image.
#[derive(Default)]
struct Sample {
    label: Option<Label>,
    /// The name of the first picture with an extension of one part, which is the image; `KEY.mask.png` and arrays next to it are not.
    image: Option<String>,
}

/// Lists the images of a tar file. Members `KEY.png`, `KEY.cls` and `KEY.json` are one sample: an image and its class.
pub(crate) fn open(path: &Path) -> Result<Input> {
    let io = |cause| PrepareError::Io {
        path: path.to_owned(),
        cause,
    };
    let file = Shared::open(path).map_err(io)?;
    let (members, is_ended) = members(&file).map_err(|reason| PrepareError::Broken {
        path: path.to_owned(),
        kind: "tar",
        reason: reason.to_string(),
    })?;
    let mut samples: HashMap<&str, Sample> = HashMap::new();
    for member in members.iter().filter(|member| member.odd.is_none()) {
        let (key, ending) = split(&member.name);
        let label = match ending.as_str() {
            "cls" => Some(labels::of_text as fn(&[u8]) -> Option<Label>),
            "json" => Some(labels::of_json as fn(&[u8]) -> Option<Label>),
            _ => None,
        };
        if let Some(read) = label {
            let text = match member.len <= TEXT {
                true => file.bytes(member.at, member.len).map_err(io)?,
                false => Vec::new(),
            };
            let sample = samples.entry(key).or_default();
            // A number in `.cls` is the usual place.
            match ending.as_str() {
                "cls" => sample.label = read(&text).or(sample.label.take()),
                _ => sample.label = sample.label.take().or_else(|| read(&text)),
            }
        } else if is_picture(&member.name) && !ending.contains('.') && !is_array(&ending) {
            let sample = samples.entry(key).or_default();
            sample.image.get_or_insert_with(|| member.name.clone());
        }
    }
    let items: Vec<Item> = members
        .iter()
        .map(|member| item(member, samples.get(split(&member.name).0), &file))
        .collect();
    let mut input = Input::default();
    input.push(items.len(), items.into_iter());
    if !is_ended {
        let reason = "the archive has no end marker, so members may be missing";
        input.refuse("end of the archive".to_owned(), reason);
    }
    Ok(input)
}

/// The entry for a member of a sample.
fn item(member: &Member, sample: Option<&Sample>, file: &Shared) -> Item {
    let name = &member.name;
    let (_, ending) = split(name);
    let image = sample.and_then(|sample| sample.image.as_deref());
    let content = match (member.odd, image) {
        _ if is_hidden(name) => Content::Passed(Passed::Hidden),
        (Some(what), _) if is_picture(name) => {
            Content::Refused(format!("the entry is {what}, not an image"))
        }
        (Some(_), _) => Content::Passed(Passed::Other),
        (None, Some(_)) if ["cls", "json"].contains(&ending.as_str()) => {
            Content::Passed(Passed::Label)
        }
        (None, Some(_)) if is_array(&ending) => Content::Passed(Passed::Other),
        (None, Some(image)) if ending.contains('.') && is_picture(name) => {
            Content::Refused(format!("another part of the sample whose image is {image}"))
        }
        (None, _) => Content::Part(file.clone(), member.at, member.len),
    };
    Item {
        label: sample.and_then(|sample| sample.label.clone()),
        ..Item::new(name, content)
    }
}

/// The bytes of a member that may be an image, or the reason why it cannot be read.
pub(crate) fn read(
    file: &Shared,
    [at, len]: [u64; 2],
    name: &str,
    limits: &Limits,
) -> EntryResult<Entry> {
    let failed = |error: std::io::Error| Reason::from(format!("cannot be read: {error}"));
    let start = file.bytes(at, len.min(START as u64)).map_err(failed)?;
    if kind_of_bytes(&start) == Kind::Other && !is_picture(name) {
        return Ok(Entry::Other);
    }
    if len > limits.max_bytes {
        let limit = limits.max_bytes;
        return Err(format!("{len} bytes exceed the limit of {limit} bytes").into());
    }
    Ok(Entry::Bytes(file.bytes(at, len).map_err(failed)?))
}

fn is_picture(name: &str) -> bool {
    is_named_like_a_picture(Path::new(name))
}

/// Whether the extension is that of NumPy's files, which hold images or features.
fn is_array(ending: &str) -> bool {
    ["npy", "npz"].contains(&ending)
}

/// The key of a sample, and the lower-case rest behind the first dot of the file name: `a/01.seg.png` is `a/01` and `seg.png`.
fn split(name: &str) -> (&str, String) {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[start..].split_once('.') {
        Some((stem, ending)) => (&name[..start + stem.len()], ending.to_ascii_lowercase()),
        None => (name, String::new()),
    }
}

/// All members, and whether the archive has its end marker: two blocks of zeros. Archives that follow one another in a file are one.
fn members(file: &Shared) -> EntryResult<(Vec<Member>, bool)> {
    if file.len() < BLOCK {
        return Err("it is too short for a tar file".into());
    }
    let mut found: Vec<Member> = Vec::new();
    let (mut at, mut zeros) = (0, 0);
    let mut long_name: Option<Vec<u8>> = None;
    let mut attributes = Attributes::default();
    while at < file.len() {
        let last = found.last().map_or("its start", |member| &member.name);
        let truncated = |what: &str| Reason::from(format!("it is truncated {what} after {last}"));
        let left = file.len() - at;
        let block = file.bytes(at, left.min(BLOCK)).map_err(|e| e.to_string())?;
        if block.iter().all(|&byte| byte == 0) {
            (at, zeros) = (at + block.len() as u64, zeros + block.len() as u64);
            continue;
        }
        if left < BLOCK {
            return Err(truncated("in the header"));
        }
        zeros = 0;
        let header = Header::from_byte_slice(&block);
        let damaged = |e: std::io::Error| Reason::from(format!("the header after {last}: {e}"));
        // The checksum counts its own bytes as spaces.
        let others = block[..148].iter().chain(&block[156..]);
        let sum = others.map(|&byte| u32::from(byte)).sum::<u32>() + 8 * u32::from(b' ');
        if header.cksum().map_err(damaged)? != sum {
            return Err(format!("the header after {last} does not match its checksum").into());
        }
        let kind = header.entry_type();
        let describes = |kind: EntryType| {
            kind.is_gnu_longname()
                || kind.is_gnu_longlink()
                || kind.is_pax_local_extensions()
                || kind.is_pax_global_extensions()
        };
        let mut len = header.entry_size().map_err(damaged)?;
        if let Some(stated) = attributes.size.filter(|_| !describes(kind)) {
            len = stated;
        }
        at += BLOCK;
        // The map of a sparse file may continue in blocks of its own, whose byte 504 states whether another one follows.
        let mut continues = kind.is_gnu_sparse() && block[482] != 0;
        while continues {
            let map = file
                .bytes(at, BLOCK)
                .map_err(|_| truncated("in a header"))?;
            (at, continues) = (at + BLOCK, map[504] != 0);
        }
        let end = at.checked_add(len).filter(|&end| end <= file.len());
        let end = end.ok_or_else(|| truncated("in the member"))?;
        if describes(kind) {
            if len > LONGEST {
                return Err(format!("a name or attributes of {len} bytes after {last}").into());
            }
            let content = file.bytes(at, len).map_err(|e| e.to_string())?;
            if kind.is_gnu_longname() {
                long_name = Some(content);
            } else if kind.is_pax_local_extensions() {
                attributes = Attributes::read(&content).map_err(damaged)?;
            }
        } else {
            let Attributes {
                path, is_sparse, ..
            } = std::mem::take(&mut attributes);
            let mut name = path.or(long_name.take());
            let name = name.get_or_insert_with(|| header.path_bytes().into_owned());
            while name.last() == Some(&0) {
                name.pop();
            }
            let text = String::from_utf8_lossy(name);
            let name = text.strip_prefix("./").unwrap_or(&text).to_owned();
            let odd = match kind {
                _ if kind.is_gnu_sparse() || is_sparse => Some("a sparse file"),
                EntryType::Regular | EntryType::Continuous => None,
                EntryType::Symlink | EntryType::Link => Some("a link"),
                EntryType::Fifo => Some("a pipe"),
                _ => Some("of an unknown kind"),
            };
            let is_folder = kind.is_dir() || name.ends_with('/');
            if !is_folder {
                found.push(Member { name, at, len, odd });
            }
        }
        // The last content need not be padded.
        at = end.next_multiple_of(BLOCK).min(file.len());
    }
    if attributes != Attributes::default() || long_name.is_some() {
        return Err("it is truncated behind the name of a member".into());
    }
    Ok((found, zeros >= 2 * BLOCK))
}

/// What a pax header says about the next member.
#[derive(Default, PartialEq)]
struct Attributes {
    path: Option<Vec<u8>>,
    size: Option<u64>,
    is_sparse: bool,
}

impl Attributes {
    fn read(content: &[u8]) -> std::io::Result<Self> {
        let mut all = Self::default();
        for record in PaxExtensions::new(content) {
            let record = record?;
            match record.key_bytes() {
                b"path" => all.path = Some(record.value_bytes().to_vec()),
                b"size" => all.size = record.value().ok().and_then(|size| size.parse().ok()),
                key if key.starts_with(b"GNU.sparse.") => {
                    all.is_sparse = true;
                    if key == b"GNU.sparse.name" {
                        all.path = Some(record.value_bytes().to_vec());
                    }
                }
                _ => {}
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_at_the_first_dot_of_the_file_name() {
        for (name, key, ending) in [
            ("01.jpg", "01", "jpg"),
            ("a.b/01.seg.PNG", "a.b/01", "seg.png"),
            ("a/b", "a/b", ""),
            ("", "", ""),
        ] {
            assert_eq!(split(name), (key, ending.to_owned()), "{name}");
        }
    }
}
