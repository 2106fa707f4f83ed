//! What was said: flags, environment and the `.env` file, as text.

use std::path::Path;

use clap::Args;

/// The settings as they were given. A flag wins over the environment, the environment over the `.env` file; an empty
/// value counts as not given.
// No `Debug`: it holds secrets.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Settings")]
pub struct RawSettings {
    /// Address to listen on; containers set 0.0.0.0 [default: 127.0.0.1]
    #[arg(long, env = "INGESTOR_HOST", hide_env_values = true, value_name = "ADDRESS")]
    pub host: Option<String>,
    /// Port to listen on [default: 8070]
    #[arg(long, env = "INGESTOR_PORT", hide_env_values = true, value_name = "PORT")]
    pub port: Option<String>,
    /// Address, with its port, that serves everything but /ingest: metrics, ledger, status. The main port then serves
    /// only /ingest and the health probes; without it, the main port serves everything
    #[arg(long, env = "ADMIN_ADDR", hide_env_values = true, value_name = "ADDRESS:PORT")]
    pub admin_addr: Option<String>,
    /// File of API keys, made by `ingestor keys new` and read again on SIGHUP; without it no key is asked for
    #[arg(long, env = "API_KEYS_FILE", hide_env_values = true, value_name = "FILE")]
    pub api_keys_file: Option<String>,
    /// Redis server with user and password, rediss:// for TLS, redis+unix:///path for a socket; without it or a Redis
    /// host, the embedded store is used
    #[arg(long, env = "REDIS_URL", hide_env_values = true, value_name = "URL")]
    pub redis_url: Option<String>,
    /// File that holds the Redis URL
    #[arg(long, env = "REDIS_URL_FILE", hide_env_values = true, value_name = "FILE")]
    pub redis_url_file: Option<String>,
    /// Host of the Redis server
    #[arg(long, env = "REDIS_HOST", hide_env_values = true, value_name = "HOST")]
    pub redis_host: Option<String>,
    /// Port of the Redis server [default: 6379]
    #[arg(long, env = "REDIS_PORT", hide_env_values = true, value_name = "PORT")]
    pub redis_port: Option<String>,
    /// User of the Redis server, with REDIS_HOST, Sentinels or a cluster [default: the default user]
    #[arg(long, env = "REDIS_USER", hide_env_values = true, value_name = "NAME")]
    pub redis_user: Option<String>,
    /// Password of the Redis server, with REDIS_HOST, Sentinels or a cluster
    #[arg(long, env = "REDIS_PASSWORD", hide_env_values = true, value_name = "PASSWORD")]
    pub redis_password: Option<String>,
    /// File that holds the password of the Redis server
    #[arg(long, env = "REDIS_PASSWORD_FILE", hide_env_values = true, value_name = "FILE")]
    pub redis_password_file: Option<String>,
    /// TLS to the Redis server and to Sentinels, with REDIS_HOST or Sentinels [default: no]
    #[arg(long, env = "REDIS_TLS", hide_env_values = true, value_name = "yes|no")]
    pub redis_tls: Option<String>,
    /// Redis Sentinels that say where the master is, separated by commas [default port: 26379]
    #[arg(long, env = "REDIS_SENTINEL_ADDRS", hide_env_values = true, value_name = "HOST:PORT,...")]
    pub redis_sentinel_addrs: Option<String>,
    /// The master's name among Sentinels
    #[arg(long, env = "REDIS_SENTINEL_MASTER", hide_env_values = true, value_name = "NAME")]
    pub redis_sentinel_master: Option<String>,
    /// User of the Sentinels [default: the default user]
    #[arg(long, env = "REDIS_SENTINEL_USER", hide_env_values = true, value_name = "NAME")]
    pub redis_sentinel_user: Option<String>,
    /// Password of the Sentinels
    #[arg(long, env = "REDIS_SENTINEL_PASSWORD", hide_env_values = true, value_name = "PASSWORD")]
    pub redis_sentinel_password: Option<String>,
    /// File that holds the password of the Sentinels
    #[arg(long, env = "REDIS_SENTINEL_PASSWORD_FILE", hide_env_values = true, value_name = "FILE")]
    pub redis_sentinel_password_file: Option<String>,
    /// Nodes of a Redis Cluster, separated by commas, as many as it takes to find the others [default port: 6379]
    #[arg(long, env = "REDIS_CLUSTER_NODES", hide_env_values = true, value_name = "HOST:PORT,...")]
    pub redis_cluster_nodes: Option<String>,
    /// Prefix of every key in Redis [default: ingestor]
    #[arg(long, env = "REDIS_KEY_PREFIX", hide_env_values = true, value_name = "PREFIX")]
    pub redis_key_prefix: Option<String>,
    /// Shards that tenants are spread over in Redis; recorded in the store at its first start [default: 1, on a cluster 64]
    #[arg(long, env = "REDIS_SHARDS", hide_env_values = true, value_name = "N")]
    pub redis_shards: Option<String>,
    /// Replicas that must have a group before it is acknowledged [default: 0]
    #[arg(long, env = "WAIT_REPLICAS", hide_env_values = true, value_name = "N")]
    pub wait_replicas: Option<String>,
    /// Bytes of acknowledged groups that are kept for ten seconds, to be sent again if Redis loses them [default: 67108864]
    #[arg(long, env = "REPLAY_MAX_BYTES", hide_env_values = true, value_name = "BYTES")]
    pub replay_max_bytes: Option<String>,
    /// Directory of the embedded store [default: ./data]
    #[arg(long, env = "DATA_DIR", hide_env_values = true, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Where batches are POSTed, http or https; without it they stay in the outbox
    #[arg(long, env = "API_URL_SENDER", hide_env_values = true, value_name = "URL")]
    pub api_url_sender: Option<String>,
    /// Value of the Authorization header sent to the receiver
    #[arg(long, env = "SENDER_AUTHORIZATION", hide_env_values = true, value_name = "VALUE")]
    pub sender_authorization: Option<String>,
    /// File that holds the Authorization header's value
    #[arg(long, env = "SENDER_AUTHORIZATION_FILE", hide_env_values = true, value_name = "FILE")]
    pub sender_authorization_file: Option<String>,
    /// Secret that deliveries are signed with (Standard Webhooks): whsec_ and Base64; two, the new one first, while the
    /// receiver changes over
    #[arg(long, env = "SENDER_SIGNING_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub sender_signing_secret: Option<String>,
    /// File that holds the signing secret, or two, one a line
    #[arg(long, env = "SENDER_SIGNING_SECRET_FILE", hide_env_values = true, value_name = "FILE")]
    pub sender_signing_secret_file: Option<String>,
    /// Length of a billing window, aligned to the wall clock [default: 1h]
    #[arg(long, env = "INTERVAL_TO_SEND", hide_env_values = true, value_name = "DURATION")]
    pub interval_to_send: Option<String>,
    /// Pause between the toggle of a window and the freezing of its batches [default: 5s]
    #[arg(long, env = "STABILIZATION_DELAY", hide_env_values = true, value_name = "DURATION")]
    pub stabilization_delay: Option<String>,
    /// Aggregates in a batch at most [default: 500]
    #[arg(long, env = "BATCH_QTY_TO_SEND", hide_env_values = true, value_name = "N")]
    pub batch_qty_to_send: Option<String>,
    /// Deliveries in flight at most [default: 5]
    #[arg(long, env = "DELIVERY_CONCURRENCY", hide_env_values = true, value_name = "N")]
    pub delivery_concurrency: Option<String>,
    /// Limit of one delivery attempt [default: 10s]
    #[arg(long, env = "DELIVERY_TIMEOUT", hide_env_values = true, value_name = "DURATION")]
    pub delivery_timeout: Option<String>,
    /// Amounts in a batch as a JSON number or as a string [default: number]
    #[arg(long, env = "AMOUNT_FORMAT", hide_env_values = true, value_name = "number|string")]
    pub amount_format: Option<String>,
    /// For how long the receiver remembers batch ids; a batch that it may have processed longer ago than this is put
    /// among the dead letters instead of being sent again [default: 24h]
    #[arg(long, env = "RECEIVER_DEDUP_WINDOW", hide_env_values = true, value_name = "DURATION")]
    pub receiver_dedup_window: Option<String>,
    /// For how long a deliverer that died keeps the others waiting [default: 15s]
    #[arg(long, env = "LEASE_DURATION", hide_env_values = true, value_name = "DURATION")]
    pub lease_duration: Option<String>,
    /// Threads that commit groups [default: 2 for the embedded store; for Redis one a core, 2 to 4, with shards half of that]
    #[arg(long, env = "WORKERS", hide_env_values = true, value_name = "N")]
    pub workers: Option<String>,
    /// Pulses that may wait for a worker; beyond it the answer is 503 [default: 50000]
    #[arg(long, env = "CHANNEL_CAPACITY", hide_env_values = true, value_name = "N")]
    pub channel_capacity: Option<String>,
    /// Pulses committed together at most, unless one request has more [default: 10000; on Redis 1000, with shards 20000]
    #[arg(long, env = "GROUP_MAX", hide_env_values = true, value_name = "N")]
    pub group_max: Option<String>,
    /// Connections at once; a further one is answered with 503 [default: 10000, or what the limits of open files and threads allow]
    #[arg(long, env = "MAX_CONNECTIONS", hide_env_values = true, value_name = "N")]
    pub max_connections: Option<String>,
    /// Longest head of a request [default: 16384]
    #[arg(long, env = "MAX_HEADER_BYTES", hide_env_values = true, value_name = "BYTES")]
    pub max_header_bytes: Option<String>,
    /// Longest body of a request [default: 8388608]
    #[arg(long, env = "MAX_BODY_BYTES", hide_env_values = true, value_name = "BYTES")]
    pub max_body_bytes: Option<String>,
    /// How long a request may take before it is answered with 503 [default: 10s]
    #[arg(long, env = "REQUEST_TIMEOUT", hide_env_values = true, value_name = "DURATION")]
    pub request_timeout: Option<String>,
    /// How long pulses are still taken after SIGTERM, while /readyz already says no: longer than the load balancer in
    /// front takes to notice [default: 0s]
    #[arg(long, env = "DRAIN_DELAY", hide_env_values = true, value_name = "DURATION")]
    pub drain_delay: Option<String>,
    /// How long a drain waits for what was accepted [default: 25s]
    #[arg(long, env = "DRAIN_TIMEOUT", hide_env_values = true, value_name = "DURATION")]
    pub drain_timeout: Option<String>,
    /// How old the timestamp of a pulse may be; beyond it the answer is 422 [default: 35d]
    #[arg(long, env = "LATE_MAX", hide_env_values = true, value_name = "DURATION")]
    pub late_max: Option<String>,
    /// Aggregates one tenant may have in one window; beyond it the answer is 429 [default: 100000]
    #[arg(long, env = "TENANT_CARDINALITY_MAX", hide_env_values = true, value_name = "N")]
    pub tenant_cardinality_max: Option<String>,
    /// Pulses a second that one tenant may send to this instance, with as many at once; beyond it the answer is 429
    /// [default: no limit]
    #[arg(long, env = "TENANT_RATE_LIMIT", hide_env_values = true, value_name = "N")]
    pub tenant_rate_limit: Option<String>,
    /// For how long a pulse id is remembered at least [default: 24h]
    #[arg(long, env = "DEDUP_WINDOW", hide_env_values = true, value_name = "DURATION")]
    pub dedup_window: Option<String>,
    /// Pulse ids remembered at once; beyond it pulses with new ids are answered with 503 [default: 10000000]
    #[arg(long, env = "DEDUP_IDS_MAX", hide_env_values = true, value_name = "N")]
    pub dedup_ids_max: Option<String>,
    /// error, warn, info, debug or trace [default: info]
    #[arg(long, env = "LOG_LEVEL", hide_env_values = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Directory of the log file, rotated at 10 MiB, five kept [default: log]
    #[arg(long, env = "LOG_DIR", hide_env_values = true, value_name = "DIR")]
    pub log_dir: Option<String>,
}

/// Where the API keys are, for the command that changes them.
#[derive(Args, Clone, Default)]
pub struct RawKeysFile {
    /// File of API keys; without it a new key's line is printed
    #[arg(long, env = "API_KEYS_FILE", hide_env_values = true, value_name = "FILE", global = true)]
    file: Option<String>,
}

impl RawKeysFile {
    /// The file, if one was named.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_deref().map(str::trim).filter(|path| !path.is_empty()).map(Path::new)
    }
}
