//! What all commands share: the global options, the settings, and the output.

use std::path::PathBuf;

use bitcask::client::Client;

use crate::args::Global;
use crate::failure::Failure;
use crate::output::{Format, Printer};
use crate::remote;
use crate::settings::Settings;

/// The program, once its command line was read.
#[derive(Debug)]
pub(crate) struct Program {
    global: Global,
    settings: Option<Settings>,
    printer: Option<Printer>,
}

impl Program {
    pub(crate) fn new(global: Global) -> Self {
        Self { global, settings: None, printer: None }
    }

    pub(crate) fn global(&self) -> &Global {
        &self.global
    }

    /// Returns whether keys and values are base64 in arguments, input and output.
    pub(crate) fn base64(&self) -> bool {
        self.global.base64
    }

    /// Returns the settings, which are read when they are first needed.
    pub(crate) fn settings(&mut self) -> Result<&Settings, Failure> {
        let settings = match self.settings.take() {
            Some(settings) => settings,
            None => Settings::load(self.global.config.as_deref())?,
        };
        Ok(self.settings.insert(settings))
    }

    /// Returns the directory of the store.
    pub(crate) fn dir(&mut self) -> Result<PathBuf, Failure> {
        match &self.global.dir {
            Some(dir) => Ok(dir.clone()),
            None => Ok(self.settings()?.dir()),
        }
    }

    /// Returns a client of the server that the user has named on the command line. What only the
    /// environment or the configuration names does not redirect a command.
    pub(crate) fn remote(&mut self) -> Result<Option<Client>, Failure> {
        match self.global.server.clone() {
            Some(url) => remote::client_of(&url, self.settings()?).map(Some),
            None => Ok(None),
        }
    }

    /// Returns an error if the setting `output` is wrong. A command asks before it does anything.
    pub(crate) fn check_output(&mut self) -> Result<(), Failure> {
        if self.global.output.is_none() {
            self.settings()?.output()?;
        }
        Ok(())
    }

    /// Returns the output, in a format that fits the command unless the user has chosen one.
    pub(crate) fn printer(&mut self, otherwise: Format) -> Result<&mut Printer, Failure> {
        let chosen = match self.global.output {
            Some(format) => Some(format),
            None => self.settings()?.output()?,
        };
        let (format, base64) = (chosen.unwrap_or(otherwise), self.global.base64);
        Ok(self.printer.get_or_insert_with(|| Printer::new(format, base64)))
    }

    /// Returns the output, even if the settings cannot be read.
    pub(crate) fn printer_without_settings(&mut self, otherwise: Format) -> &mut Printer {
        let (format, base64) = (self.global.output.unwrap_or(otherwise), self.global.base64);
        self.printer.get_or_insert_with(|| Printer::new(format, base64))
    }

    /// Writes out what is still buffered.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        self.printer.as_mut().map_or(Ok(()), Printer::flush)
    }
}
