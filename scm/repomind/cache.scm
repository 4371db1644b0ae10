;;; cache.scm --- declares what may be cached, and for how long.
;;;
;;; (define-cache-rule 'name '((path . "/assets/") (edge-ttl . 86400) (browser-ttl . 3600)))
;;; matches paths that begin so; times are in seconds, 0 is "never". The first
;;; rule that matches decides, so the general ones come last.

(require-builtin repomind/host)
(provide define-cache-rule minutes hours days)

;; From the host:

;;@doc (define-cache-rule 'name alist)
;; Declares what may be cached: `path` (a prefix), `edge-ttl` and `browser-ttl` in seconds, 0 for never. The
;; first rule that matches decides. Gives nothing.
;; > (define-cache-rule 'docs '((path . "/docs/") (edge-ttl . 3600) (browser-ttl . 60)))

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
