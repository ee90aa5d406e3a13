//! Overlays the defaults with the file, the environment and the command line.

use std::path::Path;

use toml::{Table, Value};

use super::{Config, ConfigError, Refusal};

/// Prefix of every environment variable that sets a key.
const PREFIX: &str = "MENSHEN_";

/// What follows the prefix in the service links of Kubernetes. Kubernetes sets such variables in
/// every pod beside a Service called `menshen` (`MENSHEN_SERVICE_HOST`, `MENSHEN_PORT_50051_TCP`,
/// …). No section has these names.
const SERVICE_LINKS: [&str; 2] = ["SERVICE_", "PORT"];

/// A setting given on the command line.
#[derive(Debug, Clone)]
pub struct Override {
    /// Dotted name, such as `server.listen`.
    pub key: &'static str,
    /// The value.
    pub value: Value,
}

/// The parsed settings, and the refused ones.
#[derive(Debug)]
pub struct ParsedConfig {
    /// The settings. A key that cannot be read has its default; a value out of range stands as
    /// given.
    pub config: Config,
    /// The refused settings: first those that cannot be read, then those out of range.
    pub refusals: Vec<Refusal>,
}

/// Reads the settings: the defaults, overlaid with `file`, `variables` and `overrides` in this
/// order.
///
/// # Errors
/// The file cannot be read, or [`ConfigError::Refused`] with every refused setting.
pub fn load(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
    overrides: &[Override],
) -> Result<Config, ConfigError> {
    let ParsedConfig { config, refusals } = read(file, variables, overrides)?;
    if refusals.is_empty() { Ok(config) } else { Err(ConfigError::Refused(refusals)) }
}

/// As [`load`], but returns the refused settings together with the others.
///
/// # Errors
/// The file cannot be read.
pub fn read(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
    overrides: &[Override],
) -> Result<ParsedConfig, ConfigError> {
    let mut given = match file {
        Some(path) => read_file(path)?,
        None => Table::new(),
    };
    let mut refusals = Vec::new();
    for (name, value) in variables {
        let Some(key) = name.strip_prefix(PREFIX) else { continue };
        if SERVICE_LINKS.iter().any(|link| key.starts_with(link)) {
            continue;
        }
        match variable_path(key) {
            Some(path) => set(&mut given, &path, variable_value(&value)),
            None => refusals.push(Refusal::Variable(name)),
        }
    }
    for Override { key, value } in overrides {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        set(&mut given, &path, value.clone());
    }
    let config = parse(&mut given, &mut refusals)?;
    refusals.extend(out_of_range(&config, &refusals));
    Ok(ParsedConfig { config, refusals })
}

/// Overlays the defaults with `given`. Moves each key that cannot be read from `given` to
/// `refusals`.
fn parse(given: &mut Table, refusals: &mut Vec<Refusal>) -> Result<Config, ConfigError> {
    let defaults = Table::try_from(Config::default())?;
    let over_defaults = |given: Table| {
        let mut table = defaults.clone();
        merge(&mut table, given);
        Value::Table(table).try_into::<Config>()
    };
    // The parser stops at the first error, so each key is parsed alone to find all errors.
    if over_defaults(given.clone()).is_err() {
        for path in key_paths(given, &defaults) {
            let Some(value) = get(given, &path) else { continue };
            let mut alone = Table::new();
            set(&mut alone, &path, value.clone());
            if let Err(error) = over_defaults(alone) {
                let (key, reason) = (path.join("."), error.message().to_owned());
                refusals.push(Refusal::Unreadable { key, reason });
                remove(given, &path);
            }
        }
    }
    over_defaults(given.clone()).map_err(|error| {
        let (key, reason) = ("configuration".to_owned(), error.message().to_owned());
        ConfigError::Refused(vec![Refusal::Unreadable { key, reason }])
    })
}

/// Returns the settings out of range. Skips a section that has an unreadable key, because a rule
/// may depend on the value of that key. Any unreadable key skips the rules between sections.
fn out_of_range(config: &Config, unreadable: &[Refusal]) -> Vec<Refusal> {
    let section = |key: &str| key.split('.').next().unwrap_or_default().to_owned();
    let unreadable: Vec<String> = unreadable.iter().map(|refusal| section(refusal.key())).collect();
    let mut violations = config.violations_in_sections();
    violations.retain(|violation| !unreadable.contains(&section(&violation.key)));
    if unreadable.is_empty() {
        violations.extend(config.violations_between_sections());
    }
    violations.into_iter().map(Refusal::OutOfRange).collect()
}

