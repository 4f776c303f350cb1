//! Bad plans and exactly what is said about each: the place, the field, what is wrong, what to do.

use kbak::plan::{self, PlanError, Problem};

const OWNER: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

/// What is said: a line for every problem, its remedy after an arrow.
fn said(error: &PlanError) -> String {
    let line = |problem: &Problem| match &problem.remedy {
        Some(remedy) => format!("{problem} → {remedy}"),
        None => problem.to_string(),
    };
    error.problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A plan that is good but for what a case puts in: how the head differs, and what is selected.
fn text(head: &str, spec: &str) -> String {
    if head == "raw" {
        return spec.to_owned();
    }
    let repository = match head {
        "file" => "{url: file:///srv, endpoint: https://s3.example.eu}".to_owned(),
        "lock" => "{url: s3://backups/prod, objectLock: {mode: compliance, keep: 35d}}".to_owned(),
        _ => format!("{{url: {}}}", head.strip_prefix("url:").unwrap_or("s3://backups/prod")),
    };
    let recipients = head.strip_prefix("recipients:").unwrap_or("[OWNER]").replace("OWNER", OWNER);
    format!(
        "apiVersion: kbak.dev/v1\nkind: BackupPlan\nmetadata:\n  name: nightly\nspec:\n  repository: {repository}\n  \
         recipients: {recipients}\n  writer: {{keyFile: /k/writer.key}}\n{spec}"
    )
}

#[test]
fn every_mistake_is_named_with_its_place_and_its_remedy() {
    let mut wrong = Vec::new();
    for (about, head, spec, expected) in CASES {
        let got = match plan::parse(&text(head, spec)) {
            Ok(_) => "taken".to_owned(),
            Err(error) => said(&error),
        };
        if got != *expected {
            wrong.push(format!("{about}:\n{got}\nexpected:\n{expected}"));
        }
        assert!(!got.to_lowercase().contains("canary"), "{about}: a secret is repeated: {got}");
    }
    assert!(wrong.is_empty(), "{} of {}:\n\n{}", wrong.len(), CASES.len(), wrong.join("\n\n"));
}

/// About, head, selection, what is said.
const CASES: &[(&str, &str, &str, &str)] = &[
    (
        "an empty file",
        "raw",
        "",
        "",
    ),
    (
        "text that is no plan",
        "raw",
        "hello\n",
        "",
    ),
    (
        "another version",
        "raw",
        "apiVersion: kbak.dev/v2\nkind: BackupPlan\nmetadata: {name: a}\nspec: {}\n",
        "",
    ),
    (
        "another kind",
        "raw",
        "apiVersion: kbak.dev/v1\nkind: BackupPlans\nmetadata: {name: a}\nspec: {}\n",
        "",
    ),
    (
        "no name",
        "raw",
        "apiVersion: kbak.dev/v1\nkind: BackupPlan\nmetadata: {}\nspec: {}\n",
        "",
    ),
    (
        "two documents",
        "raw",
        "apiVersion: kbak.dev/v1\n---\nkind: BackupPlan\n",
        "",
    ),
    (
        "no selection",
        "",
        "",
        "",
    ),
    (
        "a mistyped section",
        "",
        "  resources: {}\n  databses: []\n",
        "",
    ),
    (
        "a mistyped field far inside",
        "",
        "  resources: {namespace: {}}\n",
        "",
    ),
    (
        "a field of nobody",
        "",
        "  resources: {}\n  zzz: 1\n",
        "",
    ),
    (
        "an unknown engine",
        "",
        "  databases:\n    - name: shop\n      engine: postgres\n      host: db\n",
        "",
    ),
    (
        "a field missing in a list",
        "",
        "  databases:\n    - {engine: postgresql, host: db}\n",
        "",
    ),
    (
        "a field twice",
        "",
        "  resources: {}\n  resources: {}\n",
        "",
    ),
    (
        "a field without a value",
        "",
        "  resources:\n  volumes:\n    - path: /srv\n",
        "",
    ),
    (
        "a list where a block belongs",
        "",
        "  resources: []\n",
        "",
    ),
    (
        "a word where a block belongs",
        "",
        "  resources: yes\n",
        "",
    ),
    (
        "a block where a list belongs",
        "",
        "  databases: {name: shop}\n",
        "",
    ),
    (
        "broken brackets",
        "",
        "  resources: [}\n",
        "",
    ),
    (
        "a tab",
        "",
        "\tresources: {}\n",
        "",
    ),
    (
        "a decimal size",
        "",
        "  resources: {}\n  limits: {memory: 128MB}\n",
        "",
    ),
    (
        "a size in parts",
        "",
        "  resources: {}\n  limits: {memory: 1.5}\n",
        "",
    ),
    (
        "too little memory",
        "",
        "  resources: {}\n  limits: {memory: 12}\n",
        "",
    ),
    (
        "a size for a rate",
        "",
        "  resources: {}\n  limits: {upload: 50Mi}\n",
        "",
    ),
    (
        "nothing per second",
        "",
        "  resources: {}\n  limits: {upload: 0/s}\n",
        "",
    ),
    (
        "too many at once",
        "",
        "  resources: {}\n  limits: {parallel: 500}\n",
        "",
    ),
    (
        "an epoch of days",
        "",
        "  resources: {}\n  epoch: {maxAge: 5d}\n",
        "",
    ),
    (
        "an epoch in words",
        "",
        "  resources: {}\n  epoch: {maxAge: fortnight}\n",
        "",
    ),
    (
        "a run longer than its epoch",
        "",
        "  resources: {}\n  epoch: {maxAge: 30d, maxRun: 40d}\n",
        "",
    ),
    (
        "several at once",
        "",
        "  volumes:\n    - path: srv/x\n    - path: /srv/y/\n    - path: /srv/z/../q\n",
        "",
    ),
    (
        "an item twice",
        "",
        "  volumes:\n    - path: /srv\n    - path: /srv\n",
        "",
    ),
    (
        "a database twice",
        "",
        "  databases:\n    - {name: shop, engine: postgresql, host: a}\n    - {name: shop, engine: postgresql, host: b}\n",
        "",
    ),
    (
        "a reserved name",
        "",
        "  databases:\n    - {name: resources, engine: postgresql, host: a}\n",
        "",
    ),
    (
        "a database nowhere",
        "",
        "  databases:\n    - {name: shop, engine: postgresql}\n",
        "",
    ),
    (
        "a database in two places",
        "",
        "  databases:\n    - {name: shop, engine: postgresql, transport: local, host: a, service: b, namespace: c}\n",
        "",
    ),
    (
        "an image without a Job",
        "",
        "  databases:\n    - {name: shop, engine: postgresql, host: a, image: postgres}\n",
        "",
    ),
    (
        "a CA for clear text",
        "",
        "  databases:\n    - {name: shop, engine: postgresql, host: a, tls: allow-plaintext, caFile: /ca}\n",
        "",
    ),
    (
        "a password in the plan",
        "",
        "  databases:\n    - {name: shop, engine: postgresql, host: a, password: canary-7391}\n",
        "",
    ),
    (
        "an engine of later",
        "",
        "  databases:\n    - {name: shop, engine: mariadb, host: a}\n",
        "",
    ),
    (
        "a transport of later",
        "",
        "  databases:\n    - {name: shop, engine: postgresql, namespace: shop, service: db}\n",
        "",
    ),
    (
        "claims of later",
        "",
        "  volumes:\n    - {namespace: shop, claims: [uploads]}\n",
        "",
    ),
    (
        "hooks of later",
        "",
        "  resources: {}\n  hooks:\n    - {when: pre, http: {url: 'http://x'}}\n",
        "",
    ),
    (
        "a path with claims",
        "",
        "  volumes:\n    - {path: /srv, namespace: shop, claims: [uploads]}\n",
        "",
    ),
    (
        "a volume of nothing",
        "",
        "  volumes:\n    - {exclude: [x]}\n",
        "",
    ),
    (
        "a pattern of git that is none",
        "",
        "  volumes:\n    - {path: /srv, exclude: ['[z-a]']}\n",
        "",
    ),
    (
        "no kinds",
        "",
        "  resources: {kinds: {include: []}}\n",
        "",
    ),
    (
        "all namespaces excluded",
        "",
        "  resources: {namespaces: {include: [shop], exclude: ['*']}}\n",
        "",
    ),
    (
        "a glob that is none",
        "",
        "  resources: {namespaces: {include: ['sh op']}}\n",
        "",
    ),
    (
        "a selector that is none",
        "",
        "  resources: {selector: 'a in b'}\n",
        "",
    ),
    (
        "a retention of nothing",
        "",
        "  resources: {}\n  retention: {keepDaily: 0}\n",
        "",
    ),
    (
        "an accepted gap of nobody",
        "",
        "  databases:\n    - {name: shop, engine: postgresql, host: a}\n  accept:\n    - {item: shopp, gap: x, reason: y, until: 2027-01-01}\n",
        "",
    ),
    (
        "an end that is no day",
        "",
        "  resources: {}\n  accept:\n    - {item: resources, gap: x, reason: y, until: 2027-02-30}\n",
        "",
    ),
    (
        "a folder with an endpoint",
        "file",
        "  resources: {}\n",
        "",
    ),
    (
        "a lock with auto",
        "lock",
        "  resources: {}\n",
        "",
    ),
    (
        "an address of nothing",
        "url:backups/prod",
        "  resources: {}\n",
        "",
    ),
    (
        "an address with a password",
        "url:s3://me:canary-7391@backups",
        "  resources: {}\n",
        "",
    ),
    (
        "no recipients",
        "recipients:[]",
        "  resources: {}\n",
        "",
    ),
    (
        "a recipient twice",
        "recipients:[OWNER, OWNER]",
        "  resources: {}\n",
        "",
    ),
    (
        "a recipient's file",
        "recipients:[owner.pub]",
        "  resources: {}\n",
        "",
    ),
    (
        "a recipient cut short",
        "recipients:[age1qqqq]",
        "  resources: {}\n",
        "",
    ),
    (
        "a private key for a recipient",
        "recipients:[AGE-SECRET-KEY-1CANARY7391]",
        "  resources: {}\n",
        "",
    ),
];
