;;; replication-lag.scm --- what happens when a region falls behind.
;;;
;;; Asked:    when the tree is loaded, for lags from 0 to ten minutes; the runtime
;;;           keeps the bands and asks no more.
;;; Returns:  'ok, 'alert (tell the operator), 'throttle (writes are told to come
;;;           back later) or 'unready (no writes). More lag never means less action.
;;; On error: the tree is refused and the last version that loaded stays.

(require "repomind/replication.scm")
(require "repomind/testing.scm")
(provide policy-api lag-action)

(define policy-api 1)

;; The lag, in ms, that eventual-consistency.scm promises to stay below.
(define target 5000)

;; The runtime goes by the peer that keeps up best, so one dead region throttles nobody:
;; these bounds speak of a region whose writes reach no other. Its lag grows a second a
;; second. A minute of that is weather; after two, writers should wait; after five
;; (sixty targets), a region lost now would lose too much that only it has.
(define throttle-from (* 24 target))
(define unready-from (* 60 target))

;;@doc
;; What to do at this link's lag.
(define (lag-action link)
  (define lag (link-lag link))
  (cond [(< lag target) 'ok]
        [(< lag throttle-from) 'alert]
        [(< lag unready-from) 'throttle]
        [else 'unready]))

(define (at lag) (lag-action (sample-link #:lag lag)))

(test-module "replication-lag"
  (check-equal? "below the target nobody is woken" (map at '(0 100 4999)) '(ok ok ok))
  (check-equal? "the target is the first moment worth an alert" (at target) 'alert)
  (check-equal? "a link cut for a minute still takes writes" (at 60000) 'alert)
  (check-equal? "two minutes behind slows writers down" (at 120000) 'throttle)
  (check-equal? "five minutes behind takes none" (at 300000) 'unready))
