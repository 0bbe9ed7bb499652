//! docs/runbook.md has an answer for every line, and names nothing that is not there.
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgconvoy_tests::program;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The cells of every row of its tables.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| runbook |"));
    lines
        .map(|line| {
            let cells = line.trim_matches('|').split(" | ");
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
        .collect()
}

fn sources(folder: &Path, all: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|end| end == "rs") {
            all.push_str(&fs::read_to_string(&path).expect("a source file"));
        }
    }
}

fn help(arguments: &[&str]) -> String {
    let mut pgconvoy = Command::new(program::path("pgconvoy"));
    let help = pgconvoy.args(arguments).output().expect("pgconvoy runs");
    String::from_utf8_lossy(&help.stdout).into_owned()
}

/// Its flags.
fn help_of<'a>(verb: &str, helps: &'a mut HashMap<String, Vec<String>>) -> &'a [String] {
    helps.entry(verb.to_owned()).or_insert_with(|| {
        let words = help(&[verb, "--help"]);
        let flags = words.split([' ', ',', '\n']);
        let flags = flags.filter(|word| word.starts_with("--"));
        flags.map(str::to_owned).collect()
    })
}

#[test]
fn every_line_of_the_runbook_has_an_answer() {
    let text = fs::read_to_string(root().join("docs/runbook.md")).expect("docs/runbook.md");
    let rows = rows(&text);
    assert!(rows.len() > 90, "{} rows", rows.len());
    let mut code = String::new();
    for member in [
        "coordinator/src",
        "agent-core/src",
        "agent-source/src",
        "agent-target/src",
        "proto/src",
    ] {
        sources(&root().join(member), &mut code);
    }
    let help = help(&["--help"]);
    let mut helps = HashMap::new();
    for row in rows {
        assert!(row.len() >= 2 && !row[1].is_empty(), "no answer: {row:?}");
        let planned = row[1].contains("**planned**") || row[1].contains("**yours**");
        assert!(
            planned || row.len() > 2 || row[1].contains("pgconvoy"),
            "nowhere to look: {row:?}"
        );
        for cell in &row {
            for finding in cell
                .split("`[")
                .skip(1)
                .filter_map(|rest| rest.split("]`").next())
            {
                assert!(
                    code.contains(&format!("\"{finding}\"")),
                    "no finding has the code {finding}: {row:?}"
                );
            }
        }
        if planned {
            continue;
        }
        for command in row[1].split("`pgconvoy ").skip(1) {
            let verb = command.split([' ', '`']).next().unwrap_or_default();
            assert!(
                help.contains(&format!("  {verb} ")),
                "no command {verb}: {row:?}"
            );
            let command = command.split('`').next().unwrap_or_default();
            let flags = help_of(verb, &mut helps);
            for flag in command.split(' ').filter(|word| word.starts_with("--")) {
                assert!(
                    flags.iter().any(|one| one == flag),
                    "{verb} has no {flag}: {row:?}"
                );
            }
        }
    }
}
