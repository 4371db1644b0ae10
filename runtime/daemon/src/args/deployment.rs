//! Flags of what starts, stops and shows regions.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use model::RegionId;

/// Which delays are added between regions on one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WanProfile {
    /// Round trips as measured between the real places.
    Realistic,
    /// None, but links can be cut, slowed and made lossy while they run.
    Lan,
    /// None; nothing can be set later.
    None,
}

impl WanProfile {
    /// The word on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Realistic => "realistic",
            Self::Lan => "lan",
            Self::None => "none",
        }
    }
}

/// `REGION=URL`: the service behind one region's gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiOf {
    /// The region.
    pub region: RegionId,
    /// The base URL, without a final slash.
    pub url: http::Uri,
}

impl FromStr for ApiOf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (region, url) =
            text.split_once('=').ok_or("write it as REGION=URL, such as us-east=http://127.0.1.1:8081")?;
        let region = RegionId::new(region).map_err(|error| error.to_string())?;
        let url: http::Uri = url.parse().map_err(|error| format!("{url:?} is not a URL: {error}"))?;
        match url.scheme_str() {
            Some("http" | "https") if url.authority().is_some() => Ok(Self { region, url }),
            _ => Err(format!("{url} needs http:// or https:// and a host")),
        }
    }
}

/// Flags of `start`.
#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    /// The region to run: the stem of its file in region-config/.
    #[arg(long)]
    pub region: RegionId,
    /// The tree with region-config/ and the policies.
    #[arg(long, default_value = ".")]
    pub tree: PathBuf,
    /// Where keys, data and the last good policies are kept.
    #[arg(long, default_value = ".repomind")]
    pub state: PathBuf,
    /// Overrides `services.api` of a region; may be repeated.
    #[arg(long, value_name = "REGION=URL")]
    pub api: Vec<ApiOf>,
    /// Overrides `services.storage` of this region: a folder, as in file:///srv/objects.
    #[arg(long, value_name = "URL")]
    pub storage: Option<String>,
    /// Delay added to links between regions.
    #[arg(long, value_enum, default_value = "none")]
    pub wan: WanProfile,
    /// Put all regions on 127.0.0.1, each in its block of ports, beginning at this one.
    #[arg(long, value_name = "PORT")]
    pub first_port: Option<u16>,
    /// A MaxMind DB file (MMDB) that names countries, in place of the bundled table. Read again whenever it is
    /// replaced; one that is not good leaves the last one in force.
    #[arg(long, value_name = "FILE", env = "REPOMIND_GEOIP")]
    pub geoip: Option<PathBuf>,
    /// The certificate chain of the gateway, PEM: it speaks HTTPS then. Read again whenever it is replaced.
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "REPOMIND_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "REPOMIND_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// A proxy or network of proxies that is believed about whom it speaks for; may be repeated.
    #[arg(long, value_name = "NETWORK")]
    pub trust_proxy: Vec<net::Network>,
    /// Connections of these proxies begin with the PROXY protocol, version 1 or 2.
    #[arg(long, requires = "trust_proxy")]
    pub proxy_protocol: bool,
    /// Log each request that the gateway answers: never its path, its query or its client.
    #[arg(long)]
    pub access_log: bool,
    /// How the log is written.
    #[arg(long, value_enum, default_value = "pretty")]
    pub log: LogForm,
    /// How long the replication log is kept for regions that are away. One that was away for longer is given this
    /// region's rows instead when it is back.
    #[arg(long, value_name = "SECONDS", default_value_t = 24 * 3600, env = "REPOMIND_KEEP_LOG_SECONDS")]
    pub keep_log_seconds: u64,
    /// The same, by size.
    #[arg(long, value_name = "MIB", default_value_t = 1024, env = "REPOMIND_KEEP_LOG_MIB")]
    pub keep_log_mib: u64,
    /// About how often all rows are compared with those of each other region, by digests.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, env = "REPOMIND_COMPARE_SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub compare_seconds: u64,
    /// About how often chunks of large values that no record names any more are taken out of the object store.
    #[arg(long, value_name = "SECONDS", default_value_t = 900, env = "REPOMIND_SWEEP_OBJECTS_SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub sweep_objects_seconds: u64,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogForm {
    /// For a person.
    Pretty,
    /// A JSON object a line.
    Json,
}

/// Where a deployment is, for every command that looks at one.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// The tree with region-config/ and the policies.
    #[arg(long, default_value = ".", env = "REPOMIND_TREE")]
    pub tree: PathBuf,
    /// Where keys, data and records of what runs are kept.
    #[arg(long, default_value = ".repomind", env = "REPOMIND_STATE")]
    pub state: PathBuf,
}

