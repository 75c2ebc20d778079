//! Questions to the user.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use crate::failure::Failure;

/// Asks a question that is answered with yes or no; anything else means no. If there is nobody to
/// ask, the option that answers ahead has to be given.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<bool, Failure> {
    if yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        let what = "this needs a confirmation, and standard input is not a terminal";
        return Err(Failure::usage(what, "add --yes"));
    }
    ask(question)
}

/// Asks a question, and reads the answer whatever standard input is.
pub(crate) fn ask(question: &str) -> Result<bool, Failure> {
    let mut stderr = io::stderr();
    let asked = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    asked.map_err(|error| Failure::output(&error))?;
    let mut answer = Vec::new();
    let stdin = io::stdin().lock();
    let read = io::Read::take(stdin, ANSWER_SIZE_MAX).read_until(b'\n', &mut answer);
    read.map_err(|error| Failure::store(format!("cannot read the answer: {error}"), ""))?;
    let answer = String::from_utf8_lossy(&answer).trim().to_lowercase();
    Ok(answer == "y" || answer == "yes")
}

/// Maximum number of bytes that are read of an answer.
const ANSWER_SIZE_MAX: u64 = 1024;
