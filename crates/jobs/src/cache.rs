//! The cache of features and inversions.

use crate::context::Context;
use sdft_eval::{Extractor, FeatureCache};
use std::path::PathBuf;

/// The cache of networks' results between jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CacheLocation {
    /// In the folder `sdft` of the user's cache.
    #[default]
    User,
    /// In this folder.
    Folder(PathBuf),
    /// No cache.
    Nowhere,
}

impl CacheLocation {
    /// The folder of this kind of results; `None` without a cache or a user cache folder.
    pub fn folder(&self, name: &str) -> Option<PathBuf> {
        match self {
            Self::User => Some(user_cache()?.join("sdft").join(name)),
            Self::Folder(folder) => Some(folder.clone()),
            Self::Nowhere => None,
        }
    }

    /// Opens the cache of a network's features. A cache that cannot be used is replaced by memory, with a note.
    pub fn features(&self, extractor: &Extractor, context: &mut Context<'_>) -> FeatureCache {
        let none = || FeatureCache::none();
        let Some(folder) = self.folder("features") else {
            return none();
        };
        FeatureCache::open(&folder, &extractor.cache_key(), extractor.dim()).unwrap_or_else(
            |error| {
                let text = format!("features are not kept: {error}");
                context.progress.note(&text);
                none()
            },
        )
    }
}

fn user_cache() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|v| !v.is_empty());
    match folder("XDG_CACHE_HOME") {
        Some(cache) => Some(PathBuf::from(cache)),
        None => {
            let home = folder("HOME").or_else(|| folder("USERPROFILE"))?;
            Some(PathBuf::from(home).join(".cache"))
        }
    }
}
