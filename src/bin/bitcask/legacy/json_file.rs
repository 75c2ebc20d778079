//! The configuration files of the older programs: a JSON object.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::OldFailure;
use crate::settings::file::replace;

/// Maximum size of the file in bytes.
const SIZE_MAX: u64 = 1 << 20;

/// A configuration file.
#[derive(Debug)]
pub(super) struct JsonFile {
    pub(super) path: PathBuf,
    pub(super) entries: Map<String, Value>,
}

impl JsonFile {
    /// Reads a file below the home directory. Entries that it does not have are the defaults.
    pub(super) fn read(below_home: &str, defaults: Value) -> Result<Self, String> {
        let home = etcetera::home_dir().map_err(|_| "there is no home directory".to_owned())?;
        let path = home.join(below_home);
        let mut entries = match defaults {
            Value::Object(entries) => entries,
            _ => Map::new(),
        };
        if let Some(text) = text(&path).map_err(|error| format!("{}: {error}", path.display()))? {
            match serde_json::from_str(&text) {
                Ok(Value::Object(found)) => entries.extend(found),
                Ok(_) => return Err(format!("{} holds no JSON object", path.display())),
                Err(error) => return Err(format!("{}: {error}", path.display())),
            }
        }
        Ok(Self { path, entries })
    }

    pub(super) fn write(&self) -> Result<(), OldFailure> {
        let text =
            serde_json::to_string_pretty(&self.entries).map_err(|error| error.to_string())?;
        Ok(replace(&self.path, &text)?)
    }

    /// Returns an entry as text. The old programs store text that looks like a number as one.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.entries.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }
}

fn text(path: &Path) -> io::Result<Option<String>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(SIZE_MAX).read_to_string(&mut text)?;
    Ok(Some(text))
}
