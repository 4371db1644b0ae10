;;; health.scm --- what peers saw of a region.

(require-builtin repomind/host)
(require "repomind/prelude.scm")
(provide observation-probes observation-losses observation-losses-in-a-row
         loss-share most?)

;;@doc
;; The share of probes lost, from 0 to 1; 0 where none was sent.
(define (loss-share observation)
  (if (= 0 (observation-probes observation))
      0
      (/ (observation-losses observation) (observation-probes observation))))

;;@doc
;; #t when (test x) holds for more than half of the list; #f for the empty list.
(define (most? test items)
  (> (* 2 (length (filter test items))) (length items)))
