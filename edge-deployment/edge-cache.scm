;;; edge-cache.scm --- what may be cached between us and the user, for how long, who is let in, and at what rate.
;;;
;;; Asked:    once, when the tree is loaded; `repomind-run edge build` makes programs for each kind of edge of it.
;;; Returns:  nothing; it declares. The first rule that matches decides; every limit that matches counts.
;;; On error: the tree is refused and the last version that loaded stays.

(require "repomind/cache.scm")
(require "repomind/testing.scm")
(provide policy-api)

(define policy-api 1)

(define (rule path edge-ttl browser-ttl . more)
  (append (list (cons 'path path) (cons 'edge-ttl edge-ttl) (cons 'browser-ttl browser-ttl)) more))

;; Never: answers of the data API differ by user, region and law, and one that is
;; kept at the edge lies in every country with an edge.
(define data (rule "/v1/" 0 0))

;; Long: a file under /assets/ has its hash in its name and never changes, whatever stands
;; behind a question mark. Browsers keep it for less, so that a file withdrawn is gone within the hour.
(define assets
  (rule "/assets/" (days 30) (hours 1)
        '(key . (host path)) '(tags . ("assets"))
        (cons 'stale-while-revalidate (days 1)) (cons 'stale-if-error (days 7))))

;; Short: enough to take the top off a rush, too short to be noticed as stale. Links that only say
;; where a reader came from make no page of their own.
(define other
  (rule "/" (minutes 1) 0
        '(key . (host path (query-except "utm_source" "utm_medium" "utm_campaign" "gclid")))
        '(tags . ("pages")) (cons 'stale-while-revalidate 30) (cons 'stale-if-error (hours 1))))

(define-cache-rule 'data-never data)
(define-cache-rule 'assets-long assets)
;; A page that somebody sees who is signed in is theirs alone.
(define-cache-rule 'signed-in '((path . "/") (cookie . ("session")) (bypass . #t)))
;; What is not there is asked for again and again by robots; ten seconds keep them off the regions.
(define-cache-rule 'not-there '((path . "/") (status . (404 410)) (edge-ttl . 10)))
(define-cache-rule 'default-short other)

(define-rate-limit 'data-per-client '((path . "/v1/") (key . client) (rate . 600) (per . 60)))

(define-edge-auth 'reports
  '((path . "/reports/") (where . edge-or-origin)
    (issuers . ("https://id.repomind.io")) (audiences . ("repomind")) (algorithms . (ES256 EdDSA))
    (jwks . "https://id.repomind.io/.well-known/jwks.json")))

(define-edge-backends 'cloudflare 'varnish 'nginx-reduced)

(define-edge-route 'by-country '((path . "/") (attempts . 2) (break-after . 5) (break-for . 10)))

(define (edge-ttl rule) (cdr (assoc 'edge-ttl rule)))

(test-module "edge-cache"
  (check-equal? "the data API is never cached, neither at the edge nor in a browser"
                data '((path . "/v1/") (edge-ttl . 0) (browser-ttl . 0)))
  (check-true "assets outlive everything else" (> (edge-ttl assets) (edge-ttl other)))
  (check-true "a page is never more than a minute old" (<= (edge-ttl other) 60)))
