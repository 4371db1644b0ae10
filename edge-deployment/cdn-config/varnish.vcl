vcl 4.1;

# Made by `repomind-run edge build` from edge-cache.scm, for Varnish in us-east. Edit that file and not this one.
# Revision 9c3259b87e8ae34c4e851b21f20f537d. Start varnishd with -p max_retries=8 -p http_gzip_support=off -p http_range_support=off.

import std;
import var;
import vsthrottle;
import xkey;

backend region_ap_southeast {
  .host = "127.0.3.1";
  .port = "8080";
  .connect_timeout = 2s;
}

backend region_eu_west {
  .host = "127.0.2.1";
  .port = "8080";
  .connect_timeout = 2s;
}

backend region_us_east {
  .host = "127.0.1.1";
  .port = "8080";
  .connect_timeout = 2s;
}

# Who may purge, and who is believed about the country of a client.
acl operators {
  "127.0.0.0"/8;
  "::1";
}

sub vcl_recv {
  if (req.restarts > 0) {
    # What was decided stays; only how old an answer may be is another question now.
    if (req.http.rm-serve-stale) {
      set req.grace = 365d;
    } elsif (req.http.rm-again) {
      set req.hash_always_miss = true;
    } else {
      set req.grace = 0s;
    }
    return (hash);
  }
  call rm_begin;
  if (req.method == "PURGE") {
    call rm_purge;
  }
  if (req.url ~ "^.{8193}") {
    return (synth(414, "URI Too Long"));
  }
  # Paths that mean another one to somebody behind us.
  if (req.http.rm-path ~ "(?i)%(?:2e|2f|5c|00)|\\|//|/\.\.?(?:/|$)" || req.http.rm-path !~ "^/") {
    return (synth(400, "Bad Request"));
  }
  call rm_limits;
  call rm_guards;
  call rm_rules;
  call rm_routes;
  if (req.http.Upgrade) {
    if (req.http.rm-left ~ "^ap-southeast(?: |$)") {
      set req.backend_hint = region_ap_southeast;
    }
    elsif (req.http.rm-left ~ "^eu-west(?: |$)") {
      set req.backend_hint = region_eu_west;
    }
    elsif (req.http.rm-left ~ "^us-east(?: |$)") {
      set req.backend_hint = region_us_east;
    }
    return (pipe);
  }
  if (req.method !~ "^(?:GET|HEAD)$" || req.http.Authorization || req.http.Range) {
    call rm_bypass;
  }
  if (req.http.rm-pass) {
    unset req.http.rm-key;
    return (pass);
  }
  # Answers that are shared must not see whose request fetched them.
  unset req.http.Cookie;
  if (req.http.rm-cookies != "") {
    set req.http.Cookie = req.http.rm-cookies;
  }
  return (hash);
}

# Takes away what only we may say, and takes apart what was asked.
sub rm_begin {
  unset req.http.rm-about;
  unset req.http.rm-again;
  unset req.http.rm-came;
  unset req.http.rm-cookies;
  unset req.http.rm-fresh;
  unset req.http.rm-key;
  unset req.http.rm-limit;
  unset req.http.rm-pass;
  unset req.http.rm-policy;
  unset req.http.rm-revision;
  unset req.http.rm-rule;
  unset req.http.rm-serve-stale;
  unset req.http.rm-sie;
  unset req.http.repomind-test-came;
  set req.http.rm-about = ",";
  set req.http.rm-path = regsub(req.url, "\?.*$", "");
  set req.http.rm-query = regsub(req.url, "^[^?]*\??", "");
  set req.http.rm-host = regsub(std.tolower(req.http.Host), ":[0-9]+$", "");
  set req.http.rm-country = "XX";
  if (client.ip ~ operators && req.http.repomind-country ~ "^[A-Z][A-Z]$") {
    set req.http.rm-country = req.http.repomind-country;
  }
  unset req.http.repomind-country;
  set req.http.repomind-request-id = server.identity + "-" + req.xid;
  std.collect(req.http.Cookie, "; ");
}

# PURGE with `repomind-purge: tag tag`, or of a URL; with `repomind-purge-soft` the answers stay as stale ones.
sub rm_purge {
  if (client.ip !~ operators) {
    return (synth(405, "Not allowed"));
  }
  if (!req.http.repomind-purge) {
    set req.http.repomind-purge = "url:" + req.http.rm-host + req.http.rm-path;
  }
  if (req.http.repomind-purge-soft) {
    set req.http.rm-purged = xkey.softpurge(req.http.repomind-purge);
  } else {
    set req.http.rm-purged = xkey.purge(req.http.repomind-purge);
  }
  return (synth(200, "Purged"));
}

