//! Settings of a program: flag, then environment variable, then `pgconvoy.toml`.
//!
//! Invariants: a file's values become the defaults of the arguments of the same name, so that a flag or a variable always
//! wins; a key that nobody reads is an error and never ignored; the value of a secret is never shown, in no message
//! and no help text.
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::builder::{ArgAction, OsStr};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, Parser};
use toml::{Table, Value};
use tracing_subscriber::EnvFilter;

/// The tables of the file that hold the keys of one program.
const SECTIONS: [&str; 3] = ["source-agent", "target-agent", "coordinator"];

/// A table of the file that is no program's settings: see `model::Platform`.
const DATA: &str = "platform";

const FILE: &str = "pgconvoy.toml";
const FILE_VARIABLE: &str = "PGCONVOY_CONFIG";

/// The arguments of this process; a usage error is printed and ends it with 2, `--help` with 0. Keys at the top of the file
/// and those of the table `section` apply; the tables of other programs are skipped.
///
/// A required argument may come from the file. To clap, a value of the file is a default: it neither conflicts with
/// other arguments nor satisfies their `requires`.
pub fn parse<P: Parser>(section: &str) -> P {
    parse_from(section, std::env::args_os(), Path::new("")).unwrap_or_else(|error| error.exit())
}

/// [`parse`] for given arguments (the program's name first) and a given working directory.
pub fn parse_from<P: Parser>(
    section: &str,
    args: impl IntoIterator<Item = impl Into<OsString>>,
    directory: &Path,
) -> Result<P, clap::Error> {
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let mut command = with_config_flag(P::command());
    match read_values(&command, section, &args, directory) {
        Ok(values) => command = with_defaults(command, &values),
        Err(message) => {
            // Help must work beside a broken file.
            return match command.clone().try_get_matches_from(&args) {
                Err(help) if !help.use_stderr() => Err(help),
                _ => Err(command.error(ErrorKind::ValueValidation, message)),
            };
        }
    }
    let mut matches = command
        .clone()
        .try_get_matches_from(&args)
        .map_err(without_secret)?;
    P::from_arg_matches_mut(&mut matches)
        .map_err(|error| without_secret(error.format(&mut command)))
}

fn with_config_flag(command: Command) -> Command {
    if command
        .get_arguments()
        .any(|arg| arg.get_long() == Some("config"))
    {
        return command;
    }
    command.arg(
        Arg::new("config")
            .long("config")
            .value_name("FILE")
            .env(FILE_VARIABLE)
            .value_parser(clap::value_parser!(PathBuf))
            .global(true)
            .help(
                "Settings file [default: pgconvoy.toml of the working directory, if there is one]",
            ),
    )
}

/// A key of the file with its value as clap takes it.
struct Setting {
    key: String,
    values: Vec<OsStr>,
}

fn read_values(
    command: &Command,
    section: &str,
    args: &[OsString],
    directory: &Path,
) -> Result<Vec<Setting>, String> {
    let Some((path, text)) = find_file(args, directory)? else {
        return Ok(Vec::new());
    };
    let shown = path.display();
    // The parser's own rendering quotes the line, and with it a password.
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error
            .span()
            .map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        format!("{shown}:{line}: {}", error.message())
    })?;
    let mut settings: Vec<Setting> = Vec::new();
    for (table, within) in [
        (Some(&table), ""),
        (table.get(section).and_then(Value::as_table), section),
    ] {
        let mut level = Vec::new();
        for (written, value) in table.into_iter().flatten() {
            if within.is_empty() && is_section(written, value) {
                continue;
            }
            let place = if within.is_empty() {
                format!("{shown}")
            } else {
                format!("{shown}, [{within}]")
            };
            let setting = setting(command, written, value)
                .map_err(|problem| format!("{place}: {problem}"))?;
            if level.iter().any(|other: &Setting| other.key == setting.key) {
                return Err(format!("{place}: \"{}\" is given twice", setting.key));
            }
            level.push(setting);
        }
        // The program's own table wins over the top of the file.
        settings.retain(|outer| !level.iter().any(|inner| inner.key == outer.key));
        settings.extend(level);
    }
    Ok(settings)
}

fn is_section(key: &str, value: &Value) -> bool {
    value.is_table() && (SECTIONS.contains(&key) || key == DATA)
}

