//! The server's other half: it receives models as the Hub does, with its storage of large files.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{BufRead as _, BufReader, Read},
    net::TcpStream,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// A fault in the responses to one kind of request.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// This status with a message.
    Status(u16, &'static str),
    /// The connection is cut before the request has an effect.
    Cut,
    /// The connection is cut after the request has had its effect.
    CutAfter,
}

/// What the server got.
#[derive(Default)]
pub(crate) struct Received {
    /// Whether the repository exists.
    pub(crate) exists: bool,
    /// Whether it was made private.
    pub(crate) is_private: bool,
    /// Its branches other than `main`.
    pub(crate) branches: BTreeSet<String>,
    /// The commits: the branch and the files by their paths. A large file is the text `sha256:HASH SIZE`.
    pub(crate) commits: Vec<(String, BTreeMap<String, Vec<u8>>)>,
    /// The blocks of the storage of large files.
    pub(crate) blocks: Vec<Vec<u8>>,
    /// Methods and paths of all requests.
    pub(crate) requests: Vec<(String, String)>,
    /// From this size on, files go to the storage of large files.
    pub(crate) large: Option<u64>,
    /// The parts of paths whose requests fail, and how.
    pub(crate) refusals: VecDeque<(&'static str, Refusal)>,
}

/// What the server does with a request.
pub(crate) enum Reply {
    /// A status and a JSON body.
    Json(u16, Value),
    /// The connection is cut.
    Cut,
}

impl Received {
    /// The reply to a request of a client that publishes; `None` for other requests.
    pub(crate) fn reply(
        &mut self,
        method: &str,
        path: &str,
        body: &[u8],
        address: &str,
    ) -> Option<Reply> {
        let path = path.split('?').next().unwrap_or_default();
        let refusal = match self.refusals.front() {
            Some((part, _)) if path.contains(part) => {
                self.refusals.pop_front().map(|(_, refusal)| refusal)
            }
            _ => None,
        };
        match refusal {
            Some(Refusal::Status(status, message)) => {
                return Some(Reply::Json(status, json!({ "error": message })));
            }
            Some(Refusal::Cut) => return Some(Reply::Cut),
            _ => {}
        }
        let reply = self.answer(method, path, body, address)?;
        self.requests.push((method.to_owned(), path.to_owned()));
        match refusal {
            Some(Refusal::CutAfter) => Some(Reply::Cut),
            _ => Some(reply),
        }
    }

    fn answer(&mut self, method: &str, path: &str, body: &[u8], address: &str) -> Option<Reply> {
        let ok = |value: Value| Some(Reply::Json(200, value));
        let missing = || Some(Reply::Json(404, json!({ "error": "not found" })));
        let parsed = || serde_json::from_slice::<Value>(body).unwrap();
        match (method, path) {
            ("POST", "/api/repos/create") => {
                if self.exists {
                    return Some(Reply::Json(409, json!({ "error": "exists" })));
                }
                let body = parsed();
                self.exists = true;
                self.is_private = body["private"] == true;
                let url = format!(
                    "{address}/{}/{}",
                    body["organization"].as_str()?,
                    body["name"].as_str()?
                );
                return ok(json!({ "url": url }));
            }
            ("POST", "/v1/shards") => return ok(json!({ "result": 1 })),
            ("POST", "/v1/telemetry") => return ok(json!({})),
            ("POST", path) if path.starts_with("/v1/xorbs/") => {
                self.blocks.push(body.to_vec());
                return ok(json!({ "was_inserted": true }));
            }
            (_, path) if path.starts_with("/v1/") || path.starts_with("/v2/") => return missing(),
            ("POST", path) if path.ends_with(".git/info/lfs/objects/batch") => {
                return ok(json!({ "transfer": "xet", "objects": [] }));
            }
            _ => {}
        }
        let rest = path.strip_prefix("/api/models/")?;
        let mut parts = rest.split('/').skip(2);
        let (verb, branch) = (
            parts.next(),
            parts.next().map(|branch| branch.replace("%2F", "/")),
        );
        match (method, verb, branch) {
            ("GET", None, _) if self.exists => ok(json!({ "id": rest })),
            ("GET", Some("revision"), Some(branch)) if self.has(&branch) => {
                ok(json!({ "id": rest }))
            }
            ("GET", None | Some("revision"), _) => missing(),
            ("POST", Some("branch"), Some(branch)) => {
                self.branches.insert(branch);
                ok(json!({}))
            }
            ("POST", Some("preupload"), Some(branch)) if self.has(&branch) => {
                let is_large = |size: u64| self.large.is_some_and(|large| size >= large);
                let body = parsed();
                let files = body["files"].as_array()?.iter().map(|file| {
                    let mode = if is_large(file["size"].as_u64().unwrap()) {
                        "lfs"
                    } else {
                        "regular"
                    };
                    json!({ "path": file["path"], "uploadMode": mode })
                });
                let files: Vec<Value> = files.collect();
                ok(json!({ "files": files }))
            }
            ("GET", Some("xet-write-token"), _) => {
                ok(json!({ "accessToken": "storage", "exp": 4_000_000_000_u64, "casUrl": address }))
            }
            ("POST", Some("commit"), Some(branch)) if self.has(&branch) => {
                self.commits.push((branch, files_of(body)));
                ok(json!({ "success": true, "commitOid": super::COMMIT, "commitUrl": address }))
            }
            ("POST", ..) => missing(),
            _ => None,
        }
    }

    fn has(&self, branch: &str) -> bool {
        self.exists && (branch == "main" || self.branches.contains(branch))
    }
}

/// The files of a commit.
fn files_of(body: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let lines = body.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let entries = lines.map(|line| serde_json::from_slice::<Value>(line).unwrap());
    entries
        .filter_map(|entry| {
            let value = &entry["value"];
            let content = match entry["key"].as_str()? {
                "file" => STANDARD.decode(value["content"].as_str()?).unwrap(),
                "lfsFile" => {
                    format!("sha256:{} {}", value["oid"].as_str()?, value["size"]).into_bytes()
                }
                "header" => return None,
                other => panic!("{other}"),
            };
            Some((value["path"].as_str()?.to_owned(), content))
        })
        .collect()
}

/// The body of a request, by its length or in chunks.
pub(crate) fn body(
    reader: &mut BufReader<&TcpStream>,
    length: usize,
    is_chunked: bool,
) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if !is_chunked {
        reader.by_ref().take(length as u64).read_to_end(&mut body)?;
        return Ok(body);
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Ok(size @ 1..) = u64::from_str_radix(line.trim(), 16) else {
            reader.read_line(&mut line)?;
            return Ok(body);
        };
        reader.by_ref().take(size).read_to_end(&mut body)?;
        reader.read_line(&mut line)?;
    }
}
