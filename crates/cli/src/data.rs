use crate::args::{DataArgs, DataVerb};
use crate::{console, usage};
use anyhow::Result;
use sdft_data::check_folder;
use std::process::ExitCode;

pub(crate) fn data(args: &DataArgs) -> Result<ExitCode> {
    match &args.verb {
        DataVerb::Check {
            dir,
            size,
            strict,
            json,
        } => {
            if !(1..=65_536).contains(size) {
                return Err(usage(format!("--size {size}: expected 1 to 65536")));
            }
            let report = check_folder(dir, *size)?;
            if *json {
                console::line(serde_json::to_string_pretty(&report)?)?;
            } else {
                console::line(&report)?;
            }
            let failed = *strict && !report.unreadable.is_empty();
            Ok(if failed {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            })
        }
    }
}
