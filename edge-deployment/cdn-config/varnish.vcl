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

# A request that is found needs a rule and a hash, and nothing else: whatever is for the regions is worked out in
# rm_onward, once it is known that one of them is asked.
sub vcl_recv {
  if (req.restarts > 0) {
    # What was decided stays; only how old an answer may be is another question now.
    if (req.http.rm-again == "stale") {
      set req.grace = 365d;
    } else {
      set req.grace = 0s;
    }
    return (hash);
  }
  unset req.http.rm-came;
  if (req.method == "PURGE") {
    call rm_purge;
  }
  # Paths that mean another one to somebody behind us, and targets that are too long.
  if (req.url ~ "(?i)^[^?]*(?:%(?:2[ef]|5c|00|3[0-9]|[46][1-9a-f]|[57][0-9a])|\\|//|/\.\.?(?:[/?]|$))|^[^/]|^.{8193}" || !req.http.Host) {
    call rm_refuse;
  }
  std.collect(req.http.Cookie, "; ");
  if (req.url ~ "^(?:/v1/)" && vsthrottle.is_denied("data-per-client:" + regsub(regsub(regsub(regsub(client.ip, "^((?:[0-9a-f]+:){3}[0-9a-f]+):.*$", "\1"), "^(.*:):(?:[0-9a-f]+:){0,3}[0-9a-f]*$", "\1"), "^(.*::.*?)(?::[0-9a-f]+){4}$", "\1"), "(?::0){2,}(?=:|$)", ":"), 600, 60.000s)) {
    set req.http.rm-limit = "data-per-client";
    set req.http.rm-policy = {""data-per-client";q=600;w=60"};
    set req.http.rm-wait = "1";
    return (synth(429, "Too Many Requests"));
  }
  if (req.url ~ "^(?:/reports/)") {
    # reports: the origin verifies; here it must only be shown, and nothing of it is kept.
    if (req.http.Authorization !~ "(?i)^bearer [a-z0-9_-]+\.[a-z0-9_-]+\.[a-z0-9_-]+$") {
      return (synth(401, "Unauthorized"));
    }
    call rm_rules;
  }
  call rm_rules;
  return (hash);
}

sub rm_refuse {
  if (req.url ~ "^.{8193}") {
    return (synth(414, "URI Too Long"));
  }
  return (synth(400, "Bad Request"));
}

# PURGE with `repomind-purge: tag tag`, or of a URL; with `repomind-purge-soft` the answers stay as stale ones.
sub rm_purge {
  if (client.ip !~ operators) {
    return (synth(405, "Not allowed"));
  }
  if (!req.http.repomind-purge) {
    set req.http.repomind-purge = "url:" + regsub(req.http.Host.lower(), ":[0-9]+$", "") + regsub(req.url, "\?.*$", "");
  }
  if (req.http.repomind-purge-soft) {
    set req.http.rm-purged = xkey.softpurge(req.http.repomind-purge);
  } else {
    set req.http.rm-purged = xkey.purge(req.http.repomind-purge);
  }
  return (synth(200, "Purged"));
}