sub rm_bypass {
  set req.http.rm-pass = "bypass";
}

sub rm_limits {
  if (req.http.rm-path ~ "^(?:/v1/)" && vsthrottle.is_denied("data-per-client:" + client.ip, 600, 60.000s)) {
    set req.http.rm-limit = "data-per-client";
    set req.http.rm-policy = {""data-per-client";q=600;w=60"};
    set req.http.rm-wait = "1";
    return (synth(429, "Too Many Requests"));
  }
}

sub rm_guards {
  if (req.http.rm-path ~ "^(?:/reports/)") {
    # reports: the origin verifies; here it must only be shown, and nothing of it is kept.
    if (req.http.Authorization !~ "(?i)^bearer [a-z0-9_-]+\.[a-z0-9_-]+\.[a-z0-9_-]+$") {
      return (synth(401, "Unauthorized"));
    }
    set req.http.rm-pass = "origin-verifies";
  }
}

sub rm_rules {
  if (req.http.rm-path ~ "^(?:/)" && req.method ~ "^(?:GET|HEAD)$") {
    set req.http.rm-about = req.http.rm-about + "not-there,";
  }
  if (req.http.rm-path ~ "^(?:/v1/)" && req.method ~ "^(?:GET|HEAD)$") {
    set req.http.rm-rule = "data-never";
    call rm_bypass;
  }
  elsif (req.http.rm-path ~ "^(?:/assets/)" && req.method ~ "^(?:GET|HEAD)$") {
    set req.http.rm-rule = "assets-long";
    set req.http.rm-revision = "5bde34107b912799";
    set req.http.rm-key = "";
    set req.http.rm-key = req.http.rm-key + " host=" + req.http.rm-host;
    set req.http.rm-key = req.http.rm-key + " path=" + req.http.rm-path;
    set req.http.rm-key = regsub(req.http.rm-key, "^ ", "");
    set req.http.rm-cookies = "";
  }
  elsif (req.http.rm-path ~ "^(?:/)" && req.method ~ "^(?:GET|HEAD)$" && req.http.Cookie ~ "(?:^|;)\s*session=") {
    set req.http.rm-rule = "signed-in";
    call rm_bypass;
  }
  elsif (req.http.rm-path ~ "^(?:/)" && req.method ~ "^(?:GET|HEAD)$") {
    set req.http.rm-rule = "default-short";
    set req.http.rm-revision = "abd2777c530be177";
    set req.http.rm-query = regsuball("&" + req.http.rm-query, "&(?:utm_source|utm_medium|utm_campaign|gclid)(?:=[^&]*)?(?=&|$)", "");
    set req.http.rm-query = regsuball(regsuball(req.http.rm-query, "&+", "&"), "^&|&$", "");
    set req.http.rm-query = regsub(std.querysort("/?" + req.http.rm-query), "^/\??", "");
    set req.http.rm-key = "";
    set req.http.rm-key = req.http.rm-key + " host=" + req.http.rm-host;
    set req.http.rm-key = req.http.rm-key + " path=" + req.http.rm-path;
    set req.http.rm-key = req.http.rm-key + " query=" + req.http.rm-query;
    set req.http.rm-key = regsub(req.http.rm-key, "^ ", "");
    set req.http.rm-cookies = "";
  }
  else {
    call rm_bypass;
  }
}

sub rm_routes {
  if (req.http.rm-path ~ "^(?:/)") {
    set req.http.rm-attempts = "2";
    set req.http.rm-timeout = "10000ms";
    set req.http.rm-break = "5 10s";
    call rm_by_country;
  }
  elsif (true) {
    set req.http.rm-attempts = "2";
    set req.http.rm-timeout = "10000ms";
    set req.http.rm-break = "5 10s";
    call rm_by_country;
  }
}

