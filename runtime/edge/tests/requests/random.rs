//! Requests that nobody would write, by a seed: each is followed by one that differs from it a little, so that it shows
//! which of them edges take for the same.

use super::Case;
use crate::support::Script;

/// SplitMix64 (Steele and others, 2014): small, and the same everywhere.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Some of these, joined.
    fn some(&mut self, of: &[&str], most: usize, between: &str) -> String {
        let many = self.below(most + 1);
        (0..many).map(|_| self.one(of)).collect::<Vec<_>>().join(between)
    }
}

const PATHS: [&str; 14] = [
    "/pages/",
    "/docs/",
    "/static/",
    "/shop/",
    "/tenants/",
    "/local/",
    "/profiles/",
    "/pinned/",
    "/once/",
    "/v1/",
    "/none/",
    "/members/open/",
    "/Pages/",
    "/page",
];
const ENDS: [&str; 16] = [
    "",
    ".js",
    ".css",
    ".JS",
    ".js/",
    "/",
    "/.",
    "/..",
    "/.a",
    "/a..b",
    "%20",
    "%41",
    "%7e",
    ";x=1",
    "//",
    "@:!$&'()*+,=-_~",
];
const PARAMETERS: [&str; 15] = [
    "a=1",
    "a=2",
    "b=2",
    "page=1",
    "page=2",
    "sort=up",
    "utm_source=x",
    "gclid=9",
    "utm_sources=1",
    "",
    "?",
    "x=%26",
    "a=b=c",
    "A=1",
    "page=%31",
];
const HOSTS: [&str; 6] =
    ["www.example.org", "WWW.example.org", "www.example.org:80", "other.example", "a.b:8080", "xn--bcher-kva.example"];
const LANGUAGES: [&str; 18] = [
    "de",
    "en",
    "fr",
    "DE-at",
    "de-",
    "den",
    "*",
    "de;q=0",
    "de;q=0.0",
    "de;q=0.5",
    "en;q=00",
    "fr ; q=0",
    "de;x=1;q=0",
    "",
    " ",
    "de;q=0.001",
    "en;Q=0",
    "fr;q= 0",
];
const COOKIES: [&str; 14] = [
    "session=1",
    "session=",
    "session",
    "Session=1",
    "currency=EUR",
    "currency=USD",
    "currency=",
    "currency",
    "xcurrency=EUR",
    "currency=a b",
    "currency=50%",
    "a=currency=EUR",
    "",
    " currency=EUR ",
];
const CONTROL: [&str; 26] = [
    "max-age=60",
    "max-age=5",
    "max-age=0",
    "max-age=-1",
    "max-age=abc",
    "max-age",
    "max-age=\"7\"",
    "max-age=99999999",
    "max-age = 9",
    "s-maxage=3",
    "s-maxage=0",
    "s-maxage",
    "s-maxage=x",
    "S-MaxAge=8",
    "no-store",
    "no-cache",
    "no-cache=\"set-cookie\"",
    "private",
    "private=\"x\"",
    "public",
    "must-revalidate",
    "proxy-revalidate",
    "Must-Revalidate",
    "immutable",
    "",
    "max-age=4.5",
];
const VARY: [&str; 9] = [
    "accept-encoding",
    "Accept-Language",
    "x-tenant",
    "cookie",
    "*",
    "",
    "accept-encoding ",
    "origin",
    "accept-encodings",
];
const CLASSES: [&str; 9] =
    ["public", "Public", "personal", "operational", "credentials", "source-code", "nonsense", "", "health"];
const COUNTRIES: [&str; 10] = ["DE", "de", "US", "RU", "CN", "ZZ", "D", "DEU", "", "SG"];
const TAGS: [&str; 7] = ["one", "two", " three ", "", "a b", "rule:pages", "url:x"];
const AGES: [&str; 8] = ["0", "3", "90000", "x", "-1", "", "1.5", " 2 "];
const TYPES: [&str; 6] = ["image/png", "IMAGE/PNG", "text/html", "image", "", "text/image/png"];
const STATUSES: [u16; 14] = [200, 200, 200, 200, 301, 308, 302, 404, 410, 403, 206, 203, 500, 429];