/// Returns the path of every key in `given`. A table is a section if it is a table in the defaults
/// too. Any other table is the value of a key.
fn key_paths(given: &Table, defaults: &Table) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (name, value) in given {
        match (value, defaults.get(name)) {
            (Value::Table(inner), Some(Value::Table(section))) => {
                let inner = key_paths(inner, section).into_iter();
                found.extend(inner.map(|path| [vec![name.clone()], path].concat()));
            }
            _ => found.push(vec![name.clone()]),
        }
    }
    found
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    text.parse::<Table>().map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count()),
        reason: error.message().to_owned(),
    })
}

/// Overlays `under` with `over`, table by table, so that a file can set a single key of a section.
fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(value)) => merge(inner, value),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// Converts the name of a variable, without the prefix, to the path of a key. Returns `None` if the
/// name is not of the form `SECTION__KEY`.
fn variable_path(key: &str) -> Option<Vec<String>> {
    let path: Vec<String> = key.to_lowercase().split("__").map(str::to_owned).collect();
    let names_key = path.len() >= 2 && path.iter().all(|part| !part.is_empty());
    names_key.then_some(path)
}

/// Parses the value of a variable: a TOML number or boolean, or else a string.
fn variable_value(text: &str) -> Value {
    format!("v = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut parsed| parsed.remove("v"))
        .filter(|value| matches!(value, Value::Integer(_) | Value::Float(_) | Value::Boolean(_)))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

fn set(table: &mut Table, path: &[String], value: Value) {
    let Some((last, sections)) = path.split_last() else { return };
    let mut table = table;
    for section in sections {
        let inner = table.entry(section.clone()).or_insert(Value::Table(Table::new()));
        if !inner.is_table() {
            *inner = Value::Table(Table::new());
        }
        let Value::Table(next) = inner else { return };
        table = next;
    }
    table.insert(last.clone(), value);
}

fn get<'a>(table: &'a Table, path: &[String]) -> Option<&'a Value> {
    let (last, sections) = path.split_last()?;
    let inner = sections.iter().try_fold(table, |table, section| table.get(section)?.as_table())?;
    inner.get(last)
}

