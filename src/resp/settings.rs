//! What `CONFIG` shows and changes.
//!
//! - Some parameters have an effect. The others are there because clients and test suites ask for
//!   them: they can be set, and are shown as they were set.
//! - Nothing is written to a file.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use super::events::EventFilter;
use super::glob;
use super::refusal::{Answer, refused_with};
use super::shown_settings::{SHOWN, suited};
use crate::wire::parse_integer;

/// Names of the parameters with an effect.
const MAX_CLIENTS: &str = "maxclients";
const EVENTS: &str = "notify-keyspace-events";
const PASSWORD: &str = "requirepass";
const STRING_MAX: &str = "proto-max-bulk-len";
const SLOWER_THAN: &str = "slowlog-log-slower-than";
const SLOW_LEN: &str = "slowlog-max-len";
const TIMEOUT: &str = "timeout";
const TRACKED_MAX: &str = "tracking-table-max-keys";
const DATABASES: &str = "databases";
const ACTIVE: &[&str] =
    &[MAX_CLIENTS, EVENTS, PASSWORD, STRING_MAX, SLOWER_THAN, SLOW_LEN, TIMEOUT, TRACKED_MAX];

/// The parameters.
#[derive(Debug)]
pub(super) struct Parameters {
    /// Lock 0: the parameters without an effect.
    shown: Mutex<BTreeMap<&'static str, String>>,
    password: RwLock<Option<Vec<u8>>>,
    events: AtomicU32,
    pub(super) max_clients: AtomicUsize,
    pub(super) string_max: AtomicUsize,
    /// In microseconds; a negative number turns the log off.
    pub(super) slower_than: AtomicI64,
    pub(super) slow_len: AtomicUsize,
    /// Seconds after which an idle client is disconnected; 0 for never.
    pub(super) timeout: AtomicUsize,
    pub(super) tracked_max: AtomicUsize,
    databases: usize,
}

impl Parameters {
    pub(super) fn new(max_clients: usize, password: Option<Vec<u8>>, databases: usize) -> Self {
        let shown = SHOWN.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self {
            shown: Mutex::new(shown),
            password: RwLock::new(password),
            events: AtomicU32::new(0),
            max_clients: AtomicUsize::new(max_clients),
            string_max: AtomicUsize::new(super::keyspace::STRING_SIZE_MAX),
            slower_than: AtomicI64::new(10_000),
            slow_len: AtomicUsize::new(128),
            timeout: AtomicUsize::new(0),
            tracked_max: AtomicUsize::new(1_000_000),
            databases,
        }
    }

