//! Known images and ports of databases, kinds of their operators, and Secrets that cannot be recreated.

/// The name of an engine, as reports print it.
pub(super) type EngineName = &'static str;

/// Engines and the last parts of their images' names, matched whole: `postgres-exporter` is no database.
const IMAGES: &[(EngineName, &str)] = &[
    (
        "postgresql",
        "postgres postgresql postgis timescaledb timescaledb-ha pgvector spilo spilo-15 spilo-16 \
         spilo-17 postgresql-repmgr percona-postgresql-operator percona-distribution-postgresql \
         crunchy-postgres enterprisedb-postgresql paradedb cloudnative-vectorchord alloydbomni",
    ),
    ("mariadb", "mariadb mariadb-galera mariadb-server mariadb-enterprise"),
    (
        "mysql",
        "mysql mysql-server percona percona-server percona-xtradb-cluster community-server \
         enterprise-server moco-mysql",
    ),
    (
        "mongodb",
        "mongo mongodb mongodb-sharded percona-server-mongodb mongodb-community-server \
         mongodb-enterprise-server ferretdb",
    ),
    ("redis", "redis redis-cluster redis-stack redis-stack-server keydb dragonfly"),
    ("valkey", "valkey valkey-cluster valkey-bundle"),
    ("etcd", "etcd"),
    ("elasticsearch", "elasticsearch elasticsearch-oss"),
    ("opensearch", "opensearch"),
    ("cassandra", "cassandra cass-management-api dse-server"),
    ("scylla", "scylla scylla-enterprise"),
    ("clickhouse", "clickhouse clickhouse-server"),
    ("cockroachdb", "cockroach"),
    ("yugabytedb", "yugabyte"),
    ("tidb", "tikv"),
    ("mssql", "mssql-server"),
    ("oracle", "oracle-free oracle-xe"),
    ("influxdb", "influxdb"),
    ("neo4j", "neo4j"),
    ("arangodb", "arangodb"),
    ("couchdb", "couchdb"),
    ("couchbase", "couchbase server-sandbox"),
    ("rethinkdb", "rethinkdb"),
    ("surrealdb", "surrealdb"),
    ("qdrant", "qdrant"),
    ("weaviate", "weaviate"),
    ("milvus", "milvus"),
    ("meilisearch", "meilisearch"),
    ("typesense", "typesense"),
    ("solr", "solr"),
    ("zookeeper", "zookeeper"),
    ("kafka", "kafka cp-kafka redpanda"),
    ("rabbitmq", "rabbitmq"),
    ("minio", "minio"),
    ("vault", "vault openbao"),
    ("openldap", "openldap"),
];

/// Engines by port, for containers with an unknown image that also keep data.
const PORTS: &[(u16, EngineName)] = &[
    (5432, "postgresql"),
    (3306, "mysql"),
    (27017, "mongodb"),
    (6379, "redis"),
    (2379, "etcd"),
    (9200, "elasticsearch"),
    (9042, "cassandra"),
    (26257, "cockroachdb"),
    (1433, "mssql"),
    (1521, "oracle"),
    (8086, "influxdb"),
    (7687, "neo4j"),
    (5984, "couchdb"),
    (9092, "kafka"),
    (5672, "rabbitmq"),
];

/// Returns the engine of an image, by its name without registry, tag and digest.
pub(super) fn engine_of_image(image: &str) -> Option<EngineName> {
    let name = image.split('@').next().unwrap_or(image);
    let mut parts = name.rsplit('/');
    let last = parts.next().unwrap_or(name).split(':').next().unwrap_or_default();
    if parts.next() == Some("mssql") && last == "server" {
        return Some("mssql");
    }
    let is_named = |names: &str| names.split(' ').any(|name| name == last);
    IMAGES.iter().find(|(_, names)| is_named(names)).map(|(engine, _)| *engine)
}

/// Returns the engine that usually listens on a port.
pub(super) fn engine_of_port(port: u16) -> Option<EngineName> {
    PORTS.iter().find(|(known, _)| *known == port).map(|(_, engine)| *engine)
}

/// True if the engine is used as a cache, so that without storage there is nothing to back up.
pub(super) fn is_cache(engine: EngineName) -> bool {
    matches!(engine, "redis" | "valkey")
}

