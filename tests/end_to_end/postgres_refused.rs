//! Parts of a database that a real PostgreSQL server refuses are named, and all else is restored.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use kbak::source::database::DatabaseError;
use kbak::source::database::postgres::Postgres;
use kbak::target::database::{DatabaseRestore, RestoreRecipe as _, TargetDatabase};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use crate::support::postgres::PostgresServer;
use crate::support::postgres_repo::{PostgresRepo, globals, relations, start_server};

/// Objects that the restore of an archive cannot make: functions that find their tables by the search path,
/// which a restore leaves empty. What does not depend on them stands before, between and after them.
const SHOP: &str = "
    CREATE TABLE software (id int PRIMARY KEY, name text);
    CREATE TABLE mention (id int PRIMARY KEY, software int REFERENCES software (id), u text);
    INSERT INTO software SELECT g, 'n' || g FROM generate_series(1, 100) g;
    INSERT INTO mention SELECT g, 1 + g % 100, 'u' FROM generate_series(1, 1000) g;
    CREATE INDEX mention_u ON mention (u, software);
    CREATE FUNCTION mentions() RETURNS TABLE (software int, n bigint) LANGUAGE sql STABLE
        AS 'SELECT software, count(*) FROM mention GROUP BY software';
    CREATE FUNCTION software_name(int) RETURNS text LANGUAGE plpgsql IMMUTABLE
        AS 'BEGIN RETURN (SELECT name FROM software WHERE id = $1); END';
    CREATE MATERIALIZED VIEW counts AS SELECT * FROM mentions();
    CREATE MATERIALIZED VIEW counted AS SELECT sum(n) FROM counts;
    CREATE MATERIALIZED VIEW plain AS SELECT count(*) FROM public.software;
    CREATE INDEX mention_named ON mention (software_name(software));
    CREATE TABLE checked (id int CHECK (software_name(id) IS NOT NULL));
    INSERT INTO checked VALUES (1), (2);
    CREATE TABLE zz_late (x int);
    INSERT INTO zz_late VALUES (1);
    CREATE TRIGGER t BEFORE UPDATE ON zz_late FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
    ALTER TABLE zz_late ENABLE ROW LEVEL SECURITY;
    CREATE POLICY p ON zz_late USING (x > 0);
    CREATE PUBLICATION pub FOR TABLE zz_late;
    GRANT SELECT ON software TO PUBLIC;
    COMMENT ON TABLE software IS 'c';";

/// Triggers, policies, publications and comments of a database.
const ATTACHED: &str = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1; SELECT polname FROM pg_policy; \
    SELECT pubname FROM pg_publication; SELECT obj_description('public.software'::regclass)";

