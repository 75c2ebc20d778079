//! Presets: the settings of older programs, under the names of those programs.

use crate::failure::Failure;

/// Settings that are chosen together.
#[derive(Debug, Clone, Copy)]
pub(super) struct PresetValues {
    pub(super) name: &'static str,
    values: &'static [(&'static str, &'static str)],
}

const PRESETS: [PresetValues; 3] = [
    PresetValues { name: "none", values: &[] },
    PresetValues {
        name: "bitcaskpy",
        values: &[
            ("sync", "5s"),
            ("segment-size", "10MiB"),
            ("segment-entries", "10000"),
            ("key-size-limit", "1KiB"),
            ("value-size-limit", "1MiB"),
        ],
    },
    PresetValues {
        name: "pybitcask",
        values: &[
            ("sync", "never"),
            ("segment-size", "512MiB"),
            ("merge-interval", "300s"),
            ("merge-dead-percent", "30"),
        ],
    },
];

impl PresetValues {
    /// Returns the preset's value of a setting, if it has one.
    pub(super) fn value(&self, name: &str) -> Option<&'static str> {
        self.values.iter().find(|(found, _)| *found == name).map(|(_, value)| *value)
    }
}

/// Returns the preset of this name.
pub(super) fn find(name: &str) -> Result<PresetValues, Failure> {
    let preset = PRESETS.into_iter().find(|preset| preset.name == name);
    preset.ok_or_else(|| {
        let what = format!("there is no preset `{name}`: {EXPECTED}");
        Failure::usage(what, "change it with `bitcask config set preset NAME`")
    })
}

pub(super) fn check(name: &str) -> Result<(), String> {
    PRESETS.iter().any(|preset| preset.name == name).then_some(()).ok_or_else(|| EXPECTED.into())
}

const EXPECTED: &str = "expected none, bitcaskpy or pybitcask";
