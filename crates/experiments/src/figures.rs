//! The figures of the paper.

use Target::{Aahq, Metfaces};

/// A target domain of the paper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// MetFaces: portraits in works of art.
    #[default]
    Metfaces,
    /// AAHQ: artistic faces.
    Aahq,
}

impl Target {
    /// The name in folders and commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metfaces => "metfaces",
            Self::Aahq => "aahq",
        }
    }
}

/// A table of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaperTable {
    /// Domain translation.
    Table1,
    /// Text-guided editing.
    Table2,
    /// Unconditional samples.
    Table3,
    /// Weights of the distillation.
    Table4,
}

impl PaperTable {
    pub(crate) fn contents(self) -> &'static Table {
        match self {
            Self::Table1 => &TABLE_1,
            Self::Table2 => &TABLE_2,
            Self::Table3 => &TABLE_3,
            Self::Table4 => &TABLE_4,
        }
    }
}

/// The contents of a table.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) columns: &'static [&'static str],
    pub(crate) rows: &'static [Row],
}

/// A row of a table.
pub(crate) struct Row {
    pub(crate) target: Target,
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// How its model or outputs are made.
    pub(crate) made_by: &'static str,
    /// The paper's figures in the order of the columns.
    pub(crate) figures: &'static [f64],
}

const fn row(
    target: Target,
    name: &'static str,
    made_by: &'static str,
    figures: &'static [f64],
) -> Row {
    Row {
        target,
        name,
        made_by,
        figures,
    }
}

/// Options of the methods, in addition to the target's configuration and `--data`.
const SCRATCH: &str = "--method scratch";
const NAIVE: &str = "--source FILE --method naive";
const SDFT: &str = "--source FILE --method sdft";
const CONSTANT: &str =
    "--source FILE --method sdft --set loss.weight=constant --set loss.weight_aux=constant";
const MIN_SNR: &str =
    "--source FILE --method sdft --set loss.weight=min-snr-5 --set loss.weight_aux=min-snr-5";

const SDEDIT: &str =
    "translations of the inputs: cargo xtask translate --model RUN --input INPUTS --out DIR";
const EGSDE: &str = "translations of the inputs: cargo xtask translate --model RUN --input INPUTS --out DIR --method egsde --classifier RUN, which is from cargo xtask train-classifier --source INPUTS --target DATA --steps 1500 (AAHQ: 4500)";
const TABLE_1: Table = Table {
    name: "table1",
    what: "domain translation: faithfulness to the FFHQ inputs, realism against the whole target set",
    columns: &["PSNR", "SSIM", "LPIPS", "FID", "KID x1000"],
    rows: &[
        row(
            Metfaces,
            "sdedit-scratch",
            SDEDIT,
            &[13.8, 0.31, 0.579, 74.63, 52.45],
        ),
        row(
            Metfaces,
            "sdedit-naive",
            SDEDIT,
            &[14.95, 0.309, 0.533, 56.42, 37.00],
        ),
        row(
            Metfaces,
            "sdedit-sdft",
            SDEDIT,
            &[16.44, 0.353, 0.481, 65.18, 40.95],
        ),
        row(
            Metfaces,
            "egsde-scratch",
            EGSDE,
            &[15.15, 0.31, 0.539, 89.67, 71.14],
        ),
        row(
            Metfaces,
            "egsde-naive",
            EGSDE,
            &[16.03, 0.333, 0.509, 70.02, 50.52],
        ),
        row(
            Metfaces,
            "egsde-sdft",
            EGSDE,
            &[17.42, 0.392, 0.440, 70.78, 43.84],
        ),
        row(
            Aahq,
            "sdedit-scratch",
            SDEDIT,
            &[14.26, 0.362, 0.521, 65.54, 63.42],
        ),
        row(
            Aahq,
            "sdedit-naive",
            SDEDIT,
            &[14.60, 0.374, 0.489, 54.75, 48.69],
        ),
        row(
            Aahq,
            "sdedit-sdft",
            SDEDIT,
            &[14.59, 0.369, 0.486, 51.12, 44.46],
        ),
        row(
            Aahq,
            "egsde-scratch",
            EGSDE,
            &[15.91, 0.407, 0.464, 82.00, 78.26],
        ),
        row(
            Aahq,
            "egsde-naive",
            EGSDE,
            &[16.18, 0.422, 0.430, 65.14, 57.30],
        ),
        row(
            Aahq,
            "egsde-sdft",
            EGSDE,
            &[16.13, 0.421, 0.423, 60.49, 52.24],
        ),
    ],
};

#[expect(
    clippy::approx_constant,
    reason = "a measured figure happens to be near a constant"
)]
const TABLE_2: Table = Table {
    name: "table2",
    what: "text-guided editing by Asyrp: directional CLIP similarity and identity, mean over smiling, sad, angry, young and old",
    columns: &["S_dir", "ID"],
    rows: &[
        row(Metfaces, "naive", NAIVE, &[0.060, 0.760]),
        row(Metfaces, "sdft", SDFT, &[0.081, 0.765]),
        row(Aahq, "naive", NAIVE, &[0.133, 0.318]),
        row(Aahq, "sdft", SDFT, &[0.143, 0.452]),
    ],
};

const TABLE_3: Table = Table {
    name: "table3",
    what: "unconditional samples against the whole target set; LPIPS to the source model's sample from the same noise",
    columns: &["FID", "KID x1000", "LPIPS"],
    rows: &[
        row(Metfaces, "scratch", SCRATCH, &[65.91, 44.79, 0.488]),
        row(Metfaces, "naive", NAIVE, &[43.45, 22.81, 0.474]),
        row(Metfaces, "sdft", SDFT, &[35.11, 17.14, 0.46]),
        row(Aahq, "scratch", SCRATCH, &[62.48, 48.67, 0.575]),
        row(Aahq, "naive", NAIVE, &[64.08, 56.70, 0.562]),
        row(Aahq, "sdft", SDFT, &[42.54, 33.75, 0.469]),
    ],
};

const TABLE_4: Table = Table {
    name: "table4",
    what: "weighting of the distillation, as table3",
    columns: &["FID", "KID x1000", "LPIPS"],
    rows: &[
        row(Metfaces, "constant", CONSTANT, &[45.21, 28.42, 0.494]),
        row(Metfaces, "min-snr-5", MIN_SNR, &[44.75, 27.96, 0.476]),
        row(Metfaces, "sdft", SDFT, &[35.11, 17.14, 0.46]),
    ],
};
