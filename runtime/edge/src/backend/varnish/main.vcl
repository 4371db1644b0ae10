vcl 4.1;

# Made by `repomind-run edge build` from edge-cache.scm, for Varnish in @REGION@. Edit that file and not this one.
# Revision @REVISION@. Start varnishd with -p max_retries=8 -p http_gzip_support=off -p http_range_support=off.

import std;
import var;
import vsthrottle;
import xkey;

@BACKENDS@
# Who may purge, and who is believed about the country of a client.
acl operators {
@OPERATORS@
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
@PIPE@
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
@COLLECT@
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
@LIMITS@
}

sub rm_guards {
@GUARDS@
}

sub rm_rules {
@RULES@
}

sub rm_routes {
@ROUTES@
}

sub rm_by_country {
@COUNTRIES@
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
@SEARCH@
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
@NEXT@
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
@DECIDE@
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
@COVER@
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
@RESIDENCY@
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
@OBSERVE@
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
@ANSWER_HEADERS@
}