sub rm_by_country {
  if (req.http.rm-country ~ "^(?:AD|AL|AT|AX|BA|BE|BF|BG|BJ|BY|CH|CI|CM|CV|CZ|DE|DK|DZ|EE|EH|ES|FI|FO|FR|GA|GB|GG|GH|GI|GL|GM|GN|GQ|GR|GW|HR|HU|IE|IM|IS|IT|JE|LI|LR|LT|LU|LV|LY|MA|MC|MD|ME|MK|ML|MR|MT|NE|NG|NL|NO|PL|PT|RO|RS|SE|SH|SI|SJ|SK|SL|SM|SN|ST|TG|TN|UA|VA|XK)$") {
    set req.http.rm-left = "eu-west us-east ap-southeast";
    return;
  }
  if (req.http.rm-country ~ "^(?:AE|AF|AU|BD|BN|BT|BV|CC|CN|CX|GU|HK|HM|ID|IN|IO|JP|KG|KH|KM|KP|KR|LA|LK|LS|MG|MM|MN|MO|MP|MU|MV|MW|MY|MZ|NP|OM|PG|PH|PK|PW|RE|SC|SG|SO|SZ|TF|TH|TJ|TL|TW|VN|YE|YT|ZA|ZW)$") {
    set req.http.rm-left = "ap-southeast eu-west us-east";
    return;
  }
  if (req.http.rm-country ~ "^(?:AG|AI|AR|AW|BB|BL|BM|BO|BQ|BR|BS|BZ|CA|CL|CO|CR|CU|CW|DM|DO|EC|FK|GD|GF|GP|GS|GT|GY|HN|HT|JM|KN|KY|LC|MF|MQ|MS|MX|NI|PA|PE|PM|PR|PY|SR|SV|SX|TC|TT|US|UY|VC|VE|VG|VI)$") {
    set req.http.rm-left = "us-east eu-west ap-southeast";
    return;
  }
  if (req.http.rm-country ~ "^(?:AM|AO|AZ|BH|BI|BW|CD|CF|CG|CY|DJ|EG|ER|ET|GE|IL|IQ|IR|JO|KE|KW|KZ|LB|NA|PS|QA|RU|RW|SA|SD|SS|SY|TD|TM|TR|TZ|UG|UZ|ZM)$") {
    set req.http.rm-left = "eu-west ap-southeast us-east";
    return;
  }
  if (req.http.rm-country ~ "^(?:AQ|AS|CK|FJ|FM|KI|MH|NC|NF|NR|NU|NZ|SB|TK|TO|TV|UM|VU|WF|WS)$") {
    set req.http.rm-left = "ap-southeast us-east eu-west";
    return;
  }
  set req.http.rm-left = "us-east ap-southeast eu-west";
}

sub vcl_pipe {
  set bereq.http.Connection = "upgrade";
  set bereq.http.Upgrade = req.http.Upgrade;
  return (pipe);
}

sub vcl_hash {
  hash_data(req.http.rm-key);
  return (lookup);
}

sub vcl_hit {
  if (obj.http.rm-revision != req.http.rm-revision) {
    # Stored under rules that are not in force any more.
    set req.http.rm-again = "1";
    return (restart);
  }
  if (obj.ttl > 0s) {
    set req.http.rm-came = "hit";
    return (deliver);
  }
  if (req.http.rm-serve-stale) {
    if (obj.ttl + std.duration(obj.http.rm-sie, 0s) > 0s) {
      set req.http.rm-came = "stale-error";
      return (deliver);
    }
    return (synth(503, "No region answers"));
  }
  if (obj.ttl + std.duration(obj.http.rm-swr, 0s) > 0s) {
    set req.http.rm-came = "stale";
    return (deliver);
  }
  # Fetch a fresh one first, and remember whether this one may do in its place.
  if (obj.ttl + std.duration(obj.http.rm-sie, 0s) > 0s) {
    set req.http.rm-sie = "1";
  }
  set req.http.rm-fresh = "1";
  return (restart);
}

sub vcl_miss {
  if (req.http.rm-serve-stale) {
    return (synth(503, "No region answers"));
  }
  set req.http.rm-came = "miss";
  return (fetch);
}

sub vcl_pass {
  set req.http.rm-came = "bypass";
  return (fetch);
}

