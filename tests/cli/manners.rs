//! How the program behaves towards shells, pipes and terminals.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use crate::support::{Ran, Sandbox};

#[test]
fn wrong_arguments_have_their_own_exit_code() {
    let sandbox = Sandbox::new();
    for args in [
        &["fly"][..],
        &["put", "key"],
        &["get"],
        &["get", "a", "b"],
        &["delete"],
        &["--output", "xml", "list"],
        &["list", "--limit", "many"],
        &["merge", "--force", "--threshold", "10"],
        &["merge", "--threshold", "101"],
        &["compact", "run", "--threshold", "2"],
        &["dump", "--offset", "8"],
        &["import", "--from", "elsewhere", "dir"],
        &["watch", "--since", "yesterday"],
        &["completions", "cmd"],
        &["mode", "fast"],
    ] {
        let ran = sandbox.run(args);
        ran.failed(2, "error: ");
        assert!(ran.out.is_empty(), "{args:?}");
    }
    sandbox.run(["expire", "key", "soon"]).failed(2, "expected a duration such as 30s");
}

#[test]
fn the_help_lists_all_commands_and_the_exit_codes() {
    let sandbox = Sandbox::empty();
    let help = sandbox.run(["--help"]);
    let text = help.ended(0);
    for part in ["Exit codes:", "130  interrupted", "BITCASK_DIR", "put", "watch", "[aliases: set"]
    {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let without = sandbox.run([""; 0]);
    assert_eq!(without.code, Some(2));
    assert!(without.err.contains("Usage: bitcask"), "{}", without.err);
    assert!(sandbox.run(["put", "--help"]).ended(0).contains("--if-absent"));
}

#[test]
fn a_closed_pipe_ends_the_program_quietly() {
    let sandbox = Sandbox::new();
    let db = sandbox.open();
    for thousand in 0..100 {
        let numbers = thousand * 1000..(thousand + 1) * 1000;
        db.write(&numbers.map(|number| (format!("key {number:06}"), "")).collect()).unwrap();
    }
    db.close().unwrap();
    for args in [
        &["list"][..],
        &["-o", "json", "list"],
        &["-o", "table", "list"],
        &["export"],
        &["export", "--format", "csv"],
    ] {
        let mut child = sandbox.bitcask(args).spawn().unwrap();
        let mut line = String::new();
        // The reader is dropped after one line, as `head -1` does.
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty());
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let code = child.wait().unwrap().code();
        assert_eq!((code, err.as_str()), (Some(0), ""), "{args:?}");
    }
    assert_eq!(sandbox.run(["list"]).text().lines().count(), 100_000);
}

#[test]
fn a_message_that_nobody_reads_does_not_change_the_exit_code() {
    let sandbox = Sandbox::new();
    for (args, code) in [(&["get", "k"][..], 1), (&["-d", "nowhere", "get", "k"], 3), (&["fly"], 2)]
    {
        let mut child = sandbox.bitcask(args).spawn().unwrap();
        drop(child.stderr.take());
        assert_eq!(child.wait().unwrap().code(), Some(code), "{args:?}");
    }
}

