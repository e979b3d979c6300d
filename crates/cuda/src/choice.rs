//! Which of cuDNN's engines computes a convolution, kept in files so that later processes choose the same.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Result;
use std::path::Path;

/// The memory order of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Order {
    ChannelsLast,
    /// The default of PyTorch.
    Planes,
}

/// An engine for the batches of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The order of the tensors that it reads and writes.
    pub(crate) order: Order,
    /// cuDNN's number of the engine.
    pub(crate) engine: i64,
    /// Its place among the variants of this engine that cuDNN recommends.
    pub(crate) variant: usize,
}

/// Batches whose sizes differ by less than a factor of four share a choice: the smallest of their sizes.
pub(crate) fn class(batch: usize) -> usize {
    1 << (batch.max(1).ilog2() / 2 * 2)
}

/// A name in characters that every file system takes.
pub(crate) fn file_name(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    name.chars()
        .map(|c| if plain(c) { c } else { '-' })
        .collect()
}

impl Choice {
    fn text(self) -> String {
        let order = match self.order {
            Order::ChannelsLast => "nhwc",
            Order::Planes => "nchw",
        };
        format!("{order} {} {}\n", self.engine, self.variant)
    }

    /// A text that [`Self::text`] wrote, if it is complete.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.strip_suffix('\n')?.split(' ');
        let order = match fields.next()? {
            "nhwc" => Order::ChannelsLast,
            "nchw" => Order::Planes,
            _ => return None,
        };
        let (engine, variant) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        fields.next().is_none().then_some(Self {
            order,
            engine,
            variant,
        })
    }

    /// The choice in a file; `None` if there is none, or the file is damaged.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(path).ok()?)
    }

    /// Writes the choice, unless another process has written one, and returns the one in the file. A damaged file is replaced.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn keep(self, path: &Path) -> Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Processes of several containers or machines may have the same number.
        let nonce = RandomState::new().build_hasher().finish();
        let temporary = folder.join(format!(".{name}.{}.{nonce:016x}", std::process::id()));
        fs::write(&temporary, self.text())?;
        // A link is made only if there is no such file, so the first of several processes wins.
        if fs::hard_link(&temporary, path).is_err() {
            if let Some(first) = Self::read(path) {
                // A file that stays is harmless.
                let _ = fs::remove_file(&temporary);
                return Ok(first);
            }
            fs::rename(&temporary, path)?;
            return Ok(self);
        }
        let _ = fs::remove_file(&temporary);
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Choice = Choice {
        order: Order::ChannelsLast,
        engine: 62,
        variant: 1,
    };
    const OTHER: Choice = Choice {
        order: Order::Planes,
        engine: 0,
        variant: 0,
    };

    fn in_folder(name: &str, test: impl FnOnce(&Path)) {
        let folder = std::env::temp_dir().join(format!("sdft-{name}-{}", std::process::id()));
        test(&folder.join("deeper").join("forward"));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_first_choice_is_kept() {
        in_folder("choices", |path| {
            assert_eq!(Choice::read(path), None);
            assert_eq!(FAST.keep(path).unwrap(), FAST);
            assert_eq!(OTHER.keep(path).unwrap(), FAST);
            assert_eq!(Choice::read(path), Some(FAST));
            let files = fs::read_dir(path.parent().unwrap()).unwrap().count();
            assert_eq!(files, 1);
        });
    }

    #[test]
    fn damaged_files_are_replaced() {
        in_folder("damaged-choices", |path| {
            FAST.keep(path).unwrap();
            let whole = FAST.text();
            for cut in 0..whole.len() {
                fs::write(path, &whole[..cut]).unwrap();
                assert_eq!(Choice::read(path), None, "{cut}");
            }
            fs::write(path, "nhwc 62 1 7\n").unwrap();
            assert_eq!(OTHER.keep(path).unwrap(), OTHER);
            assert_eq!(Choice::read(path), Some(OTHER));
        });
    }

    #[test]
    fn a_class_of_batches_spans_less_than_a_factor_of_four() {
        let classes = [0, 1, 3, 4, 15, 16, 63, 64].map(class);
        assert_eq!(classes, [1, 1, 1, 4, 4, 16, 16, 64]);
    }

    #[test]
    fn names_of_files_are_plain() {
        assert_eq!(file_name("NVIDIA H100/80GB"), "NVIDIA-H100-80GB");
    }
}
