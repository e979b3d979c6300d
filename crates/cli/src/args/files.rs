//! Arguments of the commands on single files.

use super::whole;
use clap::{Args, ValueEnum};
use sdft_adapters::AdapterFile;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A .pt, .pkl or .safetensors file, a folder of diffusers or of a run, or a name such as `ffhq-10m`.
    #[arg(value_name = "FILE|DIR")]
    pub(crate) file: PathBuf,
    /// The part of the file to inspect if it holds several.
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// List every tensor.
    #[arg(long)]
    pub(crate) tensors: bool,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DtypeArg {
    F32,
    F16,
    Bf16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatArg {
    Safetensors,
    Diffusers,
    Peft,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PreferArg {
    Ema,
    Raw,
}

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// The model to read: a file, a run folder, or a name such as `ffhq-10m`.
    #[arg(value_name = "FILE|DIR")]
    pub(crate) input: PathBuf,
    /// The .safetensors file to write, or with --to diffusers or peft the folder.
    #[arg(value_name = "OUTPUT")]
    pub(crate) output: PathBuf,
    /// An adapter of the model and its scale, 1 if not given, merged into the output; several add up.
    #[arg(long, value_name = "FILE[=SCALE]")]
    pub(crate) adapter: Vec<AdapterFile>,
    /// What to write: a file of this program, a folder that diffusers' DDPMPipeline loads, or of a LoRA a folder that peft's PeftModel loads.
    #[arg(long, value_enum, default_value = "safetensors", value_name = "FORM")]
    pub(crate) to: FormatArg,
    /// Which weights to take if a file holds both.
    #[arg(long, value_enum, default_value = "ema")]
    pub(crate) prefer: PreferArg,
    /// The part of the file to take, by name.
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Number type of the output; that of the file if not given.
    #[arg(long, value_enum)]
    pub(crate) dtype: Option<DtypeArg>,
    /// The autoencoder of a model that works on latents, for files that do not state it: a file, a folder of diffusers, or a name such as
    /// `sd-vae-ft-mse`.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) autoencoder: Option<String>,
    /// A field of the architecture that the shapes do not show: `--set model.norm_groups=8`.
    ///
    /// A field of an autoencoder in the same file is `--set model.autoencoder.scaling_factor=1`, of one in a file of its own
    /// `--set model.scaling_factor=1`.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Replace the output if it exists.
    #[arg(long)]
    pub(crate) overwrite: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MissingArgs {
    /// The command.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "VERB ARGUMENTS"
    )]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct JudgeArgs {
    /// The embedded set whose images it judges.
    #[arg(value_enum, default_value = "digits")]
    pub(crate) set: JudgedSet,
    /// The .safetensors file to write; `digits-judge.safetensors` or `emoji-judge.safetensors` if not given.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Replace the file if it exists.
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Seed.
    #[arg(long, default_value_t = 0, value_parser = whole::<u64>)]
    pub(crate) seed: u64,
}

/// An embedded set that has a judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum JudgedSet {
    /// Digits of 16x16.
    Digits,
    /// Emoji of 32x32.
    Emoji,
}