sub vcl_backend_fetch {
  if (bereq.http.rm-serve-stale) {
    # The stale answer is on its way already; the region was asked a moment ago.
    return (abandon);
  }
  if (bereq.http.rm-attempts) {
    var.set("about", bereq.http.rm-about);
    var.set("attempts", bereq.http.rm-attempts);
    var.set("break", bereq.http.rm-break);
    var.set("timeout", bereq.http.rm-timeout);
    var.set("all", bereq.http.rm-left);
    var.set("left", bereq.http.rm-left);
    var.set("revision", bereq.http.rm-revision);
    var.set("rule", bereq.http.rm-rule);
    var.set("sie", bereq.http.rm-sie);
    var.set("if-error", bereq.http.rm-sie);
    var.set("url", bereq.http.rm-host + bereq.http.rm-path);
    var.set("own", bereq.http.Authorization);
    if (bereq.uncacheable && bereq.method !~ "^(?:GET|HEAD|OPTIONS|TRACE)$") {
      # What has a body cannot be sent twice from here.
      var.set("attempts", "1");
    }
  }
  call rm_clean;
  set bereq.first_byte_timeout = std.duration(var.get("timeout"), 10s);
  set bereq.http.rm-left = var.get("left");
  if (!bereq.http.rm-region) { call rm_next; }
  if (!bereq.http.rm-region) { call rm_next; }
  if (!bereq.http.rm-region) { call rm_next; }
  if (!bereq.http.rm-region) {
    # All that are left failed of late: better one of them than none.
    set bereq.http.rm-left = var.get("all");
    call rm_first;
  }
  var.set("region", bereq.http.rm-region);
  var.set("left", bereq.http.rm-left);
  unset bereq.http.rm-left;
  unset bereq.http.rm-region;
  return (fetch);
}

sub rm_clean {
  unset bereq.http.rm-about;
  unset bereq.http.rm-again;
  unset bereq.http.rm-attempts;
  unset bereq.http.rm-break;
  unset bereq.http.rm-came;
  unset bereq.http.rm-cookies;
  unset bereq.http.rm-cookie-0;
  unset bereq.http.rm-cookie-1;
  unset bereq.http.rm-cookie-2;
  unset bereq.http.rm-country;
  unset bereq.http.rm-found;
  unset bereq.http.rm-fresh;
  unset bereq.http.rm-host;
  unset bereq.http.rm-key;
  unset bereq.http.rm-left;
  unset bereq.http.rm-pass;
  unset bereq.http.rm-path;
  unset bereq.http.rm-query;
  unset bereq.http.rm-region;
  unset bereq.http.rm-revision;
  unset bereq.http.rm-rule;
  unset bereq.http.rm-sie;
  unset bereq.http.rm-timeout;
}

# The first region that is left and did not fail too often of late: a bucket that failures empty and time fills.
sub rm_next {
  if (bereq.http.rm-left && bereq.http.rm-left != "") {
    if (vsthrottle.remaining("region:" + regsub(bereq.http.rm-left, " .*$", ""),
        std.integer(regsub(var.get("break"), " .*$", ""), 5), std.duration(regsub(var.get("break"), "^.* ", ""), 10s)) > 0) {
      call rm_first;
    } else {
      set bereq.http.rm-left = regsub(bereq.http.rm-left, "^[^ ]* ?", "");
    }
  }
}

sub rm_first {
  if (bereq.http.rm-left ~ "^ap-southeast(?: |$)") {
    set bereq.backend = region_ap_southeast;
  }
  elsif (bereq.http.rm-left ~ "^eu-west(?: |$)") {
    set bereq.backend = region_eu_west;
  }
  elsif (bereq.http.rm-left ~ "^us-east(?: |$)") {
    set bereq.backend = region_us_east;
  }
  set bereq.http.rm-region = regsub(bereq.http.rm-left, " .*$", "");
  set bereq.http.rm-left = regsub(bereq.http.rm-left, "^[^ ]* ?", "");
}

# Counts a failure of the region that was asked.
sub rm_failed {
  if (vsthrottle.is_denied("region:" + var.get("region"),
      std.integer(regsub(var.get("break"), " .*$", ""), 5), std.duration(regsub(var.get("break"), "^.* ", ""), 10s))) {
    std.log("repomind: " + var.get("region") + " is passed over");
  }
}

