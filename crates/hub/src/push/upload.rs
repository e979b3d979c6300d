//! The upload: one commit, so that a repository has all files of a call or none.

use sdft_files::plural;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use hf_hub::{
    HFClient, HFClientSync, HFError,
    progress::{ProgressEvent, ProgressHandler, UploadEvent},
    repository::{CommitOperation, RepoTypeModel},
};

use super::{Publication, files::Content};
use crate::{
    FetchProgress, HubError, Result, Settings,
    client::{HubClient, reason},
    secrets::plain_address,
};

/// How often progress is shown.
const TICK: Duration = Duration::from_millis(100);

/// What a repository has after a call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The call changed nothing.
    Untouched,
    /// The repository exists, without the files of this call.
    WithoutFiles,
    /// The server got everything, and its answer was lost.
    Unknown,
}

impl State {
    fn describe(self) -> &'static str {
        match self {
            Self::Untouched => "nothing was published",
            Self::WithoutFiles => {
                "none of the files was published, though the repository exists; the same command tries again"
            }
            Self::Unknown => {
                "all files were sent, but the answer was lost, so they may be published; the same command publishes them again"
            }
        }
    }
}

impl Settings {
    /// Fails unless files can be published with these settings.
    ///
    /// # Errors
    /// The network is disabled, there is no token, or the server's address is invalid.
    pub fn check_for_publishing(&self) -> Result<()> {
        self.check()?;
        if self.offline {
            return Err(HubError::Environment(
                "publishing needs the network, which is disabled (HF_HUB_OFFLINE)".to_owned(),
            ));
        }
        if self.token.get().is_none() {
            return Err(HubError::Environment(
                "no token: publishing needs one with write access; set HF_TOKEN, or log in with `hf auth login`".to_owned(),
            ));
        }
        Ok(())
    }
}

impl Publication {
    /// Publishes the files as one commit and returns the address of the repository. A repository that does not exist is made, `private` if
    /// asked for; a branch that does not exist is made, too.
    ///
    /// # Errors
    /// Those of [`Settings::check_for_publishing`]; the server cannot be reached or refuses. The message states what was published.
    pub fn upload(
        &self,
        settings: &Settings,
        private: bool,
        progress: &mut dyn FetchProgress,
    ) -> Result<String> {
        settings.check_for_publishing()?;
        let session = Session {
            client: client(settings)?,
            settings,
            publication: self,
        };
        session.prepare(private, progress)?;
        session.commit(progress)?;
        Ok(session.address())
    }
}

/// The official client with these settings.
fn client(settings: &Settings) -> Result<HFClientSync> {
    let retry = &settings.retry;
    // The official client counts repetitions, and its default HTTP client has no timeout.
    let mut builder = HFClient::builder()
        .endpoint(&settings.endpoint)
        .cache_dir(settings.cache.root())
        .retry_max_attempts(retry.max_attempts.saturating_sub(1) as usize)
        .retry_base_delay(retry.initial_delay)
        .client(HubClient::new(settings.clone())?.client());
    if let Some(token) = settings.token.get() {
        builder = builder.token(token);
    }
    builder
        .build_sync()
        .map_err(|_| HubError::Environment("no network client for publishing".to_owned()))
}

/// One call.
struct Session<'a> {
    client: HFClientSync,
    settings: &'a Settings,
    publication: &'a Publication,
}

