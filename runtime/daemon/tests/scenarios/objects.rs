//! Large values over whole daemons: what goes in comes out, in every region that may have it and in no other.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::object::{ChunkAnswer, ChunkId, ChunkQuestion};
use model::record::Address;
use model::version::{Actor, Dot, Incarnation};
use model::{NodeId, RegionId};

use crate::cluster::{Cluster, text, until};
use crate::{REGIONS, SOON, files_below};

/// Bytes of a value that are made and compared at once.
const PIECE: usize = 64 * 1024;

/// An endless stream of bytes that do not repeat, the same for a seed.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, piece: &mut [u8]) {
        for eight in piece.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let bytes = self.0.to_le_bytes();
            eight.copy_from_slice(&bytes[..eight.len()]);
        }
    }
}

pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut all = vec![0; length];
    all.chunks_mut(PIECE).fold(Noise(seed | 1), |mut noise, piece| {
        noise.fill(piece);
        noise
    });
    all
}

/// An answer whose body has not been read.
struct Opened {
    status: u16,
    headers: BTreeMap<String, String>,
    body: BufReader<TcpStream>,
}

impl Opened {
    fn rest(mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let length = self.headers.get("content-length").and_then(|text| text.parse::<u64>().ok());
        match length {
            Some(length) => drop((&mut self.body).take(length).read_to_end(&mut all)),
            None => drop(self.body.read_to_end(&mut all)),
        }
        all
    }
}

/// Sends a request whose body `write` makes.
fn open(
    cluster: &Cluster,
    region: &str,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    write: impl FnOnce(&mut TcpStream) -> std::io::Result<()>,
) -> std::io::Result<Opened> {
    let token = std::fs::read_to_string(cluster.state("pki/token")).unwrap_or_default();
    let address = SocketAddr::new(cluster.address(region).into(), 8080);
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\nauthorization: Bearer {}\r\n",
        token.trim()
    );
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    // Whoever refuses early may close before all was sent.
    let _ = write(&mut stream);
    let mut body = BufReader::new(stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        body.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
    let headers = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Opened { status, headers, body })
}

/// Puts a value, and gives the status and what was said.
pub fn put(cluster: &Cluster, region: &str, path: &str, headers: &[(&str, &str)], value: &[u8]) -> (u16, String) {
    let length = value.len().to_string();
    let headers = [&[("content-length", length.as_str())], headers].concat();
    let answer = open(cluster, region, ("PUT", path), &headers, |stream| stream.write_all(value)).unwrap();
    (answer.status, String::from_utf8_lossy(&answer.rest()).into_owned())
}

/// Gets a value, if it is there.
pub fn get(cluster: &Cluster, region: &str, path: &str, headers: &[(&str, &str)]) -> Option<(u16, Vec<u8>)> {
    let answer = open(cluster, region, ("GET", path), headers, |_| Ok(())).ok()?;
    Some((answer.status, answer.rest()))
}

/// Chunks in a region's object store.
fn chunks(cluster: &Cluster, region: &str) -> Vec<PathBuf> {
    files_below(&cluster.state(region).join("objects/chunks"))
}

/// The most memory that a process has had, in KiB.
fn peak_memory(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().split(' ').next().unwrap().parse().unwrap()
}

const PUBLIC: [(&str, &str); 1] = [("repomind-class", "public")];

#[test]
fn a_large_value_goes_through_every_region_in_constant_memory_and_comes_out_as_it_went_in() {
    let cluster = Cluster::deployed();
    const LENGTH: usize = 256 << 20;
    let daemon = |region: &str| {
        let named = |pid: &i32| {
            let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.contains("\0start\0")
        };
        cluster.processes(region).into_iter().find(named).expect("a daemon")
    };
    let before: Vec<u64> = REGIONS.iter().map(|region| peak_memory(daemon(region))).collect();
    // Nobody says how long it will be.
    let headers = [("repomind-class", "public"), ("content-type", "video/mp4"), ("transfer-encoding", "chunked")];
    let put = open(&cluster, "us-east", ("PUT", "/v1/data/films/one"), &headers, |stream| {
        let (mut noise, mut piece) = (Noise(1), vec![0; PIECE]);
        for _ in 0..LENGTH / PIECE {
            noise.fill(&mut piece);
            stream.write_all(format!("{PIECE:x}\r\n").as_bytes())?;
            stream.write_all(&piece)?;
            stream.write_all(b"\r\n")?;
        }
        stream.write_all(b"0\r\n\r\n")
    });
    let put = put.unwrap();
    let (status, said) = (put.status, put.rest());
    assert_eq!(status, 204, "{}", String::from_utf8_lossy(&said));
    for region in REGIONS {
        let mut got = until(&format!("the film in {region}"), Duration::from_secs(120), || {
            open(&cluster, region, ("GET", "/v1/data/films/one"), &[], |_| Ok(())).ok().filter(|got| got.status == 200)
        });
        assert_eq!(got.headers["content-length"], LENGTH.to_string());
        assert_eq!(got.headers["content-type"], "video/mp4");
        let (mut noise, mut wanted, mut found) = (Noise(1), vec![0; PIECE], vec![0; PIECE]);
        for at in 0..LENGTH / PIECE {
            noise.fill(&mut wanted);
            got.body.read_exact(&mut found).unwrap_or_else(|error| panic!("{region} broke off at {at}: {error}"));
            assert!(wanted == found, "{region} gave other bytes at {}", at * PIECE);
        }
    }
    for (region, before) in REGIONS.iter().zip(before) {
        let grown = peak_memory(daemon(region)).saturating_sub(before);
        assert!(grown < (LENGTH as u64 >> 10) / 2, "{region} took {grown} KiB more for {} KiB", LENGTH >> 10);
    }
}

