;;; edge-cache.scm --- the edge policy of the corpus: every feature that all backends have, once.
;;;
;;; Asked:    by the tests of runtime/edge; `edge build --observe` made policy.json beside it.
;;; Returns:  nothing; it declares.
;;; On error: the tests fail.

(require "repomind/cache.scm")
(require "repomind/testing.scm")
(provide policy-api)

(define policy-api 1)

(define-cache-rule 'never '((path . "/v1/") (edge-ttl . 0)))
(define-cache-rule 'signed-in '((path . ("/pages/" "/shop/")) (cookie . ("session")) (bypass . #t)))
(define-cache-rule 'preview '((path . "/pages/") (header . (("x-preview" . "yes"))) (bypass . #t)))
(define-cache-rule 'missing '((path . ("/pages/" "/docs/")) (status . (404 410)) (edge-ttl . 10) (tags . ("missing"))))
(define-cache-rule 'pictures
  '((path . "/pages/") (content-type . ("image/")) (edge-ttl . 600) (browser-ttl . 60) (tags . ("pictures"))))
(define-cache-rule 'scripts
  '((path . "/static/") (path-ends . (".js" ".css")) (edge-ttl . 86400) (browser-ttl . 3600) (key . (host path))
    (tags . ("static"))))
(define-cache-rule 'docs
  '((path . "/docs/") (edge-ttl . 60) (stale-while-revalidate . 30) (stale-if-error . 300)
    (vary . (("accept-language" "en" "de" "fr"))) (tags . ("docs" "text"))))
(define-cache-rule 'shop
  '((path . "/shop/") (edge-ttl . 30) (key . (host path (query "page" "sort") (cookie "currency"))) (tags . ("shop"))))
(define-cache-rule 'tenants '((path . "/tenants/") (edge-ttl . 30) (key . (path query (header "x-tenant")))))
(define-cache-rule 'local '((path . "/local/") (edge-ttl . 30) (key . (path country))))
(define-cache-rule 'profiles '((path . "/profiles/") (edge-ttl . 30)))
(define-cache-rule 'short
  '((path . "/short/") (edge-ttl . 1) (stale-while-revalidate . 2) (stale-if-error . 60) (tags . ("short"))))
(define-cache-rule 'brief '((path . "/brief/") (edge-ttl . 1) (stale-if-error . 60)))
(define-cache-rule 'open '((path . "/members/") (edge-ttl . 30)))
(define-cache-rule 'limited '((path . "/limited/") (edge-ttl . 30)))
(define-cache-rule 'placed '((path . ("/pinned/" "/once/")) (edge-ttl . 30) (browser-ttl . 5)))
(define-cache-rule 'pages
  '((path . "/pages/") (edge-ttl . 60) (key . (host path (query-except "utm_source" "gclid"))) (tags . ("pages"))
    (stale-while-revalidate . 30) (stale-if-error . 300)))

(define-rate-limit 'few '((path . "/limited/") (key . (header "x-client")) (rate . 5) (per . 60)))

(define-edge-auth 'members
  '((path . "/members/") (except . ("/members/open/")) (where . edge-or-origin) (issuers . ("https://id.example"))
    (audiences . ("corpus")) (algorithms . (ES256)) (jwks . "http://127.0.0.1:9/jwks.json")))

(define-edge-route 'pinned '((path . "/pinned/") (regions . (ap-southeast us-east)) (attempts . 2) (break-after . 100)))
(define-edge-route 'once '((path . "/once/") (attempts . 1) (break-after . 100)))
(define-edge-route 'rest '((path . "/") (attempts . 2) (break-after . 100)))

(test-module "corpus"
  (check-equal? "an hour has so many seconds" (hours 1) 3600))