impl Session<'_> {
    /// The address of the repository for people.
    fn address(&self) -> String {
        let target = &self.publication.target;
        let server = plain_address(&self.settings.endpoint);
        let tree = target.revision.as_ref();
        let tree = tree.map_or_else(String::new, |branch| format!("/tree/{branch}"));
        format!("{server}/{}{tree}", target.repository())
    }

    /// Makes the repository and the branch, unless they exist.
    fn prepare(&self, private: bool, progress: &mut dyn FetchProgress) -> Result<()> {
        let target = &self.publication.target;
        let repository = self.client.model(&*target.owner, &*target.name);
        let untouched = |error| self.failure(error, State::Untouched);
        if repository.exists().send().map_err(untouched)? {
            if private {
                progress.note(&format!(
                    "{} exists, so its visibility does not change; --private is for a new one",
                    target.repository()
                ));
            }
        } else {
            self.client
                .create_repository()
                .repo_id(&target.repository())
                .repo_type(RepoTypeModel)
                .private(private)
                .exist_ok(true)
                .send()
                .map_err(untouched)?;
        }
        if let Some(branch) = target
            .revision
            .as_deref()
            .filter(|branch| *branch != "main")
        {
            let without = |error| self.failure(error, State::WithoutFiles);
            if !repository
                .revision_exists()
                .revision(branch)
                .send()
                .map_err(without)?
            {
                repository
                    .create_branch()
                    .branch(branch)
                    .send()
                    .map_err(without)?;
            }
        }
        Ok(())
    }

    /// Sends all files and commits them.
    fn commit(&self, progress: &mut dyn FetchProgress) -> Result<()> {
        let Publication { target, files, .. } = self.publication;
        let operations = files.iter().map(|file| match &file.content {
            Content::File(path) => CommitOperation::add_file(file.path.as_str(), path.as_path()),
            Content::Text(text) => {
                CommitOperation::add_bytes(file.path.as_str(), text.clone().into_bytes())
            }
        });
        let operations: Vec<CommitOperation> = operations.collect();
        let total = files.iter().map(|file| file.size).sum();
        let repository = self.client.model(&*target.owner, &*target.name);
        let (sender, receiver) = mpsc::channel();
        let is_committing = Arc::new(AtomicBool::new(false));
        let handler = Handler {
            sender,
            is_committing: Arc::clone(&is_committing),
        };
        progress.begin(
            &format!(
                "{} to {}",
                plural(files.len(), "file", "files"),
                target.repository()
            ),
            Some(total),
        );
        let sent = thread::scope(|scope| {
            let job = scope.spawn(move || {
                repository
                    .create_commit()
                    .operations(operations)
                    .commit_message("Upload a model with sdft")
                    .maybe_revision(target.revision.clone())
                    .progress(handler)
                    .send()
            });
            // A task of the client may keep the sender after an error, so the end of the job ends the loop, too.
            while !job.is_finished() {
                match receiver.recv_timeout(TICK) {
                    Ok(have) => progress.bytes(have),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            job.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        match sent {
            Ok(_) => {
                progress.done();
                Ok(())
            }
            Err(error) => {
                let is_lost = matches!(
                    error,
                    HFError::Request { .. } | HFError::Json(_) | HFError::MalformedResponse { .. }
                );
                let state = match is_committing.load(Ordering::SeqCst) && is_lost {
                    true => State::Unknown,
                    false => State::WithoutFiles,
                };
                Err(self.failure(error, state))
            }
        }
    }

    /// An error of the official client, without addresses and tokens.
    fn failure(&self, error: HFError, state: State) -> HubError {
        let target = &self.publication.target;
        let owner = &target.owner;
        let (context, meaning) = match error {
            HFError::AuthRequired { context } => (
                Some(context),
                "the token was rejected; set HF_TOKEN to a valid one with write access".to_owned(),
            ),
            HFError::Forbidden { context } => (
                Some(context),
                format!(
                    "the token may not write here; it needs write access to the repositories of {owner}"
                ),
            ),
            HFError::RepoNotFound { context, .. } | HFError::RevisionNotFound { context, .. } => (
                context,
                "the repository or the branch does not exist, or the token has no access to it"
                    .to_owned(),
            ),
            HFError::Conflict { context } => (
                Some(context),
                "the repository changed at the same time".to_owned(),
            ),
            HFError::RateLimited {
                retry_after,
                context,
            } => (
                Some(context),
                match retry_after {
                    Some(delay) => format!("too many requests; try again in {} s", delay.as_secs()),
                    None => "too many requests; try again later".to_owned(),
                },
            ),
            HFError::Http { context } => (Some(context), "the request failed".to_owned()),
            HFError::Request { source, .. } => (None, format!("no answer: {}", reason(source))),
            HFError::Io(source) => (None, format!("a file cannot be read: {source}")),
            HFError::Xet { source, .. } => (
                None,
                format!("the transfer of the files failed: {}", cause(&*source)),
            ),
            HFError::Json(_) | HFError::MalformedResponse { .. } => (
                None,
                "the answer does not follow the Hub's protocol".to_owned(),
            ),
            _ => (None, "the official client failed".to_owned()),
        };
        let mut text = String::new();
        if let Some(context) = context {
            text = format!("answered {}: ", context.status.as_u16());
            text.push_str(&meaning);
            if let Some(message) = &context.server_message {
                let short: String = message.chars().take(300).collect();
                text.push_str(&format!(" ({short})"));
            }
        } else {
            text.push_str(&meaning);
        }
        HubError::NotPublished {
            repository: target.repository(),
            server: plain_address(&self.settings.endpoint),
            reason: self.settings.token.hide(&text),
            state: state.describe(),
        }
    }
}

/// The root cause of an error.
fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(next) = error.source() {
        error = next;
    }
    let text: String = error.to_string().chars().take(300).collect();
    // Addresses may be signed.
    let words = text
        .split_whitespace()
        .map(|word| match word.contains("://") {
            true => "..",
            false => word,
        });
    words.collect::<Vec<_>>().join(" ")
}

/// Passes the bytes of the official client on.
struct Handler {
    sender: Sender<u64>,
    is_committing: Arc<AtomicBool>,
}

impl ProgressHandler for Handler {
    fn on_progress(&self, event: &ProgressEvent) {
        match event {
            ProgressEvent::Upload(UploadEvent::Progress {
                bytes_completed, ..
            }) => {
                // The receiver exists as long as the job.
                let _ = self.sender.send(*bytes_completed);
            }
            ProgressEvent::Upload(UploadEvent::Committing) => {
                self.is_committing.store(true, Ordering::SeqCst);
            }
            _ => {}
        }
    }
}
