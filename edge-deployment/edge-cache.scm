;;; edge-cache.scm --- what may be cached between us and the user, and for how long.
;;;
;;; Asked:    once, when the tree is loaded.
;;; Returns:  nothing; it declares cache rules. The first that matches a path decides.
;;; On error: the tree is refused and the last version that loaded stays.

(require "repomind/cache.scm")
(require "repomind/testing.scm")
(provide policy-api)

(define policy-api 1)

(define (rule path edge-ttl browser-ttl)
  (list (cons 'path path) (cons 'edge-ttl edge-ttl) (cons 'browser-ttl browser-ttl)))

;; Never: answers of the data API differ by user, region and law, and one that is
;; kept at the edge lies in every country with an edge.
(define data (rule "/v1/" 0 0))

;; Long: a file under /assets/ has its hash in its name and never changes. Browsers
;; keep it for less, so that a file withdrawn is gone within the hour.
(define assets (rule "/assets/" (days 30) (hours 1)))

;; Short: enough to take the top off a rush, too short to be noticed as stale.
(define other (rule "/" (minutes 1) 0))

(define-cache-rule 'data-never data)
(define-cache-rule 'assets-long assets)
(define-cache-rule 'default-short other)

(define (edge-ttl rule) (cdr (assoc 'edge-ttl rule)))

(test-module "edge-cache"
  (check-equal? "the data API is never cached, neither at the edge nor in a browser"
                data '((path . "/v1/") (edge-ttl . 0) (browser-ttl . 0)))
  (check-true "assets outlive everything else" (> (edge-ttl assets) (edge-ttl other)))
  (check-true "a page is never more than a minute old" (<= (edge-ttl other) 60)))