sub vcl_backend_response {
  unset beresp.http.rm-kept;
  unset beresp.http.rm-ttl;
  unset beresp.http.xkey;
  if (beresp.status == 502 || beresp.status == 503 || beresp.status == 504) {
    call rm_failed;
    if (bereq.retries + 1 < std.integer(var.get("attempts"), 1) && var.get("left") != "") {
      return (retry);
    }
  }
  if ((beresp.status == 500 || beresp.status == 502 || beresp.status == 503 || beresp.status == 504)
      && (bereq.is_bgfetch || var.get("if-error") == "1")) {
    # What is stored does for an answer.
    return (abandon);
  }
  set beresp.http.rm-region = var.get("region");
  var.set("deciding", "");
  call rm_decide;
  if (var.get("deciding") != "" && !beresp.http.Cache-Control) {
    set beresp.http.rm-browser = "max-age=" + var.get("browser");
    if (var.get("browser") == "0") {
      set beresp.http.rm-browser = "no-cache";
    } elsif (var.get("own") != "" || beresp.http.Set-Cookie) {
      set beresp.http.rm-browser = "private, " + beresp.http.rm-browser;
    }
  } else {
    unset beresp.http.rm-browser;
  }
  if (bereq.uncacheable) {
    return (deliver);
  }
  var.set("keep", "yes");
  call rm_lifetime;
  call rm_vary;
  call rm_may_lie;
  if (var.get("deciding") == "" || beresp.http.Set-Cookie || var.get("keep") != "yes" || beresp.ttl <= 0s) {
    # Remembered for a while, so that others do not queue up for what will not be shared.
    set beresp.uncacheable = true;
    set beresp.ttl = 10s;
    set beresp.grace = 0s;
    return (deliver);
  }
  set beresp.http.rm-kept = var.get("deciding");
  set beresp.http.rm-revision = var.get("revision");
  set beresp.http.rm-ttl = regsub("" + beresp.ttl, "\..*$", "");
  set beresp.http.rm-swr = var.get("swr");
  set beresp.http.rm-sie = var.get("sie");
  std.collect(beresp.http.Cache-Tag, ",");
  set beresp.http.xkey = var.get("tags") + " " + regsuball(beresp.http.Cache-Tag, "\s*,\s*", " ") + " url:" + var.get("url");
  set beresp.http.xkey = regsuball(beresp.http.xkey, " +", " ");
  set beresp.grace = std.duration(var.get("swr"), 0s);
  if (beresp.grace < std.duration(var.get("sie"), 0s)) {
    set beresp.grace = std.duration(var.get("sie"), 0s);
  }
  # So that an answer past all its times can still be revalidated with 304.
  set beresp.keep = 1h;
  return (deliver);
}

# The rule that gives times and tags.
sub rm_decide {
  if (var.get("rule") == "data-never" && (beresp.status == 200 || beresp.status == 301 || beresp.status == 308)) {
    var.set("deciding", "data-never");
    var.set("ttl", "0s");
    var.set("swr", "0s");
    var.set("sie", "0s");
    var.set("class", "public");
    var.set("tags", "rule:data-never");
    var.set("browser", "0");
  }
  elsif (var.get("rule") == "assets-long" && (beresp.status == 200 || beresp.status == 301 || beresp.status == 308)) {
    var.set("deciding", "assets-long");
    var.set("ttl", "2592000s");
    var.set("swr", "86400s");
    var.set("sie", "604800s");
    var.set("class", "public");
    var.set("tags", "rule:assets-long assets");
    var.set("browser", "3600");
  }
  elsif (var.get("rule") == "signed-in" && (beresp.status == 200 || beresp.status == 301 || beresp.status == 308)) {
    var.set("deciding", "signed-in");
    var.set("ttl", "0s");
    var.set("swr", "0s");
    var.set("sie", "0s");
    var.set("class", "public");
    var.set("tags", "rule:signed-in");
    var.set("browser", "0");
  }
  elsif (var.get("about") ~ ",not-there," && (beresp.status == 404 || beresp.status == 410)) {
    var.set("deciding", "not-there");
    var.set("ttl", "10s");
    var.set("swr", "0s");
    var.set("sie", "0s");
    var.set("class", "public");
    var.set("tags", "rule:not-there");
    var.set("browser", "0");
  }
  elsif (var.get("rule") == "default-short" && (beresp.status == 200 || beresp.status == 301 || beresp.status == 308)) {
    var.set("deciding", "default-short");
    var.set("ttl", "60s");
    var.set("swr", "30s");
    var.set("sie", "3600s");
    var.set("class", "public");
    var.set("tags", "rule:default-short pages");
    var.set("browser", "0");
  }
}