fn remove(table: &mut Table, path: &[String]) {
    let Some((last, sections)) = path.split_last() else { return };
    let mut table = table;
    for section in sections {
        let Some(Value::Table(inner)) = table.get_mut(section) else { return };
        table = inner;
    }
    table.remove(last);
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::{QualityLimits, SESSION_ENVELOPE_BYTES_MAX};
    use super::*;
    use crate::trust::ReplayTarget;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn listen(value: &str) -> Override {
        Override { key: "server.listen", value: Value::String(value.to_owned()) }
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(load(None, [], &[]).unwrap(), Config::default());
    }

    #[test]
    fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
        let file =
            file("[server]\nlisten = \"127.0.0.1:1\"\nrequests_max = 7\ndrain_grace_ms = 9\n");
        let env = variables(&[
            ("MENSHEN_SERVER__LISTEN", "127.0.0.1:2"),
            ("MENSHEN_SERVER__DRAIN_GRACE_MS", "10"),
            ("PATH", "/bin"),
        ]);
        let config = load(Some(file.path()), env, &[listen("127.0.0.1:3")]).unwrap();
        assert_eq!(config.server.listen.port(), 3);
        assert_eq!(config.server.drain_grace_ms, 10);
        assert_eq!(config.server.requests_max, 7);
    }

    #[test]
    fn one_quality_limit_can_be_set_alone() {
        let file = file("[quality.live_photo]\nyaw_max = 12.5\n");
        let config = load(Some(file.path()), [], &[]).unwrap();
        assert_eq!(config.quality.live_photo.yaw_max, 12.5);
        assert_eq!(config.quality.id_chip, QualityLimits::default().id_chip);
    }

    #[test]
    fn models_are_placed_by_name() {
        let file = file("[device.placement]\nsface = [0, 1]\n\"fr.live\" = []\n");
        let config = load(Some(file.path()), [], &[]).unwrap();
        assert_eq!(config.device.placement["sface"], [0, 1]);
        assert!(config.device.placement["fr.live"].is_empty());
        let printed = toml::to_string_pretty(&config).unwrap();
        assert_eq!(toml::from_str::<Config>(&printed).unwrap(), config);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name_wherever_it_stands() {
        for text in ["colour = 1", "[server]\ncolour = 1", "[quality.live_photo]\ncolour = 1"] {
            let file = file(text);
            let error = load(Some(file.path()), [], &[]).unwrap_err().to_string();
            assert!(error.contains("colour"), "{error}");
        }
        let env = variables(&[("MENSHEN_SERVER__COLOUR", "1")]);
        assert!(load(None, env, &[]).unwrap_err().to_string().contains("colour"));
        let env = variables(&[("MENSHEN_COLOUR", "1")]);
        assert!(load(None, env, &[]).unwrap_err().to_string().contains("MENSHEN_COLOUR"));
    }

    #[test]
    fn what_kubernetes_says_about_a_service_of_this_name_sets_nothing() {
        let env = variables(&[
            ("MENSHEN_SERVICE_HOST", "10.0.0.1"),
            ("MENSHEN_PORT", "tcp://10.0.0.1:50051"),
            ("MENSHEN_PORT_50051_TCP_ADDR", "10.0.0.1"),
        ]);
        assert_eq!(load(None, env, &[]).unwrap(), Config::default());
    }

    #[test]
    fn a_value_out_of_range_is_refused_with_the_rule() {
        for (key, value) in [
            ("MENSHEN_SERVER__REQUESTS_MAX", "0"),
            ("MENSHEN_VERIFY__POLICY_FMR", "0"),
            ("MENSHEN_VERIFY__POLICY_FMR", "nan"),
            ("MENSHEN_VERIFY__REVIEW_FACTOR", "0.5"),
            ("MENSHEN_SERVER__TIMEOUT_MAX_MS", "1"),
            ("MENSHEN_IMAGE__LIVE_PHOTOS_MAX", "33"),
            ("MENSHEN_SERVER__BYTES_MAX", "75497471"),
            ("MENSHEN_LIVENESS__SESSION_TTL_MS", "9999"),
            ("MENSHEN_LIVENESS__SESSION_TTL_MS", "180001"),
            ("MENSHEN_LIVENESS__ATTEMPTS_MAX", "0"),
            ("MENSHEN_LIVENESS__ATTEMPTS_MAX", "11"),
            ("MENSHEN_LIVENESS__SESSION_BYTES_MAX", "1048575"),
            ("MENSHEN_LIVENESS__SESSION_BYTES_MAX", "67108865"),
            ("MENSHEN_LIVENESS__REPLAY_TIMEOUT_MS", "0"),
            ("MENSHEN_LIVENESS__REPLAY_TIMEOUT_MS", "10001"),
            ("MENSHEN_LIVENESS__REPLAY_REPLICAS_MIN", "1"),
            ("MENSHEN_LIVENESS__REPLAY", "redis://valkey"),
            ("MENSHEN_LIVENESS__KEY_FILE", "/etc/menshen/keys"),
            ("MENSHEN_LOG__CALLS_SAMPLED", "1.01"),
            ("MENSHEN_LOG__CALLS_SAMPLED", "-0.01"),
            ("MENSHEN_LOG__CALLS_SAMPLED", "nan"),
        ] {
            let error = load(None, variables(&[(key, value)]), &[]).unwrap_err();
            let ConfigError::Refused(refusals) = &error else { panic!("{error}") };
            let is_range = |refusal: &Refusal| matches!(refusal, Refusal::OutOfRange(_));
            assert!(refusals.iter().all(is_range), "{key}={value}: {error}");
        }
    }

    #[test]
    fn a_server_whose_bytes_hold_no_whole_session_is_refused_by_the_names_of_both_settings() {
        let room = |bytes_max: usize| {
            let bytes_max = bytes_max.to_string();
            let env = variables(&[
                ("MENSHEN_IMAGE__LIVE_PHOTOS_MAX", "1"),
                ("MENSHEN_IMAGE__BYTES_MAX", "1048576"),
                ("MENSHEN_LIVENESS__SESSION_BYTES_MAX", "20971520"),
                ("MENSHEN_SERVER__BYTES_MAX", &bytes_max),
            ]);
            load(None, env, &[])
        };
        let least = (21 << 20) + SESSION_ENVELOPE_BYTES_MAX;
        assert_eq!(room(least).unwrap().server.bytes_max, least);
        let error = room(least - 1).unwrap_err().to_string();
        for setting in ["server.bytes_max", "liveness.session_bytes_max"] {
            assert!(error.contains(setting), "{error}");
        }
    }

    #[test]
    fn the_store_of_used_sessions_is_set_from_a_file() {
        let file = file(
            "[liveness]\nkey_file = \"/etc/menshen/keys\"\nreplay = \"redis://valkey:6379\"\n\
             replay_replicas_min = 1\nsession_ttl_ms = 180000\n",
        );
        let liveness = load(Some(file.path()), [], &[]).unwrap().liveness;
        let ReplayTarget::Redis(url) = liveness.replay else { panic!("not a Redis target") };
        assert_eq!(url.expose(), "redis://valkey:6379");
        assert_eq!(liveness.replay_replicas_min, 1);
        assert_eq!(liveness.session_ttl_ms, 180_000);
        assert_eq!(liveness.key_file.as_deref(), Some(Path::new("/etc/menshen/keys")));
    }

    #[test]
    fn more_replicas_than_any_deployment_has_are_refused() {
        let replicas = |replicas_min| {
            let env = variables(&[
                ("MENSHEN_LIVENESS__KEY_FILE", "/etc/menshen/keys"),
                ("MENSHEN_LIVENESS__REPLAY", "redis://valkey"),
                ("MENSHEN_LIVENESS__REPLAY_REPLICAS_MIN", replicas_min),
            ]);
            load(None, env, &[])
        };
        assert_eq!(replicas("8").unwrap().liveness.replay_replicas_min, 8);
        let error = replicas("9").unwrap_err().to_string();
        assert!(error.contains("liveness.replay_replicas_min is 9"), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused() {
        let env = variables(&[("MENSHEN_SERVER__REQUESTS_MAX", "many")]);
        let refusals = read(None, env, &[]).unwrap().refusals;
        assert!(matches!(&refusals[..], [Refusal::Unreadable { key, .. }]
            if key == "server.requests_max"));
    }

    #[test]
    fn everything_that_is_refused_is_named_at_once() {
        let file = file(
            "colour = 1\n[server]\nlisten = \"nowhere\"\nshape = 2\n\
             [device]\nkernels = \"sse\"\nprecision = \"int8\"\n\
             [verify]\npolicy_fmr = 2.0\nreview_factor = 0.0\n",
        );
        let env = variables(&[("MENSHEN_IMAGE__BYTES_MAX", "0"), ("MENSHEN_SHAPE", "1")]);
        let ParsedConfig { config, refusals } = read(Some(file.path()), env, &[]).unwrap();
        let mut named: Vec<&str> = refusals.iter().map(Refusal::key).collect();
        named.sort_unstable();
        let expected = [
            "MENSHEN_SHAPE",
            "colour",
            "device.kernels",
            "device.precision",
            "image.bytes_max",
            "server.listen",
            "server.shape",
            "verify.policy_fmr",
            "verify.review_factor",
        ];
        assert_eq!(named, expected);
        assert_eq!(config.server, Config::default().server);
        assert_eq!(config.verify.policy_fmr, 2.0);
        let message = ConfigError::Refused(refusals).to_string();
        assert!(message.contains("auto, amx, avx512, avx2, neon or portable"), "{message}");
    }

    #[test]
    fn a_rule_is_not_held_against_a_setting_that_could_not_be_read() {
        let env = variables(&[
            ("MENSHEN_LIVENESS__REPLAY", "rediss://user:hunter2@valkey"),
            ("MENSHEN_LIVENESS__KEY_FILE", "/etc/menshen/keys"),
        ]);
        let refusals = read(None, env, &[]).unwrap().refusals;
        let [refusal] = &refusals[..] else { panic!("{refusals:?}") };
        assert_eq!(refusal.key(), "liveness.replay");
        assert!(!refusal.to_string().contains("hunter2"), "{refusal}");
    }

    #[test]
    fn a_file_that_is_missing_or_not_toml_is_refused_with_its_path() {
        let missing = load(Some(Path::new("/nowhere/x.toml")), [], &[]).unwrap_err();
        assert!(missing.to_string().contains("/nowhere/x.toml"));
        let broken = file("[server");
        assert!(matches!(load(Some(broken.path()), [], &[]), Err(ConfigError::Syntax { .. })));
    }
}
