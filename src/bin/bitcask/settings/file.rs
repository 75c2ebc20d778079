//! The configuration file: a list of settings in TOML.
//!
//! A change keeps the other lines as they are, with their comments. The file is replaced in one
//! step, so an interruption leaves the old one or the new one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use toml::{Table, Value};

use super::{find, keys};
use crate::failure::Failure;

/// Maximum size of the file in bytes.
const SIZE_MAX: u64 = 1 << 20;

/// Returns the path of the configuration file: this one, or the one that a variable names, or the
/// one in the platform's directory for such files.
pub(crate) fn path(chosen: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = chosen {
        return Ok(path.to_path_buf());
    }
    let named = std::env::var_os(keys::variable("config")).filter(|path| !path.is_empty());
    if let Some(path) = named {
        return Ok(path.into());
    }
    let strategy = etcetera::base_strategy::choose_native_strategy();
    let home = strategy.map_err(|_| {
        Failure::usage("there is no home directory", "set HOME, or name a file with --config")
    })?;
    Ok(home.config_dir().join("bitcask").join("config.toml"))
}

/// Reads the settings in a file. A file that does not exist has none.
pub(crate) fn read(path: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let Some(text) = text(path)? else { return Ok(BTreeMap::new()) };
    let table = parse(path, &text)?;
    let mut settings = BTreeMap::new();
    for (name, value) in table {
        let Some(key) = find(&name) else {
            let what = format!("{} has an unknown setting `{name}`", path.display());
            return Err(Failure::usage(what, "`bitcask config list` shows the settings"));
        };
        let Some(value) = scalar(&value) else {
            let what = format!("{}: `{name}` has to be a text or a number", path.display());
            return Err(Failure::usage(what, "correct the file"));
        };
        settings.insert(key.name.to_owned(), value);
    }
    Ok(settings)
}

/// Returns the text of the file, if it exists.
pub(crate) fn text(path: &Path) -> Result<Option<String>, Failure> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::file("read", path, &error)),
    };
    let mut text = String::new();
    let read = file.take(SIZE_MAX).read_to_string(&mut text);
    read.map(|_| Some(text)).map_err(|error| Failure::file("read", path, &error))
}

fn parse(path: &Path, text: &str) -> Result<Table, Failure> {
    toml::from_str(text).map_err(|error| {
        let what = format!("{} is not valid TOML: {error}", path.display());
        Failure::usage(what.trim_end(), "correct the file, or start anew: `bitcask config reset`")
    })
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Sets a setting in a file, which is created if it does not exist.
pub(crate) fn set(path: &Path, name: &str, value: &str) -> Result<(), Failure> {
    let old = text(path)?.unwrap_or_default();
    let mut wanted = parse(path, &old)?;
    // The file may spell the name with underscores.
    let spelled = wanted.keys().find(|key| find(key).is_some_and(|key| key.name == name)).cloned();
    let spelled = spelled.unwrap_or_else(|| name.to_owned());
    wanted.insert(spelled.clone(), Value::String(value.to_owned()));
    let edited = with_line(&old, &spelled, value);
    // If the file is written in a way that a change of lines does not get right, its comments go.
    let text = match toml::from_str::<Table>(&edited) {
        Ok(found) if found == wanted => edited,
        _ => toml::to_string(&wanted)
            .map_err(|error| Failure::store(format!("cannot write the settings: {error}"), ""))?,
    };
    replace(path, &text)
}

/// Returns the text with this setting in the place of the old one, or at the end.
fn with_line(text: &str, name: &str, value: &str) -> String {
    let line = format!("{name} = {}", Value::String(value.to_owned()));
    let is_old = |old: &str| {
        old.trim_start().strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let mut lines: Vec<&str> = text.lines().collect();
    match lines.iter_mut().find(|old| is_old(old)) {
        Some(old) => *old = &line,
        None => lines.push(&line),
    }
    lines.join("\n") + "\n"
}

/// Replaces a file, or creates it with its directories.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: &io::Error| Failure::file("write", path, error);
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(|error| Failure::file("create", parent, &error))?;
    }
    // A symbolic link stays one: the file that it leads to is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let mut temporary = target.clone().into_os_string();
    temporary.push(format!(".{}.tmp", std::process::id()));
    fs::write(&temporary, text)
        .and_then(|()| fs::rename(&temporary, &target))
        .inspect_err(|_| drop(fs::remove_file(&temporary)))
        .map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_keeps_the_other_lines() {
        let text = "# mine\ndir = \"a\" # here\nsync = 'never'\n";
        let expected = "# mine\ndir = \"b\"\nsync = 'never'\n";
        assert_eq!(with_line(text, "dir", "b"), expected);
        assert_eq!(with_line("", "dir", "a \"b\""), "dir = 'a \"b\"'\n");
        assert_eq!(with_line("dir-x = 1\n", "dir", "a"), "dir-x = 1\ndir = \"a\"\n");
    }

    #[test]
    fn a_setting_that_spans_lines_is_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below/config.toml");
        replace(&path, "dir = '''\na\n'''\nsegment_size = 4096\n").unwrap();
        set(&path, "dir", "b").unwrap();
        set(&path, "segment-size", "1MiB").unwrap();
        let settings = read(&path).unwrap();
        assert_eq!(settings.get("dir").map(String::as_str), Some("b"));
        assert_eq!(settings.get("segment-size").map(String::as_str), Some("1MiB"));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_not_a_list_of_settings_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        for text in ["dir", "colour = 'red'", "dir = ['a']", "[dir]\na = 1"] {
            fs::write(&path, text).unwrap();
            assert!(read(&path).is_err(), "{text}");
        }
    }
}
