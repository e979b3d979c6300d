//! `convert`: a weights file -> a `.safetensors` file.

use crate::args::{ConvertArgs, DtypeArg, PreferArg};
use crate::console;
use crate::model::model_path;
use crate::sample::load_options;
use anyhow::Result;
use candle_core::DType;
use sdft_checkpoint::Prefer;
use sdft_models::convert_file;
use sdft_runtime::usage;

pub(crate) fn convert(args: &ConvertArgs) -> Result<()> {
    if args.output.extension().is_none_or(|e| e != "safetensors") {
        return Err(usage(format!(
            "{}: only .safetensors files are written",
            args.output.display()
        )));
    }
    if args.output.exists() && !args.overwrite {
        return Err(usage(format!(
            "{}: exists already; --overwrite replaces it",
            args.output.display()
        )));
    }
    let input = model_path(&args.input)?;
    let same = match (input.canonicalize(), args.output.canonicalize()) {
        (Ok(input), Ok(output)) => input == output,
        _ => input == args.output,
    };
    if same {
        return Err(usage("input and output are the same file"));
    }
    let mut options = load_options(&args.set, args.key.as_ref(), None)?;
    options.prefer = match args.prefer {
        PreferArg::Ema => Prefer::Ema,
        PreferArg::Raw => Prefer::Raw,
    };
    let dtype = args.dtype.map(|dtype| match dtype {
        DtypeArg::F32 => DType::F32,
        DtypeArg::F16 => DType::F16,
        DtypeArg::Bf16 => DType::BF16,
    });
    for note in convert_file(&input, &args.output, &options, dtype)? {
        console::note(&note);
    }
    console::line(format_args!("{}", args.output.display()))?;
    Ok(())
}
