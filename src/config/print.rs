//! Prints the settings in force as a TOML file for operators. An explanation, which is the doc
//! comment of the field, stands above every section and key.

use std::fmt::Write;
use std::path::PathBuf;

use documented::DocumentedFields;
use toml::Table;

use super::Config;
use crate::catalog::ModelSettings;
use crate::device::{CudaSettings, DeviceSettings};
use crate::engine::Precision;
use crate::face::{QualityLimits, SourceLimits};
use crate::image::ImageSettings;
use crate::pipeline::{LivenessSettings, VerifySettings};
use crate::scheduler::SchedulerSettings;
use crate::services::ServerSettings;
use crate::telemetry::LogSettings;

/// Names and doc comments of the fields of a struct, in the order of declaration.
struct Fields {
    names: &'static [&'static str],
    docs: &'static [&'static str],
}

impl Fields {
    fn of<T: DocumentedFields>() -> Self {
        Self { names: T::FIELD_NAMES, docs: T::FIELD_DOCS }
    }

    fn doc(&self, name: &str) -> &'static str {
        let field = self.names.iter().zip(self.docs).find(|(field, _)| **field == name);
        field.map_or("", |(_, doc)| doc)
    }
}

/// Returns `config` as TOML with comments. Parsing the text gives the same settings, except the
/// user and password of the store, which are replaced by `redacted`. A setting that is not set is a
/// comment with an example.
///
/// # Errors
/// The settings cannot be represented, which is a defect of this program.
pub fn print(config: &Config) -> Result<String, toml::ser::Error> {
    let config = Table::try_from(config)?;
    let examples = Table::try_from(examples())?;
    let mut writer = TomlWriter { text: HEAD.to_owned(), config, examples };
    let sections = Fields::of::<Config>();
    for name in sections.names {
        writer.write_section(&[name], sections.doc(name));
    }
    Ok(writer.text)
}

/// The first lines of the file.
const HEAD: &str = "\
# Settings of menshen. Every key may be left out; it then has its default. The environment variable
# MENSHEN_SECTION__KEY sets `section.key` over this file, and flags of the command line set it over
# both.
";

/// Returns settings in which every optional setting has a value.
fn examples() -> Config {
    let mut examples = Config::default();
    examples.device.precision = Some(Precision::F32);
    examples.device.placement.insert("sface".to_owned(), vec![0, 1]);
    examples.verify.calibration = Some(PathBuf::from("/etc/menshen/calibration.toml"));
    examples.liveness.key_file = Some(PathBuf::from("/etc/menshen/sessions"));
    examples
}

/// Returns the fields of the section at `path`. Those in [`subsections_of`] are sections too.
fn fields_of(path: &[&str]) -> Fields {
    match path {
        ["server"] => Fields::of::<ServerSettings>(),
        ["device"] => Fields::of::<DeviceSettings>(),
        ["device", "cuda"] => Fields::of::<CudaSettings>(),
        ["models"] => Fields::of::<ModelSettings>(),
        ["scheduler"] => Fields::of::<SchedulerSettings>(),
        ["verify"] => Fields::of::<VerifySettings>(),
        ["liveness"] => Fields::of::<LivenessSettings>(),
        ["image"] => Fields::of::<ImageSettings>(),
        ["quality"] => Fields::of::<QualityLimits>(),
        ["quality", _] => Fields::of::<SourceLimits>(),
        ["log"] => Fields::of::<LogSettings>(),
        _ => Fields { names: &[], docs: &[] },
    }
}

/// Returns the names of the sections inside the section at `path`.
fn subsections_of(path: &[&str]) -> &'static [&'static str] {
    match path {
        ["device"] => &["cuda"],
        ["quality"] => QualityLimits::FIELD_NAMES,
        _ => &[],
    }
}

/// Writes the file, section by section.
struct TomlWriter {
    text: String,
    config: Table,
    examples: Table,
}

impl TomlWriter {
    fn write_section(&mut self, path: &[&str], doc: &str) {
        self.text.push('\n');
        self.write_comment(doc);
        let _ = writeln!(self.text, "[{}]", path.join("."));
        let (fields, inside) = (fields_of(path), subsections_of(path));
        for name in fields.names.iter().filter(|name| !inside.contains(name)) {
            self.write_comment(fields.doc(name));
            self.write_key(path, name);
        }
        for name in inside {
            self.write_section(&[path, &[name]].concat(), fields.doc(name));
        }
    }

    /// Writes `key = value`, or `#key = example` if the key has no value.
    fn write_key(&mut self, path: &[&str], name: &str) {
        let value = |table: &Table| {
            let section = path.iter().try_fold(table, |table, part| table.get(*part)?.as_table());
            section.and_then(|section| section.get(name)).map(ToString::to_string)
        };
        let line = match (value(&self.config), value(&self.examples)) {
            (Some(value), _) => format!("{name} = {value}\n"),
            (None, Some(example)) => format!("#{name} = {example}\n"),
            (None, None) => String::new(),
        };
        self.text.push_str(&line);
    }

    fn write_comment(&mut self, doc: &str) {
        for line in doc.lines() {
            let _ = writeln!(self.text, "# {line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the key of a line, which is set or a comment with an example.
    fn key(line: &str) -> Option<&str> {
        let line = line.strip_prefix('#').unwrap_or(line);
        let is_key = line.starts_with(|c: char| c.is_ascii_lowercase());
        line.split_once(" = ").filter(|_| is_key).map(|(key, _)| key)
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same_settings() {
        for config in [Config::default(), examples()] {
            let printed = print(&config).unwrap();
            assert_eq!(toml::from_str::<Config>(&printed).unwrap(), config, "{printed}");
        }
    }

    #[test]
    fn every_section_and_every_key_stands_under_its_explanation() {
        let printed = print(&Config::default()).unwrap();
        let lines: Vec<&str> = printed.lines().collect();
        let mut keys = 0;
        for (above, line) in lines.iter().zip(&lines[1..]) {
            if line.starts_with('[') || key(line).is_some() {
                keys += usize::from(key(line).is_some());
                assert!(above.starts_with("# "), "nothing explains {line}");
            }
        }
        let serialised = toml::to_string(&examples()).unwrap();
        let expected = serialised.lines().filter(|line| key(line).is_some()).count();
        assert_eq!(keys, expected, "{printed}");
    }

    #[test]
    fn a_key_that_is_not_set_is_shown_with_an_example() {
        let printed = print(&Config::default()).unwrap();
        for line in [
            "#precision = \"f32\"",
            "#placement = { sface = [0, 1] }",
            "#calibration = \"/etc/menshen/calibration.toml\"",
            "#key_file = \"/etc/menshen/sessions\"",
        ] {
            assert!(printed.lines().any(|printed| printed == line), "{line} in\n{printed}");
        }
        let set = print(&examples()).unwrap();
        assert!(!set.lines().any(|line| line.starts_with('#') && key(line).is_some()), "{set}");
    }

    #[test]
    fn no_line_is_wider_than_a_page() {
        for line in print(&examples()).unwrap().lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}
