//! Properties of plans: values and plans round-trip through text, no text makes the reader panic or
//! repeat a secret, and globs match as defined.

use std::str::FromStr;

use kbak::plan::{self, BackupPlan, Glob, ItemName, Period, PlanArguments, Rate, Size};
use proptest::prelude::*;

pub(crate) const OWNER: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

/// The definition of a glob, short and slow.
fn glob_by_definition(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.first(), name.first()) {
        (None, None) => true,
        (Some(b'*'), _) => {
            glob_by_definition(&pattern[1..], name)
                || (!name.is_empty() && glob_by_definition(pattern, &name[1..]))
        }
        (Some(b'?'), Some(_)) => glob_by_definition(&pattern[1..], &name[1..]),
        (Some(p), Some(n)) if p == n => glob_by_definition(&pattern[1..], &name[1..]),
        _ => false,
    }
}

fn plan_arguments(paths: &[String], resources: bool) -> PlanArguments {
    PlanArguments {
        repository: plan::RepositorySpec { url: "file:///srv/backups".into(), ..Default::default() },
        recipients: vec![OWNER.into()],
        writer_key: "/k/writer.key".into(),
        paths: paths.iter().map(Into::into).collect(),
        resources,
        ..PlanArguments::default()
    }
}

proptest! {
    #[test]
    fn printed_size_parses_back(bytes: u64) {
        let size = Size::bytes(bytes);
        prop_assert_eq!(Size::from_str(&size.to_string()), Ok(size));
    }

    #[test]
    fn size_is_its_number_times_its_unit(count in 0u64..1 << 20, unit in 0usize..9) {
        let (name, factor) = [
            ("", 1), ("k", 1000), ("Ki", 1 << 10), ("M", 1_000_000), ("Mi", 1 << 20),
            ("G", 1_000_000_000), ("Gi", 1 << 30), ("T", 1_000_000_000_000), ("Ti", 1u64 << 40),
        ][unit];
        let expected = count.checked_mul(factor).map(Size::bytes);
        prop_assert_eq!(Size::from_str(&format!("{count}{name}")).ok(), expected);
    }

    #[test]
    fn printed_period_parses_back(seconds in 0u64..100 * 31_536_000) {
        let period = Period::seconds(seconds);
        prop_assert_eq!(Period::from_str(&period.to_string()), Ok(period));
    }

    #[test]
    fn value_parsers_never_panic_on_any_text(text in "\\PC{0,12}|[0-9]{1,30}[a-zA-Z/]{0,4}") {
        let _ = Size::from_str(&text);
        let _ = Period::from_str(&text);
        let _ = Rate::from_str(&text);
        let _ = plan::Day::from_str(&text);
        let _ = plan::Recipient::from_str(&text);
        let _ = ItemName::parse(&text);
    }

    #[test]
    fn plan_reader_never_panics_on_any_text(text in "(?s).{0,200}") {
        let _ = plan::parse(&text);
    }

    #[test]
    fn private_key_anywhere_in_a_plan_is_refused_and_never_repeated(
        before in "[a-z: \n-]{0,60}",
        key in prop::sample::select(vec![
            "AGE-SECRET-KEY-1CANARY7391", "age-secret-key-1canary7391", "AGE-PLUGIN-YUBIKEY-1CANARY7391",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nCANARY7391", "-----BEGIN RSA PRIVATE KEY-----\nCANARY7391",
        ]),
        after in "[a-z: \n-]{0,60}",
    ) {
        let text = format!("{before}{key}{after}");
        let error = plan::parse(&text).expect_err("a private key");
        prop_assert_eq!(error.problems[0].kind, plan::ProblemKind::PrivateKey);
        let shown = format!("{error} {error:?} {:?} {:?}", error.failure("plan").facts, error.problems[0].remedy);
        prop_assert!(!shown.to_lowercase().contains("canary"), "{}", shown);
        let at = error.problems[0].at.expect("a place");
        let line = text.lines().nth(at.line - 1).expect("the line");
        prop_assert!(line.to_lowercase().contains("age-") || line.to_lowercase().contains("private key"));
    }

    #[test]
    fn glob_matches_as_its_definition(pattern in "[ab*?.]{1,7}", name in "[ab.]{0,8}") {
        let glob = Glob::new(&pattern).expect("a glob");
        prop_assert_eq!(glob.matches(&name), glob_by_definition(pattern.as_bytes(), name.as_bytes()));
    }

    #[test]
    fn printed_item_names_parse_back(
        namespace in "[a-z]([a-z0-9-]{0,8}[a-z0-9])?",
        claim in "[a-z]([a-z0-9-]{0,8}[a-z0-9])?",
        path in "[^/\0][^\0]{0,20}",
    ) {
        let items = [
            ItemName::Resources,
            ItemName::Database(format!("{claim}-db")),
            ItemName::Volume { namespace, claim },
            ItemName::Path(path),
        ];
        for item in items {
            prop_assert_eq!(ItemName::parse(&item.to_string()), Some(item));
        }
    }

    #[test]
    fn plan_round_trips_through_yaml_and_json(
        paths in prop::collection::btree_set("/[a-z]{1,8}(/[a-z ]{1,8}[a-z]){0,2}", 0..4),
        resources: bool,
    ) {
        let paths: Vec<String> = paths.into_iter().collect();
        prop_assume!(resources || !paths.is_empty());
        let made = plan_arguments(&paths, resources).into_plan().expect("a good plan");
        let yaml = serde_saphyr::to_string(&made.plan).expect("YAML");
        prop_assert_eq!(&plan::parse(&yaml).expect("the same plan").plan, &made.plan, "{}", yaml);
        let json = serde_json::to_string(&made.plan).expect("JSON");
        prop_assert_eq!(&plan::parse(&json).expect("the same plan").plan, &made.plan);
        let again: BackupPlan = serde_json::from_str(&json).expect("the same plan");
        prop_assert_eq!(again, made.plan);
    }
}

