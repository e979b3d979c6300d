//! The files of a repository, by the API of the Hub.

use reqwest::{Response, StatusCode, Url, header::LINK};
use sdft_assets::{HubFile, RepoType};
use serde::Deserialize;

use crate::{
    HubError, Result,
    ask::{Failure, Web},
};

/// Bytes of one page of a list; the Hub's have a thousand entries.
const MAX_PAGE: usize = 16 << 20;

/// An entry of a list: a file or a folder.
#[derive(Deserialize)]
struct Entry {
    r#type: String,
    path: String,
}

impl Web {
    /// Paths of the files of a repository at a revision, up to so many.
    pub(crate) async fn list(&self, file: &HubFile, most: usize) -> Result<Vec<String>> {
        let failed = |reason: String| HubError::Unreachable {
            what: file.to_string(),
            server: self.server(),
            reason,
        };
        let mut paths = Vec::new();
        let mut next = Some(self.tree(file)?);
        while let Some(url) = next {
            let response = self.get(&url, 0).await.map_err(|failure| match failure {
                Failure::Lasting(error) => error,
                Failure::Unreachable(reason) | Failure::Passing { reason, .. } => failed(reason),
            })?;
            if !response.status().is_success() {
                return Err(failed(refusal(&response)));
            }
            next = next_page(&response, &url);
            let page = self.page(response).await.map_err(failed)?;
            let files = page.into_iter().filter(|entry| entry.r#type == "file");
            paths.extend(files.map(|entry| entry.path));
            if paths.len() >= most {
                paths.truncate(most);
                break;
            }
        }
        Ok(paths)
    }

    /// The address of the list of all files.
    fn tree(&self, file: &HubFile) -> Result<Url> {
        let bad = |_| HubError::Environment("HF_ENDPOINT: no address".to_owned());
        let mut url = Url::parse(&self.settings.endpoint).map_err(bad)?;
        if let Ok(mut parts) = url.path_segments_mut() {
            parts.pop_if_empty().push("api").push(match file.repo_type {
                RepoType::Model => "models",
                RepoType::Dataset => "datasets",
            });
            parts.extend(file.repo.split('/'));
            // A revision is one segment, whatever is in it.
            parts.push("tree").push(&file.revision);
        }
        url.set_query(Some("recursive=true"));
        Ok(url)
    }

    async fn page(&self, mut response: Response) -> std::result::Result<Vec<Entry>, String> {
        let mut body = Vec::new();
        loop {
            let chunk = response.chunk().await.map_err(|e| match self.failure(e) {
                Failure::Unreachable(reason) | Failure::Passing { reason, .. } => reason,
                Failure::Lasting(error) => error.to_string(),
            })?;
            let Some(chunk) = chunk else { break };
            if body.len() + chunk.len() > MAX_PAGE {
                return Err(format!("its list of files exceeds {MAX_PAGE} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|_| "its list of files is not as the Hub's".into())
    }
}

/// Where the list goes on.
fn next_page(response: &Response, url: &Url) -> Option<Url> {
    let links = response.headers().get(LINK)?.to_str().ok()?;
    let next = links
        .split(',')
        .find(|link| link.contains("rel=\"next\""))?;
    let address = next.split_once('<')?.1.split_once('>')?.0;
    url.join(address).ok()
}

fn refusal(response: &Response) -> String {
    let code = response.headers().get("x-error-code");
    let code = code.and_then(|code| code.to_str().ok()).unwrap_or_default();
    match (code, response.status()) {
        ("RepoNotFound", _) => "there is no such repository".to_owned(),
        ("RevisionNotFound", _) => "there is no such revision".to_owned(),
        (_, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            "access is refused; a token may be needed (set HF_TOKEN)".to_owned()
        }
        (_, status) => format!("its files cannot be listed ({status})"),
    }
}
