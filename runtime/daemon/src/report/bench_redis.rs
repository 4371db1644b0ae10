//! The same writes to Redis, where `redis-server` is installed: one primary and
//! two replicas on loopback, each with an append-only file that is synced before
//! it answers. Its replicas acknowledge what they have received; ours what is on
//! their disks.
//!
//! Runs alternate, so that a busy moment of the machine meets both.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Stage;
use super::bench::{CLIENTS, Figure, Values, drained, figure, put_acked, rush};

/// How often each is measured.
const ROUNDS: usize = 3;
/// How long a server may take to start, and replicas to be in step.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server of ours, ended with this.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One connection that speaks RESP.
struct Connection(BufStream<TcpStream>);

impl Connection {
    async fn to(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufStream::new(stream)))
    }

    /// Sends one command and gives the line that answers it; the body of a bulk string is that line.
    async fn ask(&mut self, parts: &[&[u8]]) -> anyhow::Result<String> {
        let mut bytes = format!("*{}\r\n", parts.len()).into_bytes();
        for part in parts {
            bytes.extend(format!("${}\r\n", part.len()).into_bytes());
            bytes.extend_from_slice(part);
            bytes.extend(b"\r\n");
        }
        self.0.write_all(&bytes).await?;
        self.0.flush().await?;
        let first = self.line().await?;
        match first.strip_prefix('$') {
            Some(length) => {
                let mut body = vec![0; length.parse::<usize>()? + 2];
                tokio::io::AsyncReadExt::read_exact(&mut self.0, &mut body).await?;
                Ok(String::from_utf8_lossy(&body).trim_end().to_owned())
            }
            None if first.starts_with('-') => bail!("redis refused: {first}"),
            None => Ok(first),
        }
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        ensure!(self.0.read_line(&mut line).await? > 0, "redis closed the connection");
        Ok(line.trim_end().to_owned())
    }
}

/// What is asked of either side: how many copies a write waits for.
#[derive(Clone, Copy)]
struct Level {
    ack: &'static str,
    replicas: Option<&'static str>,
    what: &'static str,
    beside: &'static str,
}

const LEVELS: [Level; 3] = [
    Level {
        ack: "local",
        replicas: None,
        what: "written in one region, durable in all three (converged)",
        beside: "asynchronous replicas, until they have all of it",
    },
    Level { ack: "regions:2", replicas: Some("1"), what: "acknowledged with `regions:2`", beside: "`WAIT 1`" },
    Level { ack: "regions:3", replicas: Some("2"), what: "acknowledged with `regions:3`", beside: "`WAIT 2`" },
];

/// Our writes beside those of Redis; one line that says so where it is not installed.
pub async fn figures(stage: &Stage, span: Duration) -> anyhow::Result<Vec<Figure>> {
    let Some(version) = version() else {
        let what = "puts of 1 KiB beside Redis";
        return Ok(vec![figure(what, "not measured".into(), "redis-server is not installed")]);
    };
    let folder = tempfile::tempdir()?;
    let servers = start(folder.path()).await?;
    let mut figures = Vec::new();
    for level in LEVELS {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            eprintln!("beside Redis: puts {}, round {} of {ROUNDS}", level.what, round + 1);
            ours.push(our_rate(stage, level, round, span).await?);
            theirs.push(redis_rate(servers[0].address, level, span).await?);
        }
        let (ours, theirs) = (median(ours), median(theirs));
        figures.push(figure(
            format!("puts of 1 KiB {}", level.what),
            format!("{ours:.0}/s"),
            format!("{version}, appendfsync always, {}: {theirs:.0}/s ({:.2} of it)", level.beside, ours / theirs),
        ));
    }
    Ok(figures)
}

fn version() -> Option<String> {
    let said = Command::new("redis-server").arg("--version").output().ok()?.stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    let number = said.split_whitespace().find_map(|word| word.strip_prefix("v="))?;
    Some(format!("Redis {number}"))
}

async fn start(folder: &Path) -> anyhow::Result<Vec<Server>> {
    let mut servers: Vec<Server> = Vec::new();
    for number in 0..3 {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let data = folder.join(number.to_string());
        std::fs::create_dir(&data)?;
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--daemonize", "no"]);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0"]);
        command.arg("--dir").arg(&data);
        if let Some(primary) = servers.first() {
            command.args(["--replicaof", "127.0.0.1", &primary.address.port().to_string()]);
        }
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        servers.push(Server { process, address: (Ipv4Addr::LOCALHOST, port).into() });
        let address = servers[number].address;
        until("redis answers", async || Ok(Connection::to(address).await?.ask(&[b"PING"]).await? == "+PONG")).await?;
    }
    let mut primary = Connection::to(servers[0].address).await?;
    primary.ask(&[b"SET", b"begin", b"1"]).await?;
    let began = Instant::now();
    while primary.ask(&[b"WAIT", b"2", b"100"]).await? != ":2" {
        ensure!(began.elapsed() < PATIENCE, "the replicas of redis were not in step in {} s", PATIENCE.as_secs());
    }
    Ok(servers)
}

async fn until(what: &str, good: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let began = Instant::now();
    while !matches!(good().await, Ok(true)) {
        ensure!(began.elapsed() < PATIENCE, "{what}: not in {} s", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn our_rate(stage: &Stage, level: Level, round: usize, span: Duration) -> anyhow::Result<f64> {
    let gateway = stage.deployment.regions[&stage.deployment.primary].gateway;
    let prefix = format!("beside-{}-{round}", level.ack.replace(':', "-"));
    let began = Instant::now();
    let rush = rush(span, put_acked(&stage.client, gateway, prefix, level.ack)).await?;
    drained(stage).await?;
    // Where each write has waited for its copies, what is left to ship is not waited for by anybody.
    let converged = rush.sorted.len() as f64 / began.elapsed().as_secs_f64();
    Ok(if level.replicas.is_some() { rush.rate } else { converged })
}

async fn redis_rate(primary: SocketAddr, level: Level, span: Duration) -> anyhow::Result<f64> {
    let values = Values::new();
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for client in 0..CLIENTS as u64 {
        let values = values.clone();
        tasks.spawn(async move {
            let (mut connection, mut count) = (Connection::to(primary).await?, 0_u64);
            while began.elapsed() < span {
                let key = format!("{}-{client}-{count}", level.ack);
                let value = values.get(count * CLIENTS as u64 + client);
                let said = connection.ask(&[b"SET", key.as_bytes(), &value]).await?;
                ensure!(said == "+OK", "redis said {said}");
                if let Some(replicas) = level.replicas {
                    let said = connection.ask(&[b"WAIT", replicas.as_bytes(), b"0"]).await?;
                    ensure!(said.trim_start_matches(':') >= replicas, "redis waited for {said}");
                }
                count += 1;
            }
            anyhow::Ok(count)
        });
    }
    let mut count = 0_u64;
    while let Some(done) = tasks.join_next().await {
        count += done??;
    }
    let acknowledged = count as f64 / began.elapsed().as_secs_f64();
    // `WAIT` waits for the writes of its own connection, and replicas take writes over in order.
    let mut connection = Connection::to(primary).await?;
    connection.ask(&[b"SET", b"end", b"1"]).await?;
    let said = connection.ask(&[b"WAIT", b"2", b"0"]).await?;
    ensure!(said == ":2", "redis waited for {said}");
    let converged = count as f64 / began.elapsed().as_secs_f64();
    Ok(if level.replicas.is_some() { acknowledged } else { converged })
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates[rates.len() / 2]
}
