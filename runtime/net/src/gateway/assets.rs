//! Static files under `/assets/`, from the region's object store.
//!
//! A store is a folder as `assets publish` fills it: `assets/NAME`, and `assets.br/NAME`, `assets.zstd/NAME` and
//! `assets.gzip/NAME` where a form that was compressed ahead is smaller. A name has the hash of its content in it, and
//! so its answer never changes. Files are read in pieces of [`PIECE`], whatever their size; no path leads out of the
//! store, by dots, links or otherwise.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use model::edge::EdgePlan;

use super::{Gateway, set};
use crate::problem::Problem;
use crate::serve::{Body, BodyError, empty};

/// Where they are asked for.
pub(super) const PREFIX: &str = "/assets/";
/// The name of the list of what was published; the one file that changes.
const MANIFEST: &str = "manifest.json";
/// Bytes that are read and sent at once.
const PIECE: usize = 64 * 1024;
/// How long an answer that never changes may be kept where no cache rule says less: a year, as RFC 2616 had it.
const LONGEST: u32 = 31_536_000;
/// Forms compressed ahead, preferred ones first: the coding and the folder.
const CODINGS: [(&str, &str); 3] = [("br", "assets.br"), ("zstd", "assets.zstd"), ("gzip", "assets.gzip")];
/// Hexadecimal digits of the hash in a name.
const HASH: usize = 20;

/// A file that was found: what is sent, and as what.
struct Found {
    file: File,
    length: u64,
    coding: Option<&'static str>,
    /// Whether there are several forms to choose from.
    varies: bool,
}

impl Gateway {
    /// Answers from the store; nothing where the region has none.
    pub(super) async fn asset<B>(&self, request: &Request<B>) -> Option<Result<Response<Body>, Problem>> {
        let root = self.region.assets()?;
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let detail = "files are published with `repomind-run assets publish`; use GET";
            return Some(Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method", detail)));
        }
        let name = request.uri().path().strip_prefix(PREFIX)?.to_owned();
        let accepted = codings(request.headers());
        let absent = || Err(Problem::not_found("no such file was published here"));
        if !is_name(&name) {
            return Some(absent());
        }
        let wanted = name.clone();
        let found = tokio::task::spawn_blocking(move || find(&root, &wanted, &accepted)).await.ok().flatten();
        let Some(found) = found else { return Some(absent()) };
        Some(Ok(answer(request, &name, found, &self.region.plans().edge)))
    }
}

/// Whether this can be the name of a file: a few plain parts, none of which begins with a dot.
fn is_name(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.~@+".contains(&c);
    let part = |part: &str| !part.is_empty() && part.len() <= 200 && !part.starts_with('.') && part.bytes().all(plain);
    name.len() <= 1000 && name.split('/').count() <= 16 && name.split('/').all(part)
}

/// The hash in a name such as `app.0123456789abcdef0123.css`.
fn hash(name: &str) -> Option<&str> {
    let last = name.rsplit('/').next()?;
    last.split('.').skip(1).find(|part| part.len() == HASH && part.bytes().all(|c| c.is_ascii_hexdigit()))
}

/// The codings that a client accepts, best first by its own weights, then by ours (RFC 9110, 12.5.3).
fn codings(headers: &HeaderMap) -> Vec<(&'static str, &'static str)> {
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let entries: Vec<(String, f32)> = lines
        .flat_map(|line| line.split(','))
        .take(32)
        .map(|entry| {
            let (name, more) = entry.split_once(';').unwrap_or((entry, ""));
            let weight = more.split(';').find_map(|one| one.trim().strip_prefix("q=")?.trim().parse().ok());
            (name.trim().to_ascii_lowercase(), weight.unwrap_or(1.0_f32))
        })
        .collect();
    let weight = |coding: &str| {
        let stated = |name: &str| entries.iter().find(|(other, _)| other == name).map(|(_, weight)| *weight);
        stated(coding).or_else(|| stated("*")).unwrap_or(0.0)
    };
    let mut all: Vec<_> = CODINGS.iter().copied().filter(|(coding, _)| weight(coding) > 0.0).collect();
    all.sort_by(|(a, _), (b, _)| weight(b).total_cmp(&weight(a)));
    all
}

fn find(root: &Path, name: &str, accepted: &[(&'static str, &'static str)]) -> Option<Found> {
    let store = File::open(root).ok()?;
    let whole = open(&store, &format!("assets/{name}"))?;
    let varies = CODINGS.iter().any(|(_, folder)| open(&store, &format!("{folder}/{name}")).is_some());
    let coded = accepted
        .iter()
        .filter(|_| varies)
        .find_map(|(coding, folder)| Some((open(&store, &format!("{folder}/{name}"))?, Some(*coding))));
    let ((file, length), coding) = coded.unwrap_or((whole, None));
    Some(Found { file, length, coding, varies })
}

