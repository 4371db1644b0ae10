//! Every limit of the sockets, in one place, named and explained.

use std::time::Duration;

/// The largest request body that the gateway reads whole: values, batches, and of proxied requests what may be sent to
/// another region again.
pub const BODY_BYTES: usize = 1024 * 1024;

/// The largest body of a proxied request; what is over [`BODY_BYTES`] is handed on as it comes.
pub const STREAM_BYTES: u64 = 1024 * 1024 * 1024;

/// How long a proxied request's body is waited for before it is handed on as it comes.
pub const REPEATABLE_TIME: Duration = Duration::from_millis(500);

/// The largest request head, in bytes: request line and headers.
pub const HEAD_BYTES: usize = 32 * 1024;

/// How many headers a request may carry.
pub const HEADERS: usize = 100;

/// How long a client may take to send a request head.
pub const HEAD_TIME: Duration = Duration::from_secs(10);

/// How long a client may take to send a request body.
pub const BODY_TIME: Duration = Duration::from_secs(30);

/// How long the gateway works on one request, write acknowledgement included (5 s of it).
pub const REQUEST_TIME: Duration = Duration::from_secs(30);

/// Connections that the gateway holds at once; more wait in the listen queue.
pub const GATEWAY_CONNECTIONS: usize = 4096;

/// Connections that the admin address holds at once.
pub const ADMIN_CONNECTIONS: usize = 64;

/// How long `/edge` waits for something new before it answers with what is known already; short of [`DRAIN_TIME`].
pub const EDGE_WAIT: Duration = Duration::from_secs(1);

/// How often it looks meanwhile.
pub const EDGE_LOOK: Duration = Duration::from_millis(50);

/// How long the keys of an issuer may take to arrive.
pub const JWKS_TIME: Duration = Duration::from_secs(3);

/// The largest set of keys of an issuer.
pub const JWKS_BYTES: usize = 256 * 1024;

/// How long until the keys of an issuer are fetched again for the sake of a token that none of them has signed.
pub const JWKS_PAUSE: Duration = Duration::from_secs(10);

/// Connections that the peer address holds at once.
pub const PEER_CONNECTIONS: usize = 256;

/// Concurrent HTTP/2 streams of one connection.
pub const STREAMS: u32 = 128;

/// How long open connections may finish after a shutdown was asked for.
pub const DRAIN_TIME: Duration = Duration::from_secs(5);

/// How often it is looked whether the gateway's certificate was replaced.
pub const CERTIFICATE_LOOK: Duration = Duration::from_secs(1);

/// The longest request id that is taken over from a client.
pub const REQUEST_ID_BYTES: usize = 128;

/// How long a TLS handshake may take.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// How long connecting to a peer may take, TLS and HTTP/2 included.
pub const CONNECT_TIME: Duration = Duration::from_secs(5);

/// How long a probe may take before it counts as lost.
pub const PROBE_TIME: Duration = Duration::from_secs(2);

/// How long a shipped batch or a bundle may take to be acknowledged.
pub const SHIP_TIME: Duration = Duration::from_secs(30);

/// How long a region looks through its records for those that other rulings would bar.
pub const IMPACT_TIME: Duration = Duration::from_secs(5);

/// How much a shipping batch aims to hold before compression.
pub const BATCH_BYTES: usize = 256 * 1024;

/// How much a part of the rows that are given to a peer aims to hold before compression. A part a round trip: larger
/// than a batch.
pub const PART_BYTES: usize = 2 * 1024 * 1024;

/// The largest batch accepted from a peer, before and after decompression: one
/// entry of [`BODY_BYTES`] always fits with its labels.
pub const BATCH_BYTES_ACCEPTED: usize = 8 * 1024 * 1024;

/// The largest policy bundle accepted from a peer, before and after decompression.
pub const BUNDLE_BYTES: usize = 8 * 1024 * 1024;

/// Petitions in one answer to a peer: some 300 bytes each, and 8 for each record that an order concerned.
pub const PETITIONS: usize = 2_000;

/// The largest request of the common log: eight policy bundles and what is around them.
pub const CONTROL_BYTES: usize = 8 * BUNDLE_BYTES + 64 * 1024;

/// How long a request of the common log may take; most have shorter limits of their own.
pub const CONTROL_TIME: Duration = Duration::from_secs(5);

/// Requests of the common log under way to one peer; one more is not sent.
pub const CONTROL_UNDER_WAY: usize = 32;

/// The largest statement about damaged keys accepted from a peer: 256 rows, most of them small. Fewer keys are asked
/// about at once where it is larger.
pub const STATEMENT_BYTES: usize = 64 * 1024 * 1024;

/// The largest small answer accepted from a peer: vectors and reports.
pub const REPORT_BYTES: usize = 1024 * 1024;

/// The largest request to cosign a checkpoint: a proof of 63 hashes and a note of 64 KiB.
pub const COSIGN_BYTES: usize = 80 * 1024;

/// How long a peer may take to cosign; the next checkpoint asks again.
pub const COSIGN_TIME: Duration = Duration::from_secs(5);