    fn shown(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn event_filter(&self) -> EventFilter {
        EventFilter::from_bits(self.events.load(Ordering::Acquire))
    }

    pub(super) fn has_password(&self) -> bool {
        self.password.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Compares a password, in a time that does not depend on where it differs.
    pub(super) fn is_password(&self, given: &[u8]) -> bool {
        let password = self.password.read().unwrap_or_else(PoisonError::into_inner);
        let Some(password) = password.as_deref() else { return true };
        let pairs = password.iter().zip(given.iter().chain(std::iter::repeat(&0)));
        let difference = pairs.fold(0, |all, (left, right)| all | (left ^ right));
        std::hint::black_box(difference) == 0 && password.len() == given.len()
    }

    /// Returns the parameters that match one of the patterns, with their values.
    pub(super) fn find(&self, patterns: &[bytes::Bytes]) -> Vec<(&'static str, String)> {
        let patterns: Vec<_> = patterns.iter().map(|it| it.to_ascii_lowercase()).collect();
        let is_wanted = |name: &str| patterns.iter().any(|it| glob::matches(it, name.as_bytes()));
        let shown = self.shown().clone().into_iter();
        let active = ACTIVE.iter().chain(&[DATABASES]).map(|name| (*name, self.active(name)));
        shown.chain(active).filter(|(name, _)| is_wanted(name)).collect()
    }

    fn active(&self, name: &str) -> String {
        let number = |value: &AtomicUsize| value.load(Ordering::Relaxed).to_string();
        match name {
            MAX_CLIENTS => number(&self.max_clients),
            EVENTS => self.event_filter().shown(),
            STRING_MAX => number(&self.string_max),
            SLOWER_THAN => self.slower_than.load(Ordering::Relaxed).to_string(),
            SLOW_LEN => number(&self.slow_len),
            TIMEOUT => number(&self.timeout),
            TRACKED_MAX => number(&self.tracked_max),
            DATABASES => self.databases.to_string(),
            PASSWORD => {
                let password = self.password.read().unwrap_or_else(PoisonError::into_inner);
                String::from_utf8_lossy(password.as_deref().unwrap_or_default()).into_owned()
            }
            _ => String::new(),
        }
    }

    /// Refuses a name or a value, before any parameter of a command is set.
    pub(super) fn check(&self, name: &[u8], value: &[u8]) -> Answer<()> {
        let shown_name = String::from_utf8_lossy(name).into_owned();
        let name = shown_name.to_ascii_lowercase();
        if name == DATABASES {
            return failed(&shown_name, "can't set immutable config");
        }
        if self.shown().contains_key(name.as_str()) {
            return match suited(&name, value) {
                Ok(_) => Ok(()),
                Err(why) => failed(&shown_name, why),
            };
        }
        if !ACTIVE.contains(&name.as_str()) {
            return refused_with(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{shown_name}'"
            ));
        }
        match name.as_str() {
            PASSWORD => Ok(()),
            EVENTS => match EventFilter::parse(value) {
                Some(_) => Ok(()),
                None => {
                    failed(&shown_name, "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.")
                }
            },
            _ => match parse_integer(value) {
                Some(number) if number >= least(&name) => Ok(()),
                Some(_) => {
                    let (least, most) = (least(&name), most(&name));
                    let why = format!("argument must be between {least} and {most} inclusive");
                    failed(&shown_name, &why)
                }
                None => failed(&shown_name, "argument couldn't be parsed into an integer"),
            },
        }
    }

    /// Sets a parameter that has been checked.
    pub(super) fn set(&self, name: &[u8], value: &[u8]) {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let number = parse_integer(value).unwrap_or(0);
        let size = usize::try_from(number).unwrap_or(0);
        match name.as_str() {
            MAX_CLIENTS => self.max_clients.store(size, Ordering::Relaxed),
            STRING_MAX => {
                let size = size.min(super::keyspace::STRING_SIZE_MAX);
                self.string_max.store(size, Ordering::Relaxed);
            }
            SLOWER_THAN => self.slower_than.store(number, Ordering::Relaxed),
            SLOW_LEN => self.slow_len.store(size, Ordering::Relaxed),
            TIMEOUT => self.timeout.store(size, Ordering::Relaxed),
            TRACKED_MAX => self.tracked_max.store(size, Ordering::Relaxed),
            EVENTS => {
                let filter = EventFilter::parse(value).unwrap_or_default();
                self.events.store(filter.bits(), Ordering::Release);
            }
            PASSWORD => {
                let password = (!value.is_empty()).then(|| value.to_vec());
                *self.password.write().unwrap_or_else(PoisonError::into_inner) = password;
            }
            _ => {
                if let Some(shown) = self.shown().get_mut(name.as_str())
                    && let Ok(value) = suited(&name, value)
                {
                    *shown = value;
                }
            }
        }
    }
}

/// Returns the least value of a parameter that is a number. With less, no client could do anything.
fn least(name: &str) -> i64 {
    match name {
        MAX_CLIENTS => 1,
        STRING_MAX => 1 << 20,
        SLOWER_THAN => i64::MIN,
        _ => 0,
    }
}

/// Returns the greatest value of a parameter that is a number, as Redis names it.
fn most(name: &str) -> i64 {
    match name {
        MAX_CLIENTS => i64::from(u32::MAX),
        TIMEOUT => i64::from(i32::MAX),
        _ => i64::MAX,
    }
}

fn failed(name: &str, why: &str) -> Answer<()> {
    let text = format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}");
    refused_with(text)
}