/// Flags of what is done to one region or to each.
#[derive(Clone, Debug, Args)]
pub struct EachRegion {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// The region; all of them, one after the other, unless named.
    #[arg(long)]
    pub region: Option<RegionId>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// An edge of a local deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum LocalEdge {
    /// The Cloudflare Worker, on miniflare; needs Node and `npm ci`.
    Worker,
    /// Varnish; needs varnishd and varnish-modules.
    Varnish,
}

/// Where `deploy` puts the regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// Processes on this machine.
    Local,
    /// The edge, at Cloudflare: a worker, its routes and what stands around them.
    Cloudflare,
}

/// Flags of `deploy`.
#[derive(Clone, Debug, Args)]
pub struct DeployArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Where the regions run.
    #[arg(long, value_enum, default_value = "local")]
    pub target: Target,
    /// Delay added to links between regions.
    #[arg(long, value_enum, default_value = "realistic")]
    pub wan: WanProfile,
    /// Put all regions on 127.0.0.1, each in its block of ports, beginning at this one. Done without being asked,
    /// from port 8080, where the system has no other loopback address.
    #[arg(long, value_name = "PORT")]
    pub first_port: Option<u16>,
    /// Put edges before the gateways, at ports 40 and 41 further than the primary's: the worker on miniflare unless said.
    #[arg(long, value_enum, value_delimiter = ',', num_args = 0..=1, default_missing_value = "worker", value_name = "EDGES")]
    pub with_edge: Vec<LocalEdge>,
    /// Say what would be started, and start nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Seconds until all regions must serve.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// How Cloudflare is reached.
    #[command(flatten)]
    pub cloudflare: CloudflareArgs,
}

/// Flags of `plan`.
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// What would be deployed to.
    #[arg(long, value_enum, default_value = "local")]
    pub target: Target,
    /// Print JSON (for cloudflare).
    #[arg(long)]
    pub json: bool,
    /// How Cloudflare is reached.
    #[command(flatten)]
    pub cloudflare: CloudflareArgs,
}

/// Flags of `destroy`.
#[derive(Clone, Debug, Args)]
pub struct DestroyArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// What is taken away.
    #[arg(long, value_enum, default_value = "local")]
    pub target: Target,
    /// Also delete what holds data: the state directory with data, keys and logs; at Cloudflare, namespaces of Workers KV.
    #[arg(long)]
    pub purge: bool,
    /// Print JSON (for cloudflare).
    #[arg(long)]
    pub json: bool,
    /// How Cloudflare is reached.
    #[command(flatten)]
    pub cloudflare: CloudflareArgs,
    /// Seconds for a process to end by itself before it is killed.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub timeout: u64,
}

/// Flags of `status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `new`.
#[derive(Clone, Debug, Args)]
pub struct NewArgs {
    /// The directory to make; it must not exist or be empty.
    pub dir: PathBuf,
}

/// Flags of `sample-service`.
#[derive(Clone, Debug, Args)]
pub struct SampleServiceArgs {
    /// Where to listen.
    #[arg(long)]
    pub listen: std::net::SocketAddr,
    /// The region that it says it is in.
    #[arg(long)]
    pub region: RegionId,
}

/// Flags of everything that talks to Cloudflare.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cloudflare")]
pub struct CloudflareArgs {
    /// The file with the API token; the variable CLOUDFLARE_API_TOKEN unless named.
    #[arg(long, value_name = "FILE", env = "CLOUDFLARE_API_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// The worker's bundle, as `npm run build` makes it; the one below edge-deployment/ unless named.
    #[arg(long, value_name = "FILE")]
    pub worker: Option<PathBuf>,
    /// Where the worker is asked whether it is well; the host of the first route unless named.
    #[arg(long, value_name = "URL")]
    pub probe_url: Option<http::Uri>,
    /// Where the API is, for tests and gateways of your own.
    #[arg(
        long,
        value_name = "URL",
        env = "CLOUDFLARE_API_BASE_URL",
        default_value = "https://api.cloudflare.com/client/v4"
    )]
    pub api_base_url: http::Uri,
    /// Release a new durable object class: the whole script at once, and no way back past it.
    #[arg(long)]
    pub migrate: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_override_without_a_scheme_is_refused() {
        assert!("us-east=http://127.0.1.1:8081".parse::<ApiOf>().is_ok());
        assert!("us-east=127.0.1.1:8081".parse::<ApiOf>().is_err());
        assert!("http://127.0.1.1:8081".parse::<ApiOf>().is_err());
    }
}
