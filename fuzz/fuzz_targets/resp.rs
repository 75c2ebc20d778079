#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bitcask::fuzzing::resp(bytes));