fn find_file(args: &[OsString], directory: &Path) -> Result<Option<(PathBuf, String)>, String> {
    let named = flag_value(args, "--config")
        .or_else(|| std::env::var_os(FILE_VARIABLE).filter(|value| !value.is_empty()))
        .map(|name| directory.join(name));
    let path = named.clone().unwrap_or_else(|| directory.join(FILE));
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => Ok(None),
        Err(error) => Err(format!(
            "cannot read the settings file {}: {error}",
            path.display()
        )),
    }
}

/// The value of a flag before clap has run.
fn flag_value(args: &[OsString], flag: &str) -> Option<OsString> {
    let mut args = args.iter().skip(1).take_while(|arg| *arg != "--");
    while let Some(arg) = args.next() {
        if arg == flag {
            return args.next().cloned();
        }
        if let Some(value) = arg
            .to_str()
            .and_then(|arg| arg.strip_prefix(flag)?.strip_prefix('='))
        {
            return Some(value.into());
        }
    }
    None
}

fn setting(command: &Command, written: &str, value: &Value) -> Result<Setting, String> {
    let key = written.replace('_', "-");
    let args = args_named(command, &key);
    if args.is_empty() {
        return Err(unknown(command, written, value));
    }
    let mut values = Vec::new();
    for arg in args {
        values = clap_values(arg, &key, value)?;
        check(arg, &key, &values)?;
    }
    Ok(Setting {
        key,
        values: values.into_iter().map(OsStr::from).collect(),
    })
}

fn unknown(command: &Command, written: &str, value: &Value) -> String {
    if value.is_table() {
        let tables = SECTIONS.map(|name| format!("[{name}]")).join(", ");
        return format!("unknown table [{written}]; the tables are {tables}");
    }
    let key = written.replace('_', "-");
    let mut known = Vec::new();
    collect_keys(command, &mut known);
    let similar = known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(candidate, &key), candidate))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    match similar {
        Some((_, candidate)) => format!("unknown key \"{written}\"; did you mean \"{candidate}\"?"),
        None => {
            let tables = SECTIONS.map(|name| format!("[{name}]")).join(", ");
            format!(
                "unknown key \"{written}\"; the keys of one program only go into its table: {tables}"
            )
        }
    }
}

/// Options with a long name, without those that make no sense in a file.
fn options(command: &Command) -> impl Iterator<Item = (&Arg, &str)> {
    let named = command
        .get_arguments()
        .filter_map(|arg| Some((arg, arg.get_long()?)));
    named.filter(|(_, long)| !["help", "version", "config"].contains(long))
}

fn args_named<'a>(command: &'a Command, key: &str) -> Vec<&'a Arg> {
    let mut found: Vec<&Arg> = options(command)
        .filter(|(_, long)| *long == key)
        .map(|(arg, _)| arg)
        .collect();
    for subcommand in command.get_subcommands() {
        found.extend(args_named(subcommand, key));
    }
    found
}

fn collect_keys(command: &Command, keys: &mut Vec<String>) {
    keys.extend(options(command).map(|(_, long)| long.to_owned()));
    for subcommand in command.get_subcommands() {
        collect_keys(subcommand, keys);
    }
}

fn clap_values(arg: &Arg, key: &str, value: &Value) -> Result<Vec<String>, String> {
    let is_list = matches!(arg.get_action(), ArgAction::Append)
        || arg
            .get_num_args()
            .is_some_and(|range| range.max_values() > 1)
        || arg.get_value_delimiter().is_some();
    match (arg.get_action(), value) {
        (ArgAction::SetTrue, Value::Boolean(on)) => Ok(vec![on.to_string()]),
        (ArgAction::SetFalse, Value::Boolean(on)) => Ok(vec![(!on).to_string()]),
        (ArgAction::SetTrue | ArgAction::SetFalse, _) => {
            Err(format!("\"{key}\" is a switch: give true or false"))
        }
        (ArgAction::Count, Value::Integer(times)) => Ok(vec![times.to_string()]),
        (_, Value::Array(items)) if is_list => {
            items.iter().map(|item| scalar(arg, key, item)).collect()
        }
        (_, Value::Array(_)) => Err(format!("\"{key}\" takes one value, not a list")),
        (_, value) => Ok(vec![scalar(arg, key, value)?]),
    }
}