/// Kinds of custom resources that declare a database: group, plural, engine.
const OPERATORS: &[(&str, &str, EngineName)] = &[
    ("postgresql.cnpg.io", "clusters", "postgresql"),
    ("acid.zalan.do", "postgresqls", "postgresql"),
    ("postgres-operator.crunchydata.com", "postgresclusters", "postgresql"),
    ("pgv2.percona.com", "perconapgclusters", "postgresql"),
    ("stackgres.io", "sgclusters", "postgresql"),
    ("kubegres.reactive-tech.io", "kubegres", "postgresql"),
    ("k8s.mariadb.com", "mariadbs", "mariadb"),
    ("mariadb.mmontes.io", "mariadbs", "mariadb"),
    ("pxc.percona.com", "perconaxtradbclusters", "mysql"),
    ("ps.percona.com", "perconaservermysqls", "mysql"),
    ("mysql.oracle.com", "innodbclusters", "mysql"),
    ("mysql.presslabs.org", "mysqlclusters", "mysql"),
    ("moco.cybozu.com", "mysqlclusters", "mysql"),
    ("planetscale.com", "vitessclusters", "mysql"),
    ("pingcap.com", "tidbclusters", "tidb"),
    ("mongodbcommunity.mongodb.com", "mongodbcommunity", "mongodb"),
    ("mongodb.com", "mongodb", "mongodb"),
    ("psmdb.percona.com", "perconaservermongodbs", "mongodb"),
    ("redis.redis.opstreelabs.in", "redis", "redis"),
    ("redis.redis.opstreelabs.in", "redisclusters", "redis"),
    ("redis.redis.opstreelabs.in", "redisreplications", "redis"),
    ("databases.spotahome.com", "redisfailovers", "redis"),
    ("app.redislabs.com", "redisenterpriseclusters", "redis"),
    ("dragonflydb.io", "dragonflies", "redis"),
    ("hyperspike.io", "valkeys", "valkey"),
    ("elasticsearch.k8s.elastic.co", "elasticsearches", "elasticsearch"),
    ("opensearch.opster.io", "opensearchclusters", "opensearch"),
    ("cassandra.datastax.com", "cassandradatacenters", "cassandra"),
    ("k8ssandra.io", "k8ssandraclusters", "cassandra"),
    ("scylla.scylladb.com", "scyllaclusters", "scylla"),
    ("clickhouse.altinity.com", "clickhouseinstallations", "clickhouse"),
    ("crdb.cockroachlabs.com", "crdbclusters", "cockroachdb"),
    ("couchbase.com", "couchbaseclusters", "couchbase"),
    ("etcd.database.coreos.com", "etcdclusters", "etcd"),
    ("kafka.strimzi.io", "kafkas", "kafka"),
    ("rabbitmq.com", "rabbitmqclusters", "rabbitmq"),
    ("zookeeper.pravega.io", "zookeeperclusters", "zookeeper"),
    ("minio.min.io", "tenants", "minio"),
    ("kubedb.com", "postgreses", "postgresql"),
    ("kubedb.com", "mariadbs", "mariadb"),
    ("kubedb.com", "mysqls", "mysql"),
    ("kubedb.com", "mongodbs", "mongodb"),
    ("kubedb.com", "redises", "redis"),
    ("kubedb.com", "elasticsearches", "elasticsearch"),
];

/// Returns the engine of a kind of custom resource.
pub(super) fn engine_of_kind(group: &str, plural: &str) -> Option<EngineName> {
    OPERATORS.iter().find(|(g, p, _)| (*g, *p) == (group, plural)).map(|(_, _, engine)| *engine)
}

/// True if an API group belongs to an operator of databases.
pub(super) fn is_operator(group: &str) -> bool {
    OPERATORS.iter().any(|(known, ..)| *known == group)
}

/// Labels by which operators name the database that an object belongs to.
pub(super) const PART_OF: &[&str] = &[
    "cnpg.io/cluster",
    "cluster-name",
    "postgres-operator.crunchydata.com/cluster",
    "stackgres.io/cluster-name",
    "strimzi.io/cluster",
    "elasticsearch.k8s.elastic.co/cluster-name",
    "opster.io/opensearch-cluster",
    "mysql.oracle.com/cluster",
    "cassandra.datastax.com/cluster",
    "scylla/cluster",
    "clickhouse.altinity.com/chi",
    "v1.min.io/tenant",
    "app.kubernetes.io/instance",
];

/// Secrets recognised by a label: the label, its value (empty for any), the description.
pub(super) const LABELLED_SECRETS: &[(&str, &str, &str)] = &[
    ("sealedsecrets.bitnami.com/sealed-secrets-key", "", "the key that opens Sealed Secrets"),
    ("strimzi.io/component-type", "certificate-authority", "the CA of a Kafka cluster"),
];

/// Secrets recognised by name: namespace (empty for any), name, the description.
pub(super) const NAMED_SECRETS: &[(&str, &str, &str)] = &[
    ("", "sops-age", "a key that decrypts SOPS files"),
    ("", "sops-gpg", "a key that decrypts SOPS files"),
    ("", "sops-keys", "a key that decrypts SOPS files"),
    ("", "sops-age-key", "a key that decrypts SOPS files"),
    ("", "helm-secrets-private-keys", "a key that decrypts SOPS files"),
    ("", "velero-repo-credentials", "the password of Velero's volume repositories"),
    ("", "k8up-repo-credentials", "the password of a K8up repository"),
    ("linkerd", "linkerd-identity-issuer", "the CA of a service mesh"),
    ("linkerd", "linkerd-trust-anchor", "the CA of a service mesh"),
    ("istio-system", "cacerts", "the CA of a service mesh"),
    ("istio-system", "istio-ca-secret", "the CA of a service mesh"),
    ("", "bank-vaults", "keys that unseal Vault"),
    ("", "vault-unseal-keys", "keys that unseal Vault"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_recognised_by_whole_name() {
        let cases = [
            ("postgres", Some("postgresql")),
            ("docker.io/library/postgres:16@sha256:00", Some("postgresql")),
            ("registry.example.eu:5000/bitnami/postgresql:16", Some("postgresql")),
            ("ghcr.io/cloudnative-pg/postgresql:16.4", Some("postgresql")),
            ("quay.io/prometheuscommunity/postgres-exporter", None),
            ("mcr.microsoft.com/mssql/server:2022-latest", Some("mssql")),
            ("example.eu/minecraft/server", None),
            ("mongo-express", None),
            ("localhost:5000/postgres", Some("postgresql")),
        ];
        for (image, engine) in cases {
            assert_eq!(engine_of_image(image), engine, "{image}");
        }
    }
}
