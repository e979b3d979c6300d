//! Every key of a table must exist in the plan and have a value of its type.

use crate::error::{Error, Result};
use crate::keys;
use crate::table::{KINDS, Plan, defaults, kinds, overlay, put};
use toml::{Table, Value};

/// The longest text of settings, in bytes.
pub(crate) const MOST_BYTES: usize = 1 << 20;
/// The most brackets inside each other. No setting has more than two, and tables are walked recursively.
const MOST_BRACKETS: usize = 16;
/// The most bytes of a key.
pub(crate) const LONGEST_KEY: usize = 200;
/// Characters of a text that an error repeats.
pub(crate) const SHOWN: usize = 60;

/// Parses TOML, unless it is too long or too deeply nested.
pub(crate) fn parse(text: &str, origin: &str) -> Result<Table> {
    if text.len() > MOST_BYTES {
        return Err(Error::invalid(
            origin,
            format!("expected settings of at most {MOST_BYTES} bytes, found more"),
        ));
    }
    let (mut depth, mut deepest) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if deepest > MOST_BRACKETS {
        return Err(Error::invalid(
            origin,
            format!("expected at most {MOST_BRACKETS} nested brackets, found {deepest}"),
        ));
    }
    toml::from_str(text).map_err(|e| Error::invalid(origin, short(&e.to_string(), 1000)))
}

/// A text, or its beginning if it is longer than `most` characters.
pub(crate) fn short(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}.. ({} bytes)", &text[..end], text.len()),
    }
}

/// Fails on unknown keys, with the nearest known one, and on values of another type. The sections are of the kinds that `table` names, or
/// else `below`.
pub(crate) fn check<P: Plan>(table: &Table, below: &Table, origin: &str) -> Result<()> {
    let mut kinds = kinds(below);
    overlay(&mut kinds, self::kinds(table));
    let known = defaults::<P>(&kinds);
    let mut all = Vec::new();
    collect_keys(&known, "", &mut all);
    let plan = Keys {
        all,
        is_known: &|key, value| accepts::<P>(&known, key, value),
        problem: &|key, value| {
            let error = read::<P>(&known, key, value).err()?;
            Some(error.message().to_owned())
        },
        omitted: &|section| omitted::<P>(&known, section),
    };
    check_level(table, &known, "", &plan, origin)
}

/// Whether the plan has a key that its serialized default omits. Only a plan that denies unknown fields can have such keys.
fn accepts<P: Plan>(defaults: &Table, key: &str, value: &Value) -> bool {
    let unknown = format!("{key}__unknown");
    match read::<P>(defaults, key, value) {
        Ok(_) => read::<P>(defaults, &unknown, value).is_err(),
        // A key that does not exist has the same problem under any name.
        Err(error) => match read::<P>(defaults, &unknown, value) {
            Ok(_) => true,
            Err(unknown) => unknown.message().replace("__unknown", "") != error.message(),
        },
    }
}

/// The keys that the serialized default omits, by what serde expects instead of a key that does not exist. `section` may be one that it
/// omits as a whole.
fn omitted<P: Plan>(defaults: &Table, section: &str) -> Vec<String> {
    let mut sections = vec![String::new()];
    collect_sections(defaults, "", &mut sections);
    if !sections.iter().any(|known| known == section) {
        sections.push(section.to_owned());
    }
    let mut all = Vec::new();
    for section in sections {
        let Err(error) = read::<P>(defaults, &format!("{section}__unknown"), &true.into()) else {
            continue;
        };
        let Some((_, expected)) = error
            .message()
            .split_once("unknown field `__unknown`, expected ")
        else {
            continue;
        };
        let fields = expected.split('`').skip(1).step_by(2);
        all.extend(fields.map(|field| format!("{section}{field}")));
    }
    all
}

/// The sections of a table, each with a dot at its end.
fn collect_sections(table: &Table, prefix: &str, out: &mut Vec<String>) {
    for (key, value) in table {
        if let Value::Table(inner) = value {
            let section = format!("{prefix}{key}.");
            out.push(section.clone());
            collect_sections(inner, &section, out);
        }
    }
}