fn scalar(arg: &Arg, key: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(on)
            if arg
                .get_possible_values()
                .iter()
                .any(|known| known.matches(&on.to_string(), false)) =>
        {
            Ok(on.to_string())
        }
        Value::Boolean(_) => Err(format!("\"{key}\" takes a value, not true or false")),
        Value::Array(_) | Value::Table(_) | Value::Datetime(_) => Err(format!(
            "\"{key}\" takes a string or a number, not a list, a table or a date"
        )),
    }
}

/// Asks the argument's own parser: clap trusts its defaults to be valid, and panics in debug builds when one is not.
fn check(arg: &Arg, key: &str, values: &[String]) -> Result<(), String> {
    if !arg.get_action().takes_values() {
        return Ok(());
    }
    for value in values {
        let mut probe = Arg::new("value")
            .long("value")
            .allow_hyphen_values(true)
            .ignore_case(arg.is_ignore_case_set())
            .action(ArgAction::Append)
            .value_parser(arg.get_value_parser().clone());
        if let Some(delimiter) = arg.get_value_delimiter() {
            probe = probe.value_delimiter(delimiter);
        }
        let probe = Command::new("probe").no_binary_name(true).arg(probe);
        if let Err(error) = probe.try_get_matches_from([format!("--value={value}")]) {
            return Err(match is_secret(arg) {
                true => format!("the value of \"{key}\" is not valid"),
                false => format!("\"{key}\": {}", reason(&error, value)),
            });
        }
    }
    Ok(())
}

fn reason(error: &clap::Error, value: &str) -> String {
    if let Some(source) = std::error::Error::source(error) {
        return format!("invalid value \"{value}\": {source}");
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
            format!(
                "invalid value \"{value}\"; possible values: {}",
                valid.join(", ")
            )
        }
        _ => format!("invalid value \"{value}\""),
    }
}

fn is_secret(arg: &Arg) -> bool {
    arg.is_hide_env_values_set() || arg.get_long().is_some_and(is_secret_name)
}

fn is_secret_name(long: &str) -> bool {
    long.contains("database-url") || long.contains("password")
}

fn with_defaults(mut command: Command, settings: &[Setting]) -> Command {
    let args: Vec<_> = options(&command)
        .map(|(arg, long)| (arg.get_id().clone(), long.to_owned()))
        .collect();
    for (id, long) in args {
        let values = settings
            .iter()
            .find(|setting| setting.key == long)
            .map(|setting| setting.values.clone());
        command = command.mut_arg(id, |mut arg| {
            if is_secret(&arg) {
                arg = arg.hide_env_values(true);
                if arg.get_action().takes_values() {
                    arg = arg.hide_default_value(true);
                }
            }
            match values {
                // To clap a default does not satisfy "required".
                Some(values) if !values.is_empty() => arg.required(false).default_values(values),
                _ => arg,
            }
        });
    }
    let subcommands: Vec<String> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    for name in subcommands {
        command = command.mut_subcommand(name, |subcommand| with_defaults(subcommand, settings));
    }
    command
}

/// clap quotes the value it refuses.
fn without_secret(mut error: clap::Error) -> clap::Error {
    let about_secret = matches!(
        error.get(ContextKind::InvalidArg),
        Some(ContextValue::String(arg)) if is_secret_name(arg)
    );
    if about_secret && error.get(ContextKind::InvalidValue).is_some() {
        error.insert(
            ContextKind::InvalidValue,
            ContextValue::String("(not shown)".into()),
        );
    }
    error
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

const DEFAULT_FILTER: &str = "info";

/// Logs to stderr. What is logged: PGCONVOY_LOG, else RUST_LOG, else "info" and above.
pub fn init_logging(format: LogFormat) {
    let wanted = ["PGCONVOY_LOG", "RUST_LOG"].into_iter().find_map(|name| {
        let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
        Some((name, text))
    });
    let parsed = wanted.as_ref().map(|(_, text)| EnvFilter::try_new(text));
    let (filter, problem) = match parsed {
        None => (EnvFilter::new(DEFAULT_FILTER), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(DEFAULT_FILTER), Some(error)),
    };
    // Where stderr cannot be written there is nobody left to tell: what is being done goes on.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    // An error means that logging is set up already, by a test for one.
    let _ = match format {
        LogFormat::Text => builder
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let (Some(problem), Some((name, _))) = (problem, wanted) {
        tracing::warn!("{name} is not a valid log filter ({problem}): using \"{DEFAULT_FILTER}\"");
    }
}

#[cfg(test)]
mod tests;