#[test]
fn refused_objects_are_named_and_the_rest_of_the_database_is_restored() {
    let server = start_server();
    server.sql("postgres", "CREATE ROLE keeper; CREATE ROLE clerk");
    server.sql("postgres", "CREATE DATABASE shop OWNER keeper CONNECTION LIMIT 7");
    server.sql("shop", SHOP);
    server.sql(
        "postgres",
        "REVOKE CONNECT ON DATABASE shop FROM PUBLIC; GRANT CONNECT ON DATABASE shop TO clerk;
         ALTER DATABASE shop SET work_mem = '9MB'; COMMENT ON DATABASE shop IS 'sells'",
    );
    let repo = PostgresRepo::of(server);
    let target = start_server();
    let restored = repo.restore(&target, "kbak", &[]).ended(3);
    let gaps = restored.gaps();
    for refused in [
        "MATERIALIZED VIEW DATA public.counts: ",
        "MATERIALIZED VIEW DATA public.counted: ",
        "INDEX public.mention_named: ",
        "TABLE DATA public.checked: ",
    ] {
        let is_named = |(code, object, reason): &(String, String, String)| {
            code == "not-restored" && object == "shop" && reason.starts_with(refused)
        };
        assert!(gaps.iter().any(is_named), "{refused}: {gaps:?}");
    }
    assert_eq!(gaps.len(), 4, "{gaps:?}");
    assert_eq!(globals(&target), globals(&repo.server), "owner, limit, rights, settings and comment");
    assert_eq!(target.sql("shop", ATTACHED), repo.server.sql("shop", ATTACHED));
    let (before, after) = (relations(&repo.server, "shop"), relations(&target, "shop"));
    let refused = ["counts", "counted", "mention_named", "checked"];
    let others = |text: &str| {
        let kept = text.lines().filter(|line| !refused.iter().any(|name| line.contains(name)));
        kept.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(others(&after), others(&before));
}

#[test]
fn values_of_rows_are_in_no_report_and_no_message() {
    let server = start_server();
    server.sql("postgres", "CREATE DATABASE shop");
    // All fail in a restore only, which leaves the search path empty.
    server.sql(
        "shop",
        "CREATE FUNCTION named(text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$BEGIN
             IF current_setting('search_path') = '' THEN RAISE EXCEPTION 'bad customer %', $1; END IF;
             RETURN true; END$$;
         CREATE FUNCTION number(text) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$BEGIN
             IF current_setting('search_path') = '' THEN RETURN $1::int; END IF; RETURN 1; END$$;
         CREATE TABLE raised (name text CHECK (named(name)));
         CREATE TABLE cast_rows (name text CHECK (number(name) > 0));
         CREATE TABLE indexed (name text);
         INSERT INTO raised VALUES ('canary-7391'); INSERT INTO cast_rows VALUES ('canary-7391');
         INSERT INTO indexed VALUES ('canary-7391');
         CREATE INDEX indexed_named ON indexed (named(name))",
    );
    let repo = PostgresRepo::of(server);
    let target = start_server();
    let restored = repo.restore(&target, "kbak", &[]).ended(3);
    let everything = format!("{}{}{}", restored.stdout, restored.stderr, restored.report);
    assert!(!everything.contains("canary-7391"), "{everything}");
    let gaps = restored.gaps();
    for part in [
        "TABLE DATA public.raised: COPY failed for table \"raised\": ERROR:  a function of the database raised it",
        "TABLE DATA public.cast_rows: COPY failed for table \"cast_rows\": ERROR:  invalid input syntax for type integer",
        "INDEX public.indexed_named: ERROR:  a function of the database raised it",
    ] {
        assert!(gaps.iter().any(|(_, _, reason)| reason.starts_with(part)), "{part}: {gaps:?}");
    }
}

#[test]
fn errors_beyond_the_first_hundred_are_counted() {
    let server = start_server();
    server.sql("postgres", "CREATE ROLE keeper");
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql(
        "shop",
        "DO $$ BEGIN FOR n IN 1..130 LOOP EXECUTE format('CREATE TABLE t%s (); ALTER TABLE t%1$s OWNER TO keeper', n); \
         END LOOP; END $$",
    );
    let repo = PostgresRepo::of(server);
    let target = start_server();
    target.sql("postgres", "CREATE ROLE creator LOGIN CREATEDB PASSWORD 'secret'");
    let restored = repo.restore(&target, "creator", &[]).ended(3);
    let gaps = restored.gaps();
    let of_tables = gaps.iter().filter(|(_, _, reason)| reason.starts_with("TABLE public.t")).count();
    assert!(
        of_tables >= 99 && gaps.iter().any(|(_, _, reason)| reason.ends_with("further errors")),
        "{gaps:?}"
    );
    assert_eq!(target.sql("shop", "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "130");
}

/// An archive that ends the restore's session when a part of it was read.
struct EndsSession<'a> {
    server: &'a PostgresServer,
    archive: &'a [u8],
    left: usize,
}

impl AsyncRead for EndsSession<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        if this.left == 0 {
            let end =
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'kbak'";
            assert_ne!(this.server.sql("postgres", end), "", "a session");
        }
        let count = this.archive.len().min(buf.remaining()).min(64 << 10);
        let (piece, rest) = this.archive.split_at(count);
        buf.put_slice(piece);
        this.archive = rest;
        this.left = this.left.wrapping_sub(1);
        Poll::Ready(Ok(()))
    }
}