/// A regular file below the store, and its length.
#[cfg(target_os = "linux")]
fn open(store: &File, path: &str) -> Option<(File, u64)> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(openat2(store, path, flags, Mode::empty(), resolve).ok()?);
    let about = file.metadata().ok()?;
    about.is_file().then_some((file, about.len()))
}

/// The same, part by part, for systems without openat2.
#[cfg(not(target_os = "linux"))]
fn open(store: &File, path: &str) -> Option<(File, u64)> {
    use rustix::fs::{Mode, OFlags, openat};
    let mut at = store.try_clone().ok()?;
    for part in path.split('/') {
        at = File::from(openat(&at, part, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()).ok()?);
    }
    let about = at.metadata().ok()?;
    about.is_file().then_some((at, about.len()))
}

fn answer<B>(request: &Request<B>, name: &str, found: Found, edge: &EdgePlan) -> Response<Body> {
    let tag = tag(name, &found);
    let mut response = Response::new(empty());
    let headers = response.headers_mut();
    set(headers, "etag", &tag, true);
    set(headers, "cache-control", &control(request, name, edge), true);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if found.varies {
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    if is_same(request.headers(), &tag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    set(headers, "content-type", content_type(name), true);
    if let Some(coding) = found.coding {
        set(headers, "content-encoding", coding, true);
    }
    let part = match range(request.headers(), &tag, found.length) {
        Range::Whole => (0, found.length),
        Range::Part(from, to) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let line = format!("bytes {from}-{}/{}", to - 1, found.length);
            set(response.headers_mut(), "content-range", &line, true);
            (from, to)
        }
        Range::Beyond => {
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            let headers = response.headers_mut();
            for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::ETAG] {
                headers.remove(name);
            }
            set(headers, "content-range", &format!("bytes */{}", found.length), true);
            set(headers, "cache-control", "no-store", true);
            return response;
        }
    };
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(part.1 - part.0));
    if request.method() != Method::HEAD {
        *response.body_mut() = pieces(found.file, part);
    }
    response
}

/// The name of a form of the content: the hash in the file's name, else what the file system says.
fn tag(name: &str, found: &Found) -> String {
    let form = found.coding.map_or_else(String::new, |coding| format!("-{coding}"));
    match hash(name) {
        Some(hash) => format!("\"{hash}{form}\""),
        None => {
            let changed = found.file.metadata().and_then(|about| about.modified()).ok();
            let changed = changed.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
            format!("\"{:x}-{:x}{form}\"", found.length, changed.unwrap_or_default().as_nanos())
        }
    }
}

/// For ever where the name has the content's hash, as long as the cache rule lets browsers; else not unasked.
fn control<B>(request: &Request<B>, name: &str, edge: &EdgePlan) -> String {
    if hash(name).is_none() || name == MANIFEST {
        return "no-cache".to_owned();
    }
    match edge.rule_for(&Asked(request), 200, content_type(name)) {
        Some(rule) if rule.browser_ttl_seconds == 0 => "no-cache".to_owned(),
        Some(rule) => format!("public, max-age={}, immutable", rule.browser_ttl_seconds),
        None => format!("public, max-age={LONGEST}, immutable"),
    }
}

