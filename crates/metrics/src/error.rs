//! The error type of this crate.

/// Why a metric could not be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The number of values does not match the picture's size.
    #[error(
        "a picture of {width}x{height} with {channels} channels has {expected} values, found {found}"
    )]
    Length {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Number of channels.
        channels: usize,
        /// `channels * width * height`.
        expected: usize,
        /// Number of values given.
        found: usize,
    },
    /// A value is outside [-1, 1].
    #[error(
        "value {index} of a picture is {value}, expected -1 to 1; convert pictures in 0 to 1 or 0 to 255 first"
    )]
    Range {
        /// Index of the value.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The lowest and the highest possible value of a picture are no range.
    #[error("a range from {low} to {high}: expected two finite numbers, the lower one first")]
    EmptyRange {
        /// The lowest value.
        low: f64,
        /// The highest value.
        high: f64,
    },
    /// Two pictures have different numbers of channels.
    #[error("the pictures have different numbers of channels: {a} and {b}")]
    Channels {
        /// Channels of the first picture.
        a: usize,
        /// Channels of the second picture.
        b: usize,
    },
    /// Two pictures have different ranges of values.
    #[error(
        "the pictures have different ranges of values: {} to {} and {} to {}", a[0], a[1], b[0], b[1]
    )]
    Ranges {
        /// Range of the first picture.
        a: [f64; 2],
        /// Range of the second picture.
        b: [f64; 2],
    },
    /// The grey value of a picture that is not RGB.
    #[error("grey is a sum of red, green and blue, found {found} channels")]
    NotRgb {
        /// Number of channels.
        found: usize,
    },
    /// Two pictures have different sizes.
    #[error("the pictures have different sizes: {a:?} and {b:?} (width, height)")]
    Sizes {
        /// Size of the first picture.
        a: (usize, usize),
        /// Size of the second picture.
        b: (usize, usize),
    },
    /// A picture is smaller than the window.
    #[error("a picture of {width}x{height} is smaller than the window of {window}x{window}")]
    Window {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Side of the window in pixels.
        window: usize,
    },
    /// The number of values is not a multiple of the row length.
    #[error("{found} numbers do not make rows of {dim}")]
    Rows {
        /// Length of a row.
        dim: usize,
        /// Number of values given.
        found: usize,
    },
    /// A value is NaN or infinite.
    #[error("{what} is {value} at row {row}, column {column}; expected a finite number")]
    NotFinite {
        /// What contains it.
        what: &'static str,
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
        /// Its value.
        value: f64,
    },
    /// Vectors have different lengths.
    #[error("{what}: expected the same length, found {a} and {b}")]
    Dimensions {
        /// What is compared.
        what: &'static str,
        /// Length of the first.
        a: usize,
        /// Length of the second.
        b: usize,
    },
    /// There are too few samples.
    #[error("{what} needs at least {needed} samples, found {found}")]
    TooFew {
        /// What is computed.
        what: &'static str,
        /// Smallest number of samples.
        needed: usize,
        /// Number of samples given.
        found: usize,
    },
    /// A subset is larger than its set.
    #[error(
        "subsets of {size} cannot be drawn without replacement from sets of {a} and {b}; the largest possible size is {}", a.min(b)
    )]
    Subset {
        /// The requested size.
        size: usize,
        /// Number of samples in the first set.
        a: usize,
        /// Number of samples in the second set.
        b: usize,
    },
    /// A row index is out of range.
    #[error("index {index} is outside a set of {n} samples")]
    Index {
        /// The index.
        index: usize,
        /// Number of samples.
        n: usize,
    },
    /// A matrix is not a covariance matrix.
    #[error("not a covariance matrix: {problem}")]
    Covariance {
        /// What is wrong with it.
        problem: String,
    },
    /// A vector is zero and has no direction.
    #[error("{what} is zero and has no direction")]
    Zero {
        /// Which vector.
        what: &'static str,
    },
    /// The singular value decomposition did not converge.
    #[error("the singular value decomposition did not converge")]
    NoConvergence,
}

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, MetricsError>;
