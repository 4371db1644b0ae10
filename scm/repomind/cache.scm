;;; cache.scm --- declares what the edge does: caching, rates, guards, routes.
;;;
;;; (define-cache-rule 'name '((path . "/assets/") (edge-ttl . 86400) (browser-ttl . 3600)))
;;; The first rule about a request decides, so the general ones come last. Times are in seconds, 0 is "never".
;;;
;;;   path path-ends method header cookie    what requests it is about, here and in the forms below: one text or a
;;;                 list; ("x-tier" . "gold") wants that value, "x-tier" any. Without method: GET and HEAD
;;;   status content-type     what answers; such a rule gives times and tags only. Without status: 200, 301, 308
;;;   edge-ttl browser-ttl    how long the edge and the browser may keep an answer; an origin may shorten it
;;;   stale-while-revalidate stale-if-error    how long after that it is still given while a fresh one is fetched,
;;;                 and where no region answers
;;;   key           what tells answers apart: host path query country (query "a") (query-except "b")
;;;                 (header "x-name") (cookie "name"); host, path and query unless said
;;;   vary          ("accept-language" "en" "de"): a header reduced to these values, preferred ones first
;;;   tags          what answers are purged by, besides their URL and "rule:NAME"
;;;   class         the class of data in answers that state none; public unless said
;;;   bypass        #t: neither looked up nor kept
;;;
;;; (define-rate-limit 'name '((path . "/v1/") (key . client) (rate . 600) (per . 60)))
;;;   key           client, country, everyone or (header "x-name")
;;;   rate per burst    so many in so many seconds; at most burst at once, the rate unless said
;;;   scope         coarse (each location by itself) or exact (one count for all)
;;;
;;; (define-edge-auth 'name '((path . "/reports/") (issuers …) (audiences …) (algorithms …) (jwks . "https://…")))
;;;   except        paths below it that are open
;;;   algorithms    ES256 EdDSA RS256
;;;   where         edge, or edge-or-origin: an edge that cannot verify asks for a token and leaves it to the origin
;;;   signed-urls   ((secret . "NAME") (signature . "sig") (expires . "exp")) instead of tokens
;;;
;;; (define-edge-route 'name '((path . "/") (attempts . 2)))
;;;   regions       in this order; by the client's country and the routing plan unless said
;;;   attempts      how many regions a request that may be repeated is sent to
;;;   break-after break-for    so many failures in a row, and a region is passed over for so many seconds
;;;   timeout       milliseconds for the head of an answer
;;;
;;; (define-edge-backends 'cloudflare 'varnish 'nginx-reduced)    which kinds of edge are in use: what one of them cannot
;;;                 do refuses the save; nginx-reduced does without what it can do without

(require-builtin repomind/host)
(provide define-cache-rule define-rate-limit define-edge-auth define-edge-route define-edge-backends minutes hours days)

;; From the host:

;;@doc (define-cache-rule 'name alist)
;; Declares what may be cached, by path, method, header, cookie, status and type, and for how long in seconds, 0 for
;; never. The first rule that matches decides; the keys stand at the top of this file. Gives nothing.
;; > (define-cache-rule 'docs '((path . "/docs/") (edge-ttl . 3600) (browser-ttl . 60)))

;;@doc (define-rate-limit 'name alist)
;; Declares how many requests `key` may make: `rate` of them in `per` seconds, at most `burst` at once. Gives nothing.
;; > (define-rate-limit 'api '((path . "/v1/") (key . client) (rate . 600) (per . 60)))

;;@doc (define-edge-auth 'name alist)
;; Declares a guard: what is below `path` needs a token of one of the `issuers`, for one of the `audiences`. Gives nothing.
;; > (define-edge-auth 'staff '((path . "/staff/") (issuers . ("https://id.example.net/")) (audiences . ("staff")) (algorithms . (ES256)) (jwks . "https://id.example.net/jwks.json")))

;;@doc (define-edge-route 'name alist)
;; Declares where requests below `path` are sent, and how often they are tried. Gives nothing.
;; > (define-edge-route 'slow '((path . "/slow/") (attempts . 1) (timeout . 20000)))

;;@doc (define-edge-backends 'kind ...)
;; Declares which kinds of edge are in use: cloudflare, varnish, nginx or nginx-reduced. What one of them cannot do is
;; refused at the form that asks for it, when the file is saved. Gives nothing.
;; > (define-edge-backends 'cloudflare 'varnish)

;;@doc
;; Seconds in n minutes.
;; > (minutes 2)
;; = 120
(define (minutes n) (* 60 n))

;;@doc
;; Seconds in n hours.
;; > (hours 1)
;; = 3600
(define (hours n) (* 3600 n))

;;@doc
;; Seconds in n days.
;; > (days 1)
;; = 86400
(define (days n) (* 86400 n))