/// The plan with a value at a dotted key.
fn read<P: Plan>(
    defaults: &Table,
    key: &str,
    value: &Value,
) -> std::result::Result<P, toml::de::Error> {
    let mut table = defaults.clone();
    put(&mut table, key, value.clone());
    Value::Table(table).try_into()
}

/// A question about a key and its value.
type Asked<'a> = &'a dyn Fn(&str, &Value) -> bool;

/// The keys of a plan.
struct Keys<'a> {
    /// Those with a default value.
    all: Vec<String>,
    /// Whether another key exists.
    is_known: Asked<'a>,
    /// What is wrong with the value of a key, if anything is.
    problem: &'a dyn Fn(&str, &Value) -> Option<String>,
    /// The other keys that exist.
    omitted: &'a dyn Fn(&str) -> Vec<String>,
}

fn collect_keys(table: &Table, prefix: &str, out: &mut Vec<String>) {
    for (key, value) in table {
        let full = format!("{prefix}{key}");
        if let Value::Table(inner) = value {
            collect_keys(inner, &format!("{full}."), out);
        } else {
            out.push(full);
        }
    }
}

fn check_level(
    table: &Table,
    known: &Table,
    prefix: &str,
    plan: &Keys<'_>,
    origin: &str,
) -> Result<()> {
    for (key, value) in table {
        let full = format!("{prefix}{key}");
        match (known.get(key), value) {
            (None, _) => {
                if full.len() > LONGEST_KEY {
                    // The edit distance to a text of thousands of characters takes long and gives no hint.
                    let full = short(&full, SHOWN);
                    return Err(Error::invalid(origin, format!("there is no key {full}")));
                }
                if (plan.is_known)(&full, value) {
                    if let Value::Table(inner) = value {
                        check_level(inner, &Table::new(), &format!("{full}."), plan, origin)?;
                    }
                    continue;
                }
                let in_file = !origin.starts_with("--set");
                let mut all = plan.all.clone();
                let is_section = |key: &str| {
                    let inside = format!("{key}.");
                    plan.all.iter().any(|known| known.starts_with(&inside))
                };
                let others = (plan.omitted)(prefix).into_iter();
                all.extend(others.filter(|key| !plan.all.contains(key) && !is_section(key)));
                let mut problem = keys::unknown(&full, value, &all, in_file);
                // A section that the default omits can be listed nowhere else.
                if !prefix.is_empty() && known.is_empty() && !problem.contains("did you mean") {
                    let inside = all.iter().filter_map(|key| key.strip_prefix(prefix));
                    let inside: Vec<&str> = inside.collect();
                    let section = prefix.trim_end_matches('.');
                    problem += &format!("; [{section}] has {}", inside.join(", "));
                }
                let kinds = KINDS.map(|kind| format!("{prefix}{kind}"));
                let any = Value::String(String::new());
                if let Some(kind) = kinds.iter().find(|kind| (plan.is_known)(kind, &any)) {
                    problem += &format!(" (another {kind} has other keys)");
                }
                return Err(Error::invalid(origin, problem));
            }
            (Some(Value::Table(known)), Value::Table(inner)) => {
                check_level(inner, known, &format!("{full}."), plan, origin)?
            }
            (Some(Value::Float(_)), Value::Integer(_)) => {}
            (Some(expected), found) if !expected.same_type(found) => {
                // A few keys take values of several types, and say which.
                let mut problem = match (plan.problem)(&full, found) {
                    None => continue,
                    Some(own) if own.starts_with("expected ") => short(&own, 200),
                    Some(_) => format!("expected {}", describe(expected)),
                };
                if !problem.contains(", found ") {
                    problem += &format!(", found {}", short(&found.to_string(), SHOWN));
                }
                return Err(Error::invalid(origin, format!("{full}: {problem}")));
            }
            _ => {}
        }
    }
    Ok(())
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}