#[test]
fn argument_error_repeats_no_private_key() {
    let mut arguments = plan_arguments(&["/srv".into()], true);
    arguments.recipients = vec!["AGE-SECRET-KEY-1CANARY".into()];
    let error = arguments.into_plan().expect_err("a private key");
    assert!(!format!("{error} {error:?}").contains("CANARY"), "{error:?}");
}

#[test]
fn relative_file_paths_resolve_beside_the_plan() {
    let text = format!(
        "apiVersion: kbak.dev/v1\nkind: BackupPlan\nmetadata: {{name: a}}\nspec:\n  repository: {{url: s3://backups, \
         credentialsFile: s3.txt}}\n  recipients: [{OWNER}]\n  writer: {{keyFile: ../writer.key, epochFile: /abs}}\n  \
         databases:\n    - {{name: shop, engine: postgresql, host: db, passwordFile: pw}}\n"
    );
    let mut plan = plan::parse(&text).expect("a good plan").plan;
    plan.resolve_files("/etc/kbak".as_ref());
    assert_eq!(plan.spec.writer.key_file.to_str(), Some("/etc/kbak/../writer.key"));
    assert_eq!(plan.spec.writer.epoch_file.as_deref().and_then(|f| f.to_str()), Some("/abs"));
    assert_eq!(
        plan.spec.repository.credentials_file.and_then(|f| f.to_str().map(str::to_owned)).as_deref(),
        Some("/etc/kbak/s3.txt")
    );
    assert_eq!(
        plan.spec.databases[0].password_file.as_deref().and_then(|f| f.to_str()),
        Some("/etc/kbak/pw")
    );
}

#[test]
fn unsupported_field_is_a_warning() {
    let text = format!(
        "apiVersion: kbak.dev/v1\nkind: BackupPlan\nmetadata: {{name: a}}\nspec:\n  repository: {{url: s3://backups}}\n  \
         recipients: [{OWNER}]\n  writer: {{keyFile: k}}\n  resources: {{}}\n  retention: {{keepDaily: 3}}\n"
    );
    let checked = plan::parse(&text).expect("a good plan");
    let said: Vec<String> = checked.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        ["line 9, column 3: spec.retention: nothing is pruned: not yet supported by this version"]
    );
    assert_eq!(checked.warnings[0].kind, plan::ProblemKind::NotYet);
}

#[test]
fn defaults_match_the_documentation() {
    let checked = plan_arguments(&[], true).into_plan().expect("a good plan");
    let resources = checked.plan.spec.resources.expect("resources");
    let selection = kbak::kubernetes::Selection::of(&resources).expect("patterns");
    assert_eq!(selection, kbak::kubernetes::Selection::default(), "everything except events");
    assert_eq!(resources.namespaces.include, ["*"]);
    assert_eq!(checked.plan.spec.limits.memory, Size::mebi(128));
    assert_eq!(checked.plan.spec.epoch.max_run, Period::hours(24));
}