#[test]
fn parts_tags_and_heads_of_large_values_are_as_http_has_them() {
    let cluster = Cluster::deployed();
    let value = noise(2, 9_000_001);
    let path = "/v1/data/films/two";
    assert_eq!(put(&cluster, "us-east", path, &PUBLIC, &value).0, 204);
    let ask = |method: &str, headers: &[(&str, &str)]| {
        let answer = open(&cluster, "us-east", (method, path), headers, |_| Ok(())).unwrap();
        (answer.status, answer.headers.clone(), if method == "HEAD" { Vec::new() } else { answer.rest() })
    };
    let (status, headers, _) = ask("HEAD", &[]);
    assert_eq!(
        (status, headers["content-length"].as_str(), headers["accept-ranges"].as_str()),
        (200, "9000001", "bytes")
    );
    let tag = headers["etag"].clone();
    assert_eq!(ask("GET", &[("if-none-match", &tag)]).0, 304);
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=4194300-4194310", 4_194_300, 4_194_311),
        ("bytes=8999000-", 8_999_000, 9_000_001),
        ("bytes=-5", 8_999_996, 9_000_001),
        ("bytes=100-8500000", 100, 8_500_001),
    ] {
        let (status, headers, body) = ask("GET", &[("range", range), ("if-range", &tag)]);
        assert_eq!(status, 206, "{range}");
        assert_eq!(headers["content-range"], format!("bytes {from}-{}/9000001", to - 1));
        assert!(body == value[from..to], "{range} gave other bytes");
    }
    let (status, headers, _) = ask("GET", &[("range", "bytes=9000001-")]);
    assert_eq!((status, headers["content-range"].as_str()), (416, "bytes */9000001"));
    // Overwritten, the tag is another and the part is the whole of what is there now.
    assert_eq!(put(&cluster, "us-east", path, &[("repomind-class", "public"), ("if-match", &tag)], &value[1..]).0, 204);
    let stale = put(&cluster, "us-east", path, &[("repomind-class", "public"), ("if-match", &tag)], &value);
    assert_eq!(stale.0, 412, "{}", stale.1);
    let (status, _, body) = ask("GET", &[("range", "bytes=0-9"), ("if-range", &tag)]);
    assert!(status == 200 && body == value[1..]);
    // A record that is small is given in parts, too, and a list tells of both.
    assert_eq!(put(&cluster, "us-east", "/v1/data/films/small", &PUBLIC, b"0123456789").0, 204);
    let part = get(&cluster, "us-east", "/v1/data/films/small", &[("range", "bytes=2-4")]).unwrap();
    assert_eq!(part, (206, b"234".to_vec()));
    let list = cluster.ask("us-east", "GET", "/v1/data/films", &[], "").unwrap();
    let list: serde_json::Value = serde_json::from_str(&list.body).unwrap();
    let sizes: Vec<_> = list["records"].as_array().unwrap().iter().map(|record| record["bytes"].as_u64()).collect();
    assert_eq!(sizes, [Some(10), Some(9_000_000)]);
}

/// The write that a region shows of a key, as the admin address names it.
fn dot_of(cluster: &Cluster, region: &str, namespace: &str, key: &str) -> Dot {
    let path = format!("/conflicts?namespace={namespace}&key={key}");
    let said: serde_json::Value = serde_json::from_str(&cluster.admin(region, "GET", &path, "").unwrap().body).unwrap();
    let write = said["now"]["siblings"][0]["version"]["write"].as_str().unwrap_or_else(|| panic!("{said}")).to_owned();
    let words: Vec<&str> = write.rsplitn(4, '.').collect();
    let [counter, incarnation, node, origin] = words[..] else { panic!("{write} names no write") };
    let actor = Actor {
        region: RegionId::new(origin).unwrap(),
        node: NodeId(node.parse().unwrap()),
        incarnation: Incarnation(incarnation.parse().unwrap()),
    };
    Dot { actor, counter: counter.parse().unwrap() }
}

