//! Files of the Hugging Face Hub: verified, resumable, in the cache of the official client.
//!
//! A [`Fetcher`] brings [`Wanted`] files into the cache that `huggingface_hub` and `sdft-assets` read. What the server calls the right
//! bytes is asked for first (commit, length, hash); then bytes are added to `blobs/HASH.incomplete`, beginning where an earlier call
//! stopped; only when their hash is right do they get their name:
//!
//! ```text
//! ask -> lock .locks/REPO/HASH.lock -> blobs/HASH.incomplete (resume, retry) -> hash right? -> blobs/HASH -> snapshots/COMMIT/PATH
//! ```
//!
//! The hash in the blob's name is the record of what was first fetched: a file that is in the cache is compared with it, and with that of
//! the manifest where there is one, before its path is given out.
//!
//! ```no_run
//! use sdft_hub::{Fetcher, Quiet, Settings, Wanted};
//!
//! let fetcher = Fetcher::new(Settings::from_environment()?)?;
//! for wanted in Wanted::of_asset(sdft_assets::asset("ffhq-10m").unwrap()) {
//!     println!("{}", fetcher.fetch(&wanted, &mut Quiet)?.path.display());
//! }
//! # Ok::<(), sdft_hub::HubError>(())
//! ```
//!
//! **Invariant:** the only crate that opens the network; a path is given out only for bytes whose hash was compared; a token appears in a
//! request's header and nowhere else.

mod ask;
mod digest;
mod error;
mod fetch;
mod pairs;
mod patience;
mod secrets;
mod settings;
mod store;
mod transfer;

pub use error::{HubError, Result};
pub use fetch::{FetchProgress, Fetched, Fetcher, Quiet, Wanted};
pub use pairs::{Pair, load_pair};
pub use patience::Patience;
pub use settings::Settings;
