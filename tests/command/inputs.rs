//! Values from the environment, files and Secrets as people have them: trimmed where that is harmless, refused
//! with their name where it is not, and never a panic.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::process::Command;

use kbak::source::database::postgres::default_config;

use crate::support::cli_repo::{CliRepo, as_strs};
use crate::support::faulty_s3::FaultyS3Server;
use crate::support::owners::{run_ok, tool};
use crate::support::program::{command, good, kbak, read, run_beside, set_mode};
use crate::support::servers::{KEY, SECRET};

/// A variable and its value.
type Variable = (&'static str, OsString);

/// A run of `snapshots` on the bucket of a server, without variables and files of the tester.
struct S3Run<'a> {
    cli: &'a CliRepo,
    server: &'a FaultyS3Server,
}

impl S3Run<'_> {
    fn command(&self, more: &[&OsStr], variables: &[Variable]) -> Command {
        let mut run = command(&["snapshots", "--repo", "s3://faulty/x", "--signer"]);
        run.arg(self.cli.at("keys/kbak.pub")).args(more);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_lowercase();
            if text.starts_with("aws_") || text.ends_with("_proxy") {
                run.env_remove(name);
            }
        }
        run.env("HOME", self.cli.at("data")).envs(variables.iter().map(|(name, value)| (*name, value)));
        run
    }

    /// Runs it with keys and the endpoint from the environment. Returns the exit code, messages and number of
    /// requests.
    async fn with_variables(&self, variables: &[Variable]) -> (i32, String, u64) {
        let base: Vec<Variable> = vec![
            ("AWS_ACCESS_KEY_ID", KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.into()),
            ("AWS_ENDPOINT_URL_S3", self.server.server.endpoint.clone().into()),
        ];
        self.run(self.command(&[], &[&base, variables].concat())).await
    }

    async fn run(&self, run: Command) -> (i32, String, u64) {
        let before = self.server.requests();
        let (code, _, err) = read(run_beside(run).await);
        (code, err, self.server.requests() - before)
    }
}

