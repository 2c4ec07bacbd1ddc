//! The repository watches over its own tidiness: sizes of files, the direction of imports, what a test may not do.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::{Path, PathBuf};

/// Past that a module wants to be two.
const MAX_RUST_LINES: usize = 600;
/// Past that a script wants to be a program.
const MAX_SCRIPT_LINES: usize = 300;

/// The stages in the order in which a change flows through them. None knows a later one.
const STAGES: &[&str] = &["postgres", "pgoutput", "relation", "avro", "kafka", "snapshot"];
/// What every stage may use, and what uses no stage.
const BASE: &[&str] = &["calendar", "lsn", "position", "retry", "error", "metrics", "telemetry", "shutdown"];
/// What wires the stages together, or shows them to the outside; no stage knows it.
const TOP: &[&str] = &["connector", "cli", "http"];

#[test]
fn rust_files_stay_short() {
    let files = ["src", "tests", "benches", "bench/src"].into_iter().flat_map(rust_files);
    assert_none(files.filter_map(|file| too_long(&file, MAX_RUST_LINES)));
}

#[test]
fn scripts_stay_short() {
    assert_none(scripts().iter().filter_map(|file| too_long(file, MAX_SCRIPT_LINES)));
}

#[test]
fn every_module_begins_by_saying_what_it_is_for() {
    let files = ["src", "benches", "bench/src"].into_iter().flat_map(rust_files);
    let silent = files.filter(|file| !read(file).starts_with("//! "));
    assert_none(silent.map(|file| format!("{} does not start with `//!`", shown(&file))));
}

#[test]
fn a_stage_knows_nothing_of_later_stages() {
    assert_none(imports().filter(|(from, to, _)| stage(to) > stage(from) && stage(from).is_some()).map(complaint));
}

#[test]
fn base_modules_know_no_stage() {
    assert_none(imports().filter(|(from, to, _)| BASE.contains(&from.as_str()) && stage(to).is_some()).map(complaint));
}

#[test]
fn nothing_below_knows_what_wires_it_together() {
    let wiring = |module: &str| TOP.contains(&module);
    let below = |module: &str| stage(module).is_some() || BASE.contains(&module) || module == "config";
    assert_none(imports().filter(|(from, to, _)| below(from) && wiring(to)).map(complaint));
}

#[test]
fn an_import_is_found_in_a_list_and_in_a_path() {
    let source = "use crate::{lsn::Lsn, kafka};\nuse crate::{\n    avro,\n    relation::{Shape, catalog},\n};\n\
                  fn f() { crate::http::serve() }\n//! see crate::cli\n";
    assert_eq!(imported_modules(source), ["lsn", "kafka", "avro", "relation", "http"]);
}

#[test]
fn tests_wait_for_conditions_instead_of_sleeping() {
    let call = concat!("sleep", "(");
    assert_none(rust_files("tests").into_iter().flat_map(|file| {
        let text = read(&file);
        let lines = text.lines().enumerate().filter(|(_, line)| line.replace("pg_sleep", "").contains(call));
        lines.map(|(at, _)| format!("{}:{} sleeps", shown(&file), at + 1)).collect::<Vec<_>>()
    }));
}

#[test]
fn targets_of_the_makefile_are_one_line_each() {
    let makefile = read(&root().join("Makefile"));
    let lines: Vec<&str> = makefile.lines().collect();
    let recipe = |line: &str| line.starts_with('\t');
    let doubled = lines.windows(2).filter(|pair| recipe(pair[0]) && (recipe(pair[1]) || pair[0].ends_with('\\')));
    assert_none(doubled.map(|pair| format!("Makefile: more than one line at {:?}", pair[0])));
}

/// An import as (importing module, imported module, file), both modules named by their first segment.
type Import = (String, String, PathBuf);

fn imports() -> impl Iterator<Item = Import> {
    rust_files("src").into_iter().flat_map(|file| {
        let from = module_of(&file);
        let modules = imported_modules(&read(&file));
        modules.into_iter().map(move |to| (from.clone(), to, file.clone())).collect::<Vec<_>>()
    })
}

fn complaint((from, to, file): Import) -> String {
    format!("{}: {from} must not use {to}", shown(&file))
}

/// The first segment after `crate::` wherever it stands outside of comments, also in a list in braces.
fn imported_modules(source: &str) -> Vec<String> {
    let code: String = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let mut modules = Vec::new();
    for (at, path) in code.match_indices("crate::") {
        let rest = &code[at + path.len()..];
        match rest.strip_prefix('{') {
            Some(list) => modules.extend(first_segments(list)),
            None => modules.push(identifier(rest)),
        }
    }
    modules
}

/// First segments of the paths in a list up to its closing brace.
fn first_segments(list: &str) -> Vec<String> {
    let mut segments = Vec::new();
    let mut depth = 0;
    let mut item = 0;
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                segments.push(identifier(list[item..at].trim_start()));
                item = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    segments.retain(|segment| !segment.is_empty());
    segments
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn stage(module: &str) -> Option<usize> {
    STAGES.iter().position(|name| *name == module)
}

/// `src/kafka/producer.rs` and `src/kafka.rs` are of the module `kafka`.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix(root().join("src")).unwrap();
    inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

fn too_long(file: &Path, limit: usize) -> Option<String> {
    let lines = read(file).lines().count();
    (lines >= limit).then(|| format!("{} has {lines} lines, {limit} are too many", shown(file)))
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut files = files_below(&root().join(folder));
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    files
}

fn scripts() -> Vec<PathBuf> {
    let mut files = files_below(&root().join("dev"));
    files.extend(files_below(&root().join(".ci")));
    files.retain(|file| file.extension().is_some_and(|extension| extension == "sh") || read(file).starts_with("#!"));
    files
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.map(Result::unwrap) {
            let list = if entry.file_type().unwrap().is_dir() { &mut folders } else { &mut files };
            list.push(entry.path());
        }
    }
    files.sort();
    files
}

fn read(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn shown(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

#[track_caller]
fn assert_none(complaints: impl Iterator<Item = String>) {
    let complaints: Vec<String> = complaints.collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}
