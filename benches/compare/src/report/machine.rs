//! What the report says about the machine.

use std::fs;

pub(super) fn description() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (cpu, memory, kernel) =
        (read("/proc/cpuinfo"), read("/proc/meminfo"), read("/proc/sys/kernel/osrelease"));
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim_matches([' ', '\t', ':']).to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory: u64 =
        field(&memory, "MemTotal").trim_end_matches(" kB").parse().unwrap_or_default();
    let model = field(&cpu, "model name");
    format!("{cores} cores of {model}, {} GiB, Linux {}.", memory >> 20, kernel.trim())
}