#[test]
fn a_region_with_its_own_certificate_and_the_hash_gets_no_chunk_that_it_may_not_hold() {
    let cluster = Cluster::deployed();
    let labels = [("repomind-class", "personal"), ("repomind-jurisdiction", "DE"), ("repomind-basis", "contract")];
    let secret = [b"canary-of-a-german ".repeat(300_000), noise(3, 1000)].concat();
    // Refused by its labels, before a byte of it was sent.
    let length = secret.len().to_string();
    let headers = [&labels[..], &[("content-length", length.as_str())]].concat();
    let refused = open(&cluster, "us-east", ("PUT", "/v1/data/profiles/scan"), &headers, |_| Ok(())).unwrap();
    assert_eq!(refused.status, 451);
    let said = String::from_utf8_lossy(&refused.rest()).into_owned();
    assert!(said.contains("rule"), "{said}");
    assert_eq!(put(&cluster, "eu-west", "/v1/data/profiles/scan", &labels, &secret).0, 204);
    assert_eq!(put(&cluster, "eu-west", "/v1/data/notes/film", &PUBLIC, &noise(4, 2_000_000)).0, 204);
    // The public one shows that replication has passed.
    for region in ["us-east", "ap-southeast"] {
        until(&format!("the film in {region}"), SOON, || {
            (get(&cluster, region, "/v1/data/notes/film", &[])?.0 == 200).then_some(())
        });
        assert_eq!(chunks(&cluster, region).len(), 1, "{region} has chunks that it may not hold");
        assert_eq!(get(&cluster, region, "/v1/data/profiles/scan", &[]).unwrap().0 / 100, 4);
    }
    for region in REGIONS {
        for file in files_below(&cluster.state(region)) {
            let bytes = std::fs::read(&file).unwrap_or_default();
            let found = bytes.windows(18).any(|window| window == b"canary-of-a-german");
            assert!(!found, "{} holds plain text of a person", file.display());
        }
    }
    assert!(get(&cluster, "eu-west", "/v1/data/profiles/scan", &[]).unwrap().1 == secret);

    // us-east asks by itself, as somebody would who has taken it over.
    let named: Vec<ChunkId> = chunks(&cluster, "eu-west")
        .iter()
        .map(|file| file.file_name().unwrap().to_str().unwrap().parse().unwrap())
        .collect();
    assert_eq!(named.len(), 3, "two of the scan and one of the film");
    let keys = net::pki::load(&cluster.state("pki"), &RegionId::new("us-east").unwrap()).unwrap();
    let address = SocketAddr::new(cluster.address("eu-west").into(), peer_port(&cluster));
    let eu = RegionId::new("eu-west").unwrap();
    let client = net::PeerClient::new(eu, address, &keys.identity, net::Wan::none()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut given = 0;
    for (namespace, key) in [("profiles", "scan"), ("notes", "film")] {
        let dot = dot_of(&cluster, "eu-west", namespace, key);
        for chunk in &named {
            let address = Address { namespace: namespace.parse().unwrap(), key: key.parse().unwrap() };
            let question = ChunkQuestion { address, dot: dot.clone(), chunk: *chunk };
            match runtime.block_on(client.chunk(&question)).unwrap() {
                ChunkAnswer::Absent => {}
                ChunkAnswer::Here(_) if namespace == "notes" => given += 1,
                other => panic!("eu-west answered {other:?} for {namespace}/{key}"),
            }
        }
    }
    assert_eq!(given, 1, "the film's own chunk, and by no name another");
}

/// The port on which regions listen for each other, from the deployment's record.
fn peer_port(cluster: &Cluster) -> u16 {
    let regions = config::load(&cluster.file("")).expect("the tree's regions");
    regions.by_id[&RegionId::new("eu-west").unwrap()].addresses.peer.port()
}

#[test]
fn a_damaged_chunk_is_not_served_and_is_mended_from_another_region_and_an_erasure_leaves_none() {
    let cluster = Cluster::deployed_with(&[("REPOMIND_SWEEP_OBJECTS_SECONDS", "1")]);
    let everywhere = [
        ("repomind-class", "personal"),
        ("repomind-jurisdiction", "SG"),
        ("repomind-basis", "contract"),
        ("repomind-subject", "s-1"),
    ];
    let value = noise(5, 6_000_000);
    let path = "/v1/data/profiles/scan";
    assert_eq!(put(&cluster, "eu-west", path, &everywhere, &value).0, 204);
    for region in REGIONS {
        until(&format!("the scan in {region}"), SOON, || {
            (get(&cluster, region, path, &[])? == (200, value.clone())).then_some(())
        });
    }
    let damage = |file: &Path| {
        let mut bytes = std::fs::read(file).unwrap();
        bytes[1000] ^= 1;
        std::fs::write(file, bytes).unwrap();
    };
    chunks(&cluster, "us-east").iter().for_each(|file| damage(file));
    // Whatever is answered meanwhile, it is never the damaged bytes.
    until("the scan mended", SOON, || {
        let (status, body) = get(&cluster, "us-east", path, &[])?;
        assert!(status == 503 || body == value || body.len() < value.len(), "damaged bytes were served");
        (status == 200 && body == value).then_some(())
    });
    assert!(!files_below(&cluster.state("us-east").join("objects/quarantine")).is_empty());

    let erased = cluster.run(&["subject", "erase", "s-1"]);
    assert!(erased.status.success(), "{}", text(&erased));
    for region in REGIONS {
        assert!([404, 410].contains(&get(&cluster, region, path, &[]).unwrap().0), "{region} shows what was erased");
        until(&format!("no chunk in {region}"), SOON, || chunks(&cluster, region).is_empty().then_some(()));
    }
}