# Not looked up: handed on.
sub rm_bypass {
  if (req.http.Upgrade ~ "(?i)^websocket$") {
    call rm_onward;
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
  if (req.method == "CONNECT" || req.method == "PRI") {
    return (synth(405, "Method Not Allowed"));
  }
  # Other protocols are not spoken here: behind a pipe a client would speak to a region past everything above.
  unset req.http.Upgrade;
  return (pass);
}

# The rule that gives key and bypass. What is shared must not show whose request fetched it, so that cookies go.
sub rm_rules {
  if ((req.method == "GET" || req.method == "HEAD") && req.url ~ "^(?:/v1/)") {
    set req.http.rm-rule = "data-never";
    call rm_bypass;
  }
  elsif ((req.method == "GET" || req.method == "HEAD") && req.url ~ "^(?:/assets/)") {
    set req.http.rm-rule = "assets-long";
  }
  elsif ((req.method == "GET" || req.method == "HEAD") && req.http.Cookie && req.http.Cookie ~ "(?:^|;)\s*session=") {
    set req.http.rm-rule = "signed-in";
    call rm_bypass;
  }
  elsif ((req.method == "GET" || req.method == "HEAD")) {
    set req.http.rm-rule = "default-short";
  }
  else {
    unset req.http.rm-rule;
    call rm_bypass;
  }
  if (req.http.Authorization || req.http.Range || req.http.Upgrade) {
    call rm_bypass;
  }
  unset req.http.Cookie;
  if (req.http.Accept-Encoding) {
    call rm_encoding;
  }
}

# Encodings that regions may answer in, told apart as sets and not as texts.
sub rm_encoding {
  if (req.http.Accept-Encoding == "gzip, deflate, br, zstd") {
    set req.http.Accept-Encoding = "zstd, br, gzip";
  } elsif (req.http.Accept-Encoding == "gzip, deflate, br") {
    set req.http.Accept-Encoding = "br, gzip";
  } elsif (req.http.Accept-Encoding == "gzip" || req.http.Accept-Encoding == "gzip, deflate") {
    set req.http.Accept-Encoding = "gzip";
  } else {
    set req.http.rm-encoding = "";
    if (req.http.Accept-Encoding ~ "(?i)(?:^|,)\s*zstd\s*(?:;(?!\s*q=\s*0(?:\.0*)?\s*(?:,|$))[^,]*)?(?:,|$)") {
      set req.http.rm-encoding = ", zstd";
    }
    if (req.http.Accept-Encoding ~ "(?i)(?:^|,)\s*br\s*(?:;(?!\s*q=\s*0(?:\.0*)?\s*(?:,|$))[^,]*)?(?:,|$)") {
      set req.http.rm-encoding = req.http.rm-encoding + ", br";
    }
    if (req.http.Accept-Encoding ~ "(?i)(?:^|,)\s*gzip\s*(?:;(?!\s*q=\s*0(?:\.0*)?\s*(?:,|$))[^,]*)?(?:,|$)") {
      set req.http.rm-encoding = req.http.rm-encoding + ", gzip";
    }
    set req.http.Accept-Encoding = regsub(req.http.rm-encoding, "^, ", "");
    if (req.http.Accept-Encoding == "") {
      unset req.http.Accept-Encoding;
    }
  }
}

# All that the way to a region needs.
sub rm_onward {
  if (req.restarts == 0) {
    unset req.http.rm-again;
    unset req.http.rm-fresh;
    unset req.http.rm-sie;
  }
  unset req.http.rm-shared;
  unset req.http.rm-hostless;
  set req.http.x-request-id = server.identity + "-" + req.xid;
  call rm_country;
  unset req.http.repomind-country;
  call rm_about;
  call rm_routes;
}

# What is shared is fetched by what is in its key and nothing else, so that nobody chooses what others get: no other
# parameters, no port of a host, no body, and none of the headers that services take for another host, scheme or path.
sub rm_by_key {
  set req.http.rm-shared = "1";
  unset req.http.forwarded;
  unset req.http.front-end-https;
  unset req.http.x-forwarded-host;
  unset req.http.x-forwarded-path;
  unset req.http.x-forwarded-port;
  unset req.http.x-forwarded-prefix;
  set req.http.x-forwarded-proto = "https";
  unset req.http.x-forwarded-scheme;
  unset req.http.x-forwarded-server;
  unset req.http.x-forwarded-ssl;
  unset req.http.x-host;
  unset req.http.x-http-method-override;
  unset req.http.x-method-override;
  unset req.http.x-original-host;
  unset req.http.x-original-url;
  unset req.http.x-rewrite-url;
  unset req.http.x-url-scheme;
  if (req.http.rm-rule == "assets-long") {
    set req.url = regsub(req.url, "\?.*$", "");
    set req.http.Host = regsub(req.http.Host.lower(), ":[0-9]+$", "");
  }
  elsif (req.http.rm-rule == "default-short") {
    set req.url = regsub(regsub(req.url, "\?.*$", "") + "?" + regsub(std.querysort("/?" + regsuball(regsuball(regsuball("&" + regsub(req.url, "^[^?]*\??", ""), "&(?:utm_source|utm_medium|utm_campaign|gclid)(?:=[^&]*)?(?=&|$)", ""), "&+", "&"), "^&|&$", "")), "^/\??", ""), "\?$", "");
    set req.http.Host = regsub(req.http.Host.lower(), ":[0-9]+$", "");
  }
}

sub rm_about {
  set req.http.rm-about = ",";
  if ((req.method == "GET" || req.method == "HEAD")) {
    set req.http.rm-about = req.http.rm-about + "not-there,";
  }
}

# The country of the client: only operators' machines are believed about it.
sub rm_country {
  set req.http.rm-country = "XX";
  if (client.ip ~ operators && req.http.repomind-country ~ "^[A-Z][A-Z]$") {
    set req.http.rm-country = req.http.repomind-country;
  }
}

sub rm_routes {
  if (true) {
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
  call rm_clean;
  set bereq.http.Connection = "upgrade";
  set bereq.http.Upgrade = req.http.Upgrade;
  return (pipe);
}

# Each rule has its revision in the hash: what was stored under other rules is not found any more.
sub vcl_hash {
  if (req.http.rm-rule == "assets-long") {
    hash_data("5bde34107b912799");
    hash_data(regsub(req.http.Host.lower(), ":[0-9]+$", ""));
    hash_data(" path=" + regsub(req.url, "\?.*$", ""));
  }
  elsif (req.http.rm-rule == "default-short") {
    hash_data("abd2777c530be177");
    hash_data(regsub(req.http.Host.lower(), ":[0-9]+$", ""));
    if (req.url ~ "^[^?&]*\?[^?]*$") {
      hash_data(std.querysort(regsub(regsuball(req.url, "(?<=[?&])(?:(?:utm_source|utm_medium|utm_campaign|gclid)(?:=[^&]*)?)?(?:&|$)", ""), "[?&]+$", "")));
    } elsif (req.url ~ "\?") {
      hash_data(regsub(regsub(req.url, "\?.*$", "") + "?" + regsub(std.querysort("/?" + regsuball(regsuball(regsuball("&" + regsub(req.url, "^[^?]*\??", ""), "&(?:utm_source|utm_medium|utm_campaign|gclid)(?:=[^&]*)?(?=&|$)", ""), "&+", "&"), "^&|&$", "")), "^/\??", ""), "\?$", ""));
    } else {
      hash_data(req.url);
    }
  }
  return (lookup);
}

sub vcl_hit {
  if (obj.ttl > 0s) {
    return (deliver);
  }
  if (req.restarts > 0 && req.http.rm-again == "stale") {
    if (obj.ttl + std.duration(regsub(obj.http.rm-times, "^\S+ \S+ (\S+) .*$", "\1"), 0s) > 0s) {
      set req.http.rm-came = "stale-error";
      return (deliver);
    }
    return (synth(503, "No region answers"));
  }
  if (obj.ttl + std.duration(regsub(obj.http.rm-times, "^\S+ (\S+) .*$", "\1"), 0s) > 0s) {
    set req.http.rm-came = "stale";
    call rm_onward;
    call rm_by_key;
    return (deliver);
  }
  # Fetch a fresh one first, and remember whether this one may do in its place.
  unset req.http.rm-sie;
  if (obj.ttl + std.duration(regsub(obj.http.rm-times, "^\S+ \S+ (\S+) .*$", "\1"), 0s) > 0s) {
    set req.http.rm-sie = "1";
  }
  set req.http.rm-fresh = "1";
  set req.http.rm-again = "fresh";
  return (restart);
}

sub vcl_miss {
  if (req.restarts > 0 && req.http.rm-again == "stale") {
    return (synth(503, "No region answers"));
  }
  call rm_onward;
  call rm_by_key;
  set req.http.rm-came = "miss";
  return (fetch);
}

sub vcl_pass {
  call rm_onward;
  set req.http.rm-came = "bypass";
  return (fetch);
}

sub vcl_backend_fetch {
  if (bereq.http.rm-again == "stale") {
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
    var.set("rule", bereq.http.rm-rule);
    var.set("sie", bereq.http.rm-sie);
    var.set("if-error", bereq.http.rm-sie);
    var.set("url", regsub(bereq.http.Host.lower(), ":[0-9]+$", "") + regsub(bereq.url, "\?.*$", ""));
    var.set("own", bereq.http.Authorization);
    if (bereq.http.rm-shared) {
      unset bereq.body;
    }
    if (bereq.http.rm-hostless) {
      unset bereq.http.Host;
    }
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
  unset bereq.http.rm-query;
  unset bereq.http.rm-country;
  unset bereq.http.rm-encoding;
  unset bereq.http.rm-fresh;
  unset bereq.http.rm-hostless;
  unset bereq.http.rm-key;
  unset bereq.http.rm-left;
  unset bereq.http.rm-region;
  unset bereq.http.rm-rule;
  unset bereq.http.rm-shared;
  unset bereq.http.rm-sie;
  unset bereq.http.rm-timeout;
}

# The first region that is left and did not fail too often of late: a bucket that failures empty and time fills.
sub rm_next {
  if (bereq.http.rm-left && bereq.http.rm-left != "") {
    if ((bereq.http.rm-left ~ "^ap-southeast(?: |$)" && !std.healthy(region_ap_southeast))
        || (bereq.http.rm-left ~ "^eu-west(?: |$)" && !std.healthy(region_eu_west))
        || (bereq.http.rm-left ~ "^us-east(?: |$)" && !std.healthy(region_us_east))) {
      # The region that is followed says that it is down.
      set bereq.http.rm-left = regsub(bereq.http.rm-left, "^[^ ]* ?", "");
    } elsif (vsthrottle.remaining("region:" + regsub(bereq.http.rm-left, " .*$", ""),
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
  unset beresp.http.rm-edge;
  unset beresp.http.rm-times;
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
  # What every answer gets is put on here, once, and not each time that it is given.
  set beresp.http.repomind-edge-region = var.get("region");
  if (!beresp.http.strict-transport-security) {
    set beresp.http.strict-transport-security = "max-age=31536000; includeSubDomains";
  }
  if (!beresp.http.x-content-type-options) {
    set beresp.http.x-content-type-options = "nosniff";
  }
  if (!beresp.http.x-frame-options) {
    set beresp.http.x-frame-options = "SAMEORIGIN";
  }
  if (!beresp.http.referrer-policy) {
    set beresp.http.referrer-policy = "strict-origin-when-cross-origin";
  }
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
  # How long it is fresh, how long then while a fresh one is fetched, how long where no region answers, and by which rule.
  set beresp.http.rm-times = regsub("" + beresp.ttl, "\..*$", "") + " " + var.get("swr") + " " + var.get("sie") + " " + var.get("deciding");
  std.collect(beresp.http.Cache-Tag, ",");
  # What has a blank in it is no tag.
  set beresp.http.Cache-Tag = regsuball("," + beresp.http.Cache-Tag, ",\s*[^,\s]+(?:\s+[^,\s]+)+\s*(?=,|$)", "");
  var.set("revision", "");
  if (var.get("rule") == "assets-long") {
    var.set("revision", "5bde34107b912799");
  }
  if (var.get("rule") == "default-short") {
    var.set("revision", "abd2777c530be177");
  }
  set beresp.http.xkey = var.get("tags") + " " + regsuball(beresp.http.Cache-Tag, "\s*,\s*", " ") + " url:" + var.get("url") + " revision:" + var.get("revision");
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
  } elsif (var.get("control") ~ "(?i)(?:^|,)\s*s-maxage\s*(?:=|,|$)") {
    var.set("given", regsub(var.get("control"), "(?i)^(?:.*?,)??\s*s-maxage\s*(?:=\s*\x22*([^,]*?)\x22*\s*)?(?:,.*)?$", "=\1"));
  }
  if (var.get("given") == "" && var.get("control") ~ "(?i)(?:^|,)\s*max-age\s*(?:=|,|$)") {
    var.set("given", regsub(var.get("control"), "(?i)^(?:.*?,)??\s*max-age\s*(?:=\s*\x22*([^,]*?)\x22*\s*)?(?:,.*)?$", "=\1"));
  }
  if (var.get("given") != "" && var.get("given") !~ "^=[0-9]+$") {
    # What says no number may be meant to say that it is old already (RFC 9111, section 4.2.1).
    var.set("keep", "no");
  }
  if (var.get("control") ~ "(?i)(?:^|,)\s*(?:no-store|private|no-cache)\s*(?:=[^,]*)?(?:,|$)") {
    var.set("keep", "no");
  }
  if ((beresp.http.Cache-Control + "," + beresp.http.CDN-Cache-Control) ~ "(?i)(?:^|,)\s*(?:must|proxy)-revalidate\s*(?:,|$)") {
    var.set("swr", "0s");
    var.set("sie", "0s");
  }
  set beresp.ttl = std.duration(var.get("ttl"), 0s);
  # More than nine digits are more than any rule says.
  if (var.get("given") ~ "^=[0-9]{1,9}$") {
    var.set("given", regsub(var.get("given"), "^=", "") + "s");
    if (std.duration(var.get("given"), 0s) < std.duration(var.get("ttl"), 0s)) {
      set beresp.ttl = std.duration(var.get("given"), 0s);
    }
  }
  if (beresp.http.Age ~ "^[0-9]{10,}$") {
    var.set("keep", "no");
  } elsif (beresp.http.Age ~ "^[0-9]+$") {
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
    var.set("classes", regsuball("," + std.tolower(regsuball(beresp.http.repomind-class, "\s", "")) + ",", ",+", ","));
    if (var.get("classes") == ",") {
      var.set("keep", "no");
    }
  }
  var.set("countries", std.toupper(regsuball("," + beresp.http.repomind-jurisdiction, "\s", "")));
  var.set("countries", regsub(regsuball(var.get("countries"), ",+", ","), ",$", ""));
  if (var.get("countries") !~ "^(?:,[A-Z][A-Z])*$") {
    var.set("keep", "no");
  }
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
  if (!bereq.http.Content-Length && !bereq.http.Transfer-Encoding) {
    # Where there is a body, it may be the client that broke off.
    call rm_failed;
  }
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
  if (!beresp.http.strict-transport-security) {
    set beresp.http.strict-transport-security = "max-age=31536000; includeSubDomains";
  }
  if (!beresp.http.x-content-type-options) {
    set beresp.http.x-content-type-options = "nosniff";
  }
  if (!beresp.http.x-frame-options) {
    set beresp.http.x-frame-options = "SAMEORIGIN";
  }
  if (!beresp.http.referrer-policy) {
    set beresp.http.referrer-policy = "strict-origin-when-cross-origin";
  }
  set beresp.uncacheable = true;
  set beresp.ttl = 0s;
  return (deliver);
}

sub vcl_synth {
  if (resp.status == 503 && req.restarts > 0 && req.http.rm-sie && req.http.rm-again != "stale") {
    # The fetch failed and a stored answer may do in its place.
    set req.http.rm-again = "stale";
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
  if (resp.status == 200) {
    set resp.http.Content-Type = "text/plain";
    set resp.body = req.http.rm-purged;
  }
  set req.http.rm-came = "edge";
  set resp.http.repomind-request-id = server.identity + "-" + req.xid;
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
  call rm_finish;
  return (deliver);
}

sub vcl_deliver {
  if (!req.http.rm-came) {
    # Found, and fresh: as much work as is done for most answers.
    set resp.http.Cache-Status = "repomind; hit; ttl=" + std.integer(duration=obj.ttl, fallback=0) + "; detail=hit";
    set resp.http.repomind-request-id = server.identity + "-" + req.xid;
  } else {
    call rm_came;
    set resp.http.repomind-request-id = req.http.x-request-id;
  }
  if (resp.http.rm-browser) {
    set resp.http.Cache-Control = resp.http.rm-browser;
    unset resp.http.rm-browser;
  }
  call rm_finish;
  return (deliver);
}

sub rm_came {
  if (resp.http.rm-edge) {
    set req.http.rm-came = "edge";
    unset resp.http.rm-edge;
  }
  if (req.http.rm-came ~ "^stale") {
    set resp.http.Cache-Status = "repomind; hit; ttl=" + regsub("" + obj.ttl, "\..*$", "") + "; detail=" + req.http.rm-came;
  } elsif (req.http.rm-came == "miss") {
    set resp.http.Cache-Status = "repomind; fwd=uri-miss";
    if (req.http.rm-fresh) {
      set resp.http.Cache-Status = "repomind; fwd=stale";
    }
    if (resp.http.rm-times) {
      set resp.http.Cache-Status = resp.http.Cache-Status + "; stored; ttl=" + regsub(resp.http.rm-times, " .*$", "");
    }
  } elsif (req.http.rm-came == "bypass") {
    set resp.http.Cache-Status = "repomind; fwd=bypass";
  }
}

# `rm-rule` of the request and `Cache-Status` of the answer are in Varnish's log: who counts by rule reads them there.
sub rm_finish {
  unset resp.http.rm-times;
  unset resp.http.xkey;
  unset resp.http.Cache-Tag;
  unset resp.http.CDN-Cache-Control;
  unset resp.http.X-Varnish;
  unset resp.http.Via;
}
