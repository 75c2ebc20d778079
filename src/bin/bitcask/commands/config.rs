//! `config`.

use std::fs;
use std::io;

use clap::{Args, Subcommand};

use crate::exit::Exit;
use crate::failure::{Failure, say};
use crate::output::{Figure, Format};
use crate::program::Program;
use crate::prompt;
use crate::settings::{FOLLOW_TOKEN, KEYS, SettingKey, Settings, TOKEN, file, find};

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Changes a setting in the configuration file.
    Set { name: String, value: String },
    /// Prints the value of a setting.
    Get { name: String },
    /// Lists all settings, where each value comes from, and what it means.
    List,
    /// Prints the configuration file.
    View,
    /// Prints the path of the configuration file.
    Path,
    /// Removes the configuration file.
    Reset {
        /// Does not ask.
        #[arg(long, short)]
        yes: bool,
    },
}

pub(crate) fn run(args: ConfigArgs, program: &mut Program) -> Result<Exit, Failure> {
    let path = file::path(program.global().config.as_deref())?;
    match args.command {
        ConfigCommand::Set { name, value } => {
            let key = known(&name)?;
            (key.check)(&value).map_err(|reason| {
                let what = format!("`{value}` is no value for `{}`: {reason}", key.name);
                Failure::usage(what, format!("`{}` is: {}", key.name, key.about))
            })?;
            file::set(&path, key.name, &value)?;
        }
        ConfigCommand::Get { name } => {
            let key = known(&name)?;
            let value = program.settings()?.get(key.name).0.to_owned();
            program.printer(Format::Plain)?.line(&value)?;
        }
        ConfigCommand::List => {
            let rows: Vec<_> = {
                let settings = program.settings()?;
                KEYS.iter().map(|key| row(key, settings)).collect()
            };
            let headings = ["setting", "value", "from", "meaning"];
            program.printer(Format::Table)?.table(&headings, &rows)?;
        }
        ConfigCommand::View => {
            let Some(text) = file::text(&path)? else {
                say(format_args!("there is no file {}; `config set` creates it", path.display()));
                return Ok(Exit::Absent);
            };
            program.printer_without_settings(Format::Plain).raw(text.as_bytes())?;
        }
        ConfigCommand::Path => {
            let path = path.display().to_string();
            program.printer_without_settings(Format::Plain).line(&path)?;
        }
        ConfigCommand::Reset { yes } => {
            if !prompt::confirm(&format!("Remove {}?", path.display()), yes)? {
                return Ok(Exit::Absent);
            }
            let removed = fs::remove_file(&path);
            let failed = removed.err().filter(|error| error.kind() != io::ErrorKind::NotFound);
            if let Some(error) = failed {
                return Err(Failure::file("remove", &path, &error));
            }
        }
    }
    Ok(Exit::Done)
}

fn known(name: &str) -> Result<&'static SettingKey, Failure> {
    find(name).ok_or_else(|| {
        let what = format!("there is no setting `{name}`");
        Failure::usage(what, "`bitcask config list` shows the settings")
    })
}

fn row(key: &SettingKey, settings: &Settings) -> Vec<Figure> {
    let (value, origin) = settings.get(key.name);
    let is_hidden = [TOKEN, FOLLOW_TOKEN].contains(&key.name) && value != key.default;
    let value = if is_hidden { "(hidden)" } else { value };
    let (value, origin) = (value.to_owned(), origin.to_string());
    let texts = [key.name.to_owned(), value, origin, key.about.to_owned()];
    texts.map(Figure::Text).to_vec()
}
