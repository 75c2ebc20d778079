//! The commands of bitcaskpy and pybitcask, under their names.

use std::fs;

use crate::support::{Ran, Sandbox, feed};

#[test]
fn bitcaskpy_has_its_commands_and_wordings() {
    let sandbox = Sandbox::empty();
    let run = |args: &[&str]| sandbox.run_as("bitcaskpy", args);
    assert_eq!(run(&["get", "k"]).ended(0), "Key not found\n");
    assert_eq!(run(&["put", "k", "v w"]).ended(0), "Inserted k -> v w\n");
    assert_eq!(run(&["--debug", "get", "k"]).ended(0), "v w\n");
    assert_eq!(run(&["delete", "k"]).ended(0), "Deleted k\n");
    assert_eq!(run(&["delete", "k"]).ended(0), "Deleted k\n");
    assert_eq!(run(&["get", "k"]).ended(0), "Key not found\n");
    run(&["put", "k"]).failed(2, "required");
    // Nothing listens on the first port.
    run(&["config", "set", "server_url", "http://127.0.0.1:1"]).ended(0);
    for command in ["health", "ping"] {
        run(&[command]).failed(1, "o server answers at http://127.0.0.1:1");
    }
}

#[test]
fn bitcaskpy_keeps_its_configuration() {
    let sandbox = Sandbox::empty();
    let run = |args: &[&str]| sandbox.run_as("bitcaskpy", args);
    let defaults = "data_dir = ./data\nserver_url = http://localhost:8000\n";
    assert_eq!(run(&["config", "list"]).ended(0), defaults);
    assert_eq!(
        run(&["config", "set", "data_dir", "elsewhere"]).ended(0),
        "Set data_dir = elsewhere\n"
    );
    assert_eq!(run(&["config", "set", "retries", "3"]).ended(0), "Set retries = 3\n");
    assert_eq!(run(&["config", "set", "verbose", "true"]).ended(0), "Set verbose = True\n");
    let file = fs::read_to_string(sandbox.path("home/.bitcask/config.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&file).unwrap();
    assert_eq!((&json["retries"], &json["verbose"]), (&3.into(), &true.into()));
    run(&["put", "k", "v"]).ended(0);
    assert_eq!(sandbox.run(["-d", "elsewhere", "get", "k"]).ended(0), "v");
    // A directory is text, even if its name is a number.
    run(&["config", "set", "data_dir", "007"]).ended(0);
    run(&["put", "k", "agent"]).ended(0);
    assert_eq!(sandbox.run(["-d", "007", "get", "k"]).ended(0), "agent");
    fs::write(sandbox.path("home/.bitcask/config.json"), r#"{"data_dir": 5}"#).unwrap();
    run(&["put", "k", "five"]).ended(0);
    assert_eq!(sandbox.run(["-d", "5", "get", "k"]).ended(0), "five");
    fs::write(sandbox.path("home/.bitcask/config.json"), "[").unwrap();
    run(&["get", "k"]).failed(1, "config.json");
}

#[test]
fn a_configuration_that_cannot_be_written_is_an_error_for_people() {
    let sandbox = Sandbox::empty();
    fs::create_dir(sandbox.path("home")).unwrap();
    fs::write(sandbox.path("home/.bitcask"), "a file").unwrap();
    let ran = sandbox.run_as("bitcaskpy", &["config", "list"]);
    assert_ne!(ran.code, Some(0));
    fs::remove_file(sandbox.path("home/.bitcask")).unwrap();
    std::os::unix::fs::symlink("/proc/nowhere", sandbox.path("home/.bitcask")).unwrap();
    let ran = sandbox.run_as("bitcaskpy", &["config", "set", "a", "b"]);
    ran.failed(1, "Error: cannot create ");
    assert!(!ran.err.contains("what:"), "{}", ran.err);
}

#[test]
fn an_old_program_fails_with_its_own_exit_code() {
    let sandbox = Sandbox::new();
    let db = sandbox.open();
    let bitcaskpy = sandbox.run_as("bitcaskpy", &["put", "k", "v"]);
    bitcaskpy.failed(1, "Error: ");
    bitcaskpy.failed(1, "open for writing in process");
    assert!(bitcaskpy.err.ends_with("Aborted!\n"), "{}", bitcaskpy.err);
    let pbc = sandbox.run_as("pbc", &["--data-dir", "data", "put", "k", "v"]);
    pbc.failed(1, "\u{2717} Error: ");
    db.close().unwrap();
}

fn pbc(sandbox: &Sandbox, args: &[&str]) -> Ran {
    sandbox.run_as("pbc", &[&["--data-dir", "db"], args].concat())
}

#[test]
fn pbc_has_its_commands_and_wordings() {
    let sandbox = Sandbox::empty();
    let run = |args: &[&str]| pbc(&sandbox, args);
    assert_eq!(run(&["list"]).ended(0), "No keys found in database\n");
    assert_eq!(run(&["get", "k"]).ended(0), "\u{2717} Key 'k' not found\n");
    let stored = "\u{2713} Successfully stored value for key: k\n";
    assert_eq!(run(&["--debug", "put", "k", "v"]).ended(0), stored);
    assert_eq!(run(&["get", "k"]).ended(0), "Value for key 'k':\nv\n");
    assert_eq!(run(&["list"]).ended(0), "Available keys:\n  \u{2022} k\n");
    // A pipe gets the bytes of a key, whatever they are.
    run(&["put", "a\u{1b}[31m", "v"]).ended(0);
    let red = "Available keys:\n  \u{2022} a\u{1b}[31m\n  \u{2022} k\n";
    assert_eq!(run(&["list"]).ended(0), red);
    run(&["delete", "a\u{1b}[31m"]).ended(0);
    assert_eq!(run(&["delete", "k"]).ended(0), "\u{2713} Successfully deleted key: k\n");
    run(&["put", "k", "v"]).ended(0);
    assert_eq!(run(&["clear"]).ended(0), "\u{2713} Successfully cleared all data\n");
    assert_eq!(run(&["list"]).ended(0), "No keys found in database\n");
    run(&["fly"]).failed(2, "unrecognized");
}

#[test]
fn pbc_never_wipes_a_store_when_the_mode_changes() {
    let sandbox = Sandbox::empty();
    pbc(&sandbox, &["put", "k", "v"]).ended(0);
    for mode in ["debug", "normal"] {
        let command = sandbox.command(&sandbox.link("pbc"), ["--data-dir", "db", "mode", mode]);
        let ran = feed(command, b"y\n");
        assert!(ran.ended(0).contains("bitcask dump"), "{}", ran.text());
    }
    assert_eq!(pbc(&sandbox, &["mode", "show"]).ended(0), "Current mode: normal\n");
    assert!(pbc(&sandbox, &["get", "k"]).ended(0).ends_with("\nv\n"));
    assert!(sandbox.run(["-d", "db", "mode", "debug"]).ended(0).contains("bitcask dump"));
    assert!(sandbox.run(["mode"]).ended(0).starts_with("Current mode: normal\n"));
    assert_eq!(sandbox.run(["-d", "db", "get", "k"]).ended(0), "v");
}

#[test]
fn pbc_reports_and_compacts() {
    let sandbox = Sandbox::empty();
    pbc(&sandbox, &["put", "k", "v"]).ended(0);
    let stats = pbc(&sandbox, &["compact", "stats"]);
    for line in
        ["\u{1F4CA} Database Statistics:", "  Files: ", "  Live keys: 1", "Compaction not needed"]
    {
        assert!(stats.ended(0).contains(line), "{line}: {}", stats.text());
    }
    let run = |args: &[&str], answer: &[u8]| {
        let args = [&["--data-dir", "db", "compact", "run"], args].concat();
        feed(sandbox.command(&sandbox.link("pbc"), args), answer)
    };
    let declined = run(&[], b"n\n");
    assert!(declined.ended(0).contains("threshold not met"), "{}", declined.text());
    assert!(!declined.text().contains("Starting"), "{}", declined.text());
    for ran in [run(&["--threshold", "0.5"], b"y\n"), run(&["--force"], b"")] {
        assert!(ran.ended(0).contains("\u{2713} Compaction completed successfully!"));
        assert!(ran.text().contains("  Records written: 1\n"), "{}", ran.text());
    }
    assert!(pbc(&sandbox, &["get", "k"]).ended(0).ends_with("\nv\n"));
}

#[test]
fn pbc_keeps_its_configuration() {
    let sandbox = Sandbox::empty();
    assert_eq!(pbc(&sandbox, &["config", "view"]).ended(0), "No configuration file found\n");
    let reset = "\u{2713} Configuration reset to defaults\n";
    assert_eq!(pbc(&sandbox, &["config", "reset"]).ended(0), reset);
    let view = "Current configuration:\n  \u{2022} Debug mode: False\n";
    assert_eq!(pbc(&sandbox, &["config", "view"]).ended(0), view);
    // Where the data are is not reset.
    let file = sandbox.path("home/.config/pybitcask/config.json");
    if file.exists() {
        let own = sandbox.path("own");
        let text = serde_json::json!({ "data_dir": own, "debug_mode": true }).to_string();
        fs::write(file, text).unwrap();
        sandbox.run_as("pbc", &["config", "reset"]).ended(0);
        sandbox.run_as("pbc", &["put", "k", "v"]).ended(0);
        assert!(own.join("MANIFEST").exists());
    }
}

#[test]
fn links_lead_to_the_program_and_replace_nothing_else() {
    let sandbox = Sandbox::empty();
    assert_eq!(
        sandbox.run(["links", "bin"]).ended(0),
        "bin/bitcaskpy\nbin/bitcaskpy-server\nbin/pbc\n"
    );
    let ran = sandbox.command(&sandbox.path("bin/bitcaskpy"), ["put", "k", "v"]).output().unwrap();
    assert_eq!(ran.stdout, b"Inserted k -> v\n");
    sandbox.run(["links", "bin"]).failed(2, "exists already");
    sandbox.run(["links", "bin", "--force"]).ended(0);
    fs::remove_file(sandbox.path("bin/pbc")).unwrap();
    fs::write(sandbox.path("bin/pbc"), "a program").unwrap();
    sandbox.run(["links", "bin", "--force"]).failed(2, "exists already");
    assert_eq!(fs::read_to_string(sandbox.path("bin/pbc")).unwrap(), "a program");
}

#[test]
fn a_store_of_another_program_is_recognized() {
    let sandbox = Sandbox::empty();
    for (file, program) in
        [("segment_0.log", "bitcaskpy"), ("data_1.db", "pybitcask"), ("1.bitcask.data", "basho")]
    {
        let dir = sandbox.path(program);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(file), "").unwrap();
        for args in [&["get", "k"][..], &["init"], &["put", "k", "v", "--create"], &["verify"]] {
            let ran = sandbox.run([&["-d", program], args].concat());
            ran.failed(3, &format!("holds a store of {program}"));
            ran.failed(3, &format!("import --from {program}"));
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing was created");
        let advice = sandbox.run(["-d", program, "get", "k"]).err;
        assert_eq!(advice.contains("--plain-strings"), program == "pybitcask", "{advice}");
    }
}