/// Dumps the database `shop`. Returns the archive, and the request to restore it into another database.
async fn dump_shop(postgres: &Postgres) -> (Vec<u8>, DatabaseRestore) {
    let mut archive = Vec::new();
    postgres.dump("shop").expect("a dump").read_to_end(&mut archive).await.expect("a dump");
    let request = DatabaseRestore {
        database: "back".to_owned(),
        target: TargetDatabase::Create,
        encoding_from: None,
        no_owner: false,
    };
    (archive, request)
}

#[tokio::test]
async fn database_that_is_filled_in_part_is_named_when_the_connection_ends() {
    let server = start_server();
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql(
        "shop",
        "CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 40000) n; CREATE TABLE u ()",
    );
    let postgres = Postgres::connect(&server.config()).await.expect("a server");
    let (archive, request) = dump_shop(&postgres).await;
    let mut ends = EndsSession { server: &server, archive: &archive, left: 10 };
    let error = postgres.restore_database(&request, &mut ends).await.expect_err("its session ended");
    assert!(error.is_unreachable(), "{error:?}");
    assert!(error.to_string().contains("back exists now and holds only a part of the backup"), "{error}");
    assert!(matches!(error, DatabaseError::PartlyRestored { .. }));
    let error = postgres.restore_database(&request, &mut archive.as_slice()).await.expect_err("not empty");
    assert!(matches!(error, DatabaseError::NotEmpty { .. }), "{error}");
}

#[tokio::test]
async fn indexes_that_together_take_longer_than_the_idle_timeout_are_built() {
    let server = start_server();
    for database in ["shop", "back"] {
        server.sql("postgres", &format!("CREATE DATABASE {database}"));
    }
    // Only the target delays.
    server.sql("postgres", "ALTER DATABASE back SET my.delay = '5'");
    server.sql(
        "shop",
        "CREATE FUNCTION slow(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
             'BEGIN PERFORM pg_sleep(coalesce(current_setting(''my.delay'', true), ''0'')::float); RETURN $1; END';
         CREATE TABLE t (id int); INSERT INTO t VALUES (1);
         CREATE INDEX a ON t (slow(id)); CREATE INDEX b ON t (slow(id)); CREATE INDEX c ON t (slow(id))",
    );
    let mut config = server.config();
    config.idle_timeout = Duration::from_secs(10);
    let postgres = Postgres::connect(&config).await.expect("a server");
    let (archive, request) = dump_shop(&postgres).await;
    let restored = postgres.restore_database(&request, &mut archive.as_slice()).await.expect("restored");
    assert_eq!(restored.refused, []);
    assert_eq!(server.sql("back", "SELECT count(*) FROM pg_indexes WHERE tablename = 't'"), "3");
}

#[tokio::test]
async fn database_with_anything_in_it_is_not_empty() {
    let server = start_server();
    let postgres = Postgres::connect(&server.config()).await.expect("a server");
    for (at, (statement, objects)) in [
        ("SELECT 1", 0),
        // It is in every dump that needs it, which creates it only if it is missing.
        ("CREATE EXTENSION IF NOT EXISTS plpgsql", 0),
        ("CREATE TABLE t (id serial)", 2),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", 1),
        ("CREATE TYPE color AS ENUM ('red')", 1),
        ("CREATE DOMAIN positive AS int CHECK (VALUE > 0)", 1),
        ("CREATE SCHEMA warehouse", 1),
        ("SELECT lo_create(7)", 1),
        ("CREATE PUBLICATION everything FOR ALL TABLES", 1),
        ("CREATE TEXT SEARCH CONFIGURATION plain (COPY = simple)", 1),
    ]
    .into_iter()
    .enumerate()
    {
        let database = format!("d{at}");
        server.sql("postgres", &format!("CREATE DATABASE {database}"));
        server.sql(&database, statement);
        assert_eq!(postgres.count_objects(&database).await.expect("a number"), objects, "{statement}");
    }
}