# What the rule says, or less where the origin says less (RFC 9213, RFC 9111).
sub rm_lifetime {
  std.collect(beresp.http.Cache-Control, ",");
  std.collect(beresp.http.CDN-Cache-Control, ",");
  var.set("control", beresp.http.Cache-Control);
  var.set("given", "");
  if (beresp.http.CDN-Cache-Control) {
    var.set("control", beresp.http.CDN-Cache-Control);
  } elsif (var.get("control") ~ "(?i)(?:^|,)\s*s-maxage\s*=\s*\x22?[0-9]{1,9}\x22?\s*(?:,|$)") {
    var.set("given", regsub(var.get("control"), "(?i)^(?:.*?,)?\s*s-maxage\s*=\s*\x22?([0-9]+).*$", "\1s"));
  }
  if (var.get("given") == "" && var.get("control") ~ "(?i)(?:^|,)\s*max-age\s*=\s*\x22?[0-9]{1,9}\x22?\s*(?:,|$)") {
    var.set("given", regsub(var.get("control"), "(?i)^(?:.*?,)?\s*max-age\s*=\s*\x22?([0-9]+).*$", "\1s"));
  }
  if (var.get("control") ~ "(?i)(?:^|,)\s*(?:no-store|private|no-cache)\s*(?:=[^,]*)?(?:,|$)") {
    var.set("keep", "no");
  }
  if ((beresp.http.Cache-Control + "," + beresp.http.CDN-Cache-Control) ~ "(?i)(?:^|,)\s*(?:must|proxy)-revalidate\s*(?:,|$)") {
    var.set("swr", "0s");
    var.set("sie", "0s");
  }
  set beresp.ttl = std.duration(var.get("ttl"), 0s);
  if (var.get("given") != "" && std.duration(var.get("given"), 0s) < std.duration(var.get("ttl"), 0s)) {
    set beresp.ttl = std.duration(var.get("given"), 0s);
  }
  if (beresp.http.Age) {
    set beresp.ttl = beresp.ttl - std.duration(beresp.http.Age + "s", 0s);
  }
}

# Only what the key covers may make a difference.
sub rm_vary {
  std.collect(beresp.http.Vary, ",");
  var.set("vary", regsuball(beresp.http.Vary, "(?i)(?:^|,)\s*accept-encoding\s*(?=,|$)", ""));
  if (var.get("vary") ~ "[^,\s]") {
    var.set("keep", "no");
  }
}

