//! Inline commands: any line is split into arguments or refused, never anything else.
//!
//! What must hold for every line: no panic; nothing is made up (arguments together are no longer than the line); a line
//! of plain words splits as white space does.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shoal_core::protocol::inline::split;

fuzz_target!(|line: &[u8]| {
    let mut arguments = Vec::new();
    let result = split(line, &mut arguments);
    let total: usize = arguments.iter().map(Vec::len).sum();
    assert!(total <= line.len(), "arguments are longer than the line");
    let plain = line.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b' ');
    if plain {
        assert!(result.is_ok(), "a line of plain words is refused");
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).collect();
        assert_eq!(arguments, words);
    }
});
