//! The settings: how stores are opened, and how results look.
//!
//! - Each setting comes from the first of these that has it: its environment variable, the variable
//!   of an older program, the configuration file, the preset that the file names, the default.
//!   Options on the command line come before all of these.
//! - A setting is text until it is used, so a wrong one stops only the commands that need it.

pub(crate) mod file;
mod keys;
pub(crate) mod options;
mod preset;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::output::Format;

pub(crate) use keys::{FOLLOW_TOKEN, KEYS, SettingKey, TOKEN, find};

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SettingOrigin {
    /// This environment variable.
    Variable(String),
    /// The configuration file.
    ConfigFile,
    /// The preset of this name.
    Preset(String),
    /// Nobody has set it.
    Default,
}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => f.write_str(name),
            Self::ConfigFile => f.write_str("file"),
            Self::Preset(name) => write!(f, "preset {name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// All settings, each with its origin.
#[derive(Debug)]
pub(crate) struct Settings {
    /// By the name of the setting.
    values: BTreeMap<&'static str, (String, SettingOrigin)>,
    /// The directory in the environment, which need not be text.
    dir: Option<OsString>,
}

impl Settings {
    /// Reads the settings, from this configuration file or the usual one.
    pub(crate) fn load(config: Option<&Path>) -> Result<Self, Failure> {
        let listed = file::read(&file::path(config)?)?;
        Self::gather(&listed, |name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    /// Puts the settings together.
    fn gather(
        listed: &BTreeMap<String, String>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Failure> {
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
        let mut values = BTreeMap::new();
        let preset_key = text(&keys::variable("preset"));
        let preset = preset_key.as_ref().or_else(|| listed.get("preset"));
        let preset = preset.map(|name| preset::find(name)).transpose()?;
        for key in KEYS {
            let own = keys::variable(key.name);
            let found = text(&own).map(|value| (value, SettingOrigin::Variable(own)));
            let found = found.or_else(|| keys::of_older_programs(key.name, text));
            let found = found.or_else(|| {
                listed.get(key.name).map(|value| (value.clone(), SettingOrigin::ConfigFile))
            });
            let found = found.or_else(|| {
                let preset = preset?;
                let value = preset.value(key.name)?;
                Some((value.to_owned(), SettingOrigin::Preset(preset.name.to_owned())))
            });
            let found = found.unwrap_or_else(|| (key.default.to_owned(), SettingOrigin::Default));
            values.insert(key.name, found);
        }
        Ok(Self { values, dir: variable(&keys::variable("dir")) })
    }

    /// Returns a setting as text, and its origin.
    pub(crate) fn get(&self, name: &str) -> (&str, &SettingOrigin) {
        self.values
            .get(name)
            .map_or(("", &SettingOrigin::Default), |(value, origin)| (value, origin))
    }

    /// Returns the directory of the store.
    pub(crate) fn dir(&self) -> PathBuf {
        match &self.dir {
            Some(dir) => PathBuf::from(dir),
            None => PathBuf::from(self.get("dir").0),
        }
    }

    /// Returns the form of the output that was chosen, if any was.
    pub(crate) fn output(&self) -> Result<Option<Format>, Failure> {
        self.parsed("output", |text| match text {
            "auto" => Ok(None),
            other => match <Format as clap::ValueEnum>::from_str(other, false) {
                Ok(format) => Ok(Some(format)),
                Err(_) => Err(keys::OUTPUT.into()),
            },
        })
    }

    /// Returns the value of a setting. The error says where a wrong value comes from.
    pub(crate) fn parsed<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        let (value, origin) = self.get(name);
        parse(value).map_err(|reason| {
            let what = format!("the setting `{name}` is `{value}` (from {origin}): {reason}");
            let advice = match origin {
                SettingOrigin::Variable(variable) => format!("change or unset {variable}"),
                _ => format!("change it with `bitcask config set {name} VALUE`"),
            };
            Failure::usage(what, advice)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(file: &[(&str, &str)], variables: &[(&str, &str)]) -> Settings {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let listed = file.iter().map(own).collect();
        let variables: BTreeMap<String, String> = variables.iter().map(own).collect();
        Settings::gather(&listed, |name| variables.get(name).map(OsString::from)).unwrap()
    }

    #[test]
    fn a_variable_comes_before_the_file_and_the_file_before_the_preset() {
        let file = [("preset", "bitcaskpy"), ("segment-size", "1MiB"), ("dir", "there")];
        let found = settings(&file, &[("BITCASK_SEGMENT_SIZE", "2MiB")]);
        let variable = SettingOrigin::Variable("BITCASK_SEGMENT_SIZE".into());
        assert_eq!(found.get("segment-size"), ("2MiB", &variable));
        assert_eq!(settings(&file, &[]).get("segment-size"), ("1MiB", &SettingOrigin::ConfigFile));
        let preset = SettingOrigin::Preset("bitcaskpy".into());
        assert_eq!(settings(&file, &[]).get("segment-entries"), ("10000", &preset));
        assert_eq!(
            settings(&[], &[]).get("segment-entries"),
            ("unlimited", &SettingOrigin::Default)
        );
        assert_eq!(settings(&file, &[]).dir(), PathBuf::from("there"));
        assert_eq!(settings(&file, &[("BITCASK_DIR", "here")]).dir(), PathBuf::from("here"));
    }

    #[test]
    fn the_variables_of_bitcaskpy_are_honoured() {
        let read = |variables: &[(&str, &str)], name: &str| {
            let found = settings(&[], variables);
            let (value, origin) = found.get(name);
            (value.to_owned(), origin.to_string())
        };
        let own = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
        let interval = [("BITCASKPY_SYNC", "False"), ("BITCASKPY_FSYNC_INTERVAL", "2.5")];
        assert_eq!(read(&interval, "sync"), own("2.5s", "BITCASKPY_FSYNC_INTERVAL"));
        for zero in ["0", "0.0"] {
            let variables = [("BITCASKPY_FSYNC_INTERVAL", zero)];
            assert_eq!(read(&variables, "sync"), own("always", "BITCASKPY_FSYNC_INTERVAL"));
        }
        let always = [("BITCASKPY_SYNC", "1"), ("BITCASKPY_FSYNC_INTERVAL", "2.5")];
        assert_eq!(read(&always, "sync"), own("always", "BITCASKPY_SYNC"));
        let both = [("BITCASKPY_SYNC", "true"), ("BITCASK_SYNC", "never")];
        assert_eq!(read(&both, "sync"), own("never", "BITCASK_SYNC"));
        let size = [("BITCASKPY_MAX_SEGMENT_SIZE", "4096")];
        assert_eq!(read(&size, "segment-size"), own("4096", "BITCASKPY_MAX_SEGMENT_SIZE"));
        let entries = [("BITCASKPY_MAX_ENTRIES_PER_SEGMENT", "7")];
        assert_eq!(read(&entries, "segment-entries").0, "7");
    }

    #[test]
    fn every_preset_and_every_default_is_valid() {
        for name in ["bitcaskpy", "pybitcask"] {
            drop(settings(&[("preset", name)], &[]).options().unwrap());
        }
        let found = settings(&[], &[]);
        drop(found.options().unwrap());
        for key in KEYS {
            (key.check)(key.default).unwrap_or_else(|reason| panic!("{}: {reason}", key.name));
        }
    }

    #[test]
    fn an_error_names_the_setting_and_its_origin() {
        let found = settings(&[], &[("BITCASK_SYNC", "sometimes")]);
        let Err(Failure::Usage { what, advice }) = found.options() else { panic!() };
        assert!(what.contains("`sync`") && what.contains("BITCASK_SYNC"), "{what}");
        assert!(advice.contains("unset BITCASK_SYNC"), "{advice}");
    }
}