# Data of a class that may not lie in this region, under the laws of the countries stated, is not kept.
sub rm_may_lie {
  std.collect(beresp.http.repomind-class, ",");
  std.collect(beresp.http.repomind-jurisdiction, ",");
  var.set("classes", "," + var.get("class") + ",");
  if (beresp.http.repomind-class) {
    var.set("classes", "," + std.tolower(regsuball(beresp.http.repomind-class, "\s", "")) + ",");
  }
  var.set("countries", std.toupper(regsuball("," + beresp.http.repomind-jurisdiction, "\s", "")));
  var.set("countries", regsub(var.get("countries"), ",+$", ""));
  if (var.get("classes") ~ ",public,") {
    var.set("classes", regsuball(var.get("classes"), ",public(?=,)", ""));
  }
  if (var.get("classes") ~ ",operational,") {
    var.set("classes", regsuball(var.get("classes"), ",operational(?=,)", ""));
  }
  if (var.get("classes") ~ ",source-code,") {
    var.set("classes", regsuball(var.get("classes"), ",source-code(?=,)", ""));
  }
  if (var.get("classes") ~ ",credentials,") {
    var.set("classes", regsuball(var.get("classes"), ",credentials(?=,)", ""));
  }
  if (var.get("classes") ~ ",personal," && var.get("countries") ~ "^(?:(?:,AU|,BR|,CA|,CH|,GB|,ID|,IN|,JP|,KR|,SA|,SG|,US|,VN|,(?!(?:AU|BR|CA|CH|CN|GB|ID|IN|JP|KR|RU|SA|SG|US|VN|AT|BE|BG|HR|CY|CZ|DK|EE|FI|FR|DE|GR|HU|IE|IT|LV|LT|LU|MT|NL|PL|PT|RO|SK|SI|ES|SE|IS|LI|NO|RE|GP|MQ|GF|YT|MF|AX)(?:,|$))[A-Z][A-Z])+)$") {
    var.set("classes", regsuball(var.get("classes"), ",personal(?=,)", ""));
  }
  if (var.get("classes") ~ ",sensitive," && var.get("countries") ~ "^(?:(?:,AU|,BR|,CA|,CH|,GB|,ID|,IN|,JP|,KR|,SA|,SG|,US|,VN|,(?!(?:AU|BR|CA|CH|CN|GB|ID|IN|JP|KR|RU|SA|SG|US|VN|AT|BE|BG|HR|CY|CZ|DK|EE|FI|FR|DE|GR|HU|IE|IT|LV|LT|LU|MT|NL|PL|PT|RO|SK|SI|ES|SE|IS|LI|NO|RE|GP|MQ|GF|YT|MF|AX)(?:,|$))[A-Z][A-Z])+)$") {
    var.set("classes", regsuball(var.get("classes"), ",sensitive(?=,)", ""));
  }
  if (var.get("classes") ~ ",health," && var.get("countries") ~ "^(?:(?:,AU|,BR|,CA|,CH|,GB|,ID|,IN|,JP|,KR|,SA|,SG|,US|,VN|,(?!(?:AU|BR|CA|CH|CN|GB|ID|IN|JP|KR|RU|SA|SG|US|VN|AT|BE|BG|HR|CY|CZ|DK|EE|FI|FR|DE|GR|HU|IE|IT|LV|LT|LU|MT|NL|PL|PT|RO|SK|SI|ES|SE|IS|LI|NO|RE|GP|MQ|GF|YT|MF|AX)(?:,|$))[A-Z][A-Z])+)$") {
    var.set("classes", regsuball(var.get("classes"), ",health(?=,)", ""));
  }
  if (var.get("classes") ~ ",financial," && var.get("countries") ~ "^(?:(?:,AU|,BR|,CA|,CH|,GB|,ID|,IN|,JP|,KR|,SA|,SG|,US|,VN|,(?!(?:AU|BR|CA|CH|CN|GB|ID|IN|JP|KR|RU|SA|SG|US|VN|AT|BE|BG|HR|CY|CZ|DK|EE|FI|FR|DE|GR|HU|IE|IT|LV|LT|LU|MT|NL|PL|PT|RO|SK|SI|ES|SE|IS|LI|NO|RE|GP|MQ|GF|YT|MF|AX)(?:,|$))[A-Z][A-Z])+)$") {
    var.set("classes", regsuball(var.get("classes"), ",financial(?=,)", ""));
  }
  if (var.get("classes") ~ ",biometric," && var.get("countries") ~ "^(?:(?:,AU|,BR|,CA|,CH|,GB|,ID|,IN|,JP|,KR|,SA|,SG|,US|,VN|,(?!(?:AU|BR|CA|CH|CN|GB|ID|IN|JP|KR|RU|SA|SG|US|VN|AT|BE|BG|HR|CY|CZ|DK|EE|FI|FR|DE|GR|HU|IE|IT|LV|LT|LU|MT|NL|PL|PT|RO|SK|SI|ES|SE|IS|LI|NO|RE|GP|MQ|GF|YT|MF|AX)(?:,|$))[A-Z][A-Z])+)$") {
    var.set("classes", regsuball(var.get("classes"), ",biometric(?=,)", ""));
  }
  if (var.get("classes") ~ ",genomic," && var.get("countries") ~ "^(?:(?:,AU|,BR|,CA|,CH|,GB|,ID|,IN|,JP|,KR|,SA|,SG|,US|,VN|,(?!(?:AU|BR|CA|CH|CN|GB|ID|IN|JP|KR|RU|SA|SG|US|VN|AT|BE|BG|HR|CY|CZ|DK|EE|FI|FR|DE|GR|HU|IE|IT|LV|LT|LU|MT|NL|PL|PT|RO|SK|SI|ES|SE|IS|LI|NO|RE|GP|MQ|GF|YT|MF|AX)(?:,|$))[A-Z][A-Z])+)$") {
    var.set("classes", regsuball(var.get("classes"), ",genomic(?=,)", ""));
  }
  if (var.get("classes") ~ ",geolocation," && var.get("countries") ~ "^(?:(?:,AU|,BR|,CA|,CH|,GB|,ID|,IN|,JP|,KR|,SA|,SG|,US|,VN|,(?!(?:AU|BR|CA|CH|CN|GB|ID|IN|JP|KR|RU|SA|SG|US|VN|AT|BE|BG|HR|CY|CZ|DK|EE|FI|FR|DE|GR|HU|IE|IT|LV|LT|LU|MT|NL|PL|PT|RO|SK|SI|ES|SE|IS|LI|NO|RE|GP|MQ|GF|YT|MF|AX)(?:,|$))[A-Z][A-Z])+)$") {
    var.set("classes", regsuball(var.get("classes"), ",geolocation(?=,)", ""));
  }
  if (var.get("classes") ~ ",children," && var.get("countries") ~ "^(?:(?:,AU|,BR|,CA|,CH|,GB|,ID|,IN|,JP|,KR|,SA|,SG|,US|,VN|,(?!(?:AU|BR|CA|CH|CN|GB|ID|IN|JP|KR|RU|SA|SG|US|VN|AT|BE|BG|HR|CY|CZ|DK|EE|FI|FR|DE|GR|HU|IE|IT|LV|LT|LU|MT|NL|PL|PT|RO|SK|SI|ES|SE|IS|LI|NO|RE|GP|MQ|GF|YT|MF|AX)(?:,|$))[A-Z][A-Z])+)$") {
    var.set("classes", regsuball(var.get("classes"), ",children(?=,)", ""));
  }
  if (var.get("classes") != ",") {
    var.set("keep", "no");
  }
}

