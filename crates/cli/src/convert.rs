//! `convert`: a model -> a `.safetensors` file or a folder of diffusers; an adapter -> a folder of peft.

use crate::args::{ConvertArgs, DtypeArg, FormatArg, PreferArg};
use crate::console;
use crate::model::model_path;
use crate::sample::{autoencoder, load_options};
use anyhow::Result;
use candle_core::DType;
use sdft_adapters::{Adapter, write_peft};
use sdft_checkpoint::Prefer;
use sdft_models::{convert_file, convert_to_diffusers};
use sdft_runtime::usage;

pub(crate) fn convert(args: &ConvertArgs) -> Result<()> {
    if args.to == FormatArg::Safetensors
        && args.output.extension().is_none_or(|e| e != "safetensors")
    {
        return Err(usage(format!(
            "{}: only .safetensors files are written, and folders with --to diffusers or peft",
            args.output.display()
        )));
    }
    if args.output.exists() && !args.overwrite {
        return Err(usage(format!(
            "{}: exists already; --overwrite replaces it",
            args.output.display()
        )));
    }
    if args.to == FormatArg::Peft {
        return convert_to_peft(args);
    }
    let located = model_path(&args.input)?;
    let input = &located.file;
    let same = match (input.canonicalize(), args.output.canonicalize()) {
        (Ok(input), Ok(output)) => input == output,
        _ => *input == args.output,
    };
    if same {
        return Err(usage("input and output are the same file"));
    }
    let mut options = load_options(&args.set, args.key.as_ref(), None)?;
    options.adapters.clone_from(&args.adapter);
    options.autoencoder = match autoencoder(args.autoencoder.as_deref())? {
        None => located.autoencoder.clone(),
        given => given,
    };
    options.prefer = match args.prefer {
        PreferArg::Ema => Prefer::Ema,
        PreferArg::Raw => Prefer::Raw,
    };
    let dtype = args.dtype.map(|dtype| match dtype {
        DtypeArg::F32 => DType::F32,
        DtypeArg::F16 => DType::F16,
        DtypeArg::Bf16 => DType::BF16,
    });
    let convert = match args.to {
        FormatArg::Diffusers => convert_to_diffusers,
        FormatArg::Safetensors | FormatArg::Peft => convert_file,
    };
    for note in convert(input, &args.output, &options, dtype)? {
        console::note(&note);
    }
    console::line(format_args!("{}", args.output.display()))?;
    Ok(())
}

/// The adapter in a file or a run as a folder of peft.
fn convert_to_peft(args: &ConvertArgs) -> Result<()> {
    let given = [
        ("--adapter", !args.adapter.is_empty()),
        ("--autoencoder", args.autoencoder.is_some()),
        ("--dtype", args.dtype.is_some()),
        ("--key", args.key.is_some()),
        ("--set", !args.set.is_empty()),
    ];
    if let Some((option, _)) = given.into_iter().find(|(_, given)| *given) {
        return Err(usage(format!("{option} has no effect on --to peft")));
    }
    let adapter = Adapter::read(&args.input)?;
    write_peft(&args.output, &adapter)?;
    console::line(format_args!("{}", args.output.display()))?;
    Ok(())
}
