//! Imports point downward: a file names only its own layer or lower layers.

use std::path::{Path, PathBuf};

/// The layers of `src/lib.rs`, top first.
const LAYERS: [&str; 19] = [
    "main",
    "cli",
    "load",
    "app",
    "shutdown",
    "config",
    "services",
    "pipeline",
    "scheduler",
    "catalog",
    "device",
    "model",
    "liveness",
    "face",
    "image",
    "trust",
    "telemetry",
    "setting",
    "engine",
];

/// Crates in `src/` that are no layer, with the layers that may use them.
const CRATES: [(&str, &[&str]); 2] =
    [("menshen_evaluation", &["cli", "load"]), ("menshen_puppet", &["load"])];

fn rank(layer: &str) -> Option<usize> {
    if layer == "proto" {
        return Some(LAYERS.len());
    }
    LAYERS.iter().position(|name| *name == layer)
}

fn is_crate(folder: &Path) -> bool {
    folder.join("Cargo.toml").exists()
}

fn collect_sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // The compiler enforces the border of a crate.
            if !is_crate(&path) {
                collect_sources(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Returns every layer that `text` names after `crate::`, groups in braces included.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let name = |text: &str| -> String {
            text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        };
        match rest.strip_prefix('{') {
            None => found.push(name(rest)),
            Some(group) => found.extend(members(group).iter().map(|part| name(part.trim()))),
        }
    }
    found
}

/// Returns the crates of [`CRATES`] that `text` names although `layer` may not use them.
fn misplaced_crates(text: &str, layer: &str) -> Vec<&'static str> {
    CRATES
        .iter()
        .filter(|(name, users)| text.contains(&format!("{name}::")) && !users.contains(&layer))
        .map(|(name, _)| *name)
        .collect()
}

/// Returns the members of a group after its opening brace; a nested group stays in one piece.
fn members(group: &str) -> Vec<String> {
    let mut members = vec![String::new()];
    let mut depth = 0;
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => members.push(String::new()),
            _ => {
                depth += i32::from(c == '{') - i32::from(c == '}');
                members.last_mut().unwrap().push(c);
            }
        }
    }
    members.retain(|member| !member.trim().is_empty());
    members
}

#[test]
fn imports_point_downward_only() {
    let source = crate::support::repository().join("src");
    let mut files = Vec::new();
    collect_sources(&source, &mut files);
    assert!(files.len() > 30, "the sources were not found");
    let mut wrong = Vec::new();
    for file in files {
        let inner = file.strip_prefix(&source).unwrap();
        let first = inner.components().next().unwrap().as_os_str().to_string_lossy();
        let layer = first.trim_end_matches(".rs").to_owned();
        if layer == "lib" {
            continue;
        }
        let own = rank(&layer).unwrap_or_else(|| panic!("{layer} is not on the map"));
        let text = std::fs::read_to_string(&file).unwrap();
        for import in misplaced_crates(&text, &layer) {
            wrong.push(format!("{} imports {import}", inner.display()));
        }
        for import in imports(&text) {
            match rank(&import) {
                Some(below) if below >= own => {}
                Some(_) => wrong.push(format!("{} imports {import}", inner.display())),
                None => wrong.push(format!("{} imports unknown {import}", inner.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A load generator that knew the server from inside could measure what no client can call.
#[test]
fn the_load_generator_uses_the_types_of_clients_only() {
    let mut files = Vec::new();
    collect_sources(&crate::support::repository().join("src/load"), &mut files);
    assert!(files.len() > 10, "the sources were not found");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let others: Vec<String> =
            imports(&text).into_iter().filter(|import| import != "proto").collect();
        assert!(others.is_empty(), "{} imports {others:?}", file.display());
    }
}

/// The compiler keeps the crates below the server from naming the server. This test keeps them from
/// depending on the server or on each other.
#[test]
fn crates_in_the_sources_depend_on_nothing_of_this_repository() {
    let source = crate::support::repository().join("src");
    let folders = std::fs::read_dir(source).unwrap().map(|entry| entry.unwrap().path());
    let crates: Vec<PathBuf> = folders.filter(|folder| is_crate(folder)).collect();
    assert!(!crates.is_empty(), "the crates were not found");
    for folder in crates {
        let text = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        let tables = manifest.iter().filter(|(key, _)| key.ends_with("dependencies"));
        for (_, dependencies) in tables {
            let mut names = dependencies.as_table().unwrap().keys();
            let own = names.find(|name| name.starts_with("menshen"));
            assert_eq!(own, None, "a dependency of {}", folder.display());
        }
    }
}

/// Returns the codes and constructors of gRPC statuses that `text` names outside of its tests.
fn status_names(text: &str) -> Vec<String> {
    let product = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let mut found = Vec::new();
    for (at, name) in product.match_indices("Code::").chain(product.match_indices("Status::")) {
        let is_whole = !product[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let member: String = product[at + name.len()..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        if is_whole {
            found.push(format!("{name}{member}"));
        }
    }
    found
}

#[test]
fn only_one_file_of_the_services_names_grpc_codes() {
    let services = crate::support::repository().join("src/services");
    let mut files = Vec::new();
    collect_sources(&services, &mut files);
    assert!(files.len() > 10, "the sources were not found");
    let mut wrong = Vec::new();
    for file in files {
        let inner = file.strip_prefix(&services).unwrap();
        let names = status_names(&std::fs::read_to_string(&file).unwrap());
        if inner == Path::new("status.rs") {
            assert!(names.contains(&"Code::InvalidArgument".to_owned()), "{names:?}");
        } else if !names.is_empty() {
            wrong.push(format!("{} names {}", inner.display(), names.join(", ")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn codes_and_constructors_of_statuses_are_seen_and_those_of_http_are_not() {
    let text = "tonic::Code::Internal Status::not_found(m) StatusCode::OK ServingStatus::Serving\n\
                #[cfg(test)]\nmod tests { Code::Ok }";
    assert_eq!(status_names(text), ["Code::Internal", "Status::not_found"]);
}

#[test]
fn grouped_and_single_imports_are_both_seen() {
    let text = "use crate::face::Face;\nuse crate::{app, trust::{Secret, Wipe}, cli,};\n\
                crate::image::decode()";
    assert_eq!(imports(text), ["face", "app", "trust", "cli", "image"]);
}

#[test]
fn a_crate_is_misplaced_outside_the_layers_that_may_use_it() {
    let text = "use menshen_evaluation::Rate;\n";
    assert_eq!(misplaced_crates(text, "cli"), [""; 0]);
    assert_eq!(misplaced_crates(text, "services"), ["menshen_evaluation"]);
}
