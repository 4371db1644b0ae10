//! DNS for resolvers, over UDP and TCP.
//!
//! What is answered is decided by [`routing::dns`]; here are the sockets, the
//! limits, and [`DnsAnswers`], which holds the table that queries are answered
//! from. Whoever changes the plan or learns of a region's health tells it, and
//! the next query sees the change: queries read the table without a lock.
//!
//! One task serves one UDP socket; the sockets share the address, and the
//! kernel spreads clients over them. Start with [`bind_dns`] and [`serve_dns`].

mod limiter;
mod tcp;
mod udp;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use data::plans::Plans;
use metrics::Counter;
use model::region::Regions;
use model::routing::RegionState;
use model::{RegionId, UnixMillis};
use routing::dns::{Client, CookieKey, Outcome, Rcode, Server, Signatures, Signing, Table, ZoneKey, answer};
use routing::{CountryTable, TrafficCounts};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::limits;

/// The table that queries are answered from, and what it was made of.
pub struct DnsAnswers {
    table: ArcSwap<Table>,
    regions: Arc<Regions>,
    /// Locked while a table is made.
    made_of: Mutex<MadeOf>,
    /// Told of every table, so that it is signed ahead of the queries.
    made: Notify,
}

/// What a table is made of.
struct MadeOf {
    plans: Arc<Plans>,
    states: Arc<BTreeMap<RegionId, RegionState>>,
    keys: Vec<ZoneKey>,
    signing: Arc<Signing>,
    signatures: Arc<Signatures>,
}

impl DnsAnswers {
    /// Answers before any plan is in force: SERVFAIL, so that resolvers ask another region.
    pub fn new(regions: Arc<Regions>) -> Self {
        let signatures = Arc::<Signatures>::default();
        let nothing = MadeOf {
            plans: Arc::new(Plans::deny_all()),
            states: Arc::default(),
            keys: Vec::new(),
            signing: Arc::new(Signing::at(&[], seconds(), signatures.clone())),
            signatures,
        };
        Self { table: ArcSwap::default(), regions, made_of: Mutex::new(nothing), made: Notify::new() }
    }

    /// Puts the answers that follow from these plans in force.
    pub fn plans_changed(&self, plans: Arc<Plans>) {
        self.change(|made_of| made_of.plans = plans);
    }

    /// Puts the answers that follow from this health in force. `states` has every region, this one included.
    pub fn states_changed(&self, states: Arc<BTreeMap<RegionId, RegionState>>) {
        self.change(|made_of| made_of.states = states);
    }

    /// Signs the zones of these keys from now on, and those of no key no more.
    pub fn keys_changed(&self, keys: Vec<ZoneKey>) {
        self.change(|made_of| {
            made_of.keys = keys;
            made_of.signing = made_of.signing_at(seconds());
        });
    }

    /// Takes up what the keys are to do at this time, in seconds since 1970, and signs anew what has to be.
    pub fn time_passed(&self, now: u64) {
        let signing = self.made_of.lock().unwrap_or_else(PoisonError::into_inner).signing_at(now);
        self.change_if(|made_of| {
            let other = *signing != *made_of.signing;
            made_of.signing = signing;
            other
        });
    }

    /// The table in force.
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Held from the change to the swap, so that of two changes the later one stays.
    fn change(&self, change: impl FnOnce(&mut MadeOf)) {
        self.change_if(|made_of| {
            change(made_of);
            true
        });
    }

    fn change_if(&self, change: impl FnOnce(&mut MadeOf) -> bool) {
        let mut made_of = self.made_of.lock().unwrap_or_else(PoisonError::into_inner);
        if !change(&mut made_of) {
            return;
        }
        let MadeOf { plans, states, signing, .. } = &*made_of;
        let table = Table::new(&plans.routing, plans.generation, &self.regions, states).signed(signing);
        self.table.store(Arc::new(table));
        self.made.notify_one();
        let left = if made_of.keys.is_empty() { 0.0 } else { signing.expires() as f64 };
        metrics::gauge!("repomind_dns_signatures_expire_seconds").set(left);
    }

    /// Signs each new table before most queries ask for it, and keeps up with the time, until `shutdown`.
    async fn keep_signed(self: Arc<Self>, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(limits::DNS_SIGN_EVERY);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => self.time_passed(seconds()),
                () = self.made.notified() => {
                    let (answers, stop) = (self.clone(), shutdown.clone());
                    // Processor time only: not on the threads that serve sockets. A newer table is begun with at once.
                    let signed = tokio::task::spawn_blocking(move || {
                        let table = answers.table();
                        let newest = || !stop.is_cancelled() && Arc::ptr_eq(&table, &answers.table.load());
                        table.sign_ahead(newest)
                    });
                    if let Ok(sets) = signed.await {
                        metrics::gauge!("repomind_dns_signed_sets").set(sets as f64);
                    }
                }
            }
        }
    }
}