/// Chunks of large values, 4 MiB each, that are read for one connection of a peer at once.
pub const CHUNKS_GIVEN: usize = 4;

/// How long a chunk of a large value may take from a peer.
pub const CHUNK_TIME: Duration = Duration::from_secs(120);

/// How long the body of a large value may stand still before it counts as broken off.
pub const OBJECT_STALL: Duration = Duration::from_secs(30);

/// Bytes a second that the body of a large value must bring on the average, after it may once have stood still.
pub const OBJECT_PACE: u64 = 64 * 1024;

/// Large values that are given at once; each has a chunk in memory.
pub const DOWNLOADS: usize = 64;

/// Batches in flight to one peer.
pub const SHIP_WINDOW: usize = 8;

/// The first pause after a failed connection; it doubles up to [`BACK_OFF_MOST`].
pub const BACK_OFF_LEAST: Duration = Duration::from_millis(50);

/// The longest pause between two attempts to connect to a peer.
pub const BACK_OFF_MOST: Duration = Duration::from_secs(2);

/// Bytes that an emulated link holds in flight in each direction.
pub const WAN_BYTES: usize = 8 * 1024 * 1024;

/// How often an emulated link sends a lost piece again before the connection breaks (Linux: `tcp_retries2`).
pub const WAN_RETRANSMISSIONS: u32 = 15;

/// How often an emulated link repeats a lost handshake before connecting fails (Linux: `tcp_syn_retries`).
pub const WAN_HANDSHAKES: u32 = 6;

/// Regions that a proxied request is tried at, the first included.
pub const PROXY_ATTEMPTS: usize = 3;

/// How long connecting to a service may take.
pub const PROXY_CONNECT_TIME: Duration = Duration::from_secs(2);

/// How long a service may take to answer with a response head, once the request's body has come.
pub const PROXY_HEAD_TIME: Duration = Duration::from_secs(15);

/// How long an upgraded connection (WebSocket) may stay open.
pub const UPGRADED_TIME: Duration = Duration::from_secs(3600);

/// Upgraded connections at once.
pub const UPGRADED_CONNECTIONS: usize = 1024;

/// Items of one batch request.
pub const BATCH_ITEMS: usize = 256;

/// Clients that watch namespaces at once.
pub const WATCHERS: usize = 128;

/// Events that wait for a client that watches; with more, it is waited for.
pub const WATCH_EVENTS: usize = 16;

/// How long a client that watches may leave no room for the next event before it is told to come back.
pub const WATCH_SLOW: Duration = Duration::from_secs(30);

/// How often a client that watches hears something where nothing happens.
pub const WATCH_IDLE: Duration = Duration::from_secs(15);

/// The largest value that an event carries; larger ones are read by their key.
pub const WATCH_VALUE_BYTES: usize = 64 * 1024;

/// The longest position that a client that watches hands back.
pub const WATCH_POSITION_BYTES: usize = 16 * 1024;

/// Records of one page of a list, at most.
pub const LIST_ITEMS: usize = 1000;

/// Records of one page of a list, where the request states none.
pub const LIST_ITEMS_DEFAULT: usize = 100;

/// Verified tokens that are remembered.
pub const TOKENS_REMEMBERED: usize = 1024;

/// The longest bearer token that is looked at.
pub const TOKEN_BYTES: usize = 8 * 1024;

/// How long a server waits when it cannot accept a connection, out of descriptors for example.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// UDP sockets of the DNS address; no more than there are processors.
pub const DNS_SOCKETS: usize = 8;

/// The receive buffer of a DNS socket: what arrives in some milliseconds at 100,000 queries a second.
pub const DNS_SOCKET_BYTES: usize = 1024 * 1024;

/// The longest query that is read from a datagram; what is longer is refused. A query with all options has 400 bytes.
pub const DNS_QUERY_BYTES: usize = 2048;

/// Datagrams that one socket answers before other tasks get their turn.
pub const DNS_BATCH: usize = 64;

/// Answers a second over UDP to one client prefix, where the client has not shown by a cookie that it is there. A
/// busy resolver asks some hundreds of questions a second for one deployment.
pub const DNS_ANSWERS: u32 = 2000;

/// Client prefixes that one DNS socket counts at once, 32 bytes each.
pub const DNS_PREFIXES: usize = 16 * 1024;

/// DNS connections at once; more wait in the listen queue.
pub const DNS_CONNECTIONS: usize = 512;

/// DNS connections of one address at once; more are closed.
pub const DNS_CONNECTIONS_EACH: usize = 32;

/// How long a DNS connection may be without a whole query, or an answer without a reader.
pub const DNS_IDLE: Duration = Duration::from_secs(10);

/// Queries of one DNS connection; the client may open another.
pub const DNS_CONNECTION_QUERIES: usize = 10_000;

/// Answers to queries that came together are sent together up to this length.
pub const DNS_UNSENT_BYTES: usize = 16 * 1024;

/// How often it is looked whether keys of zones begin or end, or signatures are to be made anew.
pub const DNS_SIGN_EVERY: Duration = Duration::from_secs(1);
