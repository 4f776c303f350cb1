//! Invalid plans and the exact message for each: the place, the field, the problem, the remedy.

use kbak::plan::{self, PlanError, Problem};

const OWNER: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

/// Formats an error: a line for every problem, its remedy after an arrow.
fn said(error: &PlanError) -> String {
    let line = |problem: &Problem| match &problem.remedy {
        Some(remedy) => format!("{problem} → {remedy}"),
        None => problem.to_string(),
    };
    error.problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Returns a plan that is valid but for a case's changes of the head and the selection.
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
fn every_mistake_is_reported_with_its_place_and_remedy() {
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

/// Subject, head, selection, expected message.
const CASES: &[(&str, &str, &str, &str)] = &[
    ("an empty file", "raw", "", "the text contains no plan → start from the example in docs/plan.md"),
    (
        "text that is no plan",
        "raw",
        "hello\n",
        "line 1, column 1: wrong type; expected a block of fields (name: value)",
    ),
    (
        "another version",
        "raw",
        "apiVersion: kbak.dev/v2\nkind: BackupPlan\nmetadata: {name: a}\nspec: {}\n",
        "line 1, column 13: apiVersion: kbak.dev/v2 is not an allowed value → did you mean kbak.dev/v1?",
    ),
    (
        "another kind",
        "raw",
        "apiVersion: kbak.dev/v1\nkind: BackupPlans\nmetadata: {name: a}\nspec: {}\n",
        "line 2, column 7: kind: BackupPlans is not an allowed value → did you mean BackupPlan?",
    ),
    (
        "no name",
        "raw",
        "apiVersion: kbak.dev/v1\nkind: BackupPlan\nmetadata: {}\nspec: {}\n",
        "line 3, column 1: metadata: name is missing → see kbak plan schema, or docs/plan.md",
    ),
    (
        "two documents",
        "raw",
        "apiVersion: kbak.dev/v1\n---\nkind: BackupPlan\n",
        "line 3, column 1: a second document begins; a plan file holds one plan → put each plan into its own file",
    ),
    (
        "no selection",
        "",
        "",
        "line 5, column 1: spec: the plan selects nothing: no resources, no databases, no volumes → add resources: {} for all of the cluster",
    ),
    (
        "a mistyped section",
        "",
        "  resources: {}\n  databses: []\n",
        "line 10, column 3: unknown field databses in spec → did you mean databases?",
    ),
    (
        "a mistyped field far inside",
        "",
        "  resources: {namespace: {}}\n",
        "line 9, column 15: unknown field namespace in spec.resources → did you mean namespaces?",
    ),
    (
        "a field of nobody",
        "",
        "  resources: {}\n  zzz: 1\n",
        "line 10, column 3: unknown field zzz in spec → write one of: repository, recipients, writer, epoch, cluster, resources, databases, volumes, hooks, accept, coverage, objectives, jobs, retention, schedule, limits, compressionLevel, notify",
    ),
    (
        "an unknown engine",
        "",
        "  databases:\n    - name: shop\n      engine: postgres\n      host: db\n",
        "line 11, column 15: spec.databases[0].engine: postgres is not an allowed value → did you mean postgresql?",
    ),
    (
        "a field missing in a list",
        "",
        "  databases:\n    - {engine: postgresql, host: db}\n",
        "line 10, column 7: spec.databases[0]: name is missing → see kbak plan schema, or docs/plan.md",
    ),
    ("a field twice", "", "  resources: {}\n  resources: {}\n", "line 10, column 3: resources occurs twice"),
    (
        "a field without a value",
        "",
        "  resources:\n  volumes:\n    - path: /srv\n",
        "line 9, column 3: spec.resources: the field has no value → write {} for a block of defaults, [] for an empty list, or leave the field out",
    ),
    (
        "a list where a block belongs",
        "",
        "  resources: []\n",
        "line 9, column 14: spec.resources: wrong type; expected a block of fields (name: value)",
    ),
    (
        "a word where a block belongs",
        "",
        "  resources: yes\n",
        "line 9, column 14: spec.resources: wrong type; expected a block of fields (name: value)",
    ),
    (
        "a block where a list belongs",
        "",
        "  databases: {name: shop}\n",
        "line 9, column 14: spec.databases: wrong type; expected a list",
    ),
    (
        "broken brackets",
        "",
        "  resources: [}\n",
        "line 9, column 14: the text is not valid YAML: mismatched bracket '[' closed by '}'",
    ),
    (
        "a tab",
        "",
        "\tresources: {}\n",
        "line 9, column 2: the text is not valid YAML: tabs disallowed within this context (block indentation)",
    ),
    (
        "a decimal size",
        "",
        "  resources: {}\n  limits: {memory: 128MB}\n",
        "line 10, column 20: spec.limits.memory: \"128MB\" is not a size; write a size such as 512Ki, 128Mi or 4Gi",
    ),
    (
        "a size in parts",
        "",
        "  resources: {}\n  limits: {memory: 1.5}\n",
        "line 10, column 12: spec.limits.memory: found floating point `1.5`; expected a size such as 512Ki, 128Mi or 4Gi",
    ),
    (
        "too little memory",
        "",
        "  resources: {}\n  limits: {memory: 12}\n",
        "line 10, column 20: spec.limits.memory: 12 is less than the minimum, 64Mi",
    ),
    (
        "a size for a rate",
        "",
        "  resources: {}\n  limits: {upload: 50Mi}\n",
        "line 10, column 20: spec.limits.upload: \"50Mi\" does not end with /s; write a rate such as 800Ki/s or 50Mi/s",
    ),
    (
        "nothing per second",
        "",
        "  resources: {}\n  limits: {upload: 0/s}\n",
        "line 10, column 20: spec.limits.upload: the rate must be greater than 0; write a rate such as 800Ki/s or 50Mi/s",
    ),
    (
        "too many at once",
        "",
        "  resources: {}\n  limits: {parallel: 500}\n",
        "line 10, column 22: spec.limits.parallel: the number is not between 1 and 64\nline 10, column 22: spec.limits.parallel: a number of transfers: not yet supported by this version → leave it out",
    ),
    (
        "a level beyond the memory limit",
        "",
        "  resources: {}\n  compressionLevel: 19\n",
        "line 10, column 21: spec.compressionLevel: the level is not between 1 and 9",
    ),
    (
        "an epoch of days",
        "",
        "  resources: {}\n  epoch: {maxAge: 5d}\n",
        "line 10, column 19: spec.epoch.maxAge: 5d is not between 30d and 365d",
    ),
    (
        "an epoch in words",
        "",
        "  resources: {}\n  epoch: {maxAge: fortnight}\n",
        "line 10, column 19: spec.epoch.maxAge: \"fortnight\" is not a period; write a period such as 45s, 15m, 24h, 30d, 8w or 1y",
    ),
    (
        "a run longer than its epoch",
        "",
        "  resources: {}\n  epoch: {maxAge: 30d, maxRun: 40d}\n",
        "line 10, column 32: spec.epoch.maxRun: a run of 40d outlasts an epoch of 30d",
    ),
    (
        "several at once",
        "",
        "  volumes:\n    - path: srv/x\n    - path: /srv/y/\n    - path: /srv/z/../q\n",
        "line 10, column 13: spec.volumes[0].path: \"srv/x\" is not a plain absolute path → begin it with /; write no .. and no slash at the end\nline 11, column 13: spec.volumes[1].path: \"/srv/y/\" is not a plain absolute path → begin it with /; write no .. and no slash at the end\nline 12, column 13: spec.volumes[2].path: \"/srv/z/../q\" is not a plain absolute path → begin it with /; write no .. and no slash at the end",
    ),
    (
        "receivers of notices without an address, and with two",
        "",
        "  resources: {}\n  notify:\n    - ping: {}\n    - metrics: {url: http://a, urlFile: /k/b}\n",
        "line 11, column 7: spec.notify[0].ping: the receiver has no address → write urlFile: FILE for an address that is a secret, else url: https://…\nline 12, column 41: spec.notify[1].metrics.urlFile: url and urlFile exclude each other",
    ),
    (
        "addresses of receivers that are none",
        "",
        "  resources: {}\n  notify:\n    - ping: {url: hc-ping.com/canary}\n    - webhook: {url: \"https://a:canary@b\"}\n    - metrics: {url: \"http://b/?canary\"}\n    - metrics: {url: \"http://b\", cluster: prod/eu}\n",
        "line 11, column 19: spec.notify[0].ping.url: the address cannot be used: it is not an address → write https://host/path\nline 12, column 22: spec.notify[1].webhook.url: the address cannot be used: it contains credentials before an @, which are not sent → write https://host/path\nline 13, column 22: spec.notify[2].metrics.url: a Pushgateway's address has no part after ?\nline 14, column 43: spec.notify[3].metrics.cluster: \"prod/eu\" is not a label of a cluster → use letters, digits, -, _ and ., as in prod-eu",
    ),
    (
        "templates of webhooks",
        "",
        "  resources: {}\n  notify:\n    - webhook: {url: https://a, template: '{\"text\": \"{{sumary}}\"}'}\n    - webhook: {url: https://a, template: '{\"text\": {{summary}}}'}\n    - webhook: {url: https://a, template: '{{exit}'}\n",
        "line 11, column 43: spec.notify[0].webhook.template: the template has no field \"sumary\" → did you mean summary?\nline 12, column 43: spec.notify[1].webhook.template: the body is not JSON: expected value at line 1 column 10 → write JSON, with text in quotes: {\"text\": \"{{summary}}\", \"code\": {{exit}}}\nline 13, column 43: spec.notify[2].webhook.template: the template has {{ without }} → close it, as in {{summary}}",
    ),
    (
        "an item twice",
        "",
        "  volumes:\n    - path: /srv\n    - path: /srv\n",
        "line 11, column 7: spec.volumes[1]: path/srv is declared twice; first in spec.volumes[0] → declare it once; an item has one state",
    ),
    (
        "a database twice",
        "",
        "  databases:\n    - {name: shop, engine: postgresql, host: a}\n    - {name: shop, engine: postgresql, host: b}\n",
        "line 11, column 7: spec.databases[1]: shop is declared twice; first in spec.databases[0] → declare it once; an item has one state",
    ),
    (
        "a reserved name",
        "",
        "  databases:\n    - {name: resources, engine: postgresql, host: a}\n",
        "line 10, column 14: spec.databases[0].name: \"resources\" is not a valid name for a database → use lower-case letters, digits, - and ., at most 63 characters, and not resources",
    ),
    (
        "a database nowhere",
        "",
        "  databases:\n    - {name: shop, engine: postgresql}\n",
        "line 10, column 7: spec.databases[0]: the database has no address → add namespace and service, or host, or pod for exec",
    ),
    (
        "a whole address as a host",
        "",
        "  databases:\n    - {name: shop, engine: postgresql, host: \"postgresql://u:canary-7391@h/db\"}\n",
        "line 10, column 46: spec.databases[0].host: this is an address with more than a host; it is not shown, because it may contain a password → write only the host; port, user and passwordFile are separate fields",
    ),
    (
        "a host that is none",
        "",
        "  databases:\n    - {name: shop, engine: postgresql, host: \"db:5432\"}\n",
        "line 10, column 46: spec.databases[0].host: \"db:5432\" is not a host name, an address or the folder of a socket → write only the host; port, user and passwordFile are separate fields",
    ),
    (
        "a database in two places",
        "",
        "  databases:\n    - {name: shop, engine: postgresql, transport: local, host: a, service: b, namespace: c}\n",
        "line 10, column 7: spec.databases[0]: service, host and pod exclude each other\nline 10, column 76: spec.databases[0].service: finding a service: not yet supported by this version → use host",
    ),
    (
        "an image without a Job",
        "",
        "  databases:\n    - {name: shop, engine: postgresql, host: a, image: postgres}\n",
        "line 10, column 56: spec.databases[0].image: image is only for transport: job",
    ),
    (
        "a CA for clear text",
        "",
        "  databases:\n    - {name: shop, engine: postgresql, host: a, tls: allow-plaintext, caFile: /ca}\n",
        "line 10, column 79: spec.databases[0].caFile: caFile proves nothing with tls: allow-plaintext",
    ),
    (
        "a password in the plan",
        "",
        "  databases:\n    - {name: shop, engine: postgresql, host: a, password: canary-7391}\n",
        "line 10, column 49: unknown field password in spec.databases[0] → did you mean passwordFile?",
    ),
    (
        "an engine of later",
        "",
        "  databases:\n    - {name: shop, engine: mariadb, host: a}\n",
        "line 10, column 28: spec.databases[0].engine: the engine mariadb: not yet supported by this version → dump it into a folder and back that folder up",
    ),
    (
        "a transport of later",
        "",
        "  databases:\n    - {name: shop, engine: postgresql, namespace: shop, service: db}\n",
        "line 10, column 7: spec.databases[0].transport: the transport job: not yet supported by this version → use transport: local, and host",
    ),
    (
        "claims of later",
        "",
        "  volumes:\n    - {namespace: shop, claims: [uploads]}\n",
        "line 10, column 25: spec.volumes[0].claims: claims in the cluster: not yet supported by this version → mount the volume and use path",
    ),
    (
        "hooks of later",
        "",
        "  resources: {}\n  hooks:\n    - {when: pre, http: {url: 'http://x'}}\n",
        "line 10, column 3: spec.hooks: hooks: not yet supported by this version → run them around kbak",
    ),
    (
        "a path with claims",
        "",
        "  volumes:\n    - {path: /srv, namespace: shop, claims: [uploads]}\n",
        "line 10, column 7: spec.volumes[0]: path and claims exclude each other\nline 10, column 37: spec.volumes[0].claims: claims in the cluster: not yet supported by this version → mount the volume and use path",
    ),
    (
        "a volume of nothing",
        "",
        "  volumes:\n    - {exclude: [x]}\n",
        "line 10, column 7: spec.volumes[0]: the volume selects nothing → add path, or namespace and claims",
    ),
    (
        "a pattern of git that is none",
        "",
        "  volumes:\n    - {path: /srv, exclude: ['[z-a]']}\n",
        "line 10, column 30: spec.volumes[0].exclude[0]: \"[z-a]\" is not a valid pattern: error parsing glob '[z-a]': invalid range; 'z' > 'a'",
    ),
    (
        "no kinds",
        "",
        "  resources: {kinds: {include: []}}\n",
        "line 9, column 23: spec.resources.kinds.include: include is empty: no kind is selected → leave it out for all",
    ),
    (
        "all namespaces excluded",
        "",
        "  resources: {namespaces: {include: [shop], exclude: ['*']}}\n",
        "line 9, column 45: spec.resources.namespaces.exclude: exclude matches all that include matches: no namespace is selected",
    ),
    (
        "a glob that is none",
        "",
        "  resources: {namespaces: {include: ['sh op']}}\n",
        "line 9, column 38: spec.resources.namespaces.include[0]: \"sh op\" is not a pattern for names; use letters, digits, -, ., _, : with * for any text and ? for one character",
    ),
    (
        "a selector that is none",
        "",
        "  resources: {selector: 'a in b'}\n",
        "line 9, column 25: spec.resources.selector: \"a in b\" is not a term of a label selector",
    ),
    (
        "a retention of nothing",
        "",
        "  resources: {}\n  retention: {keepDaily: 0}\n",
        "line 10, column 3: spec.retention: the retention keeps no snapshot → set at least one rule to more than 0, as in keepDaily: 14",
    ),
    (
        "an accepted gap of nobody",
        "",
        "  databases:\n    - {name: shop, engine: postgresql, host: a}\n  accept:\n    - {item: shopp, gap: x, reason: y, until: 2027-01-01}\n",
        "line 12, column 14: spec.accept[0].item: shopp is not declared by this plan → did you mean shop?",
    ),
    (
        "accepting as undeclared what coverage does not tell of",
        "",
        "  resources: {}\n  accept:\n    - {item: shop, gap: uncovered, reason: y, until: 2027-01-01}\n",
        "line 11, column 14: spec.accept[0].item: \"shop\" is not an item that coverage reports → write volume/NS/NAME, database/NS/NAME, secret/NS/NAME or namespace/NAME; globs are fine",
    ),
    (
        "an end that is not a day",
        "",
        "  resources: {}\n  accept:\n    - {item: resources, gap: x, reason: y, until: 2027-02-30}\n",
        "line 11, column 51: spec.accept[0].until: \"2027-02-30\" is not a day; write a day such as 2027-06-30",
    ),
    (
        "a folder with an endpoint",
        "file",
        "  resources: {}\n",
        "line 6, column 44: spec.repository.endpoint: endpoint is for s3:// repositories; this one is a folder",
    ),
    (
        "a lock with auto",
        "lock",
        "  resources: {}\n",
        "line 5, column 1: spec.epoch.maxAge: auto and a compliance lock exclude each other: nobody could delete before a date that you did not choose → name the period, as in epoch: {maxAge: 30d}\nline 6, column 40: spec.repository.objectLock: object lock: not yet supported by this version → leave it out",
    ),
    (
        "an address of nothing",
        "url:backups/prod",
        "  resources: {}\n",
        "line 6, column 21: spec.repository.url: this is not the address of a repository: it begins with neither s3:// nor file:/// → write s3://bucket/prefix or file:///folder",
    ),
    (
        "an address with a password",
        "url:s3://me:canary-7391@backups",
        "  resources: {}\n",
        "line 6, column 21: spec.repository.url: the address contains credentials, or an @: give credentials in a file → write s3://bucket/prefix or file:///folder",
    ),
    (
        "no recipients",
        "recipients:[]",
        "  resources: {}\n",
        "line 7, column 3: spec.recipients: no recipients: nobody could restore → add the owners' public keys: kbak keygen makes one",
    ),
    (
        "a recipient twice",
        "recipients:[OWNER, OWNER]",
        "  resources: {}\n",
        "line 7, column 80: spec.recipients[1]: age1ql3z…mcac8p occurs twice",
    ),
    (
        "a recipient's file",
        "recipients:[owner.pub]",
        "  resources: {}\n",
        "line 7, column 16: spec.recipients[0]: this is the name of a file; give the key itself",
    ),
    (
        "a recipient cut short",
        "recipients:[age1qqqq]",
        "  resources: {}\n",
        "line 7, column 16: spec.recipients[0]: this age key is incomplete or mistyped",
    ),
    (
        "a private key for a recipient",
        "recipients:[AGE-SECRET-KEY-1CANARY7391]",
        "  resources: {}\n",
        "line 7, column 16: this is a private key; a plan takes public keys only → put the public key in its place; anyone who could read the file may know this private key",
    ),
];
