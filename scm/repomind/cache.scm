;;; cache.scm --- declares what may be cached, and for how long.
;;;
;;; (define-cache-rule 'name '((path . "/assets/") (edge-ttl . 86400) (browser-ttl . 3600)))
;;; matches paths that begin so; times are in seconds, 0 is "never". The first
;;; rule that matches decides, so the general ones come last.

(require-builtin repomind/host)
(provide define-cache-rule minutes hours days)

;;@doc
;; Seconds in n minutes.
(define (minutes n) (* 60 n))

;;@doc
;; Seconds in n hours.
(define (hours n) (* 3600 n))

;;@doc
;; Seconds in n days.
(define (days n) (* 86400 n))