/// So many pairs of requests. Left out, because docs/edge.md says that edges differ there: parameters with which another one
/// begins (`b` and `b=2`), and methods with a body where a region fails.
pub fn pairs(seed: u64, pairs: usize) -> Vec<Case> {
    let mut draw = Draw(seed);
    let mut all = Vec::new();
    for number in 0..pairs {
        let first = one(&mut draw, number);
        let mut second = first.clone();
        differ(&mut draw, &mut second);
        second.about = format!("{} beside {} {:?}", second.about, first.target, first.headers);
        all.extend([first, second]);
    }
    all
}

fn one(draw: &mut Draw, number: usize) -> Case {
    let path = format!("{}r{number}{}", draw.one(&PATHS), draw.one(&ENDS));
    let mut case = Case {
        about: format!("random {number}"),
        method: draw.one(&["GET", "GET", "GET", "GET", "HEAD", "POST", "OPTIONS"]).to_owned(),
        host: draw.one(&HOSTS).to_owned(),
        target: path + &query(draw),
        headers: Vec::new(),
        country: draw.one(&[None, Some("DE"), Some("SG"), Some("US"), Some("BR")]).map(str::to_owned),
        script: answer(draw),
    };
    headers(draw, &mut case.headers);
    case
}

fn query(draw: &mut Draw) -> String {
    match draw.below(3) {
        0 => String::new(),
        _ => format!("?{}", draw.some(&PARAMETERS, 4, "&")),
    }
}

fn headers(draw: &mut Draw, headers: &mut Vec<(String, String)>) {
    let all = [
        (2, "accept-language", draw.some(&LANGUAGES, 3, ",")),
        (3, "cookie", draw.some(&COOKIES, 3, "; ")),
        (8, "cookie", draw.some(&COOKIES, 2, ";")),
        (4, "x-tenant", draw.one(&["a", "b", "a b", "50%", ""]).to_owned()),
        (16, "x-tenant", "c".to_owned()),
        (9, "x-preview", draw.one(&["yes", "no", "Yes"]).to_owned()),
        (20, "authorization", "Bearer x.y.z".to_owned()),
        (20, "range", "bytes=0-1".to_owned()),
        (3, "accept-encoding", draw.one(&["gzip", "gzip, br", "identity", "br;q=0, gzip"]).to_owned()),
    ];
    let chosen = all.into_iter().filter(|(one_in, ..)| draw.below(*one_in) == 0);
    headers.extend(chosen.map(|(_, name, value)| (name.to_owned(), value.trim().to_owned())));
}

fn answer(draw: &mut Draw) -> Script {
    let all = [
        (2, "cache-control", draw.some(&CONTROL, 3, ", ")),
        (8, "cache-control", draw.one(&CONTROL).to_owned()),
        (5, "cdn-cache-control", draw.some(&CONTROL, 2, ",")),
        (5, "vary", draw.some(&VARY, 2, ", ")),
        (6, "age", draw.one(&AGES).to_owned()),
        (4, "cache-tag", draw.some(&TAGS, 4, ",")),
        (4, "repomind-class", draw.some(&CLASSES, 2, ", ")),
        (4, "repomind-jurisdiction", draw.some(&COUNTRIES, 2, ",")),
        (3, "content-type", draw.one(&TYPES).to_owned()),
        (12, "set-cookie", "a=b".to_owned()),
    ];
    let chosen = all.into_iter().filter(|(one_in, ..)| draw.below(*one_in) == 0);
    let headers = chosen.map(|(_, name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    let regions = |draw: &mut Draw| match draw.below(8) {
        0 => vec![draw.one(&["us-east", "eu-west", "ap-southeast"]).to_owned()],
        _ => Vec::new(),
    };
    let out = regions(draw);
    let (down, unwell) = if draw.below(2) == 0 { (out, Vec::new()) } else { (Vec::new(), out) };
    Script { status: draw.one(&STATUSES), headers, down, unwell }
}

/// Changes one thing.
fn differ(draw: &mut Draw, case: &mut Case) {
    match draw.below(6) {
        0 => case.host = draw.one(&HOSTS).to_owned(),
        1 => case.target = format!("{}{}", case.target.split('?').next().unwrap_or_default(), query(draw)),
        2 => case.country = draw.one(&[None, Some("DE"), Some("SG")]).map(str::to_owned),
        3 => {
            case.headers.clear();
            headers(draw, &mut case.headers);
        }
        4 => {
            let (path, query) = case.target.split_once('?').unwrap_or((&case.target, ""));
            let mut all: Vec<&str> = query.split('&').collect();
            all.reverse();
            case.target = format!("{path}?{}", all.join("&"));
        }
        _ => {}
    }
}