#[test]
fn colour_is_only_for_those_who_want_it() {
    let sandbox = Sandbox::new();
    let has_colour = |ran: &Ran| ran.err.contains('\x1b') || ran.out.contains(&0x1b);
    let run = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = sandbox.bitcask(args);
        command.envs(variables.iter().copied());
        Ran::new(command.output().unwrap())
    };
    let absent = &["-d", "nowhere", "get", "k"][..];
    for args in [absent, &["stats"]] {
        assert!(!has_colour(&run(args, &[])), "a pipe gets no colour");
        let never = [&["--color", "never"], args].concat();
        assert!(!has_colour(&run(&never, &[("CLICOLOR_FORCE", "1")])));
        assert!(!has_colour(&run(args, &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")])));
    }
    let always = &["--color", "always", "-d", "nowhere", "get", "k"];
    assert!(has_colour(&run(always, &[("NO_COLOR", "1")])));
    sandbox.run(["put", "key", "value"]).ended(0);
    assert!(has_colour(&run(&["--color", "always", "-o", "table", "list"], &[])));
}

/// Runs a command line on a terminal, and returns what appeared there. Returns `None` where there
/// is no program that makes terminals.
fn on_terminal(sandbox: &Sandbox, line: &str, variables: &[(&str, &str)]) -> Option<String> {
    let probe = Command::new("script").arg("--version").output();
    if !probe.is_ok_and(|output| output.status.success()) {
        println!("skipped: `script` is missing");
        return None;
    }
    let mut command = sandbox.command("script".as_ref(), ["-qec", line, "/dev/null"]);
    command.envs(variables.iter().copied()).env("TERM", "xterm");
    let output = command.stdin(Stdio::null()).output().unwrap();
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn on_a_terminal_values_cannot_control_it() {
    let sandbox = Sandbox::new();
    sandbox.feed(["put", "key", "-"], b"one\x1b[31m\ntwo\xff\x07").ended(0);
    let program = crate::support::PROGRAM;
    let Some(shown) = on_terminal(&sandbox, &format!("{program} get key"), &[]) else { return };
    assert_eq!(shown.replace('\r', ""), "one\\x1b[31m\ntwo\\xff\\x07\n");
    let shown = on_terminal(&sandbox, &format!("{program} scan k"), &[]).unwrap();
    assert_eq!(shown.trim_end(), "key\tone\\x1b[31m\\ntwo\\xff\\x07");

    sandbox.run_as("pbc", &["--data-dir", "data", "put", "a\u{1b}[31m", "v"]).ended(0);
    let list = format!("{} --data-dir data list", sandbox.link("pbc").display());
    let shown = on_terminal(&sandbox, &list, &[("NO_COLOR", "1")]).unwrap();
    assert!(shown.contains("\u{2022} a\\x1b[31m"), "{shown}");

    let absent = format!("{program} -d nowhere get k");
    assert!(on_terminal(&sandbox, &absent, &[]).unwrap().contains("\x1b[31m"));
    assert!(!on_terminal(&sandbox, &absent, &[("NO_COLOR", "1")]).unwrap().contains('\x1b'));
}

#[test]
fn a_question_on_a_terminal_is_asked_there() {
    let sandbox = Sandbox::new();
    sandbox.run(["put", "key", "value"]).ended(0);
    let program = crate::support::PROGRAM;
    let ask = |answer: &str| {
        let line = format!("{program} clear; echo code $?");
        let mut command = sandbox.command("script".as_ref(), ["-qec", &line, "/dev/null"]);
        command.stdin(Stdio::piped());
        crate::support::feed(command, answer.as_bytes()).text().to_owned()
    };
    if on_terminal(&sandbox, "true", &[]).is_none() {
        return;
    }
    let shown = ask("n\n");
    assert!(shown.contains("Remove 1 key of ./data?") && shown.contains("code 1"), "{shown}");
    assert_eq!(sandbox.run(["get", "key"]).ended(0), "value");
    assert!(ask("yes\n").contains("code 0"));
    assert_eq!(sandbox.run(["list", "--count"]).ended(0), "0\n");
}

#[test]
fn scripts_for_shells_and_manual_pages_are_made() {
    let sandbox = Sandbox::empty();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = sandbox.run(["completions", shell]);
        assert!(script.ended(0).contains("bitcask") && script.text().contains("watch"), "{shell}");
    }
    let page = sandbox.run(["man"]);
    assert!(page.ended(0).contains(".TH bitcask 1"), "{}", page.text());
    sandbox.run(["man", "pages"]).ended(0);
    let pages = crate::support::files_of(&sandbox.path("pages"), "1");
    let names: Vec<_> = pages.iter().map(|page| page.file_name().unwrap().to_owned()).collect();
    for name in ["bitcask.1", "bitcask-put.1", "bitcask-config-set.1"] {
        assert!(names.iter().any(|found| found == name), "{name} is missing in {names:?}");
    }
    let version = format!("bitcask {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(sandbox.run(["--version"]).ended(0), version);
    assert!(sandbox.run(["version"]).ended(0).starts_with(&version));
    let json = sandbox.run(["-o", "json", "version"]);
    assert!(json.ended(0).contains("\"format\":1"), "{}", json.text());
}

#[test]
fn log_lines_tell_what_happened_to_the_store() {
    let sandbox = Sandbox::empty();
    let events = |ran: &Ran| -> Vec<(String, String)> {
        let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        let told = |line: &serde_json::Value| {
            assert_eq!(line["service"], "bitcask");
            assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
            assert!(line["duration_ms"].as_f64().unwrap() > 0.0);
            let text = |name: &str| line[name].as_str().unwrap().to_owned();
            (text("level"), text("event"))
        };
        let lines = ran.err.lines().filter(|text| text.starts_with('{'));
        lines.map(|text| told(&line(text))).collect()
    };
    let info = |event: &str| ("INFO".to_owned(), event.to_owned());
    let init = sandbox.run(["init", "--log-level", "INFO", "--log-format", "json"]);
    init.ended(0);
    assert_eq!(events(&init), ["opened", "closed", "command_ended"].map(info));
    let mut get = sandbox.bitcask(["get", "absent"]);
    get.env("BITCASK_LOG_LEVEL", "debug").env("BITCASK_LOG_FORMAT", "text");
    let get = Ran::new(get.output().unwrap());
    get.ended(1);
    assert!(get.err.contains("event=\"opened\"") && get.err.contains("exit=1"), "{}", get.err);
    // Unless somebody asks, nothing is said.
    assert_eq!(sandbox.run(["put", "key", "value"]).err, "");
    sandbox.run(["put", "key", "value", "--log-level", "loud"]).failed(2, "loud");
}
