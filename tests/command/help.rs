//! Help and error texts, compared word by word with tests/command/cases.

#[test]
fn help_and_errors_match_the_recorded_cases() {
    trycmd::TestCases::new().case("tests/command/cases/*.trycmd");
}

#[test]
fn every_verb_has_help_with_examples() {
    for verb in super::program::verbs(&[]) {
        let deeper = super::program::verbs(&[&verb]);
        let paths: Vec<Vec<&str>> = match deeper.as_slice() {
            [] => vec![vec![verb.as_str()]],
            some => some.iter().map(|sub| vec![verb.as_str(), sub.as_str()]).collect(),
        };
        for mut path in paths {
            path.push("--help");
            let (code, help, _) = crate::support::program::kbak(&path);
            assert_eq!(code, 0, "{path:?}");
            assert!(help.contains("Examples:\n  "), "{path:?} shows no example:\n{help}");
        }
    }
}