/// True if the store was reached: it holds no repository.
fn is_reached(code: i32, err: &str) -> bool {
    code == 2 && err.contains("a new repository is made by kbak init")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_variables_count_as_unset_and_line_breaks_are_trimmed() {
    let (cli, server) = (CliRepo::new(), FaultyS3Server::start(10).await);
    let run = S3Run { cli: &cli, server: &server };
    for (name, text) in [
        ("legacy", "[default]\nretry_mode = legacy\nmax_attempts = 5\n"),
        ("none", "[default]\nmax_attempts = 0\nregion =\n"),
    ] {
        std::fs::write(cli.at(name), text).expect("a file");
    }
    let endpoint = server.server.endpoint.clone();
    let cases: Vec<Variable> = vec![
        ("AWS_ACCESS_KEY_ID", format!("{KEY}\n").into()),
        ("AWS_ACCESS_KEY_ID", format!(" {KEY}\r\n").into()),
        ("AWS_SECRET_ACCESS_KEY", format!("{SECRET}\n").into()),
        ("AWS_SESSION_TOKEN", "".into()),
        ("AWS_SESSION_TOKEN", "\n".into()),
        ("AWS_REGION", "us-east-1\n".into()),
        ("AWS_REGION", "".into()),
        ("AWS_DEFAULT_REGION", " ".into()),
        ("AWS_PROFILE", "".into()),
        ("AWS_CONFIG_FILE", "".into()),
        ("AWS_CONFIG_FILE", cli.at("legacy").into()),
        ("AWS_CONFIG_FILE", cli.at("none").into()),
        ("AWS_SHARED_CREDENTIALS_FILE", "".into()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "".into()),
        ("AWS_ROLE_ARN", "".into()),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "".into()),
        ("AWS_RETRY_MODE", "legacy".into()),
        ("AWS_RETRY_MODE", "".into()),
        ("AWS_MAX_ATTEMPTS", "0".into()),
        ("AWS_MAX_ATTEMPTS", "-1".into()),
        ("AWS_ENDPOINT_URL_S3", format!("{endpoint}\n").into()),
        ("AWS_ENDPOINT_URL", "".into()),
        ("HTTP_PROXY", "".into()),
        ("http_proxy", "\n".into()),
        ("NO_PROXY", "".into()),
    ];
    for case in cases {
        let (code, err, requests) = run.with_variables(std::slice::from_ref(&case)).await;
        assert!(is_reached(code, &err) && requests > 0, "{case:?}: {code}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_that_no_request_can_carry_are_refused_by_name() {
    let (cli, server) = (CliRepo::new(), FaultyS3Server::start(10).await);
    let run = S3Run { cli: &cli, server: &server };
    let cases: Vec<Variable> = vec![
        ("AWS_ACCESS_KEY_ID", "dämö".into()),
        ("AWS_ACCESS_KEY_ID", "a\u{1}b".into()),
        ("AWS_ACCESS_KEY_ID", "a\nb".into()),
        ("AWS_ACCESS_KEY_ID", OsString::from_vec(vec![b'a', 0xFF])),
        ("AWS_SECRET_ACCESS_KEY", "a\nb".into()),
        ("AWS_SECRET_ACCESS_KEY", OsString::from_vec(vec![0xFF])),
        ("AWS_SESSION_TOKEN", "\u{1}".into()),
        ("AWS_SESSION_TOKEN", "a b".into()),
        ("AWS_REGION", "größe".into()),
        ("AWS_REGION", "us east".into()),
        ("AWS_DEFAULT_REGION", "us\neast".into()),
        ("AWS_PROFILE", "a\nb".into()),
        ("AWS_ENDPOINT_URL_S3", "127.0.0.1".into()),
        ("AWS_ENDPOINT_URL_S3", "http://me:canary@127.0.0.1".into()),
    ];
    for case in cases {
        let (code, err, requests) = run.with_variables(std::slice::from_ref(&case)).await;
        assert_eq!((code, requests), (2, 0), "{case:?}: {err}");
        assert!(err.contains(case.0) && !err.contains("canary"), "{case:?}: {err}");
    }
    let keys: Vec<Variable> =
        vec![("AWS_ACCESS_KEY_ID", KEY.into()), ("AWS_SECRET_ACCESS_KEY", SECRET.into())];
    let url = server.server.endpoint.as_str();
    for (options, is_taken) in [
        (vec!["--endpoint", url, "--region", "us-east-1\n"], true),
        (vec!["--endpoint", url, "--region", ""], true),
        (vec!["--endpoint", url, "--region", "größe"], false),
        (vec!["--endpoint", "", "--region", "a/b"], false),
    ] {
        let options: Vec<&OsStr> = options.iter().map(OsStr::new).collect();
        let (code, err, _) = run.run(run.command(&options, &keys)).await;
        let named = err.contains("the repository's region") && code == 2;
        assert!(if is_taken { is_reached(code, &err) } else { named }, "{options:?}: {code}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn program_as_the_source_of_credentials_is_refused_with_the_way_out() {
    let (cli, server) = (CliRepo::new(), FaultyS3Server::start(10).await);
    let run = S3Run { cli: &cli, server: &server };
    std::fs::write(cli.at("aws-config"), "[default]\ncredential_process = /bin/true\n").expect("a file");
    let variables: Vec<Variable> = vec![
        ("AWS_CONFIG_FILE", cli.at("aws-config").into()),
        ("AWS_EC2_METADATA_DISABLED", "true".into()),
        ("AWS_ENDPOINT_URL_S3", server.server.endpoint.clone().into()),
    ];
    let (code, err, requests) = run.run(run.command(&[], &variables)).await;
    assert_eq!((code, requests), (2, 0), "{err}");
    assert!(err.contains("credential_process") && err.contains("export-credentials"), "{err}");
    assert!(!err.contains("cargo"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_files_are_read_as_people_have_them() {
    let (cli, server) = (CliRepo::new(), FaultyS3Server::start(10).await);
    let run = S3Run { cli: &cli, server: &server };
    let file = cli.at("credentials");
    let pair = format!("aws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n");
    let fine = format!("[default]\n{pair}");
    let two = format!("[a]\n{pair}[b]\n{pair}");
    let cases: Vec<(&str, String, Option<&str>, Option<&str>)> = vec![
        ("plain", fine.clone(), None, None),
        ("an empty profile", fine.clone(), Some(""), None),
        ("a byte order mark", format!("\u{feff}{fine}"), None, None),
        ("line ends of Windows", fine.replace('\n', "\r\n"), None, None),
        ("blank lines", format!("\n\n{fine}\n\n"), None, None),
        ("no section", pair.clone(), None, None),
        ("quotes", format!("AWS_ACCESS_KEY_ID=\"{KEY}\"\nAWS_SECRET_ACCESS_KEY='{SECRET}'"), None, None),
        ("a profile of two", two.clone(), Some("b\n"), None),
        ("no such profile", fine, Some("prod"), Some("has no profile `prod`, which AWS_PROFILE names")),
        ("two and no default", two, None, Some("set AWS_PROFILE")),
        ("an umlaut", pair.replace(KEY, "dämö"), None, Some("access key id")),
        ("a control character", pair.replace(KEY, "d\u{1}emo"), None, Some("access key id")),
        ("a token with a blank", format!("{pair}aws_session_token = a b\n"), None, Some("session token")),
        ("nothing", String::new(), None, Some("holds no access_key_id")),
    ];
    for (what, text, profile, refused) in cases {
        std::fs::write(&file, text).expect("a file");
        let options = ["--credentials-file".as_ref(), file.as_os_str(), "--endpoint".as_ref()];
        let options = [&options[..], &[OsStr::new(&server.server.endpoint)]].concat();
        let variables: Vec<Variable> = profile.iter().map(|name| ("AWS_PROFILE", (*name).into())).collect();
        let (code, err, _) = run.run(run.command(&options, &variables)).await;
        match refused {
            None => assert!(is_reached(code, &err), "{what}: {code}: {err}"),
            Some(why) => {
                assert!(code == 2 && err.contains(why) && !err.contains("dämö"), "{what}: {code}: {err}")
            }
        }
    }
    std::fs::remove_file(&file).expect("removed");
    let (code, err, _) = run.run(run.command(&["--credentials-file".as_ref(), file.as_os_str()], &[])).await;
    assert!(code == 2 && err.contains("key of the Secret that the pod mounts"), "{err}");
}

#[test]
fn init_and_backup_take_the_same_addresses() {
    let cli = CliRepo::new();
    let folder = cli.text("x");
    std::fs::create_dir(&folder).expect("a folder");
    let (data, recipient) = (cli.text("data"), cli.recipient.clone());
    for (number, (path, is_taken)) in [
        ("/plain", true),
        ("/@backups", true),
        ("/user@nas/kbak", true),
        ("/with blank", true),
        ("/größe", true),
        ("/a?b", true),
        ("/a#b", true),
        ("/50%", true),
        ("/a%20b", true),
        ("/a\\b", true),
        ("/end/", true),
        ("//twice//", true),
        ("/deep/../y", true),
        ("/./dot", true),
        ("/line\nbreak", false),
        ("/tab\tin", false),
    ]
    .into_iter()
    .enumerate()
    {
        std::fs::create_dir_all(cli.at("x/deep")).expect("a folder");
        let (url, keys) = (format!("file://{folder}{path}"), cli.text(&format!("keys{number}")));
        std::fs::create_dir(&keys).expect("a folder");
        let init = ["init", "--repo", &url, "--recipient", &recipient, "--single-owner", "--folder", &keys];
        let (code, _, err) = kbak(&init);
        assert_eq!(code, if is_taken { 0 } else { 2 }, "init at {path}: {err}");
        let key = format!("{keys}/writer.key");
        let args =
            ["backup", "--repo", &url, "--writer-key", &key, "--recipient", &recipient, "--path", &data];
        let (code, _, err) = kbak(&args);
        assert_eq!(code, if is_taken { 0 } else { 2 }, "backup at {path}: {err}");
    }
    let (url, keys) = (format!("file://{folder}/other"), cli.text("other-keys"));
    std::fs::create_dir(&keys).expect("a folder");
    let init = ["init", "--repo", &url, "--recipient", &recipient, "--single-owner", "--folder", &keys];
    let backup =
        ["backup", "--repo", &url, "--writer-key", "writer.key", "--recipient", &recipient, "--path", &data];
    for args in [&init[..], &backup] {
        let (code, _, err) = kbak(&[args, &["--endpoint", "https://s3.example.eu"]].concat());
        assert!(
            code == 2 && err.contains("is for s3:// repositories; this one is a folder"),
            "{args:?}: {err}"
        );
    }
    assert!(!std::fs::exists(cli.at("x/other")).expect("a folder"));
}

#[test]
fn byte_order_mark_is_skipped_in_every_file_that_people_edit() {
    let cli = CliRepo::for_plan("nightly");
    let plan = cli.write_plan(&format!("  volumes: [{{path: \"{}\"}}]\n", cli.text("data")));
    std::fs::write(cli.at("recipients"), format!("{}\n", cli.recipient)).expect("a file");
    std::fs::write(cli.at("restore.yaml"), "apiVersion: kbak.dev/v1\nkind: RestorePlan\nspec: {}\n")
        .expect("a file");
    let mark = |name: &str| {
        let path = cli.at(name);
        let bytes = [b"\xef\xbb\xbf".to_vec(), std::fs::read(&path).expect("a file")].concat();
        std::fs::write(&path, bytes).expect("written");
    };
    for name in [
        "plan.yaml",
        "recipients",
        "keys/kbak.pub",
        "keys/owner.key",
        "keys/writer.key",
        "keys/writer.key.nightly.epoch",
    ] {
        if cli.at(name).exists() {
            mark(name);
        }
    }
    good(&["backup", "--plan", &plan]);
    let (code, _, err) = cli.run_reader(&["restore", "latest", "--to", &cli.text("back")]);
    assert_eq!(code, 0, "{err}");
    let folder = cli.text("other");
    std::fs::create_dir(&folder).expect("a folder");
    let (url, recipients) = (format!("file://{}", cli.text("second")), cli.text("recipients"));
    good(&["init", "--repo", &url, "--recipients-file", &recipients, "--single-owner", "--folder", &folder]);
    std::fs::write(cli.at("pass"), "\u{feff}correct horse\r\n").expect("a file");
    let pass = cli.text("pass");
    let locked = cli.text("locked.key");
    good(&["keygen", "-o", &locked, "--passphrase-file", &pass]);
    std::fs::write(&pass, "correct horse").expect("a file");
    good(&["keygen", "--public", &locked, "--passphrase-file", &pass]);
}

#[test]
fn database_passwords_are_read_without_line_breaks_and_marks() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    let mut config = default_config("shop", "127.0.0.1");
    config.password_file = Some(file.clone());
    let wanted = kbak::source::database::Password::new(" secret ".into());
    for text in [" secret ", " secret \n", " secret \r\n", " secret \n\n", "\u{feff} secret \n"] {
        std::fs::write(&file, text).expect("a file");
        let password = config.read_password().unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert!(password.as_ref() == Some(&wanted), "{text:?}");
    }
    for text in ["", "\n", "can\nary", "can\0ary", &"canary".repeat(1000)] {
        std::fs::write(&file, text).expect("a file");
        let error = config.read_password().expect_err(text).to_string();
        assert!(error.contains("/password") && !error.contains("ary"), "{text:?}: {error}");
    }
}

/// Returns the exit code and messages of a verb that reads the identity in a file with this content.
fn read_identity(cli: &CliRepo, content: &[u8]) -> (i32, String) {
    let file = cli.at("identity");
    std::fs::write(&file, content).expect("a file");
    set_mode(&file, 0o600);
    std::fs::write(cli.at("pass"), "pass phrase\r\n").expect("a file");
    let (path, pass) = (cli.text("identity"), cli.text("pass"));
    let (code, _, err) = kbak(&["keygen", "--public", &path, "--passphrase-file", &pass]);
    (code, err)
}

#[test]
fn identity_files_are_read_as_people_have_them() {
    let cli = CliRepo::new();
    let keygen = |name: &str, args: &[&str]| {
        let path = cli.at(name);
        run_ok(Command::new(tool("ssh-keygen", "SSH_KEYGEN")).arg("-q").args(args).arg("-f").arg(&path), b"");
        std::fs::read(path).expect("a key")
    };
    let (pass, locked) = (cli.text("pass"), cli.text("locked.key"));
    std::fs::write(&pass, "pass phrase").expect("a file");
    good(&["keygen", "-o", &locked, "--passphrase-file", &pass]);
    let keys = [
        ("kbak's own", std::fs::read(cli.at("keys/owner.key")).expect("a key")),
        ("kbak's own, locked", std::fs::read(&locked).expect("a key")),
        ("ed25519", keygen("ed", &["-t", "ed25519", "-N", "", "-C", "ada@laptop, née ♥"])),
        ("ed25519, locked", keygen("edp", &["-t", "ed25519", "-N", "pass phrase"])),
        ("RSA", keygen("rsa", &["-t", "rsa", "-b", "2048", "-N", ""])),
        ("RSA in PEM form", keygen("pem", &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""])),
    ];
    for (kind, key) in &keys {
        let text = String::from_utf8(key.clone()).expect("text");
        for (what, content) in [
            ("as it is", text.clone()),
            ("line ends of Windows", text.replace('\n', "\r\n")),
            ("blank lines at its end", format!("{text}\n\n")),
            ("blank lines at its head", format!("\n\n{text}")),
            ("no line break at its end", text.trim_end().to_owned()),
            ("blanks around its lines", text.lines().map(|line| format!("  {line} \t\n")).collect()),
            ("a byte order mark", format!("\u{feff}{text}")),
        ] {
            let (code, err) = read_identity(&cli, content.as_bytes());
            assert_eq!(code, 0, "{kind}, {what}: {err}");
        }
    }
    let with = |kind: &str, args: &[&str]| keygen(kind, &[&["-t", kind], args].concat());
    let public = std::fs::read(cli.at("ed.pub")).expect("a key");
    for (what, content, way_out) in [
        (
            "RSA in PEM form, locked",
            keygen("pemp", &["-t", "rsa", "-m", "PEM", "-N", "old pass"]),
            "ssh-keygen -p",
        ),
        ("PKCS#8", keygen("p8", &["-t", "rsa", "-m", "PKCS8", "-N", ""]), "ssh-keygen -p"),
        ("PKCS#8, locked", keygen("p8p", &["-t", "rsa", "-m", "PKCS8", "-N", "old pass"]), "ssh-keygen -p"),
        ("PuTTY", b"PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n".to_vec(), "puttygen"),
        ("ECDSA", with("ecdsa", &["-N", ""]), "ed25519 or RSA"),
        ("a public key", public, "without .pub"),
    ] {
        let (code, err) = read_identity(&cli, &content);
        assert!(code == 2 && err.contains(way_out), "{what}: {code}: {err}");
    }
}

#[test]
fn diff_with_the_cluster_refuses_what_holds_no_resources() {
    let cli = CliRepo::new();
    assert_eq!(cli.backup(&[]).0, 0);
    let reader = cli.reader_args();
    let diff = |more: &[&str]| kbak(&[&["diff", "latest", "--live"], more, &as_strs(&reader)].concat());
    let (code, out, err) = diff(&[]);
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("snapshot 000001 holds no resources") && err.contains(&cli.data_item()), "{err}");
    let (code, _, err) = diff(&["--item", &cli.data_item()]);
    assert!(code == 2 && err.contains("is of kind volume"), "{err}");
    let (code, _, err) = diff(&["--item", "nonsense"]);
    assert!(code == 2 && err.contains("has no item nonsense") && err.contains(&cli.data_item()), "{err}");
}