impl MadeOf {
    fn signing_at(&self, now: u64) -> Arc<Signing> {
        Arc::new(Signing::at(&self.keys, now, self.signatures.clone()))
    }
}

/// Seconds since 1970.
fn seconds() -> u64 {
    now().0 / 1000
}

/// How DNS is served.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// What those are told who ask which server answers (RFC 5001).
    pub name: RegionId,
    /// The secret behind cookies; every region of a deployment has the same.
    pub cookies: CookieKey,
    /// Countries by address, as they are now.
    pub countries: Arc<ArcSwap<CountryTable>>,
    /// Where answers that were routed by region are counted, by the client's country.
    pub traffic: Arc<TrafficCounts>,
    /// Answers a second to one client prefix over UDP; see [`limits::DNS_ANSWERS`].
    pub answers: u32,
    /// Whether this machine's own addresses are limited too. Their packets cannot be forged from outside.
    pub limit_loopback: bool,
}

impl DnsConfig {
    /// The usual limits.
    pub fn new(name: RegionId, cookies: CookieKey, countries: Arc<ArcSwap<CountryTable>>) -> Self {
        let traffic = Arc::default();
        Self { name, cookies, countries, traffic, answers: limits::DNS_ANSWERS, limit_loopback: false }
    }
}

/// The sockets of one address, bound and not yet served.
pub struct DnsSockets {
    udp: Vec<UdpSocket>,
    tcp: TcpListener,
}

impl DnsSockets {
    /// Where they listen.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Binds an address for UDP and TCP. With port 0, both get the port that the system gives for TCP. TCP comes first and
/// is not shared, so that two processes never split the datagrams of one address between them unnoticed.
///
/// # Errors
/// What the system says, such as that the address is in use.
pub async fn bind_dns(address: SocketAddr) -> io::Result<DnsSockets> {
    let tcp = TcpListener::bind(address).await?;
    let address = tcp.local_addr()?;
    let count = std::thread::available_parallelism().map_or(1, usize::from).min(limits::DNS_SOCKETS);
    let udp = (0..count).map(|_| udp::bind(address)).collect::<io::Result<Vec<_>>>()?;
    Ok(DnsSockets { udp, tcp })
}

/// Answers until `shutdown`.
pub async fn serve_dns(sockets: DnsSockets, answers: Arc<DnsAnswers>, config: DnsConfig, shutdown: CancellationToken) {
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(answers.clone().keep_signed(shutdown.clone()));
    let responder = Arc::new(Responder { answers, config, counters: Counters::new() });
    // The kernel spreads clients over the sockets, so each of them counts its part of a prefix.
    let share = u32::try_from(sockets.udp.len()).unwrap_or(1).max(1);
    for socket in sockets.udp {
        tasks.spawn(udp::serve(socket, responder.clone(), share, shutdown.clone()));
    }
    tasks.spawn(tcp::serve(sockets.tcp, responder, shutdown));
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a task that serves DNS ended");
        }
    }
}

/// What all sockets share.
struct Responder {
    answers: Arc<DnsAnswers>,
    config: DnsConfig,
    counters: Counters,
}

impl Responder {
    /// Answers a packet into `out`; nothing for what must not be answered.
    fn answer(&self, packet: &[u8], client: Client, out: &mut Vec<u8>) -> Option<Outcome> {
        let countries = self.config.countries.load();
        let server =
            Server { countries: &countries, cookies: &self.config.cookies, nsid: self.config.name.as_str().as_bytes() };
        let outcome = answer(&self.answers.table.load(), &server, packet, client, now(), out);
        match outcome {
            Some(outcome) => self.counters.by_rcode[outcome.rcode as usize].increment(1),
            None => self.counters.ignored.increment(1),
        }
        outcome
    }

    /// Counts an answer that is sent, where it was routed.
    fn sent(&self, outcome: &Outcome) {
        if let Some(country) = outcome.routed_for.filter(|_| !outcome.truncated) {
            self.config.traffic.count(country);
        }
    }
}

fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Counters, looked up once.
struct Counters {
    by_rcode: [Counter; Rcode::ALL.len()],
    ignored: Counter,
    shortened: Counter,
    dropped: Counter,
    connections_refused: Counter,
}

impl Counters {
    fn new() -> Self {
        let limited = |how: &'static str| metrics::counter!("repomind_dns_limited_total", "answer" => how);
        Self {
            by_rcode: Rcode::ALL.map(|rcode| metrics::counter!("repomind_dns_queries_total", "rcode" => rcode.name())),
            ignored: metrics::counter!("repomind_dns_ignored_total"),
            shortened: limited("shortened"),
            dropped: limited("dropped"),
            connections_refused: limited("connection"),
        }
    }
}
