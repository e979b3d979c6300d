//! Files of the Hugging Face Hub and of other servers: verified, resumable, in the cache of the official client.
//!
//! A [`Fetcher`] downloads [`Wanted`] files into the cache that `huggingface_hub` and `sdft-assets` read. It first requests the commit, size
//! and hash of a file. It then appends the bytes to `blobs/HASH.incomplete`, resuming an earlier call, and renames the file to its final name
//! only if the hash is correct:
//!
//! ```text
//! metadata -> lock .locks/REPO/HASH.lock -> blobs/HASH.incomplete (resume, retry) -> verify -> blobs/HASH -> snapshots/COMMIT/PATH
//! ```
//!
//! A server other than the Hub states no hash. Its file is downloaded by length and version (ETag or time of change), the SHA-256 is computed,
//! and becomes the name of the blob. Such a server gets no token, and may redirect only to itself.
//!
//! The name of a blob is the hash of the file that was first fetched. A file in the cache is compared with this hash, and with the manifest's
//! hash if there is one, before its path is returned.
//!
//! ```no_run
//! use sdft_hub::{Fetcher, NoopFetchProgress, Settings, Wanted};
//!
//! let fetcher = Fetcher::new(Settings::from_environment()?)?;
//! for wanted in Wanted::of_asset(sdft_assets::asset("ffhq-10m").unwrap()) {
//!     println!("{}", fetcher.fetch(&wanted, &mut NoopFetchProgress)?.path.display());
//! }
//! # Ok::<(), sdft_hub::HubError>(())
//! ```
//!
//! A [`Publication`] is the other direction: the files of a finished run with a generated model card. It is sent as one commit by the official
//! client, so a repository has all of its files or none.
//!
//! **Invariant:** the only crate that opens network connections; returns a path only after verifying the file's hash; sends a token only in
//! a request header and prints it nowhere; publishes only files that [`Publication::files`] lists.

mod cache_entry;
mod client;
mod digest;
mod error;
mod fetch;
mod pairs;
mod push;
mod retry;
mod secrets;
mod settings;
mod transfer;
mod web;

pub use error::{HubError, Result};
pub use fetch::{FetchProgress, Fetched, Fetcher, NoopFetchProgress, Wanted};
pub use pairs::{Pair, load_pair};
pub use push::{Publication, Target, Upload, write_card};
pub use retry::RetryPolicy;
pub use settings::Settings;