/// Whether the client has this form already (RFC 9110, 13.1.2: weakly compared).
fn is_same(headers: &HeaderMap, tag: &str) -> bool {
    let lines = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = lines.flat_map(|line| line.split(',')).map(str::trim);
    tags.any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Range {
    Whole,
    /// From this byte up to that one, exclusive.
    Part(u64, u64),
    Beyond,
}

/// The part asked for. Several at once, and what is no range, are answered with the whole (RFC 9110, 14.2).
pub(super) fn range(headers: &HeaderMap, tag: &str, length: u64) -> Range {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let asked = text(header::RANGE).and_then(|line| line.strip_prefix("bytes=")?.trim().split_once('-'));
    let Some((from, to)) = asked else { return Range::Whole };
    if text(header::IF_RANGE).is_some_and(|other| other != tag) {
        return Range::Whole;
    }
    let number = |text: &str| text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let (from, to) = match (number(from), number(to)) {
        (Some(from), None) if to.is_empty() => (from, length),
        (Some(from), Some(to)) if from <= to => (from, length.min(to.saturating_add(1))),
        (None, Some(last)) if from.is_empty() => (if last == 0 { length } else { length.saturating_sub(last) }, length),
        _ => return Range::Whole,
    };
    if from < length { Range::Part(from, to) } else { Range::Beyond }
}

/// A file's bytes from one place up to another, a piece at a time, each read when the one before is on its way.
fn pieces(file: File, (from, to): (u64, u64)) -> Body {
    let frames = stream::unfold(Some((file, from, to)), |left| async move {
        let (mut file, at, to) = left?;
        if at >= to {
            return None;
        }
        let read = tokio::task::spawn_blocking(move || {
            let wanted = usize::try_from((to - at).min(PIECE as u64)).unwrap_or(PIECE);
            let mut piece = vec![0; wanted];
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(&mut piece)?;
            Ok::<_, std::io::Error>((file, Bytes::from(piece)))
        });
        match read.await {
            Ok(Ok((file, piece))) => {
                let at = at + piece.len() as u64;
                Some((Ok(Frame::data(piece)), Some((file, at, to))))
            }
            // Breaks the answer off, so that nobody takes it for whole.
            Ok(Err(error)) => Some((Err(BodyError::from(error)), None)),
            Err(_) => Some((Err(BodyError::from("a file could not be read")), None)),
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

/// A request as cache rules are matched against it.
struct Asked<'a, B>(&'a Request<B>);

impl<B> model::edge::Request for Asked<'_, B> {
    fn method(&self) -> &str {
        self.0.method().as_str()
    }
    fn path(&self) -> &str {
        self.0.uri().path()
    }
    fn header(&self, name: &str) -> Option<String> {
        let lines: Vec<&str> = self.0.headers().get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        (!lines.is_empty()).then(|| lines.join(", "))
    }
}

/// The media type by the name's end. What is not known is given as bytes, which no browser runs.
fn content_type(name: &str) -> &'static str {
    let end = name.rsplit('/').next().and_then(|last| last.rsplit_once('.')).map_or("", |(_, end)| end);
    match end.to_ascii_lowercase().as_str() {
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "html" | "htm" => "text/html; charset=utf-8",
        "txt" => "text/plain; charset=utf-8",
        "md" => "text/markdown; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "xml" => "application/xml",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/vnd.microsoft.icon",
        "woff2" => "font/woff2",
        "woff" => "font/woff",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "mp3" => "audio/mpeg",
        "ogg" => "audio/ogg",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_store() {
        for good in ["app.css", "img/logo.0123456789abcdef0123.svg", "a/b/c/d.txt", "a~b@2x+.png"] {
            assert!(is_name(good), "{good}");
        }
        for bad in
            ["", "/", "..", "../x", "a/../b", "a//b", "./a", ".hidden", "a/.git/config", "a%2e", "a\\b", "a\0b", "a/"]
        {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_link_out_of_the_store_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("secret.txt");
        std::fs::write(&outside, "secret").unwrap();
        std::fs::create_dir_all(dir.path().join("store/assets/sub")).unwrap();
        let root = dir.path().join("store");
        std::os::unix::fs::symlink(&outside, root.join("assets/link.txt")).unwrap();
        std::os::unix::fs::symlink(dir.path(), root.join("assets/up")).unwrap();
        std::fs::write(root.join("assets/plain.txt"), "plain").unwrap();
        assert!(find(&root, "plain.txt", &[]).is_some());
        for bad in ["link.txt", "up/secret.txt", "sub", "absent.txt"] {
            assert!(find(&root, bad, &[]).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_client_gets_the_coding_that_it_likes_best_and_none_that_it_refuses() {
        let chosen = |line: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, line.parse().unwrap());
            codings(&headers).into_iter().map(|(coding, _)| coding).collect::<Vec<_>>()
        };
        assert_eq!(chosen("gzip, deflate, br, zstd"), ["br", "zstd", "gzip"]);
        assert_eq!(chosen("gzip;q=1.0, br;q=0.5"), ["gzip", "br"]);
        assert_eq!(chosen("br;q=0, *"), ["zstd", "gzip"]);
        assert!(chosen("identity").is_empty() && chosen("br;q=0").is_empty());
    }

    #[test]
    fn parts_are_given_as_they_are_asked_for() {
        let asked = |line: &str, condition: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, line.parse().unwrap());
            if let Some(tag) = condition {
                headers.insert(header::IF_RANGE, tag.parse().unwrap());
            }
            range(&headers, "\"t\"", 100)
        };
        assert_eq!(asked("bytes=0-9", None), Range::Part(0, 10));
        assert_eq!(asked("bytes=90-", None), Range::Part(90, 100));
        assert_eq!(asked("bytes=-10", None), Range::Part(90, 100));
        assert_eq!(asked("bytes=-1000", None), Range::Part(0, 100));
        assert_eq!(asked("bytes=50-1000", Some("\"t\"")), Range::Part(50, 100));
        assert_eq!(asked("bytes=0-9", Some("\"other\"")), Range::Whole);
        assert_eq!(asked("bytes=100-", None), Range::Beyond);
        assert_eq!(asked("bytes=-0", None), Range::Beyond);
        for whole in ["bytes=0-1,5-6", "bytes=9-1", "bytes=a-b", "lines=0-9", "bytes=--1", "bytes=+1-2"] {
            assert_eq!(asked(whole, None), Range::Whole, "{whole}");
        }
    }
}
