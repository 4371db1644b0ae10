;;; health.scm --- what peers saw of a region.

(require-builtin repomind/host)
(require "repomind/prelude.scm")
(provide observation-probes observation-losses observation-losses-in-a-row
         loss-share most?)

;; From the host:

;;@doc (observation-probes observation)
;; How many probes were sent in the window.
;; > (observation-probes (sample-observation #:probes 64))
;; = 64

;;@doc (observation-losses observation)
;; How many of them were not answered in time.
;; > (observation-losses (sample-observation #:losses 3))
;; = 3

;;@doc (observation-losses-in-a-row observation)
;; How many of the last ones were not, without an answer in between.
;; > (observation-losses-in-a-row (sample-observation #:losses 3 #:losses-in-a-row 2))
;; = 2

;;@doc
;; The share of probes lost, from 0 to 1; 0 where none was sent.
;; > (loss-share (sample-observation #:probes 10 #:losses 3))
;; = 3/10
(define (loss-share observation)
  (if (= 0 (observation-probes observation))
      0
      (/ (observation-losses observation) (observation-probes observation))))

;;@doc
;; #t when (test x) holds for more than half of the list; #f for the empty list.
;; > (most? even? '(2 4 5))
;; = #true
;; > (most? even? '(2 5))
;; = #false
(define (most? test items)
  (> (* 2 (length (filter test items))) (length items)))
