/// What went wrong, with what was expected and what was found.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// A picture's values do not fill its sides.
    #[error("a picture of {width}x{height} has {expected} values, found {found}")]
    Length {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Three per pixel.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A value outside the range of its kind.
    #[error(
        "value {index} of a picture is {value}, expected -1 to 1; pictures in 0 to 1 or 0 to 255 have to be converted first"
    )]
    Range {
        /// Which value.
        index: usize,
        /// The value.
        value: f32,
    },
    /// Two pictures that are compared have different sizes.
    #[error("the pictures have different sizes: {a:?} and {b:?} (width, height)")]
    Sizes {
        /// Of the first.
        a: (usize, usize),
        /// Of the second.
        b: (usize, usize),
    },
    /// A picture is smaller than the window.
    #[error("a picture of {width}x{height} is smaller than the window of {window}x{window}")]
    Window {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Side of the window.
        window: usize,
    },
    /// Numbers that are no rows of this length.
    #[error("{found} numbers do not make rows of {dim}")]
    Rows {
        /// Length of a row.
        dim: usize,
        /// Numbers found.
        found: usize,
    },
    /// A number that is infinite or none.
    #[error("{what} is {value} at row {row}, column {column}; expected finite numbers")]
    NotFinite {
        /// What holds it.
        what: &'static str,
        /// Row.
        row: usize,
        /// Column.
        column: usize,
        /// The number.
        value: f64,
    },
    /// Vectors of different length.
    #[error("{what}: expected the same length, found {a} and {b}")]
    Dimensions {
        /// What is compared.
        what: &'static str,
        /// Of the first.
        a: usize,
        /// Of the second.
        b: usize,
    },
    /// Too few samples.
    #[error("{what} needs at least {needed} samples, found {found}")]
    TooFew {
        /// What is computed.
        what: &'static str,
        /// The least number.
        needed: usize,
        /// How many there are.
        found: usize,
    },
    /// A subset larger than its set.
    #[error(
        "subsets of {size} cannot be drawn without replacement from sets of {a} and {b}; the largest possible size is {}", a.min(b)
    )]
    Subset {
        /// The size asked for.
        size: usize,
        /// Samples of the first set.
        a: usize,
        /// Samples of the second.
        b: usize,
    },
    /// A row index beyond the set.
    #[error("index {index} is outside a set of {n} samples")]
    Index {
        /// The index.
        index: usize,
        /// Samples.
        n: usize,
    },
    /// A matrix that is no covariance.
    #[error("this is no covariance matrix: {problem}")]
    Covariance {
        /// What speaks against it.
        problem: String,
    },
    /// A vector of length zero has no direction.
    #[error("{what} is zero and has no direction")]
    Zero {
        /// Which vector.
        what: &'static str,
    },
    /// The decomposition did not converge.
    #[error("the singular values could not be found")]
    NoConvergence,
}

/// A result with this crate's error.
pub type Result<T> = std::result::Result<T, MetricsError>;
