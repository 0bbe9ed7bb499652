#![allow(clippy::unwrap_used)]
use super::*;
use std::os::unix::fs::PermissionsExt;

/// A folder for each version, with scripts that answer as the programs do.
async fn installed(versions: &[&str]) -> (tempfile::TempDir, Tools) {
    let root = tempfile::tempdir().unwrap();
    let mut folders = Vec::new();
    for version in versions {
        let folder = root.path().join(version);
        std::fs::create_dir(&folder).unwrap();
        for program in ["pg_dump", "pg_restore"] {
            script(
                &folder.join(program),
                &format!("echo '{program} (PostgreSQL) {version} (Debian x)'"),
            );
        }
        folders.push(folder);
    }
    let tools = Tools::find_in(folders).await;
    (root, tools)
}

/// Through `sh`: a file that was just written cannot be run directly while another thread forks.
fn script(path: &Path, body: &str) {
    let source = path.with_extension("sh");
    std::fs::write(&source, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&source, path).unwrap();
}

#[test]
fn versions_are_read() {
    assert_eq!(
        parse_version("pg_dump (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"),
        Some((15, 14))
    );
    assert_eq!(
        parse_version("pg_restore (PostgreSQL) 19devel"),
        Some((19, 0))
    );
    assert_eq!(parse_version("pg_dump (PostgreSQL) 18beta1"), Some((18, 0)));
    assert_eq!(parse_version("pg_dump (PostgreSQL) 9.6.24"), Some((9, 6)));
    assert_eq!(parse_version("something else 3"), None);
}

#[tokio::test]
async fn the_lowest_pg_dump_that_reads_the_server_is_taken() {
    let (_root, tools) = installed(&["17.1", "15.2", "15.14", "18.0", "14.9"]).await;
    assert_eq!(tools.pick_dump(15).unwrap().version, (15, 14));
    assert_eq!(tools.pick_dump(16).unwrap().version, (17, 1));
    assert_eq!(tools.pick_dump(9).unwrap().version, (14, 9));
    let error = tools.pick_dump(19).unwrap_err().to_string();
    assert!(error.starts_with("pg_dump 18.0 in /"), "{error}");
    assert!(
        error.contains("older than the server (19): install postgresql-client-19 or newer"),
        "{error}"
    );
}

#[tokio::test]
async fn pg_restore_is_the_targets_own_where_that_reads_the_archive() {
    let (_root, tools) = installed(&["17.1", "15.2", "16.3"]).await;
    assert_eq!(tools.pick_restore(15, 16).unwrap().version, (16, 3));
    assert_eq!(tools.pick_restore(17, 15).unwrap().version, (17, 1));
    assert_eq!(tools.pick_restore(15, 18).unwrap().version, (15, 2));
    assert!(
        tools
            .pick_restore(18, 15)
            .unwrap_err()
            .to_string()
            .contains("postgresql-client-18")
    );
}

#[tokio::test]
async fn nothing_found_says_where_it_looked_and_what_is_broken() {
    let root = tempfile::tempdir().unwrap();
    let tools = Tools::find(Some(root.path())).await;
    let error = tools.pick_dump(15).unwrap_err().to_string();
    assert!(
        error.starts_with("no pg_dump found (looked in /"),
        "{error}"
    );
    assert!(
        error.ends_with("install postgresql-client-15 or give --pg-bin DIR"),
        "{error}"
    );
    script(
        &root.path().join("pg_dump"),
        "echo 'libpq.so.5: cannot open' >&2; exit 127",
    );
    let tools = Tools::find(Some(root.path())).await;
    assert!(
        tools
            .pick_dump(15)
            .unwrap_err()
            .to_string()
            .contains("libpq.so.5: cannot open")
    );
}

#[test]
fn links_to_one_binary_and_debians_wrapper_count_once_and_never() {
    let root = tempfile::tempdir().unwrap();
    let (one, two, three) = (
        root.path().join("1"),
        root.path().join("2"),
        root.path().join("3"),
    );
    for folder in [&one, &two, &three] {
        std::fs::create_dir(folder).unwrap();
    }
    script(&one.join("pg_dump"), "true");
    script(&three.join("pg_wrapper"), "true");
    std::os::unix::fs::symlink(one.join("pg_dump"), two.join("pg_dump")).unwrap();
    std::os::unix::fs::symlink("pg_wrapper", three.join("pg_dump")).unwrap();
    assert_eq!(
        candidates(&[one.clone(), two, three], "pg_dump"),
        [one.join("pg_dump")]
    );
    let pattern = format!("{}/*/x", root.path().display());
    assert_eq!(expand(&pattern).len(), 3);
}
