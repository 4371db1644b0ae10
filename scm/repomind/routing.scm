;;; routing.scm --- round trips, as measured and as estimated.
;;;
;;; Regions measure the round trip to each other; nobody measures it to the
;;; clients. What a client would see is estimated: to the region nearest to it
;;; by distance, and from there as measured.

(require-builtin repomind/host)
(require "repomind/regions.scm")
(provide region-rtt nearest-region distance->rtt rtt-estimate)

;; Kilometres of great-circle distance that one millisecond of round trip covers.
;; The median over 420 pairs of AWS regions is 59.
(define kilometres-a-millisecond 60.0)

;;@doc
;; The round trip, in ms, that a distance in km suggests; #f for #f.
(define (distance->rtt kilometres)
  (and kilometres (/ kilometres kilometres-a-millisecond)))

;;@doc
;; The round trip, in ms, that the client would see to the region, given the one
;; nearest to it (or #f); #f when nothing is known.
(define (rtt-estimate client region nearest)
  (define access (and nearest (distance->rtt (region-distance nearest client))))
  (define onward (and nearest (region-rtt nearest region)))
  (cond [(not nearest) #f]
        [(equal? (region-id nearest) (region-id region)) access]
        [onward (+ access onward)]
        [else (distance->rtt (region-distance region client))]))
