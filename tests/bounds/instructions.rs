//! How many instructions a row of the stream takes from pgoutput's message into the batch, counted by callgrind.
//!
//! Time varies with the machine and its load; this count doesn't. It is taken of `benches/row_path.rs`, in which only
//! this crate is optimised: so no dependency is compiled for it, and none of theirs is on a row's way.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rows;

/// What is recorded, for x86-64: when a change takes less, lower it; when one must take more, say why in its commit.
const INSTRUCTIONS_A_ROW: u64 = 4_350;
/// Another compiler, another C library.
const TOLERANCE_PERCENT: u64 = 10;

/// As in a release, but for the linking of all crates into one unit.
const OPTIMISED: [&str; 4] = ["opt-level=3", "codegen-units=1", "debug-assertions=false", "overflow-checks=false"];

#[test]
#[expect(clippy::print_stdout, reason = "the count is what one wants to see of this test")]
fn a_row_takes_no_more_instructions_than_recorded() {
    if cfg!(not(target_arch = "x86_64")) {
        return skipped("the bound is recorded for x86-64");
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        return skipped("valgrind is not installed (`make test` installs it)");
    }
    let program = build();
    // What the program does besides is the same in both.
    let (few, many) = (1_000, 9_000);
    let a_row = (instructions(&program, many) - instructions(&program, few)) / (many - few);
    println!("{a_row} instructions a row of {} bytes, recorded {INSTRUCTIONS_A_ROW}", rows::inserts()[0].len());
    let most = INSTRUCTIONS_A_ROW + INSTRUCTIONS_A_ROW * TOLERANCE_PERCENT / 100;
    assert!(a_row <= most, "a row takes {a_row} instructions, {INSTRUCTIONS_A_ROW} are recorded, {most} the most");
    let least = INSTRUCTIONS_A_ROW - INSTRUCTIONS_A_ROW * TOLERANCE_PERCENT / 100;
    assert!(a_row >= least, "a row takes only {a_row} instructions: record that, in place of {INSTRUCTIONS_A_ROW}");
}

#[expect(clippy::print_stderr, reason = "a test that does nothing has to say so")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// The program, compiled; cargo says where it is.
fn build() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--locked", "--quiet", "--bench", "row_path", "--message-format", "json"]);
    for setting in OPTIMISED {
        cargo.arg("--config").arg(format!("profile.dev.package.tablecast.{setting}"));
    }
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).unwrap();
    let built = messages.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut programs = built.filter(|built| built["target"]["name"] == "row_path" && built["executable"].is_string());
    PathBuf::from(programs.next().unwrap()["executable"].as_str().unwrap())
}

/// All that the program takes for so many rows.
fn instructions(program: &Path, rows: u64) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=callgrind.out"]).current_dir(&folder);
    let output = valgrind.arg(program).arg(rows.to_string()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // "==123== Collected : 456"
    let collected = said.lines().find_map(|line| line.split_once("Collected :")).unwrap_or_else(|| panic!("{said}"));
    collected.1.trim().parse().unwrap()
}