sub vcl_backend_error {
  call rm_failed;
  if (bereq.retries + 1 < std.integer(var.get("attempts"), 1) && var.get("left") != "") {
    return (retry);
  }
  if (bereq.is_bgfetch || var.get("if-error") == "1") {
    return (abandon);
  }
  set beresp.status = 503;
  set beresp.http.rm-edge = "1";
  set beresp.http.Content-Type = "application/problem+json";
  set beresp.http.Cache-Control = "no-store";
  set beresp.body = {"{"type":"about:blank","title":"No region answers","status":503}"};
  set beresp.uncacheable = true;
  set beresp.ttl = 0s;
  return (deliver);
}

sub vcl_synth {
  if (resp.status == 503 && req.http.rm-sie && !req.http.rm-serve-stale) {
    # The fetch failed and a stored answer may do in its place.
    set req.http.rm-serve-stale = "1";
    return (restart);
  }
  set resp.http.Content-Type = "application/problem+json";
  set resp.http.Cache-Control = "no-store";
  set resp.body = {"{"type":"about:blank","title":""} + resp.reason + {"","status":"} + resp.status + "}";
  if (resp.status == 401) {
    set resp.http.WWW-Authenticate = "Bearer";
  }
  if (resp.status == 429) {
    set resp.http.Retry-After = req.http.rm-wait;
    set resp.http.RateLimit-Policy = req.http.rm-policy;
    set resp.http.RateLimit = {"""} + req.http.rm-limit + {"";r=0;t="} + req.http.rm-wait;
  }
  if (req.http.rm-purged) {
    set resp.http.Content-Type = "text/plain";
    set resp.body = req.http.rm-purged;
  }
  set req.http.rm-came = "edge";
  call rm_finish;
  return (deliver);
}

sub vcl_deliver {
  if (resp.http.rm-edge) {
    set req.http.rm-came = "edge";
  }
  if (req.http.rm-came ~ "^(?:hit|stale)") {
    set resp.http.Cache-Status = "repomind; hit; ttl=" + regsub("" + obj.ttl, "\..*$", "") + "; detail=" + req.http.rm-came;
  } elsif (req.http.rm-came == "miss") {
    set resp.http.Cache-Status = "repomind; fwd=uri-miss";
    if (req.http.rm-fresh) {
      set resp.http.Cache-Status = "repomind; fwd=stale";
    }
    if (resp.http.rm-kept) {
      set resp.http.Cache-Status = resp.http.Cache-Status + "; stored; ttl=" + resp.http.rm-ttl;
    }
  } elsif (req.http.rm-came == "bypass") {
    set resp.http.Cache-Status = "repomind; fwd=bypass";
  }
  if (resp.http.rm-browser) {
    set resp.http.Cache-Control = resp.http.rm-browser;
  }
  call rm_finish;
  return (deliver);
}

sub rm_finish {
  std.log("repomind-rule " + req.http.rm-rule + " " + req.http.rm-came + " " + resp.status);
  set resp.http.repomind-edge-region = resp.http.rm-region;
  set resp.http.repomind-request-id = req.http.repomind-request-id;
  unset resp.http.rm-browser;
  unset resp.http.rm-edge;
  unset resp.http.rm-kept;
  unset resp.http.rm-region;
  unset resp.http.rm-revision;
  unset resp.http.rm-sie;
  unset resp.http.rm-swr;
  unset resp.http.rm-ttl;
  unset resp.http.xkey;
  unset resp.http.Cache-Tag;
  unset resp.http.CDN-Cache-Control;
  unset resp.http.X-Varnish;
  unset resp.http.Via;
  if (!resp.http.strict-transport-security) {
    set resp.http.strict-transport-security = "max-age=31536000; includeSubDomains";
  }
  if (!resp.http.x-content-type-options) {
    set resp.http.x-content-type-options = "nosniff";
  }
  if (!resp.http.x-frame-options) {
    set resp.http.x-frame-options = "SAMEORIGIN";
  }
  if (!resp.http.referrer-policy) {
    set resp.http.referrer-policy = "strict-origin-when-cross-origin";
  }
}
